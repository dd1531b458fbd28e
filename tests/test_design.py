"""What a design can identify: the published table, and verdicts that hold what they say."""

import math

import numpy as np
import pytest

from lmscale.core.config import ModelConfig, OptimizerConfig, RunConfig
from lmscale.core.errors import UserError
from lmscale.core.plans import PlannedRun
from lmscale.study import design
from lmscale.study.design import Candidates, Prior, Runs, information
from lmscale.study.laws import CHINCHILLA_REFIT, MUENNIGHOFF_2023, SIX_ND, Chinchilla, ComputeLaw

GOPHER = 5.76e23


def crossed(params: np.ndarray, tokens: np.ndarray) -> Runs:
    return Runs(np.repeat(params, len(tokens)), np.tile(tokens, len(params)))


def at_ratios(params: np.ndarray, ratios: list[float]) -> Runs:
    n = np.repeat(params, len(ratios))
    return Runs(n, n * np.tile(ratios, len(params)))


def valleys(budgets: np.ndarray) -> Runs:
    n = np.concatenate([CHINCHILLA_REFIT.optimum(c).params * np.geomspace(0.25, 4, 7) for c in budgets])
    return Runs(n, np.repeat(budgets, 7) / (6 * n))


# design: runs, sum of 6 N D, cond(J), sd(a), sd(ln D/N at 5.76e23), at the refit and sigma = .01 nats.
TABLE = {
    "4 x 4 grid": (
        crossed(np.geomspace(6e6, 120e6, 4), np.geomspace(0.12e9, 2.4e9, 4)),
        (16, 4.2e18, 2.7e3, 0.0109, 0.35),
    ),
    "5 sizes x 5 lengths": (
        at_ratios(np.geomspace(6e6, 120e6, 5), [5, 10, 20, 40, 80]),
        (25, 1.7e19, 3.1e3, 0.0089, 0.29),
    ),
    "IsoFLOP, 3 budgets": (valleys(np.geomspace(1e17, 1e19, 3)), (21, 7.8e19, 1.9e3, 0.0060, 0.18)),
    # Printed as 2.0e3; 2.06e3 to three digits.
    "IsoFLOP, 5 budgets": (valleys(np.geomspace(1e17, 1e19, 5)), (35, 1.0e20, 2.06e3, 0.0052, 0.15)),
}


def rounded(value: float, like: float) -> float:
    """`value` to the digits that `like` is printed with."""
    digits = len(f"{like:e}".split("e")[0].replace(".", "").rstrip("0")) - 1
    return float(f"{value:.{max(digits, 1)}e}")


@pytest.mark.parametrize("name", TABLE)
def test_the_table_of_designs(name: str) -> None:
    runs, (count, flops, condition, sd_a, sd_ratio) = TABLE[name]
    info = information(Prior(), runs)
    assert len(runs) == count and rounded(float((6 * runs.params_n * runs.tokens_n).sum()), flops) == flops
    assert rounded(info.condition, condition) == condition
    assert info.identified and info.line is None
    sd = info.sd("a")
    assert sd is not None and round(sd, 4) == sd_a
    ratio = info.sd(info.log_ratio(GOPHER))
    assert ratio is not None and round(ratio, 2) == sd_ratio


def test_a_line_is_singular_and_has_no_standard_deviations() -> None:
    sizes = np.geomspace(6.6e6, 124e6, 8)
    info = information(Prior(), Runs(sizes, 20 * sizes))
    assert rounded(info.condition, 1.55e9) == 1.55e9 and not info.identified
    assert info.sd("a") is None and info.sd(info.log_ratio(GOPHER)) is None
    assert str(info.line) == "all runs lie on the line D = 20 N"


def test_rounding_to_whole_layers_and_batches_does_not_hide_a_line() -> None:
    """Moved by a few percent, cond(J) at the runs themselves falls below the threshold by rounding alone."""
    sizes = np.geomspace(6.6e6, 124e6, 8)
    for share in (0.02, 0.1):
        moved = Runs(sizes, 20 * sizes * (1 + share * np.random.default_rng(0).uniform(-1, 1, 8)))
        assert np.linalg.cond(design.jacobian(CHINCHILLA_REFIT, moved)) < 1e6
        assert not information(Prior(), moved).identified


@pytest.mark.parametrize(
    ("runs", "line"),
    [
        (Runs(np.full(6, 1e7), np.geomspace(1e8, 1e9, 6)), "all runs have N = 1e+07"),
        (Runs(np.geomspace(1e7, 1e8, 6), np.full(6, 1e9)), "all runs have D = 1e+09"),
        (Runs(np.geomspace(1e7, 1e8, 6), np.geomspace(1e7, 1e8, 6) ** 1.2), "all runs lie on the line D = 1 N^1.2"),
    ],
    ids=["one size", "one length", "a power of N"],
)
def test_other_lines(runs: Runs, line: str) -> None:
    info = information(Prior(), runs)
    assert str(info.line) == line and not info.identified


def test_fewer_runs_than_unknowns_identify_nothing() -> None:
    runs = at_ratios(np.array([1e7, 1e8]), [5, 80])
    assert information(Prior(), runs).condition == math.inf
    repeated = Runs(np.tile(runs.params_n, 3), np.tile(runs.tokens_n, 3))  # more seeds of the same four
    assert not information(Prior(), repeated).identified


def test_the_gradient_is_that_of_differences() -> None:
    law, runs = MUENNIGHOFF_2023, Runs(np.array([1e8, 4e8]), np.array([4e9, 1e10]), np.array([1e9, 1e10]))
    exact = design.jacobian(law, runs)
    for column, name in enumerate(law.names()):
        step = 1e-6
        scale = law.PARAMETERS[column].log
        shifted = [
            type(law)(**{**law.values(), name: getattr(law, name) * math.exp(s) if scale else getattr(law, name) + s})
            for s in (step, -step)
        ]
        upper, lower = (one.loss(*runs.inputs(one)) for one in shifted)
        assert exact[:, column] == pytest.approx((upper - lower) / (2 * step), rel=1e-4, abs=1e-7)


@pytest.mark.long
def test_the_predicted_spread_is_that_of_fits() -> None:
    """Cramer-Rao against 150 simulated sweeps fitted by squares, whose own spread is known within 6 %."""
    from lmscale.study.fits.solvers.chinchilla import solve_many
    from lmscale.study.fits.solvers.chinchilla_points import ChinchillaPoints

    runs = valleys(np.geomspace(1e17, 1e19, 3))
    rng, law = np.random.default_rng(0), CHINCHILLA_REFIT
    loss = law.loss(runs.params_n, runs.tokens_n)
    exponents = []
    for _ in range(150):
        noisy = loss + 0.003 * rng.standard_normal(len(loss))
        points = ChinchillaPoints.of(runs.params_n, runs.tokens_n, noisy, log_residual=False, loss="squared", delta=1.0)
        start = points.theta(np.array(list(law.values().values()))[:, None])[:, 0]
        solved = solve_many(points, np.ones((len(loss), 1)), also_p=start, grid=8)
        *_, alpha, beta = points.named(solved.theta_pb)[:, 0]
        exponents.append(beta / (alpha + beta))
    sd = information(Prior(noise_nats=0.003), runs).sd("a")
    assert sd is not None and np.std(exponents) == pytest.approx(sd, rel=0.15)


def test_noise_that_a_trunk_shares() -> None:
    """What all branches of a size have in common looks like a change of that size: less is known of alpha."""
    runs = at_ratios(np.geomspace(6e6, 120e6, 5), [5, 10, 20, 40, 80])
    clustered = Runs(runs.params_n, runs.tokens_n, None, [f"{n:.0f}" for n in runs.params_n])
    apart, same = (information(prior, clustered).sd("alpha") for prior in (Prior(), Prior(shared=0.5)))
    assert apart == information(Prior(), runs).sd("alpha")
    assert apart is not None and same is not None and same > 1.2 * apart
    alone = Runs(runs.params_n, runs.tokens_n, None, [""] * len(runs))
    assert information(Prior(shared=0.5), alone).sd("alpha") == pytest.approx(apart)


@pytest.mark.parametrize(("spread", "bias"), [(2, 0.0033), (4, 0.013), (8, 0.030), (16, 0.054)])
def test_the_bias_of_a_parabola(spread: float, bias: float) -> None:
    """Hoffmann's rounded exponents .34 and .28, sizes evenly within a factor `spread` of the minimum."""
    law = Chinchilla(1.69, 406.4, 410.7, 0.34, 0.28)
    centre = float(law.optimum(1e20).params)
    valley = design.planned_valley(law, 1e20, centre * np.geomspace(1 / spread, spread, 15))
    assert valley.bias == pytest.approx(bias, rel=0.02) and valley.inside
    assert valley.params == pytest.approx(centre)


def test_the_bias_of_an_exponent_needs_two_valleys() -> None:
    law = CHINCHILLA_REFIT
    off = [
        design.planned_valley(law, c, shift * float(law.optimum(c).params) * np.geomspace(0.25, 4, 7))
        for c, shift in ((1e18, 0.5), (1e19, 1.0), (1e20, 2.0))
    ]
    assert design.bias_of_exponent(off[:1]) is None
    slope = design.bias_of_exponent(off)
    expected = np.polyfit(np.log([1e18, 1e19, 1e20]), np.log([1 + one.bias for one in off if one.bias is not None]), 1)
    assert slope == pytest.approx(expected[0])


def planned(pairs: list[tuple[int, int]], **changes: object) -> list[PlannedRun]:
    """Runs of a width and a number of batches."""
    return [
        PlannedRun(
            RunConfig(
                model=ModelConfig(width=width, layers=2, heads=2),
                optimizer=OptimizerConfig(peak_lr=0.01, batch_sequences=1),
                tokens=128 * batches,
            ),
            **changes,  # type: ignore[arg-type]
        )
        for width, batches in pairs
    ]


LINE = [(width, 20 * width * width // 10) for width in (16, 24, 32, 48, 64, 96)]


def test_a_line_is_refused_with_a_fix_that_mends_it() -> None:
    runs = planned([(run.config.model.width, 4 * round(5 * params(run) / 128)) for run in planned(LINE)])
    verdict = design.judge_plan(runs)
    assert verdict.refused and "all runs lie on the line D = 20 N" in verdict.sentence()
    assert "cond(J)" in verdict.sentence() and verdict.sd_log_ratio is None
    assert "the 3 smallest sizes also at D = 5 N and 80 N (6 runs, " in verdict.fix
    more = planned([(width, 128 * ratio * params(planned([(width, 1)])[0]) // 128**2) for width, ratio in MENDING])
    assert not design.judge_plan([*runs, *more]).refused


MENDING = [(width, ratio) for width in (16, 24, 32) for ratio in (5, 80)]


def params(run: PlannedRun) -> int:
    from lmscale.core.counting import params_total

    return params_total(run.config.model)


def test_held_out_runs_say_nothing_and_may_be_the_target() -> None:
    seen, unseen = planned([(w, b) for w in (16, 32, 64) for b in (100, 400, 1600)]), planned([(96, 6400)])
    alone = design.judge_plan(seen)
    ahead = design.judge_plan([*seen, PlannedRun(unseen[0].config, held_out=True)])
    assert ahead.information.condition == alone.information.condition
    assert (alone.target, ahead.target) == ("ten times the largest run", "the largest held-out run")
    with pytest.raises(UserError, match="every run of the plan is held out"):
        design.judge_plan(planned([(16, 100)], held_out=True))


def test_a_prior_far_above_the_runs_is_too_sure_and_the_cautions_say_so() -> None:
    runs = planned([(w, b) for w in (16, 32, 64) for b in (100, 400, 1600)])
    assert any("these standard deviations too small" in caution for caution in design.judge_plan(runs).cautions())
    own = Prior(smallest_flops=None)
    assert not any("too small" in caution for caution in design.judge_plan(runs, own).cautions())


def test_a_prior_that_cannot_judge_runs() -> None:
    with pytest.raises(UserError, match="'compute' is of flops, and the runs state no flops"):
        information(Prior(ComputeLaw(1.0, 1.0, 0.1), "c"), valleys(np.geomspace(1e17, 1e18, 2)))
    for changes, sentence in ({"noise_nats": 0.0}, "must be positive"), ({"shared": 1.0}, "at least 0 and below 1"):
        with pytest.raises(UserError, match=sentence):
            Prior(**changes)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="no quantity 'gamma'"):
        information(Prior(), valleys(np.geomspace(1e17, 1e18, 2))).sd("gamma")


def pool(spend: float) -> Candidates:
    n, ratio = (axis.ravel() for axis in np.meshgrid(np.geomspace(3e6, 3e8, 21), np.geomspace(2, 200, 13)))
    cost = 6 * n * n * ratio
    affordable = (cost <= spend) & (cost >= spend / 200)
    return Candidates(n[affordable], n[affordable] * ratio[affordable], cost[affordable])


def test_the_next_runs_beat_an_equally_priced_valley() -> None:
    runs, spend, target = valleys(np.array([1e17, 3e17])), 2e18, 1e21
    before = information(Prior(), runs)
    quantity = before.log_ratio(target)
    proposal = design.improve(Prior(), runs, pool(spend), quantity, spend=spend, most=7)
    one_more = valleys(np.array([spend / 7]))
    grid = Runs(
        *(np.concatenate(pair) for pair in zip((runs.params_n, runs.tokens_n), (one_more.params_n, one_more.tokens_n)))
    )
    rival = information(Prior(), grid).sd(quantity)
    assert proposal.flops <= spend and len(proposal.chosen) <= 7
    assert proposal.sd_before is not None and proposal.sd_after is not None and rival is not None
    assert proposal.sd_after < 0.8 * rival < 0.8 * proposal.sd_before
    assert (
        list(proposal.sd_along) == sorted(proposal.sd_along, reverse=True)
        and proposal.sd_along[-1] == proposal.sd_after
    )


def test_the_next_runs_of_a_line_leave_it() -> None:
    sizes = np.geomspace(6.6e6, 60e6, 6)
    runs = Runs(sizes, 20 * sizes)
    proposal = design.improve(
        Prior(), runs, pool(1e18), lambda law: law.exponents(SIX_ND)["params"], spend=1e18, most=6
    )
    assert proposal.sd_before is None and proposal.sd_after is not None and proposal.sd_after < 0.05


def test_too_little_money_buys_nothing() -> None:
    runs = valleys(np.array([1e17, 3e17]))
    with pytest.raises(UserError, match=r"`spend=1e\+10` FLOPs buys none of the"):
        design.improve(Prior(), runs, pool(1e18), lambda law: law.alpha, spend=1e10)
