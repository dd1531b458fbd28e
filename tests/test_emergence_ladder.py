"""What small models predict of large ones, what examples in the prompt add, and the figures of both."""

import numpy as np
import pandas as pd
import pytest

from lmscale.core.errors import UserError
from lmscale.study import emergence, plots
from lmscale.study.emergence.ladder import ladder
from lmscale.study.emergence.shots import gains

SIZES = np.geomspace(1e6, 1e11, 10)


def runs(middle=1.2, noise=0.005, compute_only=False, seed=0):
    """A ladder of known law: 6 sizes at 4 lengths, the largest compute held out; the sigmoid's middle in task loss."""
    rng = np.random.default_rng(seed)
    params, ratio = (grid.ravel() for grid in np.meshgrid(np.geomspace(2e8, 3e9, 6), [10, 20, 50, 100]))
    tokens = params * ratio
    loss = 0.5 + 2e3 / params**0.4 + 5e3 / tokens**0.4
    score = 0.25 + 0.6 / (1 + np.exp(8 * (loss - middle)))
    table = pd.DataFrame({"params": params, "tokens": tokens, "flops": 6 * params * tokens})
    table["task_loss"] = loss + rng.normal(0, 0.3 * noise, len(table))
    table["score"] = score + rng.normal(0, noise, len(table))
    table["held_out"] = table["flops"] > 1e21
    return table.drop(columns=["params", "tokens"]) if compute_only else table


def test_a_ladder_predicts_larger_models():
    fit = ladder(runs(), chance=0.25)
    assert fit.fitted_runs >= 10 and len(fit.held_out) >= 4
    assert fit.mean_error < 0.05 and fit.can_predict
    assert fit.inside >= 0.75
    text = str(fit)
    assert "measured" in text and "missed by" in text


@pytest.mark.long
def test_the_error_law_predicts_scores_that_follow_it_and_a_sigmoid_nearly():
    table = runs()
    table["score"] = 0.2 + 1.2 * np.exp(-1.5 * table["task_loss"])
    law, sigmoid = (ladder(table, chance=0.2, link=link) for link in ("error-law", "sigmoid"))
    for one, other in zip(law.held_out, sigmoid.held_out):
        assert 0.43 < one.measured < 0.5 and 0.3 < table["score"][~table["held_out"]].max() < 0.43
        assert one.predicted == pytest.approx(one.measured, abs=0.004)
        assert other.predicted == pytest.approx(one.measured, abs=0.004)


def test_a_foot_cannot_be_predicted_from_models_at_chance():
    table = runs()
    late = table.assign(score=0.25 + np.where(table["held_out"], 0.4, 0.0) + np.tile([0.004, -0.004], 12))
    fit = ladder(late, chance=0.25)
    assert not fit.can_predict
    assert any("no foot can be predicted" in status.sentence for status in fit.status)
    assert fit.to_json()["can_predict"] is False


@pytest.mark.long
def test_the_interval_of_one_new_model_holds_it():
    inside = [ladder(runs(seed=seed, noise=0.01), chance=0.25, resamples=60).inside for seed in range(12)]
    assert np.mean(inside) >= 0.8


def test_compute_alone_will_do():
    fit = ladder(runs(compute_only=True), chance=0.25)
    assert fit.inputs == ("flops",) and fit.mean_error < 0.06


def test_a_run_to_come_has_no_score_yet():
    table = runs()
    table.loc[table["held_out"], "score"] = np.nan
    fit = ladder(table, chance=0.25)
    assert np.isnan(fit.mean_error) and all(one.measured is None for one in fit.held_out)
    assert fit.to_json()["mean_error"] is None


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda t: t.drop(columns="task_loss"), "needs the column 'task_loss'"),
        (lambda t: t[t["held_out"]], "0 runs to fit"),
        (lambda t: t.assign(score=np.nan), "all of them finite"),
    ],
)
def test_a_ladder_refuses_what_it_cannot_fit(spoil, message):
    with pytest.raises(UserError, match=message):
        ladder(spoil(runs()), chance=0.25)
    with pytest.raises(UserError, match="did you mean 'sigmoid'"):
        ladder(runs(), chance=0.25, link="sigmod")  # type: ignore[arg-type]


def test_what_examples_add_is_a_graded_score():
    zero = np.full(10, 0.3)
    few = 0.3 + 0.4 * np.clip((np.linspace(0, 1, 10) - 0.5) / 0.5, 0, 1)
    columns = {"task": "t", "metric": "acc", "kind": "hard", "params": SIZES, "n": 1000, "chance": 0.25}
    table = pd.concat([pd.DataFrame(columns).assign(shots=s, correct=1000 * y) for s, y in ((0, zero), (5, few))])
    added = gains(table)
    assert np.allclose(added["score"], few - zero)
    n = 1000 / (1 + 999 * 0.003)
    assert added["stderr"].iloc[0] == pytest.approx(np.sqrt(2 * 0.3 * 0.7 / n), rel=0.01)
    (finding,) = emergence.detect(added, "params", resamples=0).findings
    assert finding.cls == "emergent" and finding.curve.metric == "acc gained by examples"
    with pytest.raises(UserError, match="column 'shots' with 0"):
        gains(table[table["shots"] == 5])


@pytest.fixture(scope="module")
def findings():
    rise = np.clip((np.linspace(0, 1, 10) - 0.6) / 0.4, 0, 1)
    columns = {"task": "t", "params": SIZES}
    hard = pd.DataFrame({**columns, "metric": "acc", "kind": "hard", "n": 500, "chance": 0.25})
    hard["correct"] = np.rint(500 * (0.25 + 0.4 * rise))
    soft = pd.DataFrame({**columns, "metric": "bits", "kind": "graded", "stderr": 0.05, "higher_is_better": 0})
    soft["score"] = np.linspace(3, 1, 10)
    return emergence.detect(pd.concat([hard, soft]), "params", resamples=20).findings


def test_a_figure_shows_chance_threshold_and_every_point(findings):
    hard, soft = findings
    with plots.style():
        _, axes = plots.canvas(8, 4, panels=2)
        plots.hard_and_graded(axes, hard, soft)
    above, below = axes
    points = next(line for line in above.lines if line.get_marker() == "o")
    assert np.allclose(points.get_ydata(), hard.curve.score_S)
    horizontal = [line.get_ydata()[0] for line in above.lines if len(set(line.get_ydata())) == 1]
    assert 0.25 in horizontal
    vertical = [line.get_xdata()[0] for line in above.lines if len(set(line.get_xdata())) == 1]
    assert hard.threshold in vertical
    assert below.yaxis_inverted() and "metric-induced" in above.get_title(loc="left")
    assert "parameters" in below.get_xlabel() and above.get_ylabel() == "acc"
    with pytest.raises(UserError, match="one task and axis"):
        other = emergence.Finding(**{**vars(soft), "curve": type(soft.curve)(**{**vars(soft.curve), "task": "o"})})
        plots.hard_and_graded(axes, hard, other)


def test_a_page_has_one_panel_per_task(findings):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3), layout="constrained")
    with plots.style():
        plots.small_multiples(figure, list(findings), columns=2)
        assert plots.render(figure, "svg")
    assert [ax.texts[0].get_text() for ax in figure.axes] == ["emergent", "smooth"]
    with pytest.raises(UserError, match="nothing to draw"):
        plots.small_multiples(figure, [])


@pytest.mark.long
def test_a_ladder_is_drawn_against_falling_loss():
    table = runs().sort_values("held_out")
    fit = ladder(table, chance=0.25)
    with plots.style():
        _, (ax,) = plots.canvas()
        plots.ladder(ax, fit, table["task_loss"].tolist(), table["score"].tolist())
    assert ax.xaxis_inverted()
    opened = [line for line in ax.lines if line.get_markerfacecolor() == plots.INK["paper"]]
    assert sum(len(line.get_xdata()) for line in opened) == len(fit.held_out)
