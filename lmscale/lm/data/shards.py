"""The tokens of one corpus on disk, written once.

`files.cache_dir()/tokens/<fingerprint>/` holds, for each split that has documents, `<split>.bin` (the tokenizer's
dtype, little end first) and `<split>_starts.npy` (int64 [documents + 1]: where each document begins, then the number
of tokens), with prompts `<split>_scored.bin` (one byte per token), and `manifest.json`, which holds the size and the
checksum of each. Every file is checked whenever tokens are opened; damaged ones are written again.
"""

import hashlib
import json
import shutil
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from lmscale.core import files
from lmscale.lm.data.corpora import SPLITS, Corpus, Progress, atomic_folder, locked
from lmscale.lm.data.corpora.checksums import Damaged, checksum, read_record, write_record
from lmscale.lm.data.manifest import Manifest, Tokens
from lmscale.lm.data.parallel import encode_split
from lmscale.lm.data.tokenizer import Tokenizer

FORMAT = 1
"""Counts up when what lies on disk or its meaning changes, so that no older cache is read."""
MANIFEST_FILE = "manifest.json"
LARGE_BYTES = 1 << 30
"""From this size on the time it takes to check files is shown."""


def shards_fingerprint(corpus: Corpus, tokenizer: Tokenizer) -> str:
    """What identifies the tokens that `tokenizer` makes of `corpus`."""
    identity = json.dumps([FORMAT, corpus.fingerprint, tokenizer.name, tokenizer.fingerprint])
    return hashlib.sha256(identity.encode()).hexdigest()[:16]


def find_shards(corpus: Corpus, tokenizer: Tokenizer) -> Manifest | None:
    """The manifest of the tokens of `corpus`; None unless it was written for them and every file has its size.

    Reads no tokens: `open_shards` checks them.
    """
    folder = files.cache_dir() / "tokens" / shards_fingerprint(corpus, tokenizer)
    try:
        record = read_record(folder / MANIFEST_FILE)
        if record["files"].keys() != set(_names(corpus)):
            return None
        if any((folder / name).stat().st_size != facts["bytes"] for name, facts in record["files"].items()):
            return None
        manifest = _manifest(corpus, tokenizer, record["tokens"], record["scored"])
        counts = {name: value for name, value in manifest.to_json().items() if name.startswith(SPLITS)}
        return manifest if all(record["manifest"][name] == value for name, value in counts.items()) else None
    except (OSError, ValueError, KeyError, TypeError):  # absent, damaged or of an older version: written again
        return None


def _names(corpus: Corpus) -> list[str]:
    """The files of every split that has documents."""
    kinds = [".bin", "_starts.npy", *["_scored.bin"] * corpus.prompts]
    return [split + kind for split in _splits_with_documents(corpus) for kind in kinds]


def _splits_with_documents(corpus: Corpus) -> list[str]:
    return [split for split in SPLITS if corpus.documents(split)]


def _manifest(corpus: Corpus, tokenizer: Tokenizer, tokens: dict[str, int], scored: dict[str, int]) -> Manifest:
    counts: dict[str, Any] = {}
    for split in SPLITS:
        counts[f"{split}_tokens"] = tokens.get(split, 0)
        counts[f"{split}_scored_tokens"] = scored.get(split, 0) if corpus.prompts else None
        counts[f"{split}_documents"] = corpus.documents(split)
        counts[f"{split}_bytes"] = corpus.text_bytes(split)
    return Manifest(
        source=corpus.source,
        fingerprint=shards_fingerprint(corpus, tokenizer),
        corpus_fingerprint=corpus.fingerprint,
        tokenizer=tokenizer.name,
        tokenizer_fingerprint=tokenizer.fingerprint,
        vocab=tokenizer.vocab,
        end_of_document=tokenizer.end_of_document,
        dtype=tokenizer.dtype.name,
        duplicates_removed=corpus.duplicates_removed,
        near_duplicates_removed=corpus.near_duplicates_removed,
        empty_removed=corpus.empty_removed,
        skipped=corpus.skipped,
        versions=corpus.versions,
        template=corpus.template,
        **counts,
    )


def write_shards(corpus: Corpus, tokenizer: Tokenizer, report: Progress) -> Manifest:
    """Tokenize `corpus`, unless another process just did. Raises `UserError` where a text cannot be tokenized."""
    name = shards_fingerprint(corpus, tokenizer)
    folder = files.cache_dir() / "tokens" / name
    with locked(folder.with_suffix(".lock"), report):
        if manifest := find_shards(corpus, tokenizer):
            with suppress(Damaged):
                open_shards(manifest, report)
                return manifest
        shutil.rmtree(folder, ignore_errors=True)
        with atomic_folder(folder, name) as partial:
            return _write_folder(partial, corpus, tokenizer, report)


def _write_folder(partial: Path, corpus: Corpus, tokenizer: Tokenizer, report: Progress) -> Manifest:
    tokens, scored = {}, {}
    for split in _splits_with_documents(corpus):
        with ExitStack() as stack:
            names = [f"{split}.bin"] + [f"{split}_scored.bin"] * corpus.prompts
            opened = [stack.enter_context(files.atomic_write(partial / name, "wb")) for name in names]
            starts, scored[split] = _write_split(corpus, split, tokenizer, opened, report)
        with files.atomic_write(partial / f"{split}_starts.npy", "wb") as file:
            np.save(file, starts)
        tokens[split] = int(starts[-1])
    manifest = _manifest(corpus, tokenizer, tokens, scored)
    written = {name: partial / name for name in _names(corpus)}
    facts = {name: {"bytes": path.stat().st_size, "checksum": checksum(path)} for name, path in written.items()}
    record = {"tokens": tokens, "scored": scored, "files": facts, "manifest": manifest.to_json()}
    write_record(partial / MANIFEST_FILE, record)
    return manifest


def _write_split(
    corpus: Corpus, split: str, tokenizer: Tokenizer, opened: Sequence[IO[bytes]], report: Progress
) -> tuple[NDArray[np.int64], int]:
    """The starts of documents [documents + 1] of `split`, and how many tokens are scored.

    Appends the tokens of every document to the first of the `opened` files, and to the second whether each is scored.
    """
    total, lengths, done, scored_tokens = corpus.documents(split), [np.zeros(1, np.int64)], 0, 0
    for tokens, counts, scored in encode_split(corpus, split, tokenizer):
        opened[0].write(tokens.astype(_on_disk(tokenizer.dtype), copy=False).tobytes())
        if scored is not None:
            opened[1].write(scored.tobytes())
            scored_tokens += int(scored.sum())
        lengths.append(counts)
        done += len(counts)
        report(f"tokenizing the {split} documents of {corpus.source}", done / total)
    return np.cumsum(np.concatenate(lengths)), scored_tokens


def _on_disk(dtype: np.typing.DTypeLike) -> np.dtype[Any]:
    return np.dtype(dtype).newbyteorder("<")


def open_shards(manifest: Manifest, report: Progress) -> Tokens:
    """The tokens that `manifest` describes, mapped. Raises `Damaged` unless every file is as it was written."""
    _check(manifest, report)
    arrays: dict[str, Any] = {}
    for split in SPLITS:
        if manifest.tokens(split):
            # A plain array over the same mapping: indexing a memmap costs several times as much.
            path: Path = manifest.folder / f"{split}.bin"
            arrays[split] = np.asarray(np.memmap(path, _on_disk(manifest.dtype), "r"))
            arrays[f"{split}_starts"] = np.asarray(np.load(manifest.folder / f"{split}_starts.npy", mmap_mode="r"))
            if manifest.prompts:
                arrays[f"{split}_scored"] = np.asarray(np.memmap(manifest.folder / f"{split}_scored.bin", bool, "r"))
    return Tokens(manifest, **arrays)


def _check(manifest: Manifest, report: Progress) -> None:
    """Raise `Damaged` unless the files of `manifest` have the checksums that they were written with."""
    name = MANIFEST_FILE
    try:
        facts = read_record(manifest.folder / name)["files"]
        total, done = sum(fact["bytes"] for fact in facts.values()), 0

        def read(size: int) -> None:
            nonlocal done
            done += size
            if total >= LARGE_BYTES:
                report(f"checking the tokens of {manifest.source}", min(1.0, done / total))

        for name, fact in facts.items():
            if checksum(manifest.folder / name, read) != fact["checksum"]:
                raise Damaged(manifest.folder, name)
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, Damaged):
            raise
        raise Damaged(manifest.folder, name) from None
