"""From a `DataConfig` to tokens: the corpus of each source, the tokenizer that they share, the tokens of each."""

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable
from typing import NamedTuple

from lmscale.core.config import IMPORTED, TOKENS, DataConfig, check, mixture, stdlib, synthetic
from lmscale.core.errors import UserError
from lmscale.lm.data import corpora, shards, tokenizer
from lmscale.lm.data.corpora import Corpus, Progress, Whole, token_files
from lmscale.lm.data.corpora.checksums import Damaged
from lmscale.lm.data.joint_manifest import joint_manifest
from lmscale.lm.data.manifest import ENDLESS, Manifest, Tokens
from lmscale.lm.data.shared_tokenizer import shared_tokenizer
from lmscale.lm.data.tokenized import find_tokenized, open_tokenized, prepare_tokenized
from lmscale.lm.data.tokenizer import BPE, FileTokenizer, Tokenizer


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
    weights, parts = _parts(config)
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
    prepared: dict[Part, Corpus] = {}
    for part in parts:
        if not _endless(part.config) and part not in tokenized:
            corpus = corpus_of(*part)
            if corpus is None:
                return None
            prepared[part] = corpus
    weighted = [(weight, prepared[part]) for weight, part in zip(weights, parts) if part in prepared]
    shared = shared_tokenizer(config.tokenizer, weighted, report)
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
    manifest = manifests[0] if len(manifests) == 1 else joint_manifest(weights, tuple(manifests))
    return dataclasses.replace(manifest, unique_limit=config.unique_tokens)


def _parts(config: DataConfig) -> tuple[tuple[int, ...], list[Part]]:
    """The weights of the sources that are trained on; these sources, and then the one to validate on, if it is another.

    Raises `UserError` for the text of an imported model, which is not here.
    """
    components = mixture.components(config.source)
    for _, source in components:
        check(
            not source.startswith(IMPORTED),
            f"the text that {source.removeprefix(IMPORTED)} was trained on is not here; name text of your own, and "
            f"start from the model with RunConfig.init_from",
        )
    whole: Whole = None if config.validation_source is None else "train"
    parts = [Part(_component(config, source), whole) for _, source in components]
    if config.validation_source is not None:
        parts.append(Part(_component(config, config.validation_source), "validation"))
    return tuple(weight for weight, _ in components), parts


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
