"""Files of `lmscale judge`: rubrics, texts, people's grades and answers, and the key of a page."""

import json
from pathlib import Path
from typing import Any

from helpers.readers.reader import Reader
from lmscale.lm.eval.judge.human import read_human
from lmscale.lm.eval.judge.pairs import Pair
from lmscale.lm.eval.judge.people import FORM, key_path, read_answers, read_key, write_page
from lmscale.lm.eval.judge.rubric import Criterion, Rubric, read_rubric
from lmscale.lm.eval.judge.texts import Author, Text, read_prompts, read_texts

CHOICES = {"name": "age", "question": "How old?", "choices": ["3", "4-5"], "values": [3, 4.5]}
RUBRIC = {
    "name": "own", "instructions": "Grade.", "preference": "Which?", "openings": ["Once"], "source": "own",
    "criteria": [{"name": "plot", "question": "How good?", "lowest": 1, "highest": 10}, CHOICES],
}  # fmt: skip
TOML = """name = "own"
instructions = "Grade."
[[criteria]]
name = "plot"
question = "How good?"
highest = 5
"""
LINE = {"prompt": "p", "text": "t", "model": "m", "params": 9}
HUMAN = {"id": "1", "plot": 3, "age": "3", "rater": "anna"}
TEXTS = [Text("p", f"text {number}", "model", str(number)) for number in range(3)]
PAIR = Pair(Text("p", "one", "small", "1"), Text("p", "two", "large", "2"))


def _file(name: str, content: str) -> Any:
    def write(folder: Path) -> Path:
        (folder / name).write_text(content, "utf-8")
        return folder / name

    return write


def _lines(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def _page(folder: Path) -> Path:
    page = folder / "page.html"
    if not page.exists():
        write_page(page, [PAIR], [Author("small", 1000), Author("large")], "Which?")
    return page


def _key(folder: Path) -> Path:
    return key_path(_page(folder))


def _answers(folder: Path) -> Path:
    _page(folder)
    rows = [{"pair": PAIR.id, "left": "a", "better": "tie"}]
    value = {"form": FORM, "page": read_key(folder / "page.html").page, "rater": "anna", "answers": rows}
    return _file("answers.json", json.dumps(value))(folder)  # type: ignore[no-any-return]


def _human(path: Path) -> Any:
    criteria = (Criterion(name="plot", question="?"), Criterion(name="age", question="?", choices=("3", "4-5")))
    return read_human(path, TEXTS, Rubric(name="own", instructions="Grade.", criteria=criteria))


READERS = (
    Reader("rubric in json", _file("rubric.json", json.dumps(RUBRIC)), lambda path: read_rubric(str(path)), "json"),
    Reader("rubric in toml", _file("rubric.toml", TOML), lambda path: read_rubric(str(path)), "text"),
    Reader(
        "judged texts",
        _file("texts.jsonl", _lines(*({**LINE, "id": n} for n in range(3)))),
        read_texts, "lines",
    ),
    Reader("judged prompts", _file("prompts.jsonl", _lines({"prompt": "a"}, {"prompt": "b"})), read_prompts, "lines"),
    Reader(
        "grades of people", _file("human.jsonl", _lines(HUMAN, {"id": 2})),
        _human, "lines",
    ),
    Reader("key of a page", _key, lambda path: read_key(path.parent / "page.html"), "json"),
    Reader(
        "answers of people", _answers, lambda path: read_answers(path, read_key(path.parent / "page.html")), "json"
    ),
)  # fmt: skip
