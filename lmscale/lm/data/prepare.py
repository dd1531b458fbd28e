"""From a `DataConfig` to tokens: the corpus of each source, the tokenizer that they share, the tokens of each."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

from lmscale.core import files
from lmscale.core.config import DataConfig, mixture, synthetic
from lmscale.core.errors import UserError
from lmscale.lm.data import corpora, shards, tokenizer
from lmscale.lm.data.corpora import Corpus, Progress, locked
from lmscale.lm.data.manifest import ENDLESS, Manifest, Tokens
from lmscale.lm.data.tokenizer import BPE, FileTokenizer, Tokenizer
from lmscale.lm.data.tokenizer.train import VERSION

BPE_BYTES = 64 << 20
"""Text that byte-level BPE is trained on: the leading documents in the order of their hash, a fair sample."""

CorpusOf = Callable[[DataConfig], Corpus | None]
TokensOf = Callable[[Corpus, Tokenizer], Manifest | None]


def find(config: DataConfig) -> Manifest | None:
    """The manifest, if the tokens of `config` are prepared and no source has changed since; reads no text.

    A language without end is always prepared.
    """
    return _assemble(config, corpora.find, shards.find, None)


def prepare(config: DataConfig, *, progress: Progress | None = None, allow_download: bool = False) -> Tokens:
    """Bring the tokens of `config` onto disk, unless they are there, and map them.

    Safe under several processes at once. Raises `UserError` as `corpora.prepare` does, and for a tokenizer that is not
    there, does not fit the sources or does not give a document back.
    """
    manifest = find(config)
    if manifest is None:
        report = progress or (lambda what, share: None)
        manifest = _assemble(
            config,
            lambda part: corpora.prepare(part, progress=report, allow_download=allow_download),
            lambda corpus, encoder: shards.make(corpus, encoder, report),
            report,
        )
    assert manifest is not None
    return opened(manifest)


def opened(manifest: Manifest) -> Tokens:
    """The tokens that a manifest describes."""
    if manifest.parts:
        return Tokens(manifest, parts=tuple(opened(part) for part in manifest.parts))
    return Tokens(manifest) if manifest.endless else shards.opened(manifest)


def encoder(manifest: Manifest) -> Tokenizer:
    """The tokenizer that wrote the tokens of `manifest`. Raises `UserError` where its file is gone or another now."""
    if manifest.tokenizer_file is None:
        return tokenizer.load(manifest.tokenizer)
    return FileTokenizer.read(manifest.tokenizer_file, manifest.tokenizer)


def _assemble(config: DataConfig, corpus_of: CorpusOf, tokens_of: TokensOf, report: Progress | None) -> Manifest | None:
    """The manifest of all parts; None as soon as one step gives None."""
    weights, configs = [], []
    for weight, source in mixture.parts(config.source):
        weights.append(weight)
        configs.append(dataclasses.replace(config, source=source, unique_tokens=None))
    stored = {part: corpus_of(part) for part in configs if not _endless(part)}
    found = {part: corpus for part, corpus in stored.items() if corpus is not None}
    if len(found) < len(stored):
        return None
    shared = _encoder(
        config.tokenizer, [(weight, found[part]) for weight, part in zip(weights, configs) if part in found], report
    )
    if shared is None:
        return None
    parts = []
    for part in configs:
        made = _language(part) if _endless(part) else tokens_of(found[part], shared[0])
        if made is None:
            return None
        parts.append(made if _endless(part) else dataclasses.replace(made, tokenizer_file=shared[1]))
    whole = parts[0] if len(parts) == 1 else _mixture(config, tuple(weights), tuple(parts))
    return dataclasses.replace(whole, unique_limit=config.unique_tokens)


def _endless(part: DataConfig) -> bool:
    return synthetic.is_synthetic(part.source) and synthetic.parse(part.source).documents is None


def _encoder(
    name: str, corpora_found: list[tuple[int, Corpus]], report: Progress | None
) -> tuple[Tokenizer, str | None] | None:
    """The tokenizer and its file, trained here if it must be and `report` is given."""
    if not name.startswith(BPE):
        file = str(Path(name).expanduser().resolve()) if Path(name).suffix == ".json" else None
        return tokenizer.load(name), file
    if not corpora_found:
        raise UserError(
            f"{name} is trained on text, and there is none on disk; a language without end takes no tokenizer"
        )
    vocab = int(name.removeprefix(BPE))
    total = sum(weight for weight, _ in corpora_found)
    identity = json.dumps(
        [VERSION, BPE_BYTES, [[weight, total, corpus.fingerprint] for weight, corpus in corpora_found]]
    )
    digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
    path = files.cache_dir() / "tokenizers" / f"bpe-{vocab}-{digest}.json"
    if not path.exists():
        if report is None:
            return None
        with locked(path.with_suffix(".lock"), report):
            if not path.exists():
                names = " + ".join(corpus.source for _, corpus in corpora_found)
                texts = _sample(
                    [(corpus, BPE_BYTES * weight // total) for weight, corpus in corpora_found], name, report
                )
                files.write_text(path, tokenizer.train_bpe(vocab, texts, names))
    return FileTokenizer.read(path, name), str(path)


def _sample(shares: list[tuple[Corpus, int]], name: str, report: Progress) -> Iterator[list[bytes]]:
    """The leading training documents of each corpus, up to its share of bytes."""
    total = sum(min(share, corpus.train_bytes) for corpus, share in shares)
    done = 0
    for corpus, share in shares:
        left = share
        for texts in corpus.texts("train"):
            taken = []
            for text in texts:
                if left > 0:
                    taken.append(text)
                    left -= len(text)
            yield taken
            done += sum(map(len, taken))
            report(f"training the tokenizer {name}", min(1.0, done / total))
            if left <= 0:
                break


def _language(config: DataConfig) -> Manifest:
    """Of a language that is made as it is read."""
    spec = synthetic.parse(config.source)
    written = tokenizer.load(spec.tokenizer)
    identity = hashlib.sha256(spec.spec.encode()).hexdigest()[:16]
    return Manifest(
        source=spec.spec,
        fingerprint=identity,
        corpus_fingerprint=identity,
        tokenizer=written.name,
        vocab=written.vocab,
        end_of_document=written.end_of_document,
        dtype=written.dtype.name,
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


def _mixture(config: DataConfig, weights: tuple[int, ...], parts: tuple[Manifest, ...]) -> Manifest:
    """Of several sources. Raises `UserError` where they do not share their ids."""
    first = parts[0]
    for part in parts[1:]:
        if (part.tokenizer, part.vocab, part.end_of_document) != (first.tokenizer, first.vocab, first.end_of_document):
            raise UserError(
                f"{first.source} has the tokens of {first.tokenizer!r} and {part.source} those of {part.tokenizer!r}, "
                f"so they cannot be mixed; give documents=N to a synthetic language, which then is text like any other"
            )
    identity = json.dumps([list(weights), [part.fingerprint for part in parts]])
    corpus_identity = json.dumps([list(weights), [part.corpus_fingerprint for part in parts]])
    names = ("tokens", "documents", "bytes")
    counts = {
        f"{split}_{name}": sum(getattr(part, f"{split}_{name}") for part in parts)
        for split in corpora.SPLITS
        for name in names
    }
    sums = ("duplicates_removed", "near_duplicates_removed", "empty_removed")
    return Manifest(
        source=" + ".join(f"{weight / sum(weights):.4g} * {part.source}" for weight, part in zip(weights, parts)),
        fingerprint=hashlib.sha256(identity.encode()).hexdigest()[:16],
        corpus_fingerprint=hashlib.sha256(corpus_identity.encode()).hexdigest()[:16],
        tokenizer=first.tokenizer,
        tokenizer_file=next((part.tokenizer_file for part in parts if part.tokenizer_file), None),
        vocab=first.vocab,
        end_of_document=first.end_of_document,
        dtype=first.dtype,
        skipped=tuple(item for part in parts for item in part.skipped),
        versions={name: value for part in parts for name, value in part.versions.items()},
        weights=weights,
        parts=parts,
        **counts,
        **{name: sum(getattr(part, name) for part in parts) for name in sums},
    )
