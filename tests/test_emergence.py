"""The detector knows curves of known class, and the scale where each begins."""

import numpy as np
import pandas as pd
import pytest
from helpers.scores import SIZES, graded, hinge, scores

from lmscale.study import emergence
from lmscale.study.emergence import bigbench, simulate
from lmscale.study.emergence.classes import adjusted, combined, fit_and_test, padded_batch
from lmscale.study.emergence.curves import curves_along
from lmscale.study.emergence.likelihood import fit_knots, log_likelihood
from lmscale.study.emergence.rise_fit import fit_rises
from lmscale.study.emergence.scores import canonical
from lmscale.study.emergence.shapes import bases


def only(table, **more):
    (finding,) = emergence.detect(table, "params", **more).findings
    return finding


@pytest.fixture(scope="module")
def simulated():
    table, truth = simulate.simulated_scores(40, seed=3)
    result = emergence.detect(table, "params", resamples=40)
    return truth, {finding.curve.task: finding for finding in result.findings}


@pytest.mark.long
def test_simulated_curves_are_told_apart(simulated):
    truth, by_task = simulated
    classes = np.array([by_task[task].cls for task in truth.index])
    true = truth["class"].to_numpy()
    hits = ((classes == "emergent") & (true == "emergent")).sum()
    assert 2 * hits / ((classes == "emergent").sum() + (true == "emergent").sum()) >= 0.9
    assert (classes == true).mean() >= 0.9
    assert not (classes[true == "flat"] == "emergent").any()


@pytest.mark.long
def test_the_interval_holds_the_foot_as_often_as_it_says(simulated):
    truth, by_task = simulated
    pairs = [(by_task[task], onset) for task, onset in truth["onset"].items() if by_task[task].cls == "emergent"]
    pairs = [(finding, onset) for finding, onset in pairs if np.isfinite(onset)]
    inside = [np.log10(one.interval[0]) <= onset <= np.log10(one.interval[1]) for one, onset in pairs]
    assert np.mean(inside) >= 0.9
    assert np.median([abs(np.log10(one.threshold) - onset) for one, onset in pairs]) <= 0.2
    assert all(one.interval[0] <= one.threshold <= one.interval[1] for one, _ in pairs)


@pytest.mark.parametrize(
    "mean, cls",
    [
        (hinge(0.6, 0.8, 0.25), "emergent"),
        (np.linspace(0.3, 0.8, 10), "smooth"),
        (np.full(10, 0.25), "flat"),
        (np.linspace(0.5, 0.25, 10), "inverse"),
        (np.abs(np.linspace(-0.2, 0.3, 10)) + 0.3, "u-shaped"),
    ],
)
def test_a_clean_curve_is_what_it_looks_like(mean, cls):
    finding = only(scores(mean, chance=0.25))
    assert finding.cls == cls
    assert (finding.threshold is None) == (cls != "emergent")


def test_with_few_examples_nothing_is_called_flat():
    finding = only(scores(np.full(10, 0.25), n=16, chance=0.25))
    assert finding.cls == "undetermined" and finding.evidence["smallest_detectable_gain"] > 0.1


def test_a_rise_from_the_first_models_on_shows_no_absence():
    assert only(scores(hinge(0.1, 0.9), chance=0.0)).cls == "smooth"


def at_chance(curves, n=500, chance=0.25, seed=0):
    """Curves of answers by luck alone, as the detector takes them to scatter (rho = .003)."""
    rng = np.random.default_rng(seed)
    right = rng.binomial(n, rng.beta(chance * 332, (1 - chance) * 332, (curves, len(SIZES))))
    return pd.concat([scores(row / n, task=f"flat {i}", n=n, chance=chance) for i, row in enumerate(right)])


@pytest.mark.long
def test_the_flat_curves_of_a_large_family_stay_flat():
    """Each tested alone, four of these 150 would be called something else."""
    verdicts = emergence.detect(at_chance(150), "params", resamples=0).findings
    classes = [finding.cls for finding in verdicts]
    assert classes.count("emergent") == 0 and classes.count("flat") >= 149


@pytest.mark.parametrize("other, verdict", [("emergent", "corroborated"), ("smooth", "metric-induced")])
def test_a_graded_metric_judges_a_hard_one(other, verdict):
    token = {"emergent": 0.1 + hinge(0.6, 0.8), "smooth": np.linspace(0.3, 0.93, 10)}[other]
    exact = token**5 if other == "smooth" else hinge(0.6, 0.6)
    hard, soft = emergence.detect(pd.concat([scores(exact), graded(token)]), "params").findings
    assert (hard.cls, soft.cls) == ("emergent", other)
    assert hard.verdict == verdict and soft.verdict is None
    assert hard.evidence["graded"] == {"token accuracy": other}


def test_graded_metrics_that_disagree_leave_it_open():
    rise = hinge(0.6, 0.6)
    table = pd.concat([scores(rise), graded(0.1 + rise), graded(np.linspace(0.2, 0.9, 10), metric="brier skill")])
    hard = emergence.detect(table, "params").select("t", "accuracy")[0]
    assert hard.verdict == "undetermined"
    assert hard.evidence["graded"] == {"token accuracy": "emergent", "brier skill": "smooth"}


def test_a_graded_error_that_falls_is_an_improvement():
    falling = graded(np.linspace(3, 1, 10), metric="bits per byte", stderr=0.02, higher_is_better=0)
    assert only(falling).cls == "smooth"
    assert only(falling.assign(higher_is_better=1)).cls == "inverse"


def test_on_the_loss_axis_strong_models_are_those_of_low_loss():
    loss = np.linspace(4, 2, 10)
    table = scores(hinge(0.6, 0.8)).drop(columns="params").assign(loss=loss)
    (finding,) = emergence.detect(table).findings
    assert finding.cls == "emergent" and finding.curve.axis == "loss"
    assert finding.interval[0] <= finding.threshold <= finding.interval[1]
    assert finding.threshold == pytest.approx(4 - 0.6 * 2, abs=0.15)


def test_every_axis_is_its_own_family_unless_one_is_asked_for():
    table = scores(hinge(0.6, 0.8)).assign(flops=SIZES**2)
    both = emergence.detect(table)
    assert [finding.curve.axis for finding in both.findings] == ["params", "flops"]
    assert np.log10(both.findings[1].threshold) == pytest.approx(2 * np.log10(both.findings[0].threshold), abs=1e-6)


def test_a_scale_names_the_runs_of_its_seeds():
    seeds = [scores(hinge(0.4, 0.8), seed=seed, run_id=[f"s{seed}-{index}" for index in range(len(SIZES))])
             for seed in (0, 1)]  # fmt: skip
    (curve,), _, _ = curves_along(canonical(pd.concat(seeds)), "params")
    assert curve.runs_S == tuple((f"s0-{index}", f"s1-{index}") for index in range(len(SIZES)))
    assert curves_along(canonical(scores(hinge(0.4, 0.8))), "params")[0][0].runs_S == ()


def test_seeds_widen_the_noise():
    rng = np.random.default_rng(0)
    rates = rng.beta(0.3 * 19, 0.7 * 19, (10, 9))  # rho = 1/20
    rows = [scores(rates[:, seed], n=1000, chance=0.25, seed=seed) for seed in range(9)]
    result = emergence.detect(pd.concat(rows), "params")
    assert result.rho == pytest.approx(0.05, rel=0.4)
    assert any("estimated from 80 seeds" in note for note in result.notes)
    assert result.findings[0].curve.n_S[0] == 9000
    assert result.findings[0].curve.weight_S[0] == pytest.approx(9 * 1000 / (1 + 999 * result.rho))


def test_scatter_beyond_the_assumed_noise_is_seen():
    rng = np.random.default_rng(0)
    sizes = np.geomspace(1e6, 1e11, 40)
    quiet = scores(np.linspace(0.3, 0.6, 40), n=10_000, sizes=sizes)
    noisy = scores(np.linspace(0.3, 0.6, 40) + rng.normal(0, 0.1, 40), n=10_000, sizes=sizes)
    assert only(quiet).evidence["scatter_factor"] == 1
    assert only(noisy).evidence["scatter_factor"] > 3


def test_counts_and_their_scores_say_the_same():
    table = scores(hinge(0.6, 0.8, 0.25), chance=0.25)
    rates = table.assign(score=table["correct"] / table["n"]).drop(columns="correct")
    assert only(table).to_json() == only(rates).to_json()
    p = rates["score"]
    errors = rates.drop(columns="n").assign(stderr=np.sqrt(p * (1 - p) / 1000))
    assert only(errors).threshold == pytest.approx(only(table).threshold, rel=1e-6)


def test_an_interval_depends_on_its_own_curve_only():
    one = scores(hinge(0.6, 0.5, 0.25), n=200, chance=0.25)
    others = [scores(hinge(0.7, 0.6), task=f"o{i}") for i in range(3)]
    alone = only(one)
    beside = emergence.detect(pd.concat([*others, one]), "params").select("t")[0]
    assert (alone.threshold, alone.interval) == (beside.threshold, beside.interval)
    assert alone.evidence["likelihood_cut"] == beside.evidence["likelihood_cut"]


def test_shots_make_curves_of_their_own():
    table = pd.concat([scores(hinge(0.6, 0.8), shots=shots) for shots in (0, 5)])
    verdicts = emergence.detect(table, "params").findings
    assert [finding.curve.setting for finding in verdicts] == [{"shots": "0"}, {"shots": "5"}]
    assert verdicts[1].to_json()["shots"] == "5"


def test_breakthroughness_and_linearity_are_those_of_big_bench():
    steps = np.array([0.0, 0.1, 0.2, 0.3])
    assert bigbench.breakthroughness(steps) == pytest.approx(3)
    assert bigbench.linearity(steps) == pytest.approx(3)
    jump = np.array([0.0, 0.1, 0.0, 0.9])
    assert bigbench.breakthroughness(jump) == pytest.approx(9)
    assert bigbench.linearity(jump) == pytest.approx(0.9 / np.sqrt((0.01 + 0.01 + 0.81) / 3))
    assert bigbench.breakthroughness(steps[::-1]) == pytest.approx(-3)
    assert bigbench.normalised(0.625, 0.25) == pytest.approx(50)


def test_the_fit_is_the_maximum_of_its_likelihood():
    rng = np.random.default_rng(0)
    u = np.linspace(0, 1, 8)[None]
    score, weight = rng.binomial(50, 0.3, (1, 8)) / 50, np.full((1, 8), 40.0)
    for name, basis in bases(u).items():
        values, best = fit_knots(basis, score, weight, "binomial")
        for _ in range(20):
            moved = (values + rng.normal(0, 0.02, values.shape)).clip(1e-4, 1 - 1e-4)
            mean = (basis @ moved[..., None])[..., 0]
            assert (log_likelihood(mean, score[:, None], weight[:, None], "binomial") <= best + 1e-6).all(), name


@pytest.mark.parametrize("noise", ["binomial", "gaussian"])
def test_rises_are_fitted_best_and_have_their_likelihood(noise):
    """Also where all candidates share a floor or a top, whose scales enter by their sums."""
    rng = np.random.default_rng(0)
    u = np.linspace(0, 1, 30)
    share = np.clip((u - np.array([[0.4], [0.5], [0.6]])) / 0.2, 0, 1)
    score = np.clip(0.3 + 0.4 * share[1] + 0.1 * rng.standard_normal((5, 30)), 0.01, 0.99)
    weight = rng.uniform(50, 200, 30)
    levels, ratio = fit_rises(share, score, weight, noise)

    def likelihood(levels):
        low, high = levels[..., :1], levels[..., 1:]
        return log_likelihood(low + (high - low) * share[:, None], score, weight, noise)

    assert ratio == pytest.approx(likelihood(levels), rel=1e-9)
    for step in ([1e-3, 0], [-1e-3, 0], [0, 1e-3], [0, -1e-3]):
        assert (likelihood(levels + step) < ratio).all()


@pytest.mark.long
def test_p_values_of_flat_curves_are_uniform_enough():
    curves, _, _ = curves_along(canonical(at_chance(400)), "params")
    for name, p in fit_and_test(padded_batch(curves, "binomial")).p_T.items():
        assert (p < 0.05).mean() <= 0.08, name  # 400 draws at 5 %: more than 32 come once in two hundred times
        assert (p < 0.5).mean() >= 0.3, name


def test_combined_and_adjusted_p_values():
    p = np.array([0.01, 0.2, 0.7])
    assert combined(p, p) == pytest.approx(p)
    assert adjusted(p) == pytest.approx([0.03, 0.3, 0.7])


def test_a_curve_too_short_is_left_out_and_noted():
    table = pd.concat([scores(hinge(0.6, 0.8)), scores(hinge(0.6, 0.8), task="short").head(3)])
    result = emergence.detect(table, "params")
    assert len(result.findings) == 1
    assert any("fewer than 5 scales: short (accuracy)" in note for note in result.notes)


def test_an_axis_that_cannot_be_used_is_noted_where_another_can():
    table = scores(hinge(0.6, 0.8)).assign(flops=1e20)
    result = emergence.detect(table)
    assert {finding.curve.axis for finding in result.findings} == {"params"}
    assert any("axis flops is left out" in note for note in result.notes)


def test_many_curves_are_named_rather_than_listed():
    rows = [scores(np.linspace(0.3, 0.8, 10), task=f"task {i}") for i in range(61)]
    text = str(emergence.detect(pd.concat(rows), "params", resamples=0))
    assert "smooth: task 0 (accuracy), task 1 (accuracy)" in text and len(text.splitlines()) < 10
