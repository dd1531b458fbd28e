"""Where the mean over runs and one new run lie at new inputs, whether or not the form of the law is right.

The interval of the mean holds the loss that many runs of these inputs have on average; the interval of one new run
also holds that run's own scatter. Both come from `discrepancy.py`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lmscale.core.errors import UserError
from lmscale.study.fits.results.common import percentiles
from lmscale.study.fits.results.run_noise import RunNoise
from lmscale.study.fits.solvers.derivatives import jacobian
from lmscale.study.fits.solvers.problem import Problem
from lmscale.study.fits.uncertainty import discrepancy
from lmscale.study.laws import ComputeModel, Law
from lmscale.study.laws.discrepancy import Discrepancy, coordinates

EDGE = 0.02
"""Share by which a point may exceed the fitted runs and still lie among them: whole layers and batches move it so."""
FAR = 100.0
"""Times beyond the fitted runs from which on an input is doubted: up to there intervals were held against truths."""
WIDEST = 50.0
"""Largest logarithm of truth over law that is stated: beyond, a factor says nothing and overflows."""
TOGETHER = 100
"""Points that share one factor of the kernel: it grows with their spread."""


def check_point(law: Law | type[Law], point: Mapping[str, float]) -> None:
    """Raises `UserError` where a point is not the inputs of the law, each a value that it can have."""
    if set(point) != set(law.INPUTS):
        raise UserError(
            f"predict was given {', '.join(point) or 'nothing'}: the law {law.NAME!r} takes {', '.join(law.INPUTS)}"
        )
    law.check_shares(point)
    for name, value in point.items():
        law.input(name).check(value, "predict")


def columns(law: Law, points: Sequence[Mapping[str, float]]) -> list[np.ndarray]:
    """The inputs of the law at every point, each (m,). Raises `UserError` as `check_point` does."""
    for point in points:
        check_point(law, point)
    return [np.array([law.input(name).check(point[name], "predict") for point in points]) for name in law.INPUTS]


def beyond(
    law: Law,
    inputs: Sequence[np.ndarray],
    fitted: Mapping[str, Any],
    compute: ComputeModel,
    largest_flops: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Which points lie beyond the fitted FLOPs or inputs (m,), and how many times the largest FLOPs they take.

    `fitted` are the inputs of the runs by name.
    """
    times = np.full(len(inputs[0]), math.nan)
    named = dict(zip(law.INPUTS, inputs))
    if law.splits_compute():
        with np.errstate(all="ignore"):
            times = np.asarray(compute.flops(named["params"], named["tokens"])) / largest_flops
    outside = times > 1 + EDGE
    for name in set(named) & set(fitted):
        runs, values = np.asarray(fitted[name], dtype=float), named[name]
        margin = EDGE * np.abs(runs)
        outside |= (values < (runs - margin).min()) | (values > (runs + margin).max())
    return outside, times


def far_away(inputs: Mapping[str, float], fitted: Mapping[str, Any]) -> str:
    """A doubt for each input that lies more than `FAR` times beyond the runs', as one text, "" where none does.

    `fitted` are the inputs of the runs by name; of those that are 0 or below no times are stated.
    """
    doubts = []
    for name in set(inputs) & set(fitted):
        runs, value = np.asarray(fitted[name], dtype=float), float(inputs[name])
        least, most = float(runs.min()), float(runs.max())
        if not (least > 0 and value > 0):
            continue
        if value < least / FAR:  # a product might overflow
            doubts.append(
                f"{name} = {value:.3g} lies {least / value:.3g} times below the smallest of the runs, {least:.3g}"
            )
        elif value / FAR > most:
            doubts.append(
                f"{name} = {value:.3g} lies {value / most:.3g} times above the largest of the runs, {most:.3g}"
            )
    return "; ".join(sorted(doubts))


def about_the_law(
    samples: Law,
    inputs: Sequence[np.ndarray],
    residual_n: np.ndarray,
    unknowns: int,
    logs: bool,
    seed: int,
    level: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Where the law lies by its resamples, and one new run that scatters about it as the residuals do: (m, 2).

    Residuals, of ln L if `logs`, are smaller than the scatter by sqrt((n - p) / n) for p unknowns.
    """
    count = len(next(iter(samples.values().values())))
    widen = math.sqrt(len(residual_n) / max(1, len(residual_n) - unknowns))
    noise = -widen * np.random.default_rng(seed).choice(residual_n, size=count)
    law, run = [], []
    for at in zip(*inputs):
        lies = np.broadcast_to(np.asarray(samples.loss(*at), dtype=float), (count,))
        law.append(percentiles(lies, level))
        run.append(percentiles(lies * np.exp(noise) if logs else lies + noise, level))
    return np.array(law), np.array(run)


def mean_and_run(
    problem: Problem, values_p: np.ndarray, inputs: Sequence[np.ndarray], level: float, noise: RunNoise | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The intervals (m, 2) of the mean and of one new run at m points, in the unit of the target.

    `noise` is one run's, where it was given. NaN where the law has no derivative, and where numbers overflow.
    """
    count = len(inputs[0])
    parts = [slice(begin, begin + TOGETHER) for begin in range(0, count, TOGETHER)]
    with np.errstate(all="ignore"):
        ends = [_part(problem, values_p, [column[part] for column in inputs], level, noise) for part in parts]
    return np.concatenate([mean for mean, _ in ends]), np.concatenate([run for _, run in ends])


def _part(
    problem: Problem, values_p: np.ndarray, inputs: Sequence[np.ndarray], level: float, noise: RunNoise | None
) -> tuple[np.ndarray, np.ndarray]:
    there = problem.using(inputs=tuple(inputs), target_n=np.ones(len(inputs[0])))
    predicted = there.predicted(values_p)
    misfit = _misfit(problem, values_p, inputs, jacobian(there, values_p), noise)
    if misfit is None:
        nothing = np.full((len(predicted), 2), np.nan)
        return nothing, nothing
    shares = (0.5 - level / 2, 0.5 + level / 2)
    ends = [np.clip(misfit.quantiles(shares, new_run).T, -WIDEST, WIDEST) for new_run in (False, True)]
    logs = problem.residual == "log"
    mean, run = (predicted[:, None] * np.exp(each) if logs else predicted[:, None] + each for each in ends)
    return mean, run


def allowed_discrepancy(problem: Problem, values_p: np.ndarray, noise: RunNoise | None = None) -> Discrepancy | None:
    """How far the truth may lie from the law by what its runs cannot rule out; None where the law has no derivative.

    `noise` is one run's, where it was given. The size is that of ln(truth / law), of residuals of L itself by their
    mean target.
    """
    inputs = [column[:1] for column in problem.inputs]
    with np.errstate(all="ignore"):
        slopes = jacobian(problem.using(inputs=tuple(inputs), target_n=np.ones(1)), values_p)
        misfit = _misfit(problem, values_p, inputs, slopes, noise)
    return None if misfit is None else Discrepancy(misfit.size / _unit(problem))


def _unit(problem: Problem) -> float:
    """What a relative deviation of 1 is in the residuals."""
    return 1.0 if problem.residual == "log" else float(problem.target_n.mean())


def _misfit(
    problem: Problem,
    values_p: np.ndarray,
    inputs: Sequence[np.ndarray],
    slopes_mq: np.ndarray,
    noise: RunNoise | None,
) -> discrepancy.Mixture | None:
    """The misfit at m points, of ln L or of L as the residuals are; None where a number overflows."""
    slopes_nq = jacobian(problem, values_p)
    residual = -problem.residuals(values_p)
    if not all(np.isfinite(each).all() for each in (slopes_nq, slopes_mq, residual)):
        return None
    targets = np.log(problem.target_n) if problem.residual == "log" else problem.target_n
    given = noise is not None and noise.freedom is None
    return discrepancy.posterior(
        residual,
        slopes_nq,
        coordinates(problem.form, problem.inputs, problem.inputs),
        slopes_mq,
        coordinates(problem.form, problem.inputs, inputs),
        prior_q=prior_sds(problem, values_p),
        spread=float(targets.std()),
        noise=noise.sd / _unit(problem) if given and noise is not None else None,
    )


def prior_sds(problem: Problem, values_p: np.ndarray) -> np.ndarray:
    """Wide prior standard deviations of the free unknowns on their search scale (q,), so that no direction is open."""
    by_name = dict(zip(problem.form.names(), values_p))
    return np.array(
        [
            discrepancy.FREE if one.log else max(abs(float(by_name[one.name])), 0.5)
            for one in problem.parameters
            if one.name in problem.free
        ]
    )
