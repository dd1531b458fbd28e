"""Data sets of Hugging Face `datasets` on disk: Arrow streams, and which of them belong to the data set.

`save_to_disk` (`src/datasets/arrow_dataset.py` in huggingface/datasets) writes a folder with `state.json`, whose
`_data_files` names the streams in order; what else ends in .arrow there is a cache. A folder of several splits has
`dataset_dict.json` with their names, and a folder for each. The columns are read without the library.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from lmscale.core import files
from lmscale.core.errors import UserError
from lmscale.lm.data.corpora.chunks import Unreadable
from lmscale.lm.data.corpora.sources import Document, Skipped, printable
from lmscale.lm.data.corpora.token_files.flat import signed
from lmscale.lm.data.corpora.token_files.layout import Piece, bounds, map_bytes, split_of

if TYPE_CHECKING:
    import pyarrow

STATE_FILE = "state.json"
SPLITS_FILE = "dataset_dict.json"
END = bytes.fromhex("ffffffff00000000")
"""The last bytes of a stream that was closed."""
FILE_MAGIC = b"ARROW1"
IDS, TEXT = "input_ids", "text"
MASKS = {"attention_mask": 1, "loss_mask": 1, "completion_mask": 1, "assistant_masks": 1}
"""Columns that leave ids out where they are less than this."""
LABELS = "labels"
"""A column that leaves ids out where it is below 0."""


def data_set_folders(path: Path) -> dict[str, list[Path]] | None:
    """The folders of each split of a data set; None for what is none. Raises `UserError` for a damaged record."""
    if (path / STATE_FILE).is_file():
        return {"train": [path]}
    if not (path / SPLITS_FILE).is_file():
        return None
    names = _read_json(path / SPLITS_FILE).get("splits")
    if not isinstance(names, list) or not names or not all(_is_name(name) for name in names):
        raise UserError(f"{path / SPLITS_FILE} does not name the splits of a data set; save it to disk again")
    folders: dict[str, list[Path]] = {}
    for name in names:
        if not (path / name / STATE_FILE).is_file():
            raise UserError(f"{path} lacks its split {name!r}: {path / name / STATE_FILE} is not there; copy it again")
        folders.setdefault(split_of(name), []).append(path / name)
    if "train" not in folders:
        folders = {"train": [folder for group in folders.values() for folder in group]}
    return folders


def data_files(folder: Path) -> list[Path]:
    """The streams of one split, in order. Raises `UserError` where one is missing."""
    state = _read_json(folder / STATE_FILE)
    entries = state.get("_data_files")
    names: list[Any] = (
        [entry.get("filename") for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    )
    if not names or not all(_is_name(name) for name in names):
        raise UserError(f"{folder / STATE_FILE} names no files of a data set; save it to disk again")
    if state.get("_indices_data_files") or state.get("_indices_files"):
        raise UserError(
            f"{folder} is a selection of rows that an old version saved; flatten its indices and save it again"
        )
    for name in names:
        if not (folder / name).is_file():
            raise UserError(f"{folder} lacks {name}, which {STATE_FILE} names; copy the whole folder again")
    return [folder / name for name in names]


def _is_name(name: Any) -> bool:
    """Whether it is that of a file or a folder within another, and no path that leads elsewhere."""
    return isinstance(name, str) and name not in ("", ".", "..") and Path(name).name == name


def _read_json(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(files.read_bytes(path))
    except (OSError, ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise UserError(f"{path} is no JSON object; copy or save the data set again")
    return record


def batches(path: Path) -> Iterator["pyarrow.RecordBatch"]:
    """The rows of an Arrow file, some at a time, mapped. Raises `UserError` where it is damaged or cut."""
    import pyarrow
    import pyarrow.ipc

    raw = map_bytes(path)
    in_a_file = raw[: len(FILE_MAGIC)].tobytes() == FILE_MAGIC
    if not in_a_file and raw[-len(END) :].tobytes() != END:
        raise UserError(f"{path} is cut or no Arrow stream: its end is missing; copy or save it again")
    try:
        source = pyarrow.memory_map(str(path))
        if not in_a_file:
            yield from pyarrow.ipc.open_stream(source)
            return
        reader = pyarrow.ipc.open_file(source)
        for number in range(reader.num_record_batches):
            yield reader.get_batch(number)
    except (pyarrow.ArrowException, OSError) as error:
        reason = (str(error).splitlines() or ["no Arrow"])[0]
        raise UserError(f"{path} is damaged or no Arrow file: {reason}; copy or save it again") from None


def column(path: Path, text_field: str) -> tuple[str, Literal["text", "ids"]]:
    """The column of an Arrow file that is read, and what it holds: `text_field`, or by default ids before text.

    Raises `UserError` where there is none, or it holds something else.
    """
    import pyarrow

    schema = next((batch.schema for batch in batches(path)), None)
    if schema is None:
        raise UserError(f"{path} has no rows; save a data set that has some")
    name = IDS if text_field == TEXT and IDS in schema.names else text_field
    if name not in schema.names:
        raise UserError(
            f"{path} has no column {name!r}; it has {', '.join(map(repr, schema.names)) or 'none'}: name one with "
            f"text_field"
        )
    kind = schema.field(name).type
    if kind in (pyarrow.string(), pyarrow.large_string(), pyarrow.string_view()):
        return name, "text"
    if _is_list(kind) and pyarrow.types.is_integer(kind.value_type):
        return name, "ids"
    raise UserError(f"the column {name!r} of {path} holds {kind}, neither text nor lists of ids; name another")


def _is_list(kind: "pyarrow.DataType") -> bool:
    import pyarrow

    return any(
        test(kind) for test in (pyarrow.types.is_list, pyarrow.types.is_large_list, pyarrow.types.is_fixed_size_list)
    )


def read_rows(path: Path, name: str) -> Iterator[Piece]:
    """The ids of every batch of rows of one file. Raises `UserError` for rows or ids that are null or masked."""
    import pyarrow

    row, before = 0, 0
    for batch in batches(path):
        if name not in batch.schema.names:
            raise UserError(f"{path} has no column {name!r}, which the files before it have; save the data set again")
        lists = batch.column(name)
        try:
            lists.validate(full=True)
        except pyarrow.ArrowException as error:
            raise UserError(f"{path} is damaged from row {row:,} on: {error}; copy or save it again") from None
        _check_masks(path, batch, row)
        ids = lists.flatten()
        if lists.null_count or ids.null_count:
            raise UserError(f"{path}: {name!r} has a null in row {_first_null(lists) + row:,}; leave that row out")
        if len(ids):
            values = signed(_numbers(ids))
            yield Piece(path, values, bounds(_lengths(lists)), f"Arrow column {name!r}, {values.dtype.name}", before)
        row, before = row + len(lists), before + len(ids)


def _numbers(array: "pyarrow.Array") -> NDArray[Any]:
    """Whole numbers without a null where they lie; pyarrow's own `to_numpy` imports pandas, which takes seconds."""
    dtype = np.dtype(str(array.type))
    return np.frombuffer(array.buffers()[1], dtype, len(array), array.offset * dtype.itemsize)


def _lengths(lists: "pyarrow.Array") -> NDArray[Any]:
    """[lists]: the values of each."""
    import pyarrow

    if pyarrow.types.is_fixed_size_list(lists.type):
        return np.full(len(lists), lists.type.list_size)
    return np.diff(_numbers(lists.offsets))


def _first_null(lists: Any) -> int:
    return next((i for i, ids in enumerate(lists.to_pylist()) if ids is None or None in ids), 0)


def _check_masks(path: Path, batch: "pyarrow.RecordBatch", row: int) -> None:
    """Raise `UserError` where a column beside the ids leaves some of them out."""
    import pyarrow
    import pyarrow.compute

    for name, least in {**MASKS, LABELS: 0}.items():
        if name in batch.schema.names and _is_list(batch.schema.field(name).type):
            values = batch.column(name)
            if pyarrow.compute.any(pyarrow.compute.less(values.flatten().cast(pyarrow.int64()), least)).as_py():
                number = next(i for i, one in enumerate(values.to_pylist()) if one and min(one) < least)
                raise UserError(
                    f"{path}: {name!r} leaves ids of row {row + number:,} out, and masks are not supported; save the "
                    f"ids without padding and without that column"
                )


class ArrowText:
    """The text of some Arrow files as documents, one per row; see `sources.Source`. A unit is a file."""

    def __init__(self, name: str, root: Path, paths: list[Path], field: str) -> None:
        self.name = printable(name)
        self._field = field
        self._paths = {
            printable(path.relative_to(root).as_posix()) if path != root else path.name: path for path in paths
        }

    def units(self) -> Iterator[tuple[str, float]]:
        for number, unit in enumerate(self._paths):
            yield unit, number / len(self._paths)

    def documents(self, unit: str, skipped: list[Skipped]) -> Iterator[Document]:
        import pyarrow

        number, missing = 0, 0
        try:
            for batch in batches(self._paths[unit]):
                if self._field not in batch.schema.names:
                    raise Unreadable(f"without the column {self._field!r}")
                for text in batch.column(self._field).cast(pyarrow.large_binary()).to_pylist():
                    number += 1
                    if text is None:
                        missing += 1
                        continue
                    text.decode()
                    yield Document(f"{unit}:{number}", text, unit)
        except UnicodeDecodeError:
            raise Unreadable(f"not UTF-8 in row {number:,}") from None
        except UserError as error:
            raise Unreadable(str(error)) from None
        if missing:
            skipped.append(Skipped(unit, f"{missing} row{'s' * (missing > 1)} without a text"))
