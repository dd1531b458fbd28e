"""A damaged benchmark file is one sentence, or the task that it still holds; never a traceback."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.readers.tasks import BIGBENCH, GSM8K, OWN, WIC

from lmscale.core.errors import UserError
from lmscale.lm.eval.tasks import Response, Shots, load, prompt, scores
from lmscale.lm.eval.tasks.files import MOST_BYTES

FILES: dict[str, tuple[str, Any]] = {
    "bigbench": ("task.json", BIGBENCH), "task": ("own.json", OWN), "wic": ("val.jsonl", WIC),
    "gsm8k": ("test.jsonl", GSM8K), "stories": ("stories.yaml", ["Once", "Twice"]),
    "mmlu": ("math_test.csv", "q,1,2,3,4,A\nr,1,2,3,4,B\n"),
    "truthfulqa": ("TruthfulQA.csv", "Question,Best Answer,Correct Answers,Incorrect Answers\nq,Yes,Yes;No,Never\n"),
}  # fmt: skip
HOSTILE = [None, True, -1, 0.5, 10**400, 1e400, float("nan"), "", "(", "\ud800", [], {}, [[1]], {"a": {}}, [None]]


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def damaged(value: Any, bad: Any) -> Iterator[Any]:
    """`value` with each of its parts replaced by `bad`, and each field left out."""
    yield bad
    if isinstance(value, dict):
        for name in value:
            yield {other: item for other, item in value.items() if other != name}
            yield from ({**value, name: item} for item in damaged(value[name], bad))
    elif isinstance(value, list):
        for number, one in enumerate(value):
            yield from ([*value[:number], item, *value[number + 1 :]] for item in damaged(one, bad))


def sentence_or_scores(spec: str) -> str:
    """The sentence, or nothing where the file is read: its prompts and scores can then be made."""
    try:
        for task in load(spec):
            for item in task.items:
                prompt(task, item, Shots(0))
            task.answer_in("some text. 42")
            answers = [
                Response(item.name, (-1.0,) * len(item.choices), (), (-1.0,) * len(item.answers), (), "x")
                for item in task.items
            ]
            scores(task, answers)
    except UserError as error:
        assert len(str(error)) < 1000
        return str(error)
    return ""


@pytest.mark.long
@pytest.mark.parametrize("name", ["bigbench", "task", "wic", "gsm8k", "stories"])
@pytest.mark.parametrize("bad", [*HOSTILE, nested(500)], ids=lambda bad: re.sub(r"\W", "", repr(bad))[:12])
def test_wrong_types_and_missing_fields(name: str, bad: Any, tmp_path: Path) -> None:
    file, value = tmp_path / FILES[name][0], FILES[name][1]
    for content in damaged(value, bad):
        file.write_text(json.dumps(content))
        sentence = sentence_or_scores(f"{name}:{file}")
        assert not sentence or str(file) in sentence or "item" in sentence or "task" in sentence, sentence


@pytest.mark.parametrize("name", FILES)
def test_bytes_flipped_and_cut(name: str, tmp_path: Path) -> None:
    file, value = tmp_path / FILES[name][0], FILES[name][1]
    whole = (value if isinstance(value, str) else json.dumps(value)).encode()
    file.write_bytes(whole)
    assert sentence_or_scores(f"{name}:{file}") == ""
    rng = np.random.default_rng(0)
    for _ in range(100):
        content = bytearray(whole)
        content[rng.integers(len(content))] = rng.integers(256)
        file.write_bytes(content[: rng.integers(len(content)) + 1] if rng.random() < 0.5 else content)
        sentence_or_scores(f"{name}:{file}")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"\x1f\x8b\x08\x00\xff\xff", "not UTF-8 text; unpack it first"),
        (b"\xff\xfe", "not UTF-8 text"),
        (b"[" * 200_000, "nested too deeply|is not|not a|missing"),
        (b'{"a":' * 200_000, "nested too deeply|is not|not a|missing"),
    ],
)
def test_what_is_no_text_or_too_deep(name: str, content: bytes, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / FILES[name][0]
    file.write_bytes(content)
    assert re.search(sentence, sentence_or_scores(f"{name}:{file}"))


@pytest.mark.long
def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "a pipe or a device" in sentence_or_scores(f"task:{tmp_path / 'pipe'}")
    assert "a pipe or a device" in sentence_or_scores("task:/dev/zero")
    assert "there is no" in sentence_or_scores("task:a\0b")
    assert "no file can have this name" in sentence_or_scores("task:" + "x" * 5000)
    with (tmp_path / "large.json").open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    assert "no benchmark has" in sentence_or_scores(f"task:{tmp_path / 'large.json'}")
    (tmp_path / "closed.json").write_text("{}")
    (tmp_path / "closed.json").chmod(0)
    if os.geteuid():
        assert "Permission denied" in sentence_or_scores(f"task:{tmp_path / 'closed.json'}")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[" * 100_000, "is nested too deeply: more than 100 lists or maps"),
        ('{"a":' * 100_000, "is nested too deeply: more than 100 lists or maps"),
        ("- &a [x]\n- *a\n", "has an alias, [*]a; write what it stands for"),
        ("- !!python/object:os.system x\n", "is not YAML"),
    ],
)
def test_yaml_that_would_take_all_time_or_memory(text: str, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "stories.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=f"^{re.escape(str(file))}.* ?{sentence}"):
        load(f"stories:{file}")
