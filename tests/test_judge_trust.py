"""Trust in a judge: agreement with people as other programs compute it, self-consistency, length."""

import json
import math
from pathlib import Path
from typing import Any

import krippendorff
import numpy as np
import pytest
from helpers.command_line import call
from helpers.judge_server import Answer, says, serving

from lmscale.core.errors import UserError
from lmscale.core.files import read_json
from lmscale.lm.eval.judge.agreement import agreement, alpha, kappa, mean_kappa
from lmscale.lm.eval.judge.bootstrap import estimate
from lmscale.lm.eval.judge.consistency import length_correlation, self_consistency
from lmscale.lm.eval.judge.grades import Grading
from lmscale.lm.eval.judge.human import read_human
from lmscale.lm.eval.judge.rubric import Criterion, Rubric
from lmscale.lm.eval.judge.texts import Text

RUBRIC = Rubric(
    name="tiny", instructions="Grade.",
    criteria=(Criterion(name="plot", question="?"), Criterion(name="age", question="?", choices=("3", "4-5"))),
)  # fmt: skip
NAN = float("nan")
# Krippendorff, Computing Krippendorff's alpha-reliability (2011), the example with four observers and twelve units
EXAMPLE = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, NAN, NAN, NAN],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NAN, 3],
    [NAN, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NAN],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NAN],
]


def test_alpha_of_the_published_example() -> None:
    assert alpha(np.array(EXAMPLE), nominal=True) == pytest.approx(0.743, abs=5e-4)
    assert alpha(np.array(EXAMPLE)) == pytest.approx(0.849, abs=5e-4)


@pytest.mark.parametrize("seed", range(8))
def test_alpha_is_that_of_the_library(seed: int) -> None:
    rng = np.random.default_rng(seed)
    grades = rng.integers(1, 6, (rng.integers(2, 5), 30)).astype(float)
    grades[rng.random(grades.shape) < 0.3] = NAN
    for level in ("interval", "nominal"):
        theirs = krippendorff.alpha(reliability_data=grades, level_of_measurement=level)
        assert alpha(grades, nominal=level == "nominal") == pytest.approx(theirs, abs=1e-12)


def test_alpha_without_a_value() -> None:
    assert math.isnan(alpha(np.array([[1.0, NAN], [NAN, 2.0]]))), "no text has two grades"
    assert math.isnan(alpha(np.full((3, 4), 1 / 3))), "all grades are one"
    assert math.isnan(alpha(np.zeros((2, 0))))


# 20 grades drawn by numpy, and Cohen's kappa by sklearn.metrics.cohen_kappa_score (1.9.1)
X = np.array([5, 4, 3, 2, 2, 1, 1, 1, 1, 5, 4, 5, 3, 4, 5, 4, 4, 3, 3, 5], float)
Y = np.array([4, 5, 4, 1, 2, 2, 1, 1, 2, 5, 5, 4, 2, 5, 4, 4, 3, 2, 3, 5], float)


def test_kappa_is_that_of_scikit_learn() -> None:
    assert kappa(X, Y) == pytest.approx(0.8433734939759037, abs=1e-12)
    assert kappa(X, Y, nominal=True) == pytest.approx(0.1875, abs=1e-12)
    assert kappa(X, X) == 1 and math.isnan(kappa(X[:0], Y[:0])) and math.isnan(kappa(X * 0, Y * 0))


def test_kappa_with_several_people_counts_their_texts() -> None:
    few = np.where(np.arange(20) < 5, X, NAN)
    expected = (20 * kappa(X, Y) + 5 * 1.0) / 25
    assert mean_kappa(X, np.stack([Y, few])) == pytest.approx(expected)


def test_intervals_are_those_of_a_mean() -> None:
    """For a mean, percentiles of the bootstrap lie 1.96 standard errors from it."""
    values = np.random.default_rng(0).normal(size=400)
    one = estimate(lambda drawn: float(values[drawn].mean()), 400, 4000, 0)
    half = 1.96 * values.std() / 20
    assert one.low == pytest.approx(values.mean() - half, abs=0.006)
    assert one.high == pytest.approx(values.mean() + half, abs=0.006)
    assert estimate(lambda drawn: NAN, 9, 100, 0).low is None and estimate(lambda drawn: 1.0, 1, 100, 0).low is None


def test_agreement_is_over_the_texts_that_both_graded() -> None:
    judge = {str(i): float(value) for i, value in enumerate(X)}
    people = {"anna": {str(i): float(value) for i, value in enumerate(Y)} | {"other": 3.0}}
    both = agreement("plot", judge, people, 300, 0)
    assert both.alpha.value == pytest.approx(alpha(np.stack([X, Y]))) and both.kappa.value == pytest.approx(kappa(X, Y))
    assert both.alpha.low is not None and both.alpha.low < both.alpha.value
    assert both.texts == 20 and math.isnan(both.people_alpha.value)
    assert "reliable" in both.sentence() and "people among themselves" not in both.sentence()
    poor = agreement("plot", judge, {"anna": dict(zip(judge, np.roll(X, 7).tolist()))}, 100, 0)
    assert "not to be relied on" in poor.sentence()
    assert "cannot be measured" in agreement("plot", {"a": 1.0}, {"b": {"c": 1.0}}, 100, 0).sentence()


def gradings(samples: list[list[float]], length: int = 1) -> list[Grading]:
    return [
        Grading(Text("", "x" * length * (1 + number), "m", str(number)), sample, {"plot": value, "age": 0.0}, "")
        for number, values in enumerate(samples)
        for sample, value in enumerate(values)
    ]


def test_a_judge_that_disagrees_with_itself_says_so() -> None:
    plot, age = self_consistency(gradings([[1, 1], [5, 5], [3, 9], [4, 4]]), RUBRIC, 100, 0)
    assert (plot.texts, plot.same, age.same) == (4, 0.75, 1.0)
    assert plot.alpha.value == pytest.approx(alpha(np.array([[1, 5, 3, 4], [1, 5, 9, 4]], float)))
    assert plot.sentence().startswith("plot: the judge disagrees with itself: it gives 75% of 4 texts the same grade")
    assert "too little to rely on one sample" in plot.sentence()
    assert age.sentence() == "age: the judge gives each of 4 texts the same grade in all samples"
    assert self_consistency(gradings([[1], [2]]), RUBRIC, 100, 0) == []


def test_longer_texts_get_higher_grades() -> None:
    up = length_correlation(gradings([[float(i)] for i in range(20)]), "plot", 100, 0)
    down = length_correlation(gradings([[float(-i)] for i in range(20)]), "plot", 100, 0)
    assert (up.value, down.value) == (pytest.approx(1.0), pytest.approx(-1.0))
    assert math.isnan(length_correlation([], "plot", 100, 0).value)


def write(file: Path, *rows: Any) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


TEXTS = [Text("p", "one", "m", "1"), Text("p", "two", "m", "2"), Text("q", "one", "m", "3")]


def test_grades_of_people_by_id_and_by_text(tmp_path: Path) -> None:
    rows = [
        {"id": "1", "plot": 3, "age": "4-5"}, {"prompt": "q", "text": "one", "rater": "anna", "plot": 7, "age": None},
        {"text": "one", "plot": 2}, {"id": 2, "plot": 1},
    ]  # fmt: skip
    grades, sentences = read_human(write(tmp_path / "h.jsonl", *rows), TEXTS, RUBRIC)
    assert [(one.id, one.rater, one.grades) for one in grades] == [
        ("1", "human", {"plot": 3.0, "age": 1.0}), ("3", "anna", {"plot": 7.0}), ("2", "human", {"plot": 1.0}),
    ]  # fmt: skip
    assert sentences == ["1 of 4 grades of people are of other texts than those judged"]


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([{"id": "1", "plt": 3}], "there is no field or criterion 'plt'; did you mean 'plot'?"),
        ([{"id": "1", "plot": 11}], "plot = 11: it is a whole number from 1 to 10"),
        ([{"id": "1", "plot": "3"}], "plot = '3'"),
        ([{"id": "1", "age": "12"}], "it is one of"),
        ([{"id": "1"}, {"id": "1"}], "'human' grades the text '1' a second time"),
        ([{"id": "9", "plot": 3}], "grades none of the 3 texts"),
        ([], "grades none of the 3 texts"),
        ([{"plot": 3}], "the field 'text' is missing"),
        ([{"id": "1", "rater": 3}], "must be a str"),
    ],
)
def test_grades_of_people_that_cannot_be_used(rows: list[Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        read_human(write(tmp_path / "h.jsonl", *rows), TEXTS, RUBRIC)
    assert sentence in str(caught.value)


@pytest.mark.long
def test_the_verb_states_how_far_to_trust(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A judge that grades by length, whose second sample is one lower for texts of even length."""
    monkeypatch.setenv("LMSCALE_CACHE", str(tmp_path / "cache"))
    rubric = {"name": "r", "instructions": "Grade.", "criteria": [{"name": "plot", "question": "?"}]}
    (tmp_path / "r.json").write_text(json.dumps(rubric))
    texts = write(tmp_path / "t.jsonl", *({"text": "x" * n, "model": "m", "id": n} for n in range(2, 11)))
    human = write(tmp_path / "h.jsonl", *({"id": n, "rater": who, "plot": n} for n in range(2, 11) for who in "ab"))

    def script(body: dict[str, Any], number: int) -> Answer:
        length = body["messages"][1]["content"].count("x")
        return says(json.dumps({"plot": length - (body["seed"] == 1 and length % 2 == 0)}))

    words = ("--rubric", tmp_path / "r.json", "--samples", 2, "--human", human, "--json", tmp_path / "o.json")
    with serving(script) as running:
        assert call("judge", texts, "--server", running.url, "--model", "m", *words) == 0
    printed = capsys.readouterr().out
    assert "plot: the judge disagrees with itself: it gives 44% of 9 texts the same grade" in printed
    assert "agreement with people, plot: alpha 0.9" in printed and "people among themselves: alpha 1.00" in printed
    assert "length, plot: longer texts get higher grades, rank correlation 1.00" in printed
    value = read_json(tmp_path / "o.json")
    assert value["agreement"][0]["texts"] == 9 and value["agreement"][0]["people"] == 2
    assert value["self_consistency"][0]["same"] == pytest.approx(4 / 9)
