"""Sources of text as TFDS data sets: documents with an id, duplicates removed, three splits by content.

A document is what the author of the text closed: a module's source file, or that part of it which is asked for, a text
file, a line of JSONL, a row of Parquet, a record of a TFDS data set. A source that is
one plain text file has no second document to hold out and is cut into passages at blank lines.

Which split a document falls into depends on the SHA-256 of its text alone, and all splits are read in the order of
that hash: neither file names nor their order nor the machine matter, and any leading part is a fair sample. Validation
has the lowest hashes and the test the highest, so that asking for a test split only shortens the training split. For
pairs of answers it is the hash of the prompt, so that no prompt lies on both sides.

Under `files.cache_dir()/corpora`, `keys/<config>.json` records what a source held when it was last read, and is valid
while the size and times of every file are unchanged; `<fingerprint>/` is the content: its TFDS data set (or the path of
one) and, for each split, the positions of its documents in it. Both hold checksums, and what was damaged is read again.
TFDS is imported only where a source is read. A data set that `datasets` saved with a column of text is read as text,
all its splits together; tokens that others wrote are no text, and `token_files` maps them.
"""

import dataclasses
import hashlib
import json
import platform
import shutil
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmscale.core import files
from lmscale.core.config import TOKENS, DataConfig, stdlib, synthetic
from lmscale.core.config.template import parse_template
from lmscale.core.errors import UserError
from lmscale.lm.data.corpora import sources, survey, tfds, tfds_download, tfds_write, token_files
from lmscale.lm.data.corpora.cache import Listing, Progress, atomic_folder, locked, settle, signature
from lmscale.lm.data.corpora.checksums import Damaged, read_record, write_record
from lmscale.lm.data.corpora.chunks import Unreadable
from lmscale.lm.data.corpora.corpus import CONTENT_FILE, READ_DOCUMENTS, SPLITS, Corpus, checksums
from lmscale.lm.data.corpora.language_text import LanguageText
from lmscale.lm.data.corpora.module_parts import ModuleParts
from lmscale.lm.data.corpora.sources import Skipped, Source
from lmscale.lm.data.corpora.survey import Survey, Whole
from lmscale.lm.data.corpora.token_files.arrow import ArrowText
from lmscale.lm.data.corpora.writers import lacking, writer_of

__all__ = ["SPLITS", "Corpus", "Progress", "Skipped", "Whole", "atomic_folder", "find_corpus", "locked", "prepare"]

FORMAT = 1
"""Counts up when documents, splits or their order change, so that no older cache is read."""
SELECTION_FIELDS = ("test_fraction", "unreadable", "near_duplicates", "prompt_field", "template", "rejected_field")
"""Settings that select documents; one with its default value does not enter the name of a cache."""


def find_corpus(config: DataConfig, whole: Whole = None) -> Corpus | None:
    """The prepared corpus, None unless no file of the source has changed since. Imports no TFDS and reads no text."""
    try:
        record = read_record(_key_path(config, whole))
        if record["signature"] != signature(_list_files(config, Path(record["place"]))):
            return None
        fields = record["corpus"]
        return Corpus(**{**fields, "skipped": tuple(Skipped(**item) for item in fields["skipped"])})
    except (OSError, ValueError, KeyError, TypeError):  # absent, damaged or of another version: read again
        return None


def prepare(
    config: DataConfig, whole: Whole = None, *, progress: Progress | None = None, allow_download: bool = False
) -> Corpus:
    """Read the one source of `config` into a TFDS data set with splits, unless that was done and nothing changed.

    Only a `tfds:` source is ever downloaded, and only with `allow_download` or LMSCALE_ALLOW_DOWNLOAD=1. Safe under
    several processes at once: one works, the others wait for it. Raises `UserError` for a source that is absent,
    unknown, empty or unreadable throughout, or changes while it is read, and for a full disk.
    """
    report = progress or (lambda what, share: None)
    corpus = find_corpus(config, whole)
    if corpus is None or not corpus.readable():
        key_path = _key_path(config, whole)
        if not _is_tfds(config):
            _list_files(config, _source_path(config))  # fail for a missing source before anything is written
        with locked(key_path.with_suffix(".lock"), report):
            corpus = find_corpus(config, whole)  # another process may have done it while this one waited
            if corpus is None or not corpus.readable():
                corpus = _build(config, whole, key_path, report, allow_download)
    return corpus


def _key_path(config: DataConfig, whole: Whole) -> Path:
    """One file for each path that `config` can mean on this machine and each way to split it."""
    path = _source_path(config)
    changed = [
        [item.name, getattr(config, item.name)]
        for item in dataclasses.fields(config)
        if item.name in SELECTION_FIELDS and getattr(config, item.name) != item.default
    ]
    if whole is not None:
        changed.append(["whole", whole])
    key = json.dumps([FORMAT, config.source, str(path), config.text_field, config.validation_fraction, *changed])
    return files.cache_dir() / "corpora" / "keys" / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"


def _is_tfds(config: DataConfig) -> bool:
    return config.source.startswith("tfds:")


def _source_path(config: DataConfig) -> Path:
    """The file or folder that is read: for a TFDS name the folder of all data sets, for a language an empty path."""
    if synthetic.is_synthetic(config.source):
        return Path()
    if _is_tfds(config):
        return tfds.data_folder()
    if config.source.startswith(TOKENS):
        return token_files.path_of(config)
    return sources.stdlib_folder() if stdlib.is_stdlib(config.source) else files.resolved(config.source)


def _list_files(config: DataConfig, path: Path) -> Listing:
    if synthetic.is_synthetic(config.source):
        return []
    if _is_tfds(config):
        return tfds.records_listing(path)
    if config.source.startswith(TOKENS):
        return token_files.listing_of(token_files.locate(path))
    return sources.stdlib_listing(path) if stdlib.is_stdlib(config.source) else sources.files_listing(path)


def _build(config: DataConfig, whole: Whole, key_path: Path, report: Progress, allow_download: bool) -> Corpus:
    """Read everything: hash, split, store, and record what was read."""
    path, listing, source = _open(config, allow_download)
    surveyed = survey.survey(source, config, report)
    splits, near = survey.split_documents(surveyed, config, source.name, whole)
    template = parse_template(config.template).text if config.template else ""
    corpus = _corpus(source.name, surveyed, splits, near, template)
    if not corpus.readable():
        shutil.rmtree(corpus.folder, ignore_errors=True)
        with atomic_folder(corpus.folder, key_path.stem) as partial:
            _write(partial, source, surveyed, splits, report)
        if not corpus.readable():  # a folder that could not be removed is in the way
            raise Damaged(corpus.folder, CONTENT_FILE)
    if signature(_list_files(config, path)) != signature(listing):
        raise _changed(source.name)
    record = {"place": str(path), "signature": signature(listing), "corpus": dataclasses.asdict(corpus)}
    write_record(key_path, record)
    return corpus


def _open(config: DataConfig, allow_download: bool) -> tuple[Path, Listing, Source]:
    """The folder or file of the source, its files as they are now, and the source itself."""
    path = _source_path(config)
    if synthetic.is_synthetic(config.source):
        return path, [], LanguageText(config.source)
    if _is_tfds(config):
        records = tfds_download.open_by_name(config.source, config.text_field, config.prompt_field, allow_download)
        listing = _list_files(config, records.folder)
        settle(listing)
        return records.folder, listing, records
    listing = _list_files(config, path)
    settle(listing)
    if config.source.startswith(TOKENS):
        located = token_files.locate(path)
        column = token_files.of_text(config, located)
        assert column is not None, "ids are no text"
        return path, listing, ArrowText(config.source, located.root, located.paths, column)
    write, prompts = writer_of(config), lacking(config)
    if not stdlib.is_stdlib(config.source):
        hidden = sources.hidden(path)
        return path, listing, sources.TextFiles(config.source, path, listing, write, prompts, hidden=hidden)
    name, part = sources.stdlib_name(), stdlib.part_of(config.source)
    modules = sources.TextFiles(name, path, listing, write, prompts, whole_files=True)
    return path, listing, ModuleParts(stdlib.PARTS[part] + name, modules, part) if part else modules


def _changed(name: str) -> UserError:
    return UserError(f"{name} changed while it was read; run again when nothing writes to it")


def _corpus(name: str, surveyed: Survey, splits: dict[str, NDArray[np.int64]], near: int, template: str) -> Corpus:
    in_splits = sum(map(len, splits.values()))
    versions = {"python": platform.python_version(), "tensorflow-datasets": version("tensorflow-datasets")}
    if surveyed.near:
        versions["datasketch"] = version("datasketch")
    counts: dict[str, int] = {}
    for split in SPLITS:
        counts[f"{split}_documents"] = len(splits[split])
        counts[f"{split}_bytes"] = int(surveyed.sizes[splits[split]].sum())
    return Corpus(
        source=name,
        fingerprint=survey.corpus_fingerprint(FORMAT, surveyed, splits),
        duplicates_removed=len(surveyed.sizes) - in_splits - near,
        near_duplicates_removed=near,
        empty_removed=surveyed.empty,
        skipped=tuple(surveyed.skipped),
        versions=versions,
        prompts=bool(surveyed.boundaries.size),
        template=template,
        **counts,
    )


def _write(
    partial: Path, source: Source, surveyed: Survey, splits: dict[str, NDArray[np.int64]], report: Progress
) -> None:
    """Fill a folder of content: the TFDS data set, or its path, and each split's positions in it."""
    positions = splits
    if isinstance(source, tfds.Records):
        content = {
            "text_field": source.text_field,
            "prompt_field": source.prompt_field,
            "dataset": str(source.folder),
            "splits": dict.fromkeys(SPLITS, source.splits),
        }
    else:
        _write_dataset(partial, source, surveyed, splits, report)
        # That data set is in reading order: a document's position is its rank among those of its split.
        positions = {split: np.searchsorted(np.sort(numbers), numbers) for split, numbers in splits.items()}
        content = {
            "text_field": "text",
            "dataset": "documents/1.0.0",
            "splits": {split: [split] for split in SPLITS},
        }
    for split in SPLITS:
        with files.atomic_write(partial / f"{split}.npy", "wb") as file:
            np.save(file, positions[split])
        if surveyed.boundaries.size:
            with files.atomic_write(partial / f"{split}_prompts.npy", "wb") as file:
                np.save(file, surveyed.boundaries[splits[split]])
    write_record(partial / CONTENT_FILE, {**content, "checksums": checksums(partial)})


def _write_dataset(
    partial: Path, source: Source, surveyed: Survey, splits: dict[str, NDArray[np.int64]], report: Progress
) -> None:
    """Store the documents of all splits as the TFDS data set `documents` with features id, text and source."""

    def examples(split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        in_split = np.zeros(len(surveyed.sizes), bool)
        in_split[splits[split]] = True
        try:
            for number, document in enumerate(survey.readable_documents(source, surveyed.unreadable)):
                if number % READ_DOCUMENTS == 0:
                    report(f"storing the {split} documents of {source.name}", number / len(in_split))
                if (
                    number >= len(in_split)
                    or survey.digest(document, surveyed.pairs) != surveyed.digests[number].tobytes()
                ):
                    raise _changed(source.name)
                if in_split[number]:
                    yield number, {"id": document.id, "text": document.text, "source": document.source}
        except Unreadable:
            raise _changed(source.name) from None

    tfds_write.write_dataset(partial, [split for split in SPLITS if len(splits[split])], examples)
