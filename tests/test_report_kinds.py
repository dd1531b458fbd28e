"""A report asks and answers what its kind of sweep is for, draws what shows it, and contradicts nothing."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lmscale.core.errors import UserError
from lmscale.study import report
from lmscale.study.report import studies
from lmscale.study.report.charts import studies as charts
from lmscale.study.report.kinds import kind_of, repeated


def loss(params: float, tokens: float) -> float:
    return 1.5 + 60 * params**-0.4 + 300 * tokens**-0.38


def row(params: float, tokens: float, rate: float = 0.01, best: float = 0.01, **more: float | str) -> dict[str, object]:
    """A run whose loss is a parabola in ln(rate) about the best."""
    nats = loss(params, tokens) + 0.02 * np.log(rate / best) ** 2
    return {
        "params": params,
        "tokens": tokens,
        "flops": 6 * params * tokens,
        "loss_nats": nats,
        "peak_lr": rate,
        **more,
    }


RATES = (0.0025, 0.005, 0.01, 0.02, 0.04)
SIZES = (1e4, 4e4, 1.6e5)
KINDS: dict[str, tuple[Callable[[], list[dict[str, object]]], str, str]] = {
    "rates": (
        lambda: [row(n, 1e6, rate, 0.01 * (n / 4e4) ** -0.4) for n in SIZES for rate in RATES],
        "Which peak learning rate is best",
        "goes as N^-0.40",
    ),
    "transfer": (
        lambda: [
            row(n, 1e6, rate, 0.01 * (n / 4e4) ** power, parametrization=name)
            for name, power in (("standard", -0.4), ("mup", 0.0))
            for n in SIZES
            for rate in RATES
        ],
        "Does the best learning rate stay where it was",
        "it stays there",
    ),
    "seeds": (
        lambda: [{**row(1e5, 1e6, seed=seed), "loss_nats": 2 + 0.01 * (-1) ** seed} for seed in range(8)],
        "By how much do losses differ between runs that differ in their seed alone?",
        "by a standard deviation of 0.011 nats",
    ),
    "data": (
        lambda: [row(1e5, tokens) for tokens in (1e6, 2e6, 4e6, 8e6)],
        "What do more training tokens buy",
        f"from {loss(1e5, 1e6):.4f} to {loss(1e5, 8e6):.4f}",
    ),
    "sizes": (
        lambda: [row(params, 1e7) for params in SIZES],
        "What do more parameters buy",
        f"from {loss(1e4, 1e7):.4f} to {loss(1.6e5, 1e7):.4f}",
    ),
    "repeats": (
        lambda: [
            {**row(n, 4e6, unique_tokens=4e6 / e, epochs=e), "loss_nats": loss(n, 4e6 / e**0.2)}
            for n in (3e4, 2e5)
            for e in (1, 4, 16, 40)
        ],
        "What is a token worth that the model has seen before?",
        "N = 30.0k: from 1 to 40 passes",
    ),
}


def text_of(page: Path) -> str:
    body = re.sub(r"<svg.*?</svg>|<style>.*?</style>", " ", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body))


@pytest.mark.long
@pytest.mark.parametrize("name", KINDS)
def test_a_sweep_is_reported_by_what_it_varies(name: str, tmp_path: Path) -> None:
    simulate, question, answer = KINDS[name]
    pd.DataFrame(simulate()).to_csv(tmp_path / "runs.csv", index=False)
    page = report.of_table(tmp_path / "runs.csv", tmp_path / "report", resamples=5)
    text = text_of(page)
    assert question in text and answer in text, text[:2000]
    assert (tmp_path / "report" / "figures" / f"{name}.svg").is_file() and (page.parent / "fits.json").is_file()
    for other in ("20 tokens per parameter", "could be fitted", "every run of the table was fitted", "cannot answer"):
        assert other not in text, other
    assert "Scaling laws of" not in text and f"{kind_of(pd.DataFrame(simulate())).title} runs" in text
    asked = report.of_table(tmp_path / "runs.csv", tmp_path / "asked", resamples=5, question="Mine?")
    assert "Mine?" in text_of(asked) and question not in text_of(asked)


def test_scored_runs_are_reported_as_scores_and_lead_to_the_verb_that_judges_them(tmp_path: Path) -> None:
    table = pd.DataFrame([{"run": f"{n:.0f}", **row(n, 1e6)} for n in SIZES])
    assert kind_of(table, scored=True).title == "Benchmark scores of" and kind_of(table).title != "Benchmark scores of"
    (tmp_path / "runs" / "10000").mkdir(parents=True)
    (tmp_path / "runs" / "10000" / "scores.jsonl").write_text("{}\n")
    table.to_csv(tmp_path / "runs.csv", index=False)
    page = report.of_table(tmp_path / "runs.csv", tmp_path / "report", runs_folder=tmp_path / "runs")
    text = text_of(page)
    assert "At which model size does each ability appear?" in text and "Benchmark scores of runs" in text
    assert (
        "allow no verdict" in text
        and "lmscale emergence on their folder" in text
        and "20 tokens per parameter" not in text
    )


@pytest.mark.long
def test_a_page_is_about_one_stage_and_names_the_others(tmp_path: Path) -> None:
    lengths = (1e6, 2e6, 4e6, 8e6)
    before = [row(1e5, tokens, stage="pretrain", run=f"before {tokens:g}") for tokens in lengths]
    after = [row(2e5, tokens / 10, stage="fine-tune", run=f"after {tokens:g}") for tokens in lengths]
    pd.DataFrame([*before, *after]).to_csv(tmp_path / "runs.csv", index=False)
    for stage, n, d, others in ((None, 1e5, 1e6, after), ("fine-tune", 2e5, 1e5, before)):
        text = text_of(report.of_table(tmp_path / "runs.csv", tmp_path / "report", resamples=5, stage=stage))
        assert "What do more training tokens buy" in text and f"from {loss(n, d):.4f} to {loss(n, 8 * d):.4f}" in text
        assert all(f"{run['run']}" in text for run in others) and f"of the stage {others[0]['stage']}" in text
    with pytest.raises(UserError, match="stage = 'fine': the table holds"):
        report.of_table(tmp_path / "runs.csv", tmp_path / "report", stage="fine")


@pytest.mark.long
def test_the_law_of_the_sweep_is_the_one_that_is_fitted(tmp_path: Path) -> None:
    ladder = pd.DataFrame([row(n, d) for n in SIZES for d in (1e6, 4e6, 1.6e7)])
    ladder.to_csv(tmp_path / "runs.csv", index=False)
    page = report.of_table(tmp_path / "runs.csv", tmp_path / "report", resamples=3, law="kaplan")
    assert [fit["law"] for fit in json.loads((page.parent / "fits.json").read_text())["fits"]] == ["kaplan"]


def test_valleys_and_ladders_are_for_a_law() -> None:
    ladder = pd.DataFrame([row(n, d) for n in SIZES for d in (1e6, 4e6, 1.6e7)])
    valleys = pd.DataFrame([row(n, c / n / 6, flops_budget=c) for c in (1e11, 3e11, 9e11) for n in SIZES])
    tuned = pd.DataFrame([row(n, c / n / 6, rate=300 / n) for c in (1e11, 3e11) for n in SIZES])
    for table in (ladder, valleys, tuned, ladder.head(0)):
        assert kind_of(table).fits_law


def test_sizes_and_lengths_close_to_the_next_are_no_single_one() -> None:
    """Neighbours 2 % apart over a factor 7: groups that grow from neighbour to neighbour would make them one."""
    dense = np.geomspace(1e5, 7e5, 100)
    assert kind_of(pd.DataFrame([row(n, 1e6) for n in dense])).name == "sizes"
    assert kind_of(pd.DataFrame([row(1e5, d) for d in dense])).name == "data"


def test_runs_of_many_lengths_that_see_no_text_twice_are_no_repeats() -> None:
    rows = [row(n, d, unique_tokens=d, epochs=1.0) for n in SIZES for d in np.geomspace(1e6, 1e7, 120)]
    assert not len(repeated(pd.DataFrame(rows)))
    cell = [row(1e5, 1e6, unique_tokens=text, epochs=1e6 / text) for text in (1e6, 5e5, 2.5e5, np.nan)]
    assert len(repeated(pd.DataFrame(cell))) == 3


def many(kind: str) -> pd.DataFrame:
    """Runs at 100 lengths, or of 100 sizes, each at several rates or on ever shorter texts."""
    values = np.geomspace(1e4, 1e8, 100)
    rows = {
        "lengths": [row(1e5, 100 * value, rate) for value in values for rate in RATES],
        "sizes": [row(value, 1e6, rate) for value in values for rate in RATES],
        "repeats": [row(value, 4e6, unique_tokens=4e6 / e, epochs=e) for value in values for e in (1, 4, 16)],
    }[kind]
    return pd.DataFrame(rows).assign(run=[f"r{index}" for index in range(len(rows))])


@pytest.mark.long
@pytest.mark.parametrize(
    ("kind", "hint"),
    [("lengths", "The 8 largest of 100 budgets or lengths are shown"), ("sizes", "at 10 of 100 sizes,"),
     ("repeats", "10 of 100 sizes and lengths")],
)  # fmt: skip
def test_of_a_hundred_budgets_or_sizes_the_page_answers_and_draws_some_and_says_so(kind, hint):
    runs = many(kind)
    of = kind_of(runs)
    sentences, panels, drawn = studies.answer(of, runs), studies.panels(of, runs), charts.panels(of, runs)
    assert hint in " ".join(sentences) and len(sentences) <= 12
    assert len(panels) == len(drawn) == (studies.MOST_PANELS if kind == "lengths" else 1)
    assert [title for title, _, _ in panels][-1] == ("D = 10.0B" if kind == "lengths" else panels[-1][0])
    assert all(title == chart.title for (title, _, _), chart in zip(panels, drawn)) or kind == "repeats"
    assert ("8 largest of 100" in panels[0][1]) == (kind == "lengths")


def test_a_rate_that_diverged_brackets_the_best(tmp_path: Path) -> None:
    """The same losses fall towards the largest rate that held; the next one diverged at every size but the last."""
    rows = [row(n, 1e6, rate, best=0.02, state="finished") for n in SIZES for rate in RATES[:4]]
    lost = [row(n, 1e6, 0.04, state="diverged") | {"loss_nats": np.nan} for n in SIZES[:2]]
    path = tmp_path / "t.csv"
    pd.DataFrame([*rows, *lost]).to_csv(path, index=False)
    page = report.of_table(path, tmp_path / "report").read_text("utf-8")
    (sentence,) = set(re.findall(r"the best peak learning rate is [^<]*? at N = 160k [^<]*?\)", page))
    assert sentence.count("at the edge of the rates") == 1 and sentence.count("0.02 at N") == 3
    drawn = pd.read_csv(tmp_path / "report" / "figures" / "rates.csv")
    assert np.isfinite(drawn["y"]).all()


def checkpoints() -> list[dict[str, object]]:
    """Runs at five rates with two points inside of each schedule, where higher rates seem worse than they end."""
    ends = [row(n, 1e6, rate, run=f"{n:g} {rate}", portion_steps_elapsed=1.0) for n in SIZES for rate in RATES]
    inside = [
        {**end, "tokens": share * 1e6, "flops": share * float(str(end["flops"])), "portion_steps_elapsed": share,
         "loss_nats": float(str(end["loss_nats"])) + 20 * float(str(end["peak_lr"]))}
        for end in ends for share in (0.25, 0.5)
    ]  # fmt: skip
    return ends + inside


@pytest.mark.long
def test_points_inside_a_schedule_are_no_final_losses_on_a_page_of_rates(tmp_path: Path) -> None:
    pd.DataFrame(checkpoints()).to_csv(tmp_path / "runs.csv", index=False)
    page = report.of_table(tmp_path / "runs.csv", tmp_path / "out", resamples=0).read_text("utf-8")
    assert "D = 1.00M: the best peak learning rate is 0.01 at" in page and "D = 500k" not in page
    assert "30 of 45 rows are points inside a decaying schedule, not final losses: left out" in page
    constant = pd.DataFrame(checkpoints()).assign(schedule="constant")
    constant.to_csv(tmp_path / "constant.csv", index=False)
    page = report.of_table(tmp_path / "constant.csv", tmp_path / "other", resamples=0).read_text("utf-8")
    assert "D = 500k" in page and "inside a decaying schedule" not in page
