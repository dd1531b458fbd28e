"""Text from data sets prepared by TensorFlow Datasets, read without TensorFlow."""

import contextlib
import io
import logging
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lmscale.core import files
from lmscale.core.errors import UserError
from lmscale.lm.data.corpora.cache import Listing, listing
from lmscale.lm.data.corpora.chunks import Unreadable
from lmscale.lm.data.corpora.sources import Document, Skipped

READ_RECORDS = 256
MOST_REASON = 300
"""Characters of a library's reason that are shown."""


def tfds() -> Any:
    """TensorFlow Datasets, imported on first use."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tensorflow_datasets

    return tensorflow_datasets


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep TFDS from printing progress bars, notices and warnings."""
    tfds().disable_progress_bar()
    loggers = [logging.getLogger(name) for name in ("absl", "urllib3", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)


@contextlib.contextmanager
def whole(folder: Path) -> Iterator[None]:
    """Raise `UserError` where TFDS cannot read a prepared data set, which raises exceptions of many kinds then."""
    try:
        yield
    except (UserError, NotImplementedError):
        raise
    except Exception as error:
        raise UserError(
            f"the TFDS data set in {folder} is damaged ({first_line(error)}); remove that folder and prepare it again"
        ) from None


def first_line(error: BaseException) -> str:
    """The first line of an error of TFDS with something in it."""
    message = re.sub(r'Failed to construct dataset ".*?", builder_kwargs ".*?": ', "", str(error))
    return next((line.strip(" .") for line in message.splitlines() if line.strip()), type(error).__name__)[:MOST_REASON]


def data_folder() -> Path:
    """The folder of prepared TFDS data sets: $TFDS_DATA_DIR, else ~/tensorflow_datasets."""
    return files.expanded(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").absolute()


def records_listing(folder: Path) -> Listing:
    """The files of one version of a data set, and the versions beside it: a bare name means the newest."""
    versions = [(f"../{path.name}", 0, 0, 0) for path in sorted(folder.parent.iterdir()) if path.is_dir()]
    return versions + listing(folder, lambda name: True, lambda name: True)


@dataclass
class Records:
    """The records of `splits`, one after the other, of the prepared data set in `folder`; see `sources.Source`."""

    folder: Path
    splits: list[str]
    text_field: str
    prompt_field: str | None = None
    name: str = ""
    sources: list[Any] = field(init=False)
    """TFDS's data source of each split."""
    starts: list[int] = field(init=False)

    def __post_init__(self) -> None:
        try:
            with quiet(), whole(self.folder):
                builder = tfds().builder_from_directory(self.folder)
                self.sources = [builder.as_data_source(split) for split in self.splits]
                self.starts = np.cumsum([0, *map(len, self.sources)]).tolist()
        except NotImplementedError:
            raise UserError(
                f"the data set in {self.folder} is stored as {builder.info.file_format.value}, which gives no record "
                f"by number; prepare it again with file_format='array_record'"
            ) from None

    def units(self) -> Iterator[tuple[str, float]]:
        for split, start in zip(self.splits, self.starts):
            yield split, start / max(1, self.starts[-1])

    def documents(self, unit: str, skipped: list[Skipped]) -> Iterator[Document]:
        number = self.splits.index(unit)
        start, stop = self.starts[number : number + 2]
        for first in range(start, stop, READ_RECORDS):
            records = self._records(range(first, min(stop, first + READ_RECORDS)))
            for index, record in enumerate(records, start=first - start):
                document = self._document(record, f"{unit}:{index}", unit)
                try:
                    document.text.decode()
                except UnicodeDecodeError:
                    raise Unreadable(f"record {index} is not UTF-8") from None
                yield document

    def read(self, positions: Sequence[int] | np.ndarray[Any, Any]) -> list[bytes]:
        """The texts at `positions`, counted through all splits, each after its prompt."""
        return [self._document(record, "", "").text for record in self._records(positions)]

    def _records(self, positions: Sequence[int] | np.ndarray[Any, Any]) -> list[dict[str, Any]]:
        positions = np.asarray(positions)
        splits = np.searchsorted(self.starts, positions, side="right") - 1
        records: list[dict[str, Any]] = [{}] * len(positions)
        for split in np.unique(splits):
            indices = np.flatnonzero(splits == split)
            with whole(self.folder):
                rows = self.sources[split].__getitems__((positions[indices] - self.starts[split]).tolist())
            for index, record in zip(indices, rows):
                records[index] = record
        return records

    def _document(self, record: dict[str, Any], name: str, source: str) -> Document:
        prompt = b"" if self.prompt_field is None else _bytes(record[self.prompt_field])
        return Document.of_parts(name, [prompt, _bytes(record[self.text_field])], source)

    def document(self, position: int) -> Document:
        """The record at `position`, counted through all splits, with its own id or its number in its split."""
        split = int(np.searchsorted(self.starts, position, side="right")) - 1
        index = position - self.starts[split]
        with whole(self.folder):
            record = self.sources[split][index]
        if {"id", "source"} <= record.keys() and self.text_field == "text":
            name, source = (_bytes(record[key]).decode() for key in ("id", "source"))
            return self._document(record, name, source)
        return self._document(record, f"{self.splits[split]}:{index}", self.splits[split])


def _bytes(value: str | bytes) -> bytes:
    """TFDS gives text as bytes, its mocked data as str."""
    return value.encode() if isinstance(value, str) else value
