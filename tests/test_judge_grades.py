"""Grades: what a judge is asked, how strictly it is read, and what its answers come to."""

import json
import math
import subprocess
import sys
import threading
import tomllib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.command_line import call
from helpers.judge_server import Answer, error, says, serving

from lmscale.core.errors import UserError
from lmscale.core.files import read_json
from lmscale.lm.eval.judge.replies import Reply, Unreadable, read_grades, read_preference
from lmscale.lm.eval.judge.rubric import Criterion, Rubric, read_rubric
from lmscale.lm.eval.judge.texts import read_prompts, read_texts

GOOD = {"grammar": 7, "creativity": 4, "consistency": 8, "plot": 5, "age_group": "6-7"}
TINY = Rubric(name="tiny", instructions="Grade.", criteria=(Criterion(name="plot", question="How good?", highest=5),))


def test_tinystories_asks_what_the_paper_asks() -> None:
    rubric = read_rubric("tinystories")
    assert [criterion.name for criterion in rubric.criteria] == list(GOOD)
    assert "2305.07759" in rubric.source and len(rubric.openings) == 10
    system, user = rubric.grading("Once", "upon a time")
    assert all(f'"{name}": ' in system["content"] for name in GOOD) and '"4-5"' in system["content"]
    assert user["content"].index("Once") < user["content"].index("upon a time")
    assert "Beginning" not in rubric.grading("", "upon a time")[1]["content"]
    _, pair = rubric.comparing("Once", "first", "second")
    assert pair["content"].index("A:") < pair["content"].index("first") < pair["content"].index("B:")


def test_a_grade_is_a_number_on_its_scale() -> None:
    rubric = read_rubric("tinystories")
    read = read_grades(Reply(json.dumps(GOOD)), rubric)
    assert read == {"grammar": 7.0, "creativity": 4.0, "consistency": 8.0, "plot": 5.0, "age_group": 6.5}


@pytest.mark.parametrize(
    "content", ['{"plot": 3}', '  {"plot": 3}\n', '```json\n{"plot": 3}\n```', '```\n{"plot": 3}\n```',
                '<think>{"plot": 5} or less?</think>\n{"plot": 3}'],
)  # fmt: skip
def test_an_answer_that_counts(content: str) -> None:
    assert read_grades(Reply(content), TINY) == {"plot": 3.0}


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ('{"plot": 6}', "malformed"), ('{"plot": 0}', "malformed"), ('{"plot": 3.0}', "malformed"),
        ('{"plot": "3"}', "malformed"), ('{"plot": true}', "malformed"), ('{"plot": null}', "malformed"),
        ('{"plot": 3, "more": 1}', "malformed"), ("{}", "malformed"), ("[3]", "malformed"), ("3", "malformed"),
        ('{"plot": 3, "plot": 4}', "malformed"), ('I say {"plot": 3}', "malformed"),
        ('{"plot": 3} {"plot": 3}', "malformed"),
        ("", "malformed"), ('{"plot": ' + "[" * 100_000, "malformed"), ('{"plot": NaN}', "malformed"),
        ("I'm sorry, but I cannot grade this.", "refused"), ("As an AI I have no opinion.", "refused"),
        ('I cannot say more than {"plot": 3}', "malformed"),
    ],
)  # fmt: skip
def test_an_answer_that_does_not_count(content: str, kind: str) -> None:
    read = read_grades(Reply(content), TINY)
    assert isinstance(read, Unreadable) and read.kind == kind and len(read.reason) < 200


def test_what_the_server_marks() -> None:
    refused = Reply("", refusal="no"), Reply('{"plot": 3}', "content_filter")
    assert [read_grades(reply, TINY).kind for reply in refused] == ["refused"] * 2  # type: ignore[union-attr]
    cut = read_grades(Reply('{"plot"', "length"), TINY)
    assert cut == Unreadable("malformed", "it was cut at the largest number of tokens")


def test_preferences() -> None:
    assert [read_preference(Reply(f'{{"better": "{side}"}}')) for side in ("A", "B", "tie")] == ["A", "B", "tie"]
    for content in ('{"better": "C"}', '{"better": "a"}', '{"better": ["A"]}', "A", '{"best": "A"}'):
        assert isinstance(read_preference(Reply(content)), Unreadable)


TOML = """
name = "mine"
instructions = "Grade."
[[criteria]]
name = "plot"
question = "How good?"
"""


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("r.toml", TOML.replace("instructions", "instruction"), "no field 'instruction'; did you mean 'instructions"),
        ("r.toml", TOML.replace("question", "queston"), "criterion 1 has no field 'queston'; did you mean 'question'?"),
        ("r.toml", TOML + "lowest = 9\nhighest = 3", "goes from 9 to 3"),
        ("r.toml", TOML + "lowest = 1.5", "Criterion.lowest = 1.5"),
        ("r.toml", TOML + 'choices = ["a"]', "has one choice"),
        ("r.toml", TOML + 'choices = ["a", "a"]', "has a choice twice"),
        ("r.toml", TOML + 'choices = ["a", "b"]\nvalues = [1]', "has 2 choices and 1 values"),
        ("r.toml", TOML + 'choices = ["a", "b"]\nvalues = [1, nan]', "values are at most"),
        ("r.toml", TOML.replace('"plot"', '"the plot"'), "its name is a column"),
        ("r.toml", TOML + TOML[TOML.index("[["):], "has a criterion twice"),
        ("r.toml", TOML[: TOML.index("[[")], "has no criteria"),
        ("r.toml", TOML[: TOML.index("[[")] + "criteria = 3", "criteria is a int"),
        ("r.toml", "name = ", "is not TOML"),
        ("r.json", "[]", "is a list: a mapping of fields is expected"),
        ("r.json", "{", "is not JSON"),
        ("r.json", "", "is not JSON"),
        ("r.txt", TOML, "no file that ends in .toml or .json"),
    ],
)  # fmt: skip
def test_a_rubric_that_cannot_be_used(name: str, text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError) as caught:
        read_rubric(str(tmp_path / name))
    assert sentence in str(caught.value)


def test_toml_and_json_say_the_same(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(TOML)
    (tmp_path / "r.json").write_text(json.dumps(tomllib.loads(TOML)))
    assert read_rubric(str(tmp_path / "r.toml")) == read_rubric(str(tmp_path / "r.json"))
    with pytest.raises(UserError, match="did you mean 'tinystories'"):
        read_rubric("tinystory")
    with pytest.raises(UserError, match="cannot be read: No such file"):
        read_rubric("absent.toml")


def write_lines(file: Path, *rows: Any) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_texts_of_a_file(tmp_path: Path) -> None:
    rows = [
        {"prompt": "p", "text": "one", "model": "small", "params": 1000, "id": 7}, {"text": "two"},
        {"text": "three", "model": "small", "params": 1000},
    ]  # fmt: skip
    texts, authors = read_texts(write_lines(tmp_path / "t.jsonl", *rows))
    assert [(text.prompt, text.text, text.model, text.id) for text in texts] == [
        ("p", "one", "small", "7"), ("", "two", "t", "t-1"), ("", "three", "small", "t-2"),
    ]  # fmt: skip
    assert [(author.name, author.params) for author in authors] == [("small", 1000), ("t", None)]


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([], "has no texts"),
        ([{"prompt": "p"}], "the field 'text' is missing"),
        ([{"text": 3}], "must be a str"),
        ([{"text": "  "}], "is empty"),
        ([{"text": "x" * 100_001}], "a text of 100,001 characters"),
        ([{"text": "a", "params": 0}], "N of a model is above 0"),
        ([{"text": "a", "params": 1}, {"text": "b", "params": 2}], "has another N than before"),
        ([{"text": "a", "id": "x"}, {"text": "b", "id": "x"}], "the id 'x' names two texts"),
        ([["a"]], "a list stands where an object is expected"),
    ],
)
def test_texts_that_cannot_be_judged(rows: list[Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        read_texts(write_lines(tmp_path / "t.jsonl", *rows))
    assert sentence in str(caught.value)


def test_prompts(tmp_path: Path) -> None:
    for name, text in [("p.yaml", "- one\n- |\n  two\n"), ("p.txt", "one\n\ntwo\n"),
                       ("p.jsonl", '{"prompt": "one"}\n{"prompt": "two"}\n')]:  # fmt: skip
        (tmp_path / name).write_text(text)
        assert read_prompts(tmp_path / name) == ["one", "two"]
    for name, text in [("p.yaml", "a: b"), ("p.txt", "\n"), ("p.jsonl", ""), ("p.yaml", "[]")]:
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError):
            read_prompts(tmp_path / name)


def by_length(body: dict[str, Any], number: int) -> Answer:
    """Grades a text by its length, so that every number is known."""
    text = body["messages"][1]["content"].split("<continuation>\n")[1].split("\n</continuation>")[0]
    return says(json.dumps({"plot": min(5, len(text))}))


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with texts of two models and a rubric, and a cache of its own."""
    monkeypatch.setenv("LMSCALE_CACHE", str(tmp_path / "cache"))
    small = [{"prompt": "p", "text": "x" * n, "model": "small", "params": 10} for n in (1, 2, 3)]
    large = [{"prompt": "p", "text": "y" * n, "model": "large", "params": 99} for n in (4, 5)]
    write_lines(tmp_path / "texts.jsonl", *large, *small)
    (tmp_path / "rubric.json").write_text(json.dumps({**asdict(TINY), "openings": []}))
    return tmp_path


def judge(files: Path, url: str, *words: object) -> int:
    asked = ("--server", url, "--model", "m", "--rubric", files / "rubric.json")
    return call("judge", files / "texts.jsonl", *asked, *words)


@pytest.mark.long
def test_the_verb_grades_and_counts(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def script(body: dict[str, Any], number: int) -> Answer:
        bad = {"x": "I'm sorry, I can't.", "xx": "nice"}
        return next((says(say) for text, say in bad.items() if f"\n{text}\n" in body["messages"][1]["content"]),
                    by_length(body, number))  # fmt: skip

    with serving(script) as running:
        assert judge(files, running.url, "--json", files / "out.json", "--price", 2, 4) == 0
        assert len(running.bodies) == 5
        printed = capsys.readouterr().out
        assert judge(files, running.url) == 0
        assert len(running.bodies) == 5, "the second call pays nothing"
    assert "5 requests, 0 of them answered before" in printed and "at the price given" in printed
    assert "5 requests answered: 500 tokens read and 50 written, 0.0012 at the price given" in printed
    assert "1 of 5 answers are refusals" in printed and "1 of 5 answers are malformed" in printed
    value = read_json(files / "out.json")
    (row,) = value["rows"]  # one text of the small model is left, too few for a standard error
    assert (row["model"], row["params"], row["metric"], row["kind"]) == ("large", 99, "plot", "graded")
    assert row["score"] == 4.5 and math.isclose(row["stderr"], np.std([4, 5], ddof=1) / math.sqrt(2))
    assert [one["grades"] for one in value["grades"]] == [{"plot": 4}, {"plot": 5}, None, None, {"plot": 3}]
    assert "5 requests, 5 of them answered before" in capsys.readouterr().out


def test_a_dry_run_asks_nothing(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(by_length) as running:
        assert judge(files, running.url, "--dry-run", "--samples", 3, "--requests-per-minute", 30) == 0
        assert not running.bodies
    printed = capsys.readouterr().out
    assert "15 requests" in printed and "at least 30 s" in printed
    assert "nothing was asked (--dry-run)" in printed and "<continuation>\nyyyy\n" in printed


def test_a_call_that_failed_goes_on_where_it_was(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(lambda body, number: error(400, "full") if number == 3 else by_length(body, number)) as running:
        assert judge(files, running.url, "--parallel", 1) == 2
        message = capsys.readouterr().err
        assert "3 of 5 answers are there and kept" in message and message.count("\n") == 1
        assert judge(files, running.url, "--parallel", 1) == 0
        assert len(running.bodies) == 4 + 2


@pytest.mark.long
def test_a_call_that_was_killed_goes_on_where_it_was(files: Path) -> None:
    """SIGKILL in the middle of five answers: those that had come are not asked for again."""
    ready = threading.Event()

    def script(body: dict[str, Any], number: int) -> Answer:
        if number < 3:
            return by_length(body, number)
        ready.set()
        return replace(by_length(body, number), delay_seconds=0.0 if number > 3 else 60.0)

    with serving(script) as running:
        words = ["judge", files / "texts.jsonl", "--server", running.url, "--model", "m", "--parallel", 1]
        command = [sys.executable, "-m", "lmscale", *map(str, words), "--rubric", str(files / "rubric.json")]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            assert ready.wait(120)
        finally:
            process.kill()
            process.wait()
        assert judge(files, running.url, "--parallel", 1) == 0
        assert len(running.bodies) == 3 + 1 + 2


def test_a_judge_of_whom_nothing_can_be_read(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(lambda *_: says("What a story!")) as running:
        assert judge(files, running.url, "--json", files / "out.json") == 2
    assert "none of 5 answers of m could be read as grades" in capsys.readouterr().err
    assert len(read_json(files / "out.json")["grades"]) == 5, "what it said is there all the same"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--server", "http://u:p@127.0.0.1/v1", "--model", "m"), "holds a name, a password, a query or a key"),
        (("--server", "http://127.0.0.1:9/v1"), "--server needs --model NAME"),
        (("--model", "m"), "say who judges"),
        ((), "say who judges"),
        (("--server", "http://127.0.0.1:9/v1", "--model", "m", "--samples", "0"), "0 samples"),
        (("--server", "http://127.0.0.1:9/v1", "--model", "m", "--body", "[]"), "--body is no object"),
        (("--server", "http://127.0.0.1:9/v1", "--model", "m", "--body", "{"), "--body is not JSON"),
        (("--server", "http://127.0.0.1:9/v1", "--model", "m", "--price", "-1", "1"), "0 or more"),
        (("--server", "http://127.0.0.1:9/v1", "--model", "m", "--attempts", "1"), "cannot be reached"),
        (("--server", "http://127.0.0.1:9/v1", "--model", "m", "--key-variable", "NO_KEY"), "NO_KEY is not set"),
    ],
)  # fmt: skip
def test_bad_calls_are_one_sentence(
    words: tuple[str, ...], sentence: str, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("judge", files / "texts.jsonl", *words) == 2
    message = capsys.readouterr().err
    assert sentence in message and message.startswith("lmscale: ") and message.count("\n") == 1


def test_what_is_no_text(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (files / "empty.jsonl").write_text("")
    (files / "folder").mkdir()
    server = ("--server", "http://127.0.0.1:9/v1", "--model", "m")
    for paths, sentence in [
        ((files / "empty.jsonl",), "has no texts"), ((files / "absent.jsonl",), "cannot be read: No such file"),
        ((files / "folder",), "is neither a run nor a sweep"), ((), "name what is to be judged"),
        ((files / "texts.jsonl", files / "texts.jsonl"), "names two texts"),
    ]:  # fmt: skip
        assert call("judge", *paths, *server) == 2
        message = capsys.readouterr().err
        assert sentence in message and message.count("\n") == 1
