"""Documents as ids, written into every format by its specification, with NumPy alone."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from lmscale.core.config import DataConfig

END = 255
TEXTS = [f"document {i} é " * (1 + i % 3) for i in range(12)]
IDS = [[*text.encode(), END] for text in TEXTS]
DOCUMENTS = {"texts": TEXTS, "ids": IDS}
GOLDEN = Path(__file__).parent.parent / "golden/tokens"


def flat(documents: list[list[int]] = IDS) -> np.ndarray[Any, Any]:
    return np.array([number for ids in documents for number in ids])


def llm_c(path: Path, ids: Any, magic: int = 20240520, version: int = 1, count: int | None = None) -> Path:
    header = np.zeros(256, "<i4")
    header[:3] = magic, version, len(ids) if count is None else count
    dtype = "<u4" if magic == 20240801 else "<u2"
    path.write_bytes(header.tobytes() + np.asarray(ids).astype(dtype).tobytes())
    return path


CODES = {"uint8": 1, "int8": 2, "int16": 3, "int32": 4, "int64": 5, "float64": 6, "float32": 7, "uint16": 8}


def megatron_index(
    lengths: list[int], documents: list[int], dtype: str = "uint16", pointers: list[int] | None = None,
    version: int = 1, modes: list[int] | None = None,
) -> bytes:  # fmt: skip
    size = np.dtype(dtype).itemsize
    pointers = [size * sum(lengths[:i]) for i in range(len(lengths))] if pointers is None else pointers
    header = b"MMIDIDX\0\0" + struct.pack("<QBQQ", version, CODES[dtype], len(lengths), len(documents))
    arrays = (
        np.array(lengths, "<i4").tobytes(),
        np.array(pointers, "<i8").tobytes(),
        np.array(documents, "<i8").tobytes(),
    )
    return header + b"".join(arrays) + bytes(modes or [])


def megatron(prefix: Path, documents: list[list[int]] = IDS, dtype: str = "uint16") -> Path:
    prefix.with_suffix(".bin").write_bytes(flat(documents).astype(np.dtype(dtype).newbyteorder("<")).tobytes())
    lengths = [len(ids) for ids in documents]
    prefix.with_suffix(".idx").write_bytes(megatron_index(lengths, list(range(len(lengths) + 1)), dtype))
    return prefix.with_suffix(".bin")


def data_set(folder: Path, files: dict[str, Any]) -> Path:
    """A folder as `datasets.Dataset.save_to_disk` writes it: the table of each stream."""
    import pyarrow

    folder.mkdir(parents=True)
    for name, table in files.items():
        with pyarrow.OSFile(str(folder / name), "wb") as sink, pyarrow.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table, max_chunksize=3)
    state = {"_data_files": [{"filename": name} for name in files], "_split": None}
    (folder / "state.json").write_text(json.dumps(state), encoding="utf-8")
    (folder / "dataset_info.json").write_text("{}", encoding="utf-8")
    return folder


def config(path: object, **changes: Any) -> DataConfig:
    return DataConfig(source=f"tokens:{path}", **{"validation_fraction": 0.3, **changes})


def write_flat(path: Path, dtype: str, ids: Any = None) -> Path:
    (flat() if ids is None else np.asarray(ids)).astype(dtype).tofile(path)
    return path


def save(path: Path, array: Any) -> Path:
    np.save(path, array)
    return path
