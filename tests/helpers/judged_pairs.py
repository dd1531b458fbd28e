"""Texts of three models on twelve prompts, pairs of them, and a judge that likes long ones."""

import json
import re
from pathlib import Path
from typing import Any

from helpers.command_line import call
from helpers.judge_server import Answer, Running, says
from lmscale.lm.eval.judge.pairs import Pair
from lmscale.lm.eval.judge.texts import Text

SIZES = {"small": 1e4, "middle": 1e5, "large": 1e6}


def text(model: str, number: int, content: str | None = None) -> Text:
    return Text(f"prompt {number}", content or f"{model} {number}", model, f"{model}-{number}")


def pair(a: str = "small", b: str = "large", number: int = 0) -> Pair:
    return Pair(text(a, number), text(b, number))


def write_texts(folder: Path) -> None:
    """texts.jsonl: texts of three models on twelve prompts; larger models write longer texts."""
    rows = [
        {"prompt": f"prompt {i}", "text": "</script>" + name[0] * (k + 1), "model": name, "params": params,
         "id": f"{name}-{i}"}
        for i in range(12) for k, (name, params) in enumerate(SIZES.items())
    ]  # fmt: skip
    (folder / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


CONTINUATION = re.compile(r"<continuation>\n(.*?)\n</continuation>", re.DOTALL)


def prefers_length(body: dict[str, Any], number: int) -> Answer:
    """The longer text, but of the two shorter ones always the first."""
    first, second = CONTINUATION.findall(body["messages"][1]["content"])
    if "l" in first[9:] or "l" in second[9:]:
        return says(json.dumps({"better": "A" if len(first) > len(second) else "B"}))
    return says('{"better": "A"}')


def compare(files: Path, running: Running, *words: object) -> int:
    server = ("--server", running.url, "--model", "m", "--resamples", 200)
    return call("judge", *words, *server, "--json", files / "out.json")
