"""Megatron's pairs of files: ids in PREFIX.bin, where sequences and documents begin in PREFIX.idx.

The index (`megatron/core/datasets/indexed_dataset.py` in NVIDIA/Megatron-LM), little-endian without padding: the magic
b"MMIDIDX\\0\\0", a version (uint64, 1), a code of the type of ids (uint8), the numbers of sequences and of document
bounds (uint64 each), then the length of every sequence in ids (int32), the byte that it begins at (int64), and the
sequence that each document begins at, with the number of sequences at last (int64); of multimodal data also a mode of
each sequence (int8). datatrove and NeMo write the same.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmscale.core.errors import UserError
from lmscale.lm.data.corpora.token_files.flat import signed
from lmscale.lm.data.corpora.token_files.layout import Piece, bounds, map_bytes, whole_ids

MAGIC = b"MMIDIDX\0\0"
HEADER = np.dtype([("magic", "V9"), ("version", "<u8"), ("code", "u1"), ("sequences", "<u8"), ("bounds", "<u8")])
DTYPES = {1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 6: "<f8", 7: "<f4", 8: "<u2"}


def read_megatron(path: Path) -> Piece:
    """The ids of a .bin by the index beside it. Raises `UserError` where that is none, is cut, or the two disagree."""
    index = path.with_suffix(".idx")
    dtype, lengths, pointers, documents = _read_index(index)
    ids = whole_ids(path, map_bytes(path), dtype.str)
    _check_sequences(index, path, lengths, pointers, ids)
    _check_documents(index, documents, len(lengths))
    ends = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    starts = bounds(np.diff(ends[documents]))
    return Piece(path, signed(ids), starts, f"Megatron .bin and .idx, {dtype.name}")


def _read_index(path: Path) -> tuple[np.dtype[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """The type of ids, the length and first byte of every sequence, and the bounds of documents in sequences."""
    raw = map_bytes(path)
    if raw[: len(MAGIC)].tobytes() != MAGIC or len(raw) < HEADER.itemsize:
        raise UserError(f"{path} is no index of Megatron: it does not begin with MMIDIDX and a header; write it again")
    header = raw[: HEADER.itemsize].view(HEADER)[0]
    version, code = int(header["version"]), int(header["code"])
    if version != 1:
        reversed_ = " with its bytes reversed: it was written big-endian" if version == 1 << 56 else ""
        shown = 1 if reversed_ else version
        raise UserError(f"{path} is of version {shown}{reversed_}; version 1, little-endian, is read: write it so")
    if code not in DTYPES or np.dtype(DTYPES[code]).kind not in "iu":
        what = np.dtype(DTYPES[code]).name if code in DTYPES else "unknown"
        raise UserError(f"{path} says that its ids are of type {code} ({what}), not whole numbers; write it again")
    sequences, documents = int(header["sequences"]), int(header["bounds"])
    size = HEADER.itemsize + 12 * sequences + 8 * documents
    modes = raw[size:] if len(raw) == size + sequences else raw[:0]
    if len(raw) != size + len(modes):
        raise UserError(
            f"{path} is cut or wrong: {sequences:,} sequences and {documents:,} bounds of documents take {size:,} "
            f"bytes, and it has {len(raw):,}; copy it again"
        )
    if modes.any():
        raise UserError(f"{path} is of multimodal data, whose modes are not supported; write the text alone")
    cuts = np.cumsum([HEADER.itemsize, 4 * sequences, 8 * sequences, 8 * documents])
    lengths, pointers, begins = (raw[a:b].view(kind) for a, b, kind in zip(cuts, cuts[1:], ("<i4", "<i8", "<i8")))
    return np.dtype(DTYPES[code]), lengths, pointers, begins


def _check_sequences(index: Path, path: Path, lengths: NDArray[Any], pointers: NDArray[Any], ids: NDArray[Any]) -> None:
    """Raise `UserError` unless the sequences lie one after the other and are all of the ids."""
    for what, values in (("has a length of", lengths), ("begins at byte", pointers)):
        if (wrong := np.flatnonzero(values < 0)).size:
            raise UserError(
                f"{index}: sequence {wrong[0]:,} {what} {values[wrong[0]]:,}, below 0; the index is damaged or has "
                f"overflowed, so write it again"
            )
    begins = np.cumsum(np.concatenate([[0], lengths]), dtype=np.int64) * ids.itemsize
    if (wrong := np.flatnonzero(pointers != begins[:-1])).size:
        number = int(wrong[0])
        raise UserError(
            f"{index}: sequence {number:,} begins at byte {pointers[number]:,}, but those before it end at "
            f"{begins[number]:,}; the index is damaged or of another type of ids, so write it again"
        )
    if begins[-1] != ids.nbytes:
        raise UserError(
            f"{index} counts {begins[-1] // ids.itemsize:,} ids of {ids.dtype.name}, but {path.name} holds "
            f"{len(ids):,}; they do not belong together or one is cut, so copy both again"
        )


def _check_documents(index: Path, documents: NDArray[Any], sequences: int) -> None:
    """Raise `UserError` unless the documents are all of the sequences, in order."""
    if not len(documents) or documents[0] != 0 or documents[-1] != sequences or (np.diff(documents) < 0).any():
        raise UserError(
            f"{index}: its documents are to begin at sequence 0, to rise and to end at {sequences:,}, the number of "
            f"sequences, and they do not; the index is damaged, so write it again"
        )
