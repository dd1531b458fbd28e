"""Token files that are cut, edited, foreign or set wrongly: one sentence, and nothing is written."""

import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from helpers.token_files import (
    GOLDEN,
    IDS,
    config,
    data_set,
    flat,
    llm_c,
    megatron,
    megatron_index,
    save,
    write_flat,
)

from lmscale.core.config import DataConfig
from lmscale.core.errors import UserError
from lmscale.lm import data

LENGTHS = [len(ids) for ids in IDS]

pytestmark = pytest.mark.usefixtures("own_cache")


def cut(path: Path, to: int) -> Path:
    path.write_bytes(path.read_bytes()[:to])
    return path


def edited(path: Path, at: int, value: bytes) -> Path:
    content = bytearray(path.read_bytes())
    content[at : at + len(value)] = value
    path.write_bytes(content)
    return path


def with_index(at: Path, index: bytes) -> Path:
    megatron(at / "a")
    (at / "a.idx").write_bytes(index)
    return at / "a.bin"


def copied(at: Path, name: str) -> Path:
    if (GOLDEN / name).is_dir():
        return Path(shutil.copytree(GOLDEN / name, at / name))
    for file in GOLDEN.glob(f"{name}*"):
        shutil.copy(file, at / file.name)
    return at / name


N = len(IDS)


BOUNDS = list(range(N + 1))


FIRST = IDS[0]


REFUSALS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "nothing there": (lambda at: at / "none", "there is no file or folder"),
    "no tokens": (lambda at: (at / "a.txt").write_text("a") and at, "holds no tokens"),
    "another ending": (lambda at: (at / "a.txt").write_text("a") and at / "a.txt", "is no file of tokens by its name"),
    "pickle": (lambda at: (at / "meta.pkl").write_bytes(b"x") and at / "meta.pkl", "is no file of tokens by its name"),
    "two formats": (
        lambda at: (write_flat(at / "a.bin", "<u2"), write_flat(at / "b.npy", "<u2")) and at,
        "several formats",
    ),
    "two types": (lambda at: (write_flat(at / "a.bin", "<u2"), write_flat(at / "b.bin", "<u4")) and at, "of one type"),
    "empty": (lambda at: (at / "a.bin").touch() or at / "a.bin", "a.bin is empty"),
    "odd": (lambda at: cut(write_flat(at / "a.bin", "<u2"), 101), "1 is left over"),
    "odd, wide": (lambda at: cut(write_flat(at / "a.npy", "<u4"), 202), "2 are left over"),
    "too large": (
        lambda at: write_flat(at / "a.bin", "<u2", [*FIRST, 256, *FIRST]),
        f"id 256 at position {len(FIRST)}, and",
    ),
    "too large, wide": (
        lambda at: write_flat(at / "a.npy", "<u4", [*FIRST, 1 << 20]),
        f"id 1,048,576 at position {len(FIRST)}",
    ),
    "negative": (lambda at: save(at / "a.npy", np.array([*FIRST, -1])), f"id -1 at position {len(FIRST)}"),
    "overflowing": (lambda at: save(at / "a.npy", np.array([1, 2**64 - 1], np.uint64)), "id -1 at position 1"),
    "big-endian .npy": (lambda at: save(at / "a.npy", flat().astype(">u2")), "big-endian"),
    "floats": (lambda at: save(at / "a.npy", np.ones(3)), "holds float64 of shape"),
    "two dimensions": (lambda at: save(at / "a.npy", np.ones((2, 3), int)), r"of shape \(2, 3\)"),
    "objects": (lambda at: save(at / "a.npy", np.array([{}, 1])), "is no array that NumPy reads: "),
    "cut .npy": (lambda at: cut(save(at / "a.npy", flat()), 400), "is no array that NumPy reads: "),
    "long .npy": (
        lambda at: (at / "a.npy").write_bytes(save(at / "a.npy", flat()).read_bytes() + b"ab") and at / "a.npy",
        "2 bytes follow",
    ),
    "cut llm.c": (lambda at: cut(llm_c(at / "a.bin", flat()), 1100), "76 bytes follow it"),
    "cut header": (
        lambda at: cut(llm_c(at / "a.bin", flat()), 1000),
        "its header has 1,024 bytes, and there are 1,000",
    ),
    "wrong count": (lambda at: llm_c(at / "a.bin", flat(), count=9), "its header counts 9 ids"),
    "negative count": (lambda at: llm_c(at / "a.bin", flat(), count=-9), "its header counts -9 ids"),
    "version": (lambda at: llm_c(at / "a.bin", flat(), version=3), "of version 3 of llm.c's format, and 1 is read"),
    "evaluation": (lambda at: llm_c(at / "a.bin", flat(), magic=20240522), "the examples of an evaluation"),
    "big-endian llm.c": (lambda at: edited(llm_c(at / "a.bin", flat()), 0, struct.pack(">i", 20240520)), "big-endian"),
    "no index of Megatron": (lambda at: with_index(at, b"TNTIDX\0\0" + bytes(40)), "does not begin with MMIDIDX"),
    "big-endian Megatron": (lambda at: with_index(at, megatron_index(LENGTHS, BOUNDS, version=1 << 56)), "big-endian"),
    "version of Megatron": (lambda at: with_index(at, megatron_index(LENGTHS, BOUNDS, version=2)), "is of version 2"),
    "floats of Megatron": (
        lambda at: with_index(at, megatron_index(LENGTHS, BOUNDS, "float32")),
        r"type 7 \(float32\)",
    ),
    "unknown type": (
        lambda at: edited(with_index(at, megatron_index(LENGTHS, BOUNDS)).with_suffix(".idx"), 17, b"\x63"),
        "type 99",
    ),
    "cut index": (lambda at: cut(megatron(at / "a").with_suffix(".idx"), 100), "is cut or wrong: 12 sequences"),
    "cut ids": (lambda at: cut(megatron(at / "a"), 100), "counts 353 ids of uint16, but a.bin holds 50"),
    "type of another": (lambda at: with_index(at, megatron_index(LENGTHS, BOUNDS, "int32")), "cut|holds"),
    "negative pointer": (
        lambda at: with_index(at, megatron_index(LENGTHS, BOUNDS, pointers=[0, -8, *range(N - 2)])),
        "sequence 1 begins at byte -8, below 0",
    ),
    "negative length": (
        lambda at: with_index(at, megatron_index([-1, *LENGTHS[1:]], BOUNDS)),
        "has a length of -1, below 0",
    ),
    "pointer elsewhere": (
        lambda at: with_index(at, megatron_index(LENGTHS, BOUNDS, pointers=[0, 2, *range(N - 2)])),
        "sequence 1 begins at byte 2, but",
    ),
    "documents beyond": (lambda at: with_index(at, megatron_index(LENGTHS, [0, 1 << 40])), "end at 12, the number of"),
    "documents backwards": (
        lambda at: with_index(at, megatron_index(LENGTHS, [0, 5, 3, N])),
        "to rise and to end at 12",
    ),
    "modes": (lambda at: with_index(at, megatron_index(LENGTHS, BOUNDS, modes=[1] * N)), "multimodal"),
    "mask of datatrove": (
        lambda at: (copied(at, "datatrove.ds"), (at / "datatrove.ds.loss").touch())[0],
        "mask of its losses",
    ),
    "cut .ds": (lambda at: cut(copied(at, "datatrove.ds"), 400), "counts 353 ids, but datatrove.ds holds 100"),
    "falling .ds.index": (
        lambda at: (
            edited(copied(at, "datatrove.ds").with_name("datatrove.ds.index"), 8, bytes(8)),
            at / "datatrove.ds",
        )[1],
        "document 1 ends at id 0, before it begins",
    ),
    "cut Arrow": (
        lambda at: (cut(copied(at, "datasets_ids") / "data-00001-of-00002.arrow", 1000), at / "datasets_ids")[1],
        "cut",
    ),
    "missing Arrow": (
        lambda at: ((copied(at, "datasets_ids") / "data-00001-of-00002.arrow").unlink(), at / "datasets_ids")[1],
        "lacks data-00001-of-00002.arrow",
    ),
    "names elsewhere": (
        lambda at: (
            (copied(at, "datasets_ids") / "state.json").write_text('{"_data_files": [{"filename": "../a"}]}'),
            at / "datasets_ids",
        )[1],
        "names no files",
    ),
    "no column": (
        lambda at: data_set(at / "a", {"a.arrow": pyarrow.table({"tokens": IDS})}),
        "no column 'text'; it has 'tokens'",
    ),
    "no ids": (
        lambda at: data_set(at / "a", {"a.arrow": pyarrow.table({"input_ids": [0.5]})}),
        "holds double, neither",
    ),
    "nulls": (
        lambda at: data_set(at / "a", {"a.arrow": pyarrow.table({"input_ids": [*IDS, None]})}),
        "a null in row 12",
    ),
    "null ids": (
        lambda at: data_set(at / "a", {"a.arrow": pyarrow.table({"input_ids": [[1], [2, None]]})}),
        "a null in row 1",
    ),
    "padding": (
        lambda at: data_set(
            at / "a", {"a.arrow": pyarrow.table({"input_ids": [[1, 2]] * 5, "attention_mask": [[1, 1]] * 4 + [[1, 0]]})}
        ),
        "'attention_mask' leaves ids of row 4 out",
    ),
    "labels": (
        lambda at: data_set(at / "a", {"a.arrow": pyarrow.table({"input_ids": [[1, 2]], "labels": [[-100, 2]]})}),
        "'labels' leaves ids of row 0 out",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_wrong_files_get_one_sentence_and_leave_nothing(case: str, tmp_path: Path) -> None:
    make, words = REFUSALS[case]
    (folder := tmp_path / "in").mkdir()
    path = make(folder)
    with pytest.raises(UserError, match=words) as raised:
        data.prepare(config(path))
    assert "\n" not in str(raised.value) and str(path.parent if path.suffix == ".idx" else folder) in str(raised.value)
    assert not [file for file in (tmp_path / "cache").rglob("*") if file.suffix in (".json", ".npy")]
    assert data.find_manifest(config(path)) is None


def test_settings_that_ids_cannot_follow_are_refused(tmp_path: Path) -> None:
    path = megatron(tmp_path / "a")
    with pytest.raises(UserError, match="has no prompts"):
        config(path, prompt_field="prompt")
    with pytest.raises(UserError, match="has no prompts"):
        DataConfig(source="pairs.jsonl", prompt_field="prompt", validation_source=f"tokens:{path}")
    with pytest.raises(UserError, match="names no tokens"):
        config(" ")
    with pytest.raises(UserError, match="is trained on text, but tokens:"):
        data.prepare(config(path, tokenizer="bpe:300"))
    with pytest.raises(UserError, match="compares texts"):
        data.prepare(config(path, near_duplicates=0.8))
