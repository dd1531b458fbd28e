"""From a `DataConfig` to tokens: the corpus of each source, the tokenizer that they share, the tokens of each."""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from lmscale.core import files
from lmscale.core.config import IMPORTED, TOKENS, DataConfig, check, mixture, stdlib, synthetic
from lmscale.core.errors import UserError
from lmscale.lm.data import corpora, shards, tokenizer
from lmscale.lm.data.corpora import Corpus, Progress, Whole, locked, token_files
from lmscale.lm.data.corpora.checksums import Damaged, checksum, read_record, write_record
from lmscale.lm.data.manifest import ENDLESS, Manifest, Tokens
from lmscale.lm.data.tokenized import find_tokenized, open_tokenized, prepare_tokenized
from lmscale.lm.data.tokenizer import BPE, FileTokenizer, Tokenizer
from lmscale.lm.data.tokenizer.train import VERSION

BPE_BYTES = 64 << 20
"""Text that byte-level BPE is trained on: the leading documents in the order of their hash, a fair sample."""


class Part(NamedTuple):
    """One source of a run's data, and whether all of it is trained on, or validated on."""

    config: DataConfig
    whole: Whole


CorpusOf = Callable[[DataConfig, Whole], Corpus | None]
TokensOf = Callable[[Corpus, Tokenizer], Manifest | None]
TokenizedOf = Callable[[DataConfig, Whole, Tokenizer], Manifest | None]


def find_manifest(config: DataConfig) -> Manifest | None:
    """The manifest, if the tokens of `config` are prepared and no source has changed since; reads no text.

    A language without end is always prepared.
    """
    return _assemble(config, corpora.find_corpus, shards.find_shards, find_tokenized, None)


def prepare(config: DataConfig, *, progress: Progress | None = None, allow_download: bool = False) -> Tokens:
    """Bring the tokens of `config` onto disk, unless they are there, and map them.

    Every file is compared with its checksum, and damaged ones are made again from the source. Safe under several
    processes at once. Raises `UserError` as `corpora.prepare` does, for a tokenizer that is not there, does not fit the
    sources or does not give a document back, and for damaged files that cannot be replaced.
    """
    report = progress or (lambda what, share: None)
    if (manifest := find_manifest(config)) is not None:
        with contextlib.suppress(Damaged):
            return _open_tokens(manifest, report)
    manifest = _assemble(
        config,
        lambda part, whole: corpora.prepare(part, whole, progress=report, allow_download=allow_download),
        lambda corpus, tokenizer: shards.write_shards(corpus, tokenizer, report),
        lambda part, whole, tokenizer: prepare_tokenized(part, whole, tokenizer, report),
        report,
    )
    assert manifest is not None
    return _open_tokens(manifest, report)


def _open_tokens(manifest: Manifest, report: Progress) -> Tokens:
    """The tokens that a manifest describes. Raises `Damaged` unless every file is as it was written."""
    if manifest.components:
        components = tuple(_open_tokens(component, report) for component in manifest.components)
        held_out = None if manifest.held_out is None else _open_tokens(manifest.held_out, report)
        return Tokens(manifest, components=components, held_out=held_out)
    if manifest.tokens_path is not None:
        return open_tokenized(manifest, report)
    return Tokens(manifest) if manifest.endless else shards.open_shards(manifest, report)


def load_tokenizer(manifest: Manifest) -> Tokenizer:
    """The tokenizer that wrote the tokens of `manifest`. Raises `UserError` where its file is gone or another now."""
    if manifest.tokenizer_file is None:
        return tokenizer.load(manifest.tokenizer)
    stored = FileTokenizer.read(manifest.tokenizer_file, manifest.tokenizer)
    if stored.fingerprint != manifest.tokenizer_fingerprint:
        raise UserError(
            f"the tokenizer file {manifest.tokenizer_file} has changed since the tokens of {manifest.source} were "
            f"written; run again, and they are written with the new one"
        )
    return stored


def _assemble(
    config: DataConfig, corpus_of: CorpusOf, tokens_of: TokensOf, tokenized_of: TokenizedOf, report: Progress | None
) -> Manifest | None:
    """The manifest of `config`, from those of its components; None as soon as one step gives None."""
    components = mixture.components(config.source)
    for _, source in components:
        check(
            not source.startswith(IMPORTED),
            f"the text that {source.removeprefix(IMPORTED)} was trained on is not here; name text of your own, and "
            f"start from the model with RunConfig.init_from",
        )
    weights = tuple(weight for weight, _ in components)
    whole: Whole = None if config.validation_source is None else "train"
    parts = [Part(_component(config, source), whole) for _, source in components]
    if config.validation_source is not None:
        parts.append(Part(_component(config, config.validation_source), "validation"))
    prepared: dict[Part, Corpus] = {}
    try:
        tokenized = {part for part in parts if _tokenized(part.config)}
    except UserError:
        if report is None:
            return None
        raise
    check(
        not (tokenized and config.tokenizer.startswith(BPE)),
        f"DataConfig.tokenizer = {config.tokenizer!r} is trained on text, but {config.source} is tokenised already; "
        f"name the tokenizer.json that wrote its ids, or bytes",
    )
    for part in parts:
        if not _endless(part.config) and part not in tokenized:
            corpus = corpus_of(*part)
            if corpus is None:
                return None
            prepared[part] = corpus
    weighted = [(weight, prepared[part]) for weight, part in zip(weights, parts) if part in prepared]
    shared = _shared_tokenizer(config.tokenizer, weighted, report)
    if shared is None:
        return None
    manifests = []
    for part in parts:
        if (endless := _endless_manifest(part.config)) is not None:
            manifests.append(endless)
            continue
        stored = tokenized_of(*part, shared[0]) if part in tokenized else tokens_of(prepared[part], shared[0])
        if stored is None:
            return None
        layout = config.sequences if stored.prompts else "stream"
        manifests.append(dataclasses.replace(stored, tokenizer_file=shared[1], layout=layout))
    manifest = manifests[0] if len(manifests) == 1 else _joint_manifest(weights, tuple(manifests))
    return dataclasses.replace(manifest, unique_limit=config.unique_tokens)


def _component(config: DataConfig, source: str) -> DataConfig:
    """The configuration of one source of a mixture; those that have no records have no prompts either."""
    if stdlib.is_stdlib(source) or synthetic.is_synthetic(source):
        config = dataclasses.replace(config, prompt_field=None, template=None, layout=None)
    return dataclasses.replace(config, source=source, validation_source=None, unique_tokens=None)


def _endless(component: DataConfig) -> bool:
    return synthetic.is_synthetic(component.source) and synthetic.parse(component.source).documents is None


def _tokenized(component: DataConfig) -> bool:
    """Whether a source holds ids, not text. Raises `UserError` for tokens that are not there."""
    if not component.source.startswith(TOKENS):
        return False
    return token_files.of_text(component, token_files.locate(token_files.path_of(component))) is None


def _shared_tokenizer(
    name: str, weighted: list[tuple[int, Corpus]], report: Progress | None
) -> tuple[Tokenizer, str | None] | None:
    """The tokenizer `name` and its file, trained on the weighted corpora if it must be and `report` is given."""
    if not name.startswith(BPE):
        if Path(name).suffix != ".json":
            return tokenizer.load(name), None
        return tokenizer.load(name), str(files.resolved(name))
    if not weighted:
        raise UserError(
            f"{name} is trained on text, and there is none on disk; a language without end takes no tokenizer"
        )
    path = _bpe_path(name, weighted)
    if not _is_as_written(path):
        if report is None:
            return None
        with locked(path.with_suffix(".lock"), report):
            if not _is_as_written(path):
                total = sum(weight for weight, _ in weighted)
                texts = _sample([(corpus, BPE_BYTES * weight // total) for weight, corpus in weighted], name, report)
                sources = " + ".join(corpus.source for _, corpus in weighted)
                files.write_text(path, tokenizer.train_bpe(_bpe_vocab(name), texts, sources))
                write_record(_record_path(path), {"content": checksum(path)})
    return FileTokenizer.read(path, name), str(path)


def _record_path(trained: Path) -> Path:
    """Where the checksum of a trained tokenizer lies; the file itself is a plain tokenizer.json."""
    return trained.with_suffix(".checksum")


def _is_as_written(trained: Path) -> bool:
    """Whether a trained tokenizer is there and undamaged; training it again gives the same one."""
    try:
        return bool(read_record(_record_path(trained))["content"] == checksum(trained))
    except (OSError, ValueError, KeyError):
        return False


def _bpe_vocab(name: str) -> int:
    return int(name.removeprefix(BPE))


def _bpe_path(name: str, weighted: list[tuple[int, Corpus]]) -> Path:
    """Where the BPE tokenizer that is trained on the weighted corpora is cached."""
    total = sum(weight for weight, _ in weighted)
    identity = json.dumps([VERSION, BPE_BYTES, [[weight, total, corpus.fingerprint] for weight, corpus in weighted]])
    digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
    return files.cache_dir() / "tokenizers" / f"bpe-{_bpe_vocab(name)}-{digest}.json"


def _sample(shares: list[tuple[Corpus, int]], name: str, report: Progress) -> Iterator[list[bytes]]:
    """The leading training documents of each corpus, up to its share of bytes."""
    total = sum(min(share, corpus.train_bytes) for corpus, share in shares)
    done = 0
    for corpus, share in shares:
        bytes_left = share
        for texts in corpus.texts("train"):
            batch = []
            for text in texts:
                if bytes_left > 0:
                    batch.append(text)
                    bytes_left -= len(text)
            yield batch
            done += sum(map(len, batch))
            report(f"training the tokenizer {name}", min(1.0, done / total))
            if bytes_left <= 0:
                break


def _endless_manifest(config: DataConfig) -> Manifest | None:
    """The manifest of a language that is generated as it is read; None for any other source."""
    if not _endless(config):
        return None
    spec = synthetic.parse(config.source)
    symbols = tokenizer.load(spec.tokenizer)
    identity = hashlib.sha256(spec.spec.encode()).hexdigest()[:16]
    return Manifest(
        source=spec.spec,
        fingerprint=identity,
        corpus_fingerprint=identity,
        tokenizer=symbols.name,
        tokenizer_fingerprint=symbols.fingerprint,
        vocab=symbols.vocab,
        end_of_document=symbols.end_of_document,
        dtype=symbols.dtype.name,
        train_tokens=ENDLESS,
        validation_tokens=ENDLESS,
        test_tokens=ENDLESS,
        train_documents=0,
        validation_documents=0,
        train_bytes=0,
        validation_bytes=0,
        duplicates_removed=0,
        empty_removed=0,
        skipped=(),
        versions={},
    )


def _joint_manifest(weights: tuple[int, ...], manifests: tuple[Manifest, ...]) -> Manifest:
    """The manifest of several weighted sources together, and of one more to validate on if there is one more.

    Raises `UserError` where they do not share their ids.
    """
    components, held_out = manifests[: len(weights)], (*manifests[len(weights) :], None)[0]
    _check_ids(manifests)
    first, identity = components[0], [list(weights), [component.fingerprint for component in components]]
    corpus_identity = [list(weights), [component.corpus_fingerprint for component in components]]
    source = first.source
    if len(components) > 1:
        shares = [f"{weight / sum(weights):.4g}" for weight in weights]
        source = " + ".join(f"{share} * {component.source}" for share, component in zip(shares, components))
    if held_out is not None:
        identity.append([held_out.fingerprint])
        corpus_identity.append([held_out.corpus_fingerprint])
        source += f", validated on {held_out.source}"
    counts = {
        f"{split}_{name}": sum(getattr(manifest, f"{split}_{name}") for manifest in manifests)
        for split in corpora.SPLITS
        for name in ("tokens", "documents", "bytes")
    }
    if held_out is not None:  # an endless component holds out text that is not used
        counts |= {name: getattr(held_out, name) for name in counts if name.startswith("validation")}
    sums = ("duplicates_removed", "near_duplicates_removed", "empty_removed")
    return Manifest(
        source=source,
        fingerprint=_digest(identity),
        corpus_fingerprint=_digest(corpus_identity),
        tokenizer=first.tokenizer,
        tokenizer_file=next((manifest.tokenizer_file for manifest in manifests if manifest.tokenizer_file), None),
        tokenizer_fingerprint=first.tokenizer_fingerprint,
        vocab=first.vocab,
        end_of_document=first.end_of_document,
        dtype=first.dtype,
        skipped=tuple(item for manifest in manifests for item in manifest.skipped),
        versions={name: value for manifest in manifests for name, value in manifest.versions.items()},
        weights=weights,
        components=components,
        held_out=held_out,
        **counts,
        **{name: sum(getattr(manifest, name) for manifest in manifests) for name in sums},
    )


def _digest(identity: object) -> str:
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]


def _check_ids(manifests: tuple[Manifest, ...]) -> None:
    """Raise `UserError` unless all sources have the same ids."""
    first = manifests[0]
    for other in manifests[1:]:
        if (other.tokenizer, other.vocab, other.end_of_document) != (
            first.tokenizer,
            first.vocab,
            first.end_of_document,
        ):
            raise UserError(
                f"{first.source} has the tokens of {first.tokenizer!r} and {other.source} those of "
                f"{other.tokenizer!r}, so they cannot be mixed; give documents=N to a synthetic language, which then "
                f"is text like any other"
            )
