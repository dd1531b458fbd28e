"""Sources of text as TFDS data sets: documents with an id, duplicates removed, train and validation split by content.

A document is what the author of the text closed: a module's source file (its docstrings are in it, so they are not
taken out a second time), a text file, a line of JSONL, a record of a TFDS data set. A source that is one plain text
file has no second document to hold out and is cut into passages at blank lines.

Which split a document falls into depends on the SHA-256 of its text alone, and both splits are read in the order of
that hash: neither file names nor their order nor the machine matter, and any leading part is a fair sample.

Under `files.cache_dir()/corpora`, `keys/<config>.json` says what a source held when it was last read, and is believed
while the size and times of every file are unchanged; `<fingerprint>/` is the content: its TFDS data set (or where that
lies) and, for each split, the positions of its documents in it. TFDS is imported only where a source is read.
"""

import dataclasses
import hashlib
import json
import platform
import shutil
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmscale import files
from lmscale.config import DataConfig
from lmscale.corpora import records, sources
from lmscale.corpora.cache import Listing, Progress, locked, settle, signature, whole_folder
from lmscale.corpora.sources import Document, Skipped, Source, Unreadable
from lmscale.errors import UserError

FORMAT = 1
"""Counts up when documents, splits or their order change, so that no older cache is believed."""
SPLITS = ("train", "validation")
READ_DOCUMENTS = 256
DIGEST_BYTES = 16


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """What one source held. `fingerprint` is of the content of both splits, in order."""

    source: str
    """The source in words, with its version."""
    fingerprint: str
    train_documents: int
    validation_documents: int
    train_bytes: int
    validation_bytes: int
    duplicates_removed: int
    """Documents left out because another has exactly the same text."""
    empty_removed: int
    """Documents of nothing but white space."""
    skipped: tuple[Skipped, ...]
    versions: dict[str, str]

    @property
    def folder(self) -> Path:
        """Where the content is cached."""
        return files.cache_dir() / "corpora" / self.fingerprint

    def readable(self) -> bool:
        """Whether the content is there, not only what is known of it."""
        try:
            content = files.read_json(self.folder / "content.json", "prepared corpus")
        except UserError:
            return False
        return (self.folder / content["dataset"] / "dataset_info.json").is_file()

    def texts(self, split: str) -> Iterator[list[bytes]]:
        """The documents of `split` as UTF-8 in the order of their hash, some hundred at a time.

        Raises `UserError` where the cached content is gone.
        """
        content = files.read_json(self.folder / "content.json", "prepared corpus")
        stored = records.Records(self.folder / content["dataset"], content["splits"][split], content["text_field"])
        positions = np.load(self.folder / f"{split}.npy")
        for start in range(0, len(positions), READ_DOCUMENTS):
            yield stored.read(positions[start : start + READ_DOCUMENTS])


def find(config: DataConfig) -> Corpus | None:
    """What the source held when it was last read, if no file of it changed. Imports no TFDS and reads no text."""
    try:
        record = json.loads(_key_path(config).read_text(encoding="utf-8"))
        if record["signature"] != signature(_list_files(config, Path(record["place"]))):
            return None
        known = record["corpus"]
        return Corpus(**{**known, "skipped": tuple(Skipped(**item) for item in known["skipped"])})
    except (OSError, ValueError, KeyError, TypeError):  # absent, damaged or of another version: made again
        return None


def prepare(config: DataConfig, *, progress: Progress | None = None, allow_download: bool = False) -> Corpus:
    """Read the source of `config` into a TFDS data set with splits, unless that was done and nothing changed.

    Only a `tfds:` source is ever downloaded, and only with `allow_download` or LMSCALE_ALLOW_DOWNLOAD=1. Safe under
    several processes at once: one works, the others wait for it. Raises `UserError` for a source that is absent,
    unknown, empty or unreadable throughout, or changes while it is read, and for a full disk.
    """
    report = progress or (lambda what, share: None)
    corpus = find(config)
    if corpus is None or not corpus.readable():
        key_path = _key_path(config)
        if not _is_tfds(config):
            _list_files(config, _place(config))  # a source that is not there is said before anything is written
        with locked(key_path.with_suffix(".lock"), report):
            corpus = find(config)  # another process may have done it while this one waited
            if corpus is None or not corpus.readable():
                corpus = _build(config, key_path, report, allow_download)
    return corpus


def _key_path(config: DataConfig) -> Path:
    """One file for each place that `config` can mean on this machine and each way to cut it."""
    place = _place(config)
    key = json.dumps([FORMAT, config.source, str(place), config.text_field, config.validation_fraction])
    return files.cache_dir() / "corpora" / "keys" / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"


def _is_tfds(config: DataConfig) -> bool:
    return config.source.startswith("tfds:")


def _place(config: DataConfig) -> Path:
    """The file or folder that is read; for a TFDS name the folder that holds all data sets."""
    if _is_tfds(config):
        return records.data_folder()
    return sources.stdlib_folder() if config.source == "stdlib" else Path(config.source).expanduser().resolve()


def _list_files(config: DataConfig, place: Path) -> Listing:
    if _is_tfds(config):
        return records.records_listing(place)
    return sources.stdlib_listing(place) if config.source == "stdlib" else sources.files_listing(place)


def _build(config: DataConfig, key_path: Path, report: Progress, allow_download: bool) -> Corpus:
    """Read everything: hash, split, store, and note what was read."""
    place, found, source = _open(config, allow_download)
    survey = _survey(source, report)
    splits = _split(survey.digests, config.validation_fraction, source.name)
    corpus = _corpus(source.name, survey, splits)
    if not corpus.readable():
        shutil.rmtree(corpus.folder, ignore_errors=True)
        with whole_folder(corpus.folder, key_path.stem) as partial:
            _write(partial, source, survey, splits, report)
    if signature(_list_files(config, place)) != signature(found):
        raise _changed(source.name)
    record = {"place": str(place), "signature": signature(found), "corpus": dataclasses.asdict(corpus)}
    files.write_json(key_path, record)
    return corpus


def _open(config: DataConfig, allow_download: bool) -> tuple[Path, Listing, Source]:
    """The folder or file of the source, its files as they are now, and the source itself."""
    if _is_tfds(config):
        source: Source = (dataset := records.open_by_name(config.source, config.text_field, allow_download))
        place = dataset.folder
        found = _list_files(config, place)
    else:
        place = _place(config)
        found = _list_files(config, place)
        stdlib = config.source == "stdlib"
        name = sources.stdlib_name() if stdlib else config.source
        source = sources.TextFiles(name, place, found, config.text_field, whole_files=stdlib)
    settle(found)
    return place, found, source


def _changed(name: str) -> UserError:
    return UserError(f"{name} changed while it was read; run again when nothing writes to it")


@dataclass
class _Survey:
    """Every document of a source that is not empty, in reading order."""

    digests: NDArray[Any]
    """[documents, 2]: the leading 16 bytes of the SHA-256 of each text as two big-endian numbers."""
    sizes: NDArray[np.int64]
    """[documents]: bytes."""
    empty: int
    skipped: list[Skipped]
    unreadable: set[str]
    """Units that are not used at all."""


def _digest(text: bytes) -> bytes:
    return hashlib.sha256(text).digest()[:DIGEST_BYTES]


def _survey(source: Source, report: Progress) -> _Survey:
    """Hash every document once. A unit that breaks off gives nothing. Raises `UserError` when no text is left."""
    digests, sizes, empty = bytearray(), array("q"), 0
    skipped: list[Skipped] = []
    unreadable = set()
    for unit, share in source.units():
        report(f"reading {source.name}", share)
        before, empty_here = len(sizes), 0
        remarks: list[Skipped] = []
        try:
            for document in source.documents(unit, remarks):
                if document.text.strip():
                    digests += _digest(document.text)
                    sizes.append(len(document.text))
                else:
                    empty_here += 1
        except Unreadable as error:
            del digests[DIGEST_BYTES * before :], sizes[before:]
            skipped.append(Skipped(unit, str(error)))
            unreadable.add(unit)
        else:
            skipped += remarks
            empty += empty_here
    if not sizes:
        raise UserError(_nothing_left(source.name, skipped, empty))
    return _Survey(np.frombuffer(digests, ">u8").reshape(-1, 2), np.array(sizes), empty, skipped, unreadable)


def _nothing_left(name: str, skipped: list[Skipped], empty: int) -> str:
    reasons = [f"{item.path}: {item.reason}" for item in skipped[:3]]
    reasons += [f"{len(skipped) - 3} more skipped"] * (len(skipped) > 3) + [f"{empty} empty"] * (empty > 0)
    found = f" ({'; '.join(reasons)})" if reasons else ", which holds no files"
    return f"there is no text to use in {name}{found}; give UTF-8 text or JSONL, plain, .gz or .zst"


def _split(digests: NDArray[Any], validation_fraction: float, name: str) -> dict[str, NDArray[np.int64]]:
    """For each split the numbers of its documents in the order of their hash, each text once.

    A text is held out when its hash, as a share of the largest possible, is below `validation_fraction`. No split
    stays empty: the lowest hash is always held out, the highest never. Raises `UserError` when there is only one text.
    """
    order = np.lexsort((digests[:, 1], digests[:, 0]))  # stable: of equal texts the one read first is kept
    ordered = digests[order]
    first = np.concatenate([[True], (ordered[1:] != ordered[:-1]).any(axis=1)])
    order, ordered = order[first], ordered[first]
    if len(order) < 2:
        raise UserError(
            f"{name} holds one document, so none can be held out for validation; give at least two different "
            f"documents, or one plain text file of over {sources.PASSAGE_BYTES:,} bytes, which is cut into passages"
        )
    held_out = int(np.count_nonzero(ordered[:, 0].astype(np.float64) / 2.0**64 < validation_fraction))
    held_out = min(max(held_out, 1), len(order) - 1)
    return {"train": order[held_out:], "validation": order[:held_out]}


def _corpus(name: str, survey: _Survey, splits: dict[str, NDArray[np.int64]]) -> Corpus:
    from importlib.metadata import version

    identity = hashlib.sha256(f"lmscale corpus {FORMAT}".encode())
    for split in SPLITS:
        identity.update(len(splits[split]).to_bytes(8, "big") + survey.digests[splits[split]].tobytes())
    return Corpus(
        source=name,
        fingerprint=identity.hexdigest()[:16],
        train_documents=len(splits["train"]),
        validation_documents=len(splits["validation"]),
        train_bytes=int(survey.sizes[splits["train"]].sum()),
        validation_bytes=int(survey.sizes[splits["validation"]].sum()),
        duplicates_removed=len(survey.sizes) - sum(map(len, splits.values())),
        empty_removed=survey.empty,
        skipped=tuple(survey.skipped),
        versions={
            "python": platform.python_version(),
            "tensorflow-datasets": version("tensorflow-datasets"),
        },
    )


def _write(
    partial: Path, source: Source, survey: _Survey, splits: dict[str, NDArray[np.int64]], report: Progress
) -> None:
    """Fill a folder of content: the TFDS data set, or where it lies, and each split's positions in it."""
    positions = splits
    if isinstance(source, records.Records):
        content = {
            "text_field": source.text_field,
            "dataset": str(source.folder),
            "splits": dict.fromkeys(SPLITS, source.splits),
        }
    else:
        _write_dataset(partial, source, survey, splits, report)
        # That data set lies in reading order: a document's position is its rank among those of its split.
        positions = {split: np.searchsorted(np.sort(kept), kept) for split, kept in splits.items()}
        content = {
            "text_field": "text",
            "dataset": "documents/1.0.0",
            "splits": {split: [split] for split in SPLITS},
        }
    for split in SPLITS:
        with files.whole(partial / f"{split}.npy", "wb") as file:
            np.save(file, positions[split])
    files.write_json(partial / "content.json", content)


def _write_dataset(
    partial: Path, source: Source, survey: _Survey, splits: dict[str, NDArray[np.int64]], report: Progress
) -> None:
    """Store the kept documents as the TFDS data set `documents` with features id, text and source."""

    def examples(split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        kept = np.zeros(len(survey.sizes), bool)
        kept[splits[split]] = True
        for number, document in enumerate(_documents(source, survey.unreadable)):
            if number % READ_DOCUMENTS == 0:
                report(f"storing the {split} documents of {source.name}", number / len(kept))
            if number >= len(kept) or _digest(document.text) != survey.digests[number].tobytes():
                raise _changed(source.name)
            if kept[number]:
                yield number, document._asdict()

    records.write_dataset(partial, SPLITS, examples)


def _documents(source: Source, unreadable: set[str]) -> Iterator[Document]:
    """The documents that the survey counted, in its order."""
    for unit, _ in source.units():
        if unit not in unreadable:
            try:
                yield from (document for document in source.documents(unit, []) if document.text.strip())
            except Unreadable:
                raise _changed(source.name) from None
