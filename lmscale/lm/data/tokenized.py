"""Tokens that others wrote, mapped where they lie: `tokens:PATH`.

`files.cache_dir()/tokens/<fingerprint>/` holds what follows from them: for each split `<split>_starts.npy` (as in
`shards`) and `<split>_spans.npy` (see `JoinedTokens`), and `manifest.json` with the checksum of these and of the files
that hold the ids. `files.cache_dir()/tokens/keys/<config>.json` records what a path held when it was last read, and is
valid while the size and times of every file are unchanged. Documents keep the order that they have in the files.
"""

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmscale.core import files
from lmscale.core.config import DataConfig
from lmscale.core.errors import UserError
from lmscale.lm.data import documents_of_ids
from lmscale.lm.data.corpora import SPLITS, Progress, Skipped, Whole, atomic_folder, locked, sources, token_files
from lmscale.lm.data.corpora.cache import settle, signature
from lmscale.lm.data.corpora.checksums import Damaged, checksum, read_record, write_record
from lmscale.lm.data.corpora.token_files import Located, Piece
from lmscale.lm.data.documents_of_ids import Documents, Scan
from lmscale.lm.data.joined import JoinedTokens, TokenRow
from lmscale.lm.data.manifest import Manifest, Tokens
from lmscale.lm.data.tokenizer import Tokenizer

FORMAT = 1
"""Counts up when what is derived or its meaning changes, so that no older cache is read."""
MANIFEST_FILE = "manifest.json"


def find_tokenized(config: DataConfig, whole: Whole, tokenizer: Tokenizer) -> Manifest | None:
    """The manifest, if these files were read with this tokenizer and none has changed since; reads no ids."""
    try:
        located = token_files.locate(token_files.path_of(config))
        record = read_record(_key_path(config, whole, tokenizer))
        if record["signature"] != signature(token_files.listing_of(located)):
            return None
        manifest = _from_json(record["manifest"])
        return manifest if (manifest.folder / MANIFEST_FILE).is_file() else None
    except (OSError, UserError, ValueError, KeyError, TypeError):  # absent, damaged or of another version: read again
        return None


def _from_json(fields: dict[str, Any]) -> Manifest:
    """The manifest of one source, from its JSON values."""
    lists = {name: tuple(fields[name]) for name in ("weights", "remarks", "own_splits")}
    skipped = tuple(Skipped(**item) for item in fields["skipped"])
    return Manifest(**{**{name: fields[name] for name in fields if name != "parts"}, **lists, "skipped": skipped})


def prepare_tokenized(config: DataConfig, whole: Whole, tokenizer: Tokenizer, report: Progress) -> Manifest:
    """Read the ids of `config` once and write what follows from them, unless that was done and nothing has changed.

    Raises `UserError` for files that are absent, cut, damaged, of several formats or masked, for ids that the tokenizer
    does not have, for too few documents, and for settings that ids cannot follow.
    """
    _check_settings(config)
    key_path = _key_path(config, whole, tokenizer)
    token_files.locate(token_files.path_of(config))  # fail for a missing source before anything is written
    with locked(key_path.with_suffix(".lock"), report):
        if manifest := find_tokenized(config, whole, tokenizer):
            with contextlib.suppress(Damaged):
                open_tokenized(manifest, report)
                return manifest
        return _build(config, whole, tokenizer, key_path, report)


def _check_settings(config: DataConfig) -> None:
    if config.near_duplicates is not None:
        raise UserError(
            f"DataConfig.near_duplicates = {config.near_duplicates!r} compares texts, but {config.source} is tokenised "
            f"already; leave it out"
        )


def _key_path(config: DataConfig, whole: Whole, tokenizer: Tokenizer) -> Path:
    """One file for each path, tokenizer and way to split."""
    fields = (config.text_field, config.validation_fraction, config.test_fraction, whole)
    identity = [FORMAT, config.source, str(token_files.path_of(config)), tokenizer.name, tokenizer.fingerprint, *fields]
    digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
    return files.cache_dir() / "tokens" / "keys" / f"{digest}.json"


def _build(config: DataConfig, whole: Whole, tokenizer: Tokenizer, key_path: Path, report: Progress) -> Manifest:
    located = token_files.locate(token_files.path_of(config))
    listing = token_files.listing_of(located)
    settle(listing)
    progress = _progress(report, f"reading {config.source}", sum(max(0, size) for _, size, _, _ in listing))
    sums = [_checksum(path) for path in (*located.paths, *located.companions)]
    splits, pieces = _pieces(located, config.text_field, tokenizer.vocab)
    own = _own_splits(located, whole, config.source)
    scans = [documents_of_ids.scan(piece, tokenizer, progress) for piece in pieces]
    chosen = _documents(splits, pieces, scans, config, whole, own, tokenizer, report)
    identity = [FORMAT, pieces[0].format, sums, [[split, _digest(chosen[split])] for split in SPLITS]]
    manifest = _manifest(config, located, pieces, scans, chosen, own, tokenizer, identity)
    if not _is_as_written(manifest, sums):  # else the same files were read under another path
        shutil.rmtree(manifest.folder, ignore_errors=True)
        with atomic_folder(manifest.folder, key_path.stem) as partial:
            _write(partial, chosen, sums, config.text_field, manifest)
    if signature(token_files.listing_of(located)) != signature(listing):
        raise UserError(f"{config.source} changed while it was read; run again when nothing writes to it")
    write_record(key_path, {"signature": signature(listing), "manifest": manifest.to_json()})
    return manifest


def _progress(report: Progress, what: str, total: int) -> Callable[[int], None]:
    done = 0

    def progress(size: int) -> None:
        nonlocal done
        done += size
        report(what, min(1.0, done / max(1, total)))

    return progress


def _checksum(path: Path) -> str:
    try:
        return checksum(path)
    except OSError as error:
        raise files.refusal(error) from None


def _pieces(located: Located, text_field: str, vocab: int) -> tuple[list[str], list[Piece]]:
    """The split of every piece of the files, and the pieces. Raises `UserError` for none or ids of several types."""
    read = list(token_files.read(located, text_field, vocab))
    if not read:
        raise UserError(f"{located.root} holds no ids at all; give files that do")
    first = read[0][1]
    for _, piece in read:
        if piece.ids.dtype != first.ids.dtype:
            raise UserError(
                f"{piece.path} holds {piece.ids.dtype.name} and {first.path} {first.ids.dtype.name}; write all files "
                f"with ids of one type, or name them as sources of a mixture"
            )
    return [split for split, _ in read], [piece for _, piece in read]


def _own_splits(located: Located, whole: Whole, source: str) -> tuple[str, ...]:
    """The splits that files themselves are. Raises `UserError` where all is to be one split and they are several."""
    own = tuple(split for split in located.splits if split != "train")
    if whole is not None and own:
        names = ", ".join(str(located.splits[split][0]) for split in own)
        raise UserError(
            f"{source} has files of its own for {' and '.join(own)} ({names}), so it cannot be used as a whole with "
            f"DataConfig.validation_source; name single files, or leave validation_source out"
        )
    return own


def _documents(
    splits: list[str], pieces: list[Piece], scans: list[Scan], config: DataConfig, whole: Whole, own: tuple[str, ...],
    tokenizer: Tokenizer, report: Progress,
) -> dict[str, Documents]:  # fmt: skip
    """The documents of every split: those of its own files, and of the others by their hash."""
    every = documents_of_ids.documents(scans, 0)
    split_of_document = np.array(splits)[every.pieces]
    shared = every.of(split_of_document == "train")
    chosen = {split: every.of(split_of_document == split) for split in SPLITS}
    if whole == "train" and not config.test_fraction:
        return chosen
    if whole is None and own and "validation" in own and ("test" in own or not config.test_fraction):
        return chosen
    total = int((shared.ends - shared.begins).sum()) * pieces[0].ids.itemsize
    progress = _progress(report, f"hashing the documents of {config.source}", total)
    digests = documents_of_ids.hashes(pieces, shared, tokenizer.end_of_document, progress)
    by_hash = documents_of_ids.split_by_hash(digests, config, config.source, whole, set(own))
    return {split: chosen[split] if split in own else shared.of(by_hash[split]) for split in SPLITS}


def _digest(chosen: Documents) -> str:
    return hashlib.sha256(np.stack(chosen).astype("<i8").tobytes()).hexdigest()


def _manifest(
    config: DataConfig, located: Located, pieces: list[Piece], scans: list[Scan], chosen: dict[str, Documents],
    own: tuple[str, ...], tokenizer: Tokenizer, identity: list[Any],
) -> Manifest:  # fmt: skip
    counts: dict[str, Any] = {}
    for split in SPLITS:
        counts[f"{split}_tokens"] = int(chosen[split].starts()[-1])
        counts[f"{split}_documents"] = len(chosen[split].pieces)
    held_out = {split: _text_bytes(chosen[split], pieces, tokenizer) for split in SPLITS if split != "train"}
    every = sum(int(one.counts @ tokenizer.byte_lengths) for one in scans)
    counts["train_bytes"] = every - sum(held_out.values())
    counts |= {f"{split}_bytes": size for split, size in held_out.items()}
    corpus = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
    with_tokenizer = json.dumps([FORMAT, "tokens", corpus, tokenizer.name, tokenizer.fingerprint])
    return Manifest(
        source=config.source,
        fingerprint=hashlib.sha256(with_tokenizer.encode()).hexdigest()[:16],
        corpus_fingerprint=corpus,
        tokenizer=tokenizer.name,
        tokenizer_fingerprint=tokenizer.fingerprint,
        vocab=tokenizer.vocab,
        end_of_document=tokenizer.end_of_document,
        dtype=pieces[0].ids.dtype.name,
        duplicates_removed=0,
        empty_removed=0,
        skipped=located.skipped,
        versions={},
        tokens_path=str(token_files.path_of(config)),
        remarks=_remarks(config, located, pieces, scans, own, tokenizer),
        own_splits=own,
        **counts,
    )


def _text_bytes(chosen: Documents, pieces: list[Piece], tokenizer: Tokenizer) -> int:
    """Bytes of text of some documents."""
    counts = np.zeros(tokenizer.vocab, np.int64)
    for piece, first, last in chosen.spans().tolist():
        for start in range(first, last, documents_of_ids.SCANNED_IDS):
            block = pieces[piece].ids[start : min(last, start + documents_of_ids.SCANNED_IDS)]
            counts += np.bincount(block, minlength=tokenizer.vocab)
    return int(counts @ tokenizer.byte_lengths)


def _remarks(
    config: DataConfig, located: Located, pieces: list[Piece], scans: list[Scan], own: tuple[str, ...],
    tokenizer: Tokenizer,
) -> tuple[str, ...]:  # fmt: skip
    """What was found: formats, how documents are told apart, whether they are closed, where the splits come from."""
    end = f"the id {tokenizer.end_of_document}, the end of a document of {tokenizer.name}"
    formats = " and ".join(sorted({piece.format for piece in pieces}))
    count = len(located.paths)
    remarks = [f"{formats}, mapped from {count:,} file{'s' * (count > 1)} and not copied"]
    documents, unclosed = sum(len(one.starts) - 1 for one in scans), sum(one.unclosed for one in scans)
    if pieces[0].starts is not None:
        remarks.append("documents are those of the format")
        if unclosed:
            remarks.append(f"{unclosed:,} of {documents:,} documents do not end with {end}; nothing is added to them")
    elif unclosed == documents == len(pieces):
        remarks.append(f"neither the format nor {end}, tells documents apart, so each file is one document")
    else:
        remarks.append(f"a document ends with {end}, or where its file ends")
    for split in own:
        remarks.append(f"{split} is {', '.join(_name(path, located.root) for path in located.splits[split])}")
    if config.validation_source is None and "validation" not in own:
        remarks.append("documents are split by a hash of their ids")
    return tuple(remarks)


def _name(path: Path, root: Path) -> str:
    return sources.printable(path.relative_to(root).as_posix())


def _write(partial: Path, chosen: dict[str, Documents], sums: list[str], text_field: str, manifest: Manifest) -> None:
    """Fill the folder of a source: what follows from its ids."""
    for split in SPLITS:
        if len(chosen[split].pieces):
            for kind, array in (("starts", chosen[split].starts()), ("spans", chosen[split].spans())):
                with files.atomic_write(partial / f"{split}_{kind}.npy", "wb") as file:
                    np.save(file, array)
    facts = {path.name: checksum(path) for path in sorted(partial.iterdir())}
    record = {"derived": facts, "sources": sums, "text_field": text_field, "vocab": manifest.vocab}
    write_record(partial / MANIFEST_FILE, record)


def open_tokenized(manifest: Manifest, report: Progress) -> Tokens:
    """The tokens that `manifest` describes, mapped. Raises `Damaged` unless every file is as it was read."""
    assert manifest.tokens_path is not None
    try:
        record = read_record(manifest.folder / MANIFEST_FILE)
        located = token_files.locate(Path(manifest.tokens_path))
        _check(manifest, located, record, report)
        pieces = [piece.ids for piece in _pieces(located, record["text_field"], record["vocab"])[1]]
    except (OSError, UserError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, Damaged):
            raise
        raise Damaged(manifest.folder, MANIFEST_FILE) from None
    arrays: dict[str, Any] = {}
    for split in SPLITS:
        if manifest.tokens(split):
            loaded = [np.load(manifest.folder / f"{split}_{kind}.npy", mmap_mode="r") for kind in ("starts", "spans")]
            arrays[f"{split}_starts"], spans = map(np.asarray, loaded)
            arrays[split] = _row(pieces, spans)
    return Tokens(manifest, **arrays)


def _row(pieces: list[NDArray[Any]], spans: NDArray[np.int64]) -> TokenRow:
    """One array where the ids lie together, else several joined."""
    if len(spans) == 1:
        number, first, last = spans[0].tolist()
        return pieces[number][first:last]
    return JoinedTokens(pieces, spans)


def _is_as_written(manifest: Manifest, sums: list[str]) -> bool:
    """Whether the folder of a source is there and undamaged, and was derived from files with these checksums."""
    try:
        record = read_record(manifest.folder / MANIFEST_FILE)
        _check_derived(manifest, record)
        return bool(record["sources"] == sums)
    except (OSError, ValueError, KeyError, TypeError):  # a `Damaged` is a ValueError
        return False


def _check_derived(manifest: Manifest, record: dict[str, Any]) -> None:
    for name, expected in record["derived"].items():
        if checksum(manifest.folder / name) != expected:
            raise Damaged(manifest.folder, name)


def _check(manifest: Manifest, located: Located, record: dict[str, Any], report: Progress) -> None:
    """Raise `Damaged` unless the files of others and what was derived have the checksums that were noted."""
    paths = [*located.paths, *located.companions]
    progress = _progress(report, f"checking {manifest.source}", sum(path.stat().st_size for path in paths))
    sums = [checksum(path, progress) for path in paths]
    if sums != record["sources"]:
        raise Damaged(manifest.folder, f"{manifest.source}, whose files have changed without a trace,")
    _check_derived(manifest, record)
