"""Tensors in safetensors files: one file, or several and an index that says which tensor lies where."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from lmscale.core.config import check
from lmscale.core.errors import UserError
from lmscale.core.files import FETCH_AGAIN, open_regular, read_json, storage_error, write_json
from lmscale.core.text import checked_name

WEIGHTS_FILE, INDEX_FILE = "model.safetensors", "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
SHARD_BYTES = 5_000_000_000
"""Largest file, unless one tensor is larger."""
READ_AS = {"F32": "float32", "BF16": "bfloat16", "F16": "float32", "F64": "float32"}
"""Type in a file -> type of our parameters. Half precision widens without loss; double precision is rounded."""


def write_weights(folder: Path, tensors: Mapping[str, NDArray[Any]], shard_bytes: int = SHARD_BYTES) -> None:
    """Write `model.safetensors`, or numbered files and an index where the tensors exceed `shard_bytes`.

    Raises `StorageError` where the disk is full.
    """
    shards = list(_shards(tensors, shard_bytes))
    if len(shards) == 1:
        _write(folder / WEIGHTS_FILE, shards[0])
        return
    names = [f"model-{number:05d}-of-{len(shards):05d}.safetensors" for number in range(1, len(shards) + 1)]
    for name, shard in zip(names, shards):
        _write(folder / name, shard)
    size = sum(tensor.nbytes for tensor in tensors.values())
    weight_map = {tensor: name for name, shard in zip(names, shards) for tensor in shard}
    write_json(folder / INDEX_FILE, {"metadata": {"total_size": size}, "weight_map": weight_map})


def _shards(tensors: Mapping[str, NDArray[Any]], shard_bytes: int) -> Iterator[dict[str, NDArray[Any]]]:
    shard: dict[str, NDArray[Any]] = {}
    for name, tensor in tensors.items():
        if shard and sum(value.nbytes for value in shard.values()) + tensor.nbytes > shard_bytes:
            yield shard
            shard = {}
        shard[name] = tensor
    yield shard


def _write(path: Path, tensors: dict[str, NDArray[Any]]) -> None:
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    try:
        save_file(tensors, path, metadata={"format": "pt"})
        expected = sum(tensor.nbytes for tensor in tensors.values())
        check(path.stat().st_size >= expected, f"{path} is shorter than its {expected:,} bytes of tensors")
    except SafetensorError as error:
        raise storage_error(path, _os_error(error, path)) from None
    except OSError as error:
        raise storage_error(path, error) from error


def _os_error(error: Exception, path: Path) -> OSError:
    """The system's error behind one of the library safetensors, which gives its number in words alone."""
    words = str(error)
    number = words.rpartition("os error ")[2].rstrip(")} ")
    return OSError(int(number) if number.isdigit() else 0, words, str(path))


def read_weights(folder: Path) -> dict[str, NDArray[Any]]:
    """Name -> array of every tensor in a folder, in float32 or bfloat16.

    Raises `UserError` where there are none, where a file is damaged or cut, where the index and the files disagree, for
    tensors of another type, and for pickles, which are never opened.
    """
    check(folder.is_dir(), f"there is no folder {folder}; give one with config.json and {WEIGHTS_FILE}")
    tensors: dict[str, NDArray[Any]] = {}
    index = folder / INDEX_FILE
    if index.exists():
        value = read_json(index, "index of tensors", FETCH_AGAIN)
        weight_map = value.get("weight_map") if isinstance(value, dict) else None
        if not isinstance(weight_map, dict) or not weight_map:
            raise UserError(f"{index} has no mapping weight_map; copy it again")
        for name in sorted({checked_name(name, f"a file in {index}") for name in weight_map.values()}):
            tensors |= _read(folder / name)
        missing = sorted(set(weight_map) - set(tensors))
        check(not missing, f"{index} lists {missing[:1]}, which its file does not hold; copy the folder again")
        return tensors
    if (folder / WEIGHTS_FILE).exists():
        return _read(folder / WEIGHTS_FILE)
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
    check(
        not pickles,
        f"{folder} holds its weights as {', '.join(pickles[:3])}, a pickle, which can run code and is never opened; "
        f"save the model with safe_serialization=True, or take the revision with {WEIGHTS_FILE}",
    )
    raise UserError(f"{folder} holds no model: there is no {WEIGHTS_FILE} and no {INDEX_FILE}")


def _read(path: Path) -> dict[str, NDArray[Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        open_regular(path).close()  # the library would wait for the other end of a pipe
        with safe_open(path, framework="numpy") as file:
            tensors = {}
            for name in file.keys():  # noqa: SIM118 - not a mapping
                kind = file.get_slice(name).get_dtype()
                check(
                    kind in READ_AS,
                    f"the tensor {name} in {path} is of type {kind}; lmscale reads {', '.join(READ_AS)}",
                )
                dtype = np.dtype(jnp.bfloat16 if READ_AS[kind] == "bfloat16" else np.float32)
                tensors[name] = np.asarray(file.get_tensor(name)).astype(dtype, copy=False)
            return tensors
    except FileNotFoundError:
        raise UserError(f"there is no file {path}, which the index names; copy the folder again") from None
    except (SafetensorError, json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{path} is cut or damaged ({str(error)[:200]}); copy it again") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
