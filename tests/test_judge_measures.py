"""What is measured without a judge, against known values and other programs."""

import io
import json
import math
import stat
from pathlib import Path

import numpy as np
import pytest
from helpers.command_line import call
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
from rich.console import Console

from lmscale.commands.judge.measure_texts import _show
from lmscale.core.errors import UserError
from lmscale.core.files import read_json
from lmscale.lm.eval.judge.grammar import grammar_errors
from lmscale.lm.eval.judge.measures import distinct, measure, readability, repeated, words
from lmscale.lm.eval.judge.self_bleu import self_bleu
from lmscale.lm.eval.judge.texts import Author, Text

STORY = "The cat sat on the mat. The dog didn't see the cat, and the cat didn't mind."


def drawn_texts(seed: int) -> list[list[str]]:
    rng = np.random.default_rng(seed)
    vocabulary = [f"w{i}" for i in range(rng.integers(3, 30))]
    return [rng.choice(vocabulary, rng.integers(1, 40)).tolist() for _ in range(rng.integers(2, 9))]


@pytest.mark.parametrize("seed", range(12))
def test_self_bleu_is_that_of_nltk(seed: int) -> None:
    texts = drawn_texts(seed)
    smooth = SmoothingFunction().method1
    theirs = [
        sentence_bleu([*texts[:i], *texts[i + 1 :]], text, smoothing_function=smooth) for i, text in enumerate(texts)
    ]
    assert self_bleu(texts) == pytest.approx(theirs, abs=1e-12)


def test_self_bleu_at_its_ends() -> None:
    same = ["a", "b", "c", "d", "e"]
    assert self_bleu([same, same]) == [1.0, 1.0] and self_bleu([same, list("vwxyz")]) == [0.0, 0.0]
    assert self_bleu([[], same])[0] == 0.0
    with pytest.raises(ValueError, match="compares a text with others"):
        self_bleu([same])


def test_distinct_and_repeated() -> None:
    assert words(STORY)[8:10] == ["didn't", "see"] and words("Él dijo: ¡no!") == ["él", "dijo", "no"]
    assert distinct(list("aabb"), 1) == 0.5 and distinct(list("abab"), 2) == pytest.approx(2 / 3)
    assert math.isnan(distinct(["a"], 2))
    assert repeated(list("abcdabcd")) == pytest.approx(1 / 5) and repeated(list("abcde")) == 0


def test_readability_by_its_formulas() -> None:
    """4.71 characters per word + .5 words per sentence - 21.43 (Smith and Senter), marks counted."""
    formulas = readability()
    letters = sum(map(len, STORY.split()))
    assert formulas["readability_grade"](STORY) == pytest.approx(4.71 * letters / 17 + 0.5 * 17 / 2 - 21.43)
    assert formulas["reading_age_years"](STORY) == pytest.approx(formulas["readability_grade"](STORY) + 5)
    hard = "Institutional considerations necessitate comprehensive epistemological reconsideration throughout academia."
    assert all(formula(hard) > formula(STORY) for formula in formulas.values())


AUTHORS = [Author("small", 1e3), Author("large", 1e6)]


def texts_of(**by_author: list[str]) -> list[Text]:
    return [Text("", text, name, f"{name}-{i}") for name, own in by_author.items() for i, text in enumerate(own)]


def test_models_are_measured_on_as_many_words_and_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    texts = texts_of(small=["one two one two.", "three four"], large=["one two one two.", "three four", "five " * 90])
    rows, sentences = measure(texts, AUTHORS)
    values = {(row["model"], row["metric"]): row for row in rows}
    for name in ("distinct_1", "distinct_2", "distinct_3", "self_bleu"):
        assert values["small", name]["score"] == values["large", name]["score"], name
    assert values["small", "distinct_1"]["score"] == pytest.approx(4 / 6)
    assert values["small", "distinct_2"]["score"] == pytest.approx(3 / 4), "no pair goes from one text into the next"
    assert values["large", "repeated_4grams"]["score"] == pytest.approx((0 + 86 / 87) / 2)
    assert values["large", "words"]["score"] == pytest.approx(96 / 3) and values["large", "words"]["n"] == 3
    assert not values["large", "self_bleu"]["higher_is_better"] and values["large", "distinct_1"]["higher_is_better"]
    assert "first 6 words of every model, self-BLEU of its first 2 texts" in sentences[0]
    assert "errors of grammar are not counted: no `languagetool`" in sentences[1]
    assert {row["params"] for row in rows} == {1e3, 1e6}


def test_measures_are_as_wide_for_many_models_as_for_one() -> None:
    rows = [
        {"model": f"m{one}", "params": 1e3 * one, "metric": metric, "score": 0.5, "stderr": error}
        for one in range(1, 30)
        for metric, error in (("words", 0.25), ("self_bleu", None))
    ]
    console = Console(file=io.StringIO(), width=80, color_system=None)
    _show(rows, console)
    assert isinstance(console.file, io.StringIO)
    title, heads, first, *others = console.file.getvalue().splitlines()
    assert heads.split() == ["model", "N", "words", "self_bleu"] and title.startswith("mean ± standard error")
    assert first.split() == ["m1", "1k", "0.500", "±", "0.250", "0.500"] and len(others) == 28
    assert max(map(len, (title, heads, first, *others))) <= 80


def test_texts_without_words() -> None:
    with pytest.raises(UserError, match="the texts of small have no words"):
        measure(texts_of(small=["...", "!"], large=["one"]), AUTHORS)


def tool(folder: Path, script: str) -> Path:
    file = folder / "languagetool"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return file


MATCHES = {"matches": [{"rule": {"issueType": kind}} for kind in ("misspelling", "grammar", "style")]}


def test_errors_of_grammar_by_a_local_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it calls style is no error; lines before its JSON are passed over."""
    file = tool(tmp_path, f"cat > {tmp_path}/read; echo working; echo '{json.dumps(MATCHES)}'")
    assert grammar_errors(["One.", "Two."], str(file)) == 2
    assert (tmp_path / "read").read_text() == "One.\n\nTwo."
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    rows, sentences = measure(texts_of(small=["one two three four"], large=["one two three"]), AUTHORS)
    scores = {row["model"]: row["score"] for row in rows if row["metric"] == "grammar_errors_per_100_words"}
    assert scores == {"small": pytest.approx(50.0), "large": pytest.approx(200 / 3)} and len(sentences) == 1


@pytest.mark.parametrize("script", ["echo oops >&2; exit 3", "echo '{}'", "echo '{\"matches\": 3}'", "echo '[1, {]'"])
def test_a_tool_that_fails_is_one_sentence(script: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did not list errors of grammar as JSON"):
        grammar_errors(["One."], str(tool(tmp_path, script)))


def test_the_verb_measures_without_a_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"text": STORY + str(i), "model": name} for name in ("small", "large") for i in range(3)]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert call("judge", tmp_path / "t.jsonl", "--offline", "--json", tmp_path / "o.json") == 0
    printed = capsys.readouterr().out
    assert "self_bleu" in printed and "reading_age_years" in printed
    assert {row["task"] for row in read_json(tmp_path / "o.json")["rows"]} == {"offline"}
