"""Files that are one row of ids, with a header or without, and the document ends that datatrove puts beside them.

nanoGPT (`data/openwebtext/prepare.py` in karpathy/nanoGPT): no header, little-endian uint16, each document closed by
the end of a text; variants for larger vocabularies hold uint32.

llm.c (`dev/data/data_common.py` in karpathy/llm.c), also read by modded-nanogpt: 256 int32, of which the first are a
magic number, a version and the number of ids; then the ids, uint16 after 20240520 and uint32 after 20240801. The end of
a text opens each document there.

OLMo (`docs/source/guides/data_loading.rst` in allenai/OLMo-core): files that are named .npy but are bare memory maps of
uint16 or uint32, the smaller that holds the vocabulary; a true .npy begins with NumPy's own header.

datatrove (`pipeline/tokens/tokenizer.py`): bare uint16 or uint32 in .ds, the cumulated ends of documents as uint64 in
.ds.index, the tokenizer and the bytes per id in .ds.metadata.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmscale.core.errors import UserError
from lmscale.lm.data.corpora.token_files.layout import Piece, bounds, map_bytes, whole_ids

HEADER_BYTES = 1024
HEADERS = {20240520: ((1,), "<u2"), 20240801: ((1, 7), "<u4")}
"""Magic number -> versions and the type of ids. llm.c writes version 7 with uint32, forks of it 1."""
EVALUATION_MAGIC = 20240522
NPY_MAGIC = b"\x93NUMPY"
LEADING_IDS = 1 << 20
LEAST_SHARE = 0.75
"""Share of small numbers at odd places: the upper halves of uint32 are all small, few uint16 are."""


def read_bin(path: Path, vocab: int) -> Piece:
    """A .bin file. Raises `UserError` where it is cut, of another kind, or its header and its size disagree."""
    raw = map_bytes(path)
    magic = int(raw[:4].view("<u4")[0]) if len(raw) >= 4 else 0
    if magic in HEADERS:
        versions, dtype = HEADERS[magic]
        return Piece(path, _after_header(path, raw, versions, dtype), None, f"llm.c .bin, {np.dtype(dtype).name}")
    if magic == EVALUATION_MAGIC:
        raise UserError(f"{path} holds the examples of an evaluation (llm.c, {magic}), not a text; name one of text")
    if len(raw) >= 4 and int(raw[:4].view(">u4")[0]) in (*HEADERS, EVALUATION_MAGIC):
        raise UserError(f"{path} has the header of llm.c with its bytes reversed: {_big_endian()}")
    ids = _bare(path, raw, vocab)
    return Piece(path, ids, None, f"nanoGPT .bin, {ids.dtype.name} without a header")


def _big_endian() -> str:
    return "it was written big-endian; write its ids little-endian"


def _after_header(path: Path, raw: NDArray[np.uint8], versions: tuple[int, ...], dtype: str) -> NDArray[Any]:
    if len(raw) < HEADER_BYTES:
        raise UserError(
            f"{path} is cut: its header has {HEADER_BYTES:,} bytes, and there are {len(raw):,}; copy it again"
        )
    _, version, count = raw[:12].view("<i4").tolist()
    if version not in versions:
        known = " or ".join(map(str, versions))
        raise UserError(f"{path} is of version {version} of llm.c's format, and {known} is read; write it as that")
    size = len(raw) - HEADER_BYTES
    if count < 0 or size != count * np.dtype(dtype).itemsize:
        raise UserError(
            f"{path}: its header counts {count:,} ids of {np.dtype(dtype).itemsize} bytes, but {size:,} bytes follow "
            f"it; it is cut or its header is wrong, so copy or write it again"
        )
    return raw[HEADER_BYTES:].view(dtype)


def _bare(path: Path, raw: NDArray[np.uint8], vocab: int) -> NDArray[Any]:
    """Ids without a header: uint32 where most of every second uint16 could be an upper half, else uint16."""
    uppers = raw[: min(len(raw) // 4, LEADING_IDS) * 4].view("<u2")[1::2]
    four_bytes = len(uppers) and float(np.mean(uppers <= (vocab - 1) >> 16)) > LEAST_SHARE
    return whole_ids(path, raw, "<u4" if four_bytes else "<u2")


def read_npy(path: Path, vocab: int) -> Piece:
    """A .npy file, NumPy's own or a bare memory map. Raises `UserError` for what is no row of whole numbers."""
    raw = map_bytes(path)
    if raw[: len(NPY_MAGIC)].tobytes() != NPY_MAGIC:
        ids = _bare(path, raw, vocab)
        return Piece(path, ids, None, f"OLMo .npy, {ids.dtype.name} without a header")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError, OverflowError, MemoryError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} is no array that NumPy reads: {reason}; copy or write it again") from None
    if array.dtype.kind not in "iu" or array.ndim != 1:
        raise UserError(
            f"{path} holds {array.dtype} of shape {array.shape}, and ids are whole numbers in one dimension; write it "
            f"so"
        )
    if array.dtype.byteorder == ">":
        raise UserError(f"{path} holds {array.dtype}: {_big_endian()}")
    if not len(array):
        raise UserError(f"{path} holds no ids; write it again, or leave it out")
    if (rest := len(raw) - array.offset - array.nbytes) != 0:
        raise UserError(f"{path}: {rest:,} bytes follow the {len(array):,} ids that its header counts; write it again")
    return Piece(path, signed(np.asarray(array)), None, f".npy, {array.dtype.name}")


def signed(ids: NDArray[Any]) -> NDArray[Any]:
    """uint64 as int64, which NumPy counts and indexes by; ids beyond it become negative, and so are refused."""
    return ids.view(np.int64) if ids.dtype == np.uint64 else ids


def read_ds(path: Path, vocab: int) -> Piece:
    """A .ds file with its .index and .metadata. Raises `UserError` where they disagree, and for a mask of losses."""
    if (mask := beside(path, ".loss")).exists():
        raise UserError(
            f"{path} has a mask of its losses, {mask.name}, which is not supported; write the ids without it"
        )
    raw = map_bytes(path)
    size = _bytes_per_id(beside(path, ".metadata"))
    ids = _bare(path, raw, vocab) if size is None else whole_ids(path, raw, f"<u{size}")
    index = beside(path, ".index")
    words = f"datatrove .ds, {ids.dtype.name}"
    if not index.exists():
        return Piece(path, ids, None, words)
    ends = whole_ids(index, map_bytes(index), "<u8").astype(np.int64)
    lengths = np.diff(ends, prepend=0)
    if (wrong := np.flatnonzero(lengths < 0)).size:
        number = int(wrong[0])
        raise UserError(f"{index}: document {number:,} ends at id {ends[number]:,}, before it begins; write it again")
    if ends[-1] != len(ids):
        raise UserError(
            f"{index} counts {ends[-1]:,} ids, but {path.name} holds {len(ids):,}; they do not belong together or one "
            f"is cut, so copy both again"
        )
    return Piece(path, ids, bounds(lengths), f"{words} with its index")


def beside(path: Path, ending: str) -> Path:
    """The file whose name has `ending` after that of `path`."""
    return path.with_name(path.name + ending)


def _bytes_per_id(metadata: Path) -> int | None:
    """What a .ds.metadata says in the end of its first line, as in "gpt2|2"; None where it says nothing."""
    try:
        first = metadata.read_text(encoding="utf-8").partition("\n")[0]
    except (OSError, ValueError):
        return None
    size = first.rpartition("|")[2].strip()
    return int(size) if size in ("2", "4") else None
