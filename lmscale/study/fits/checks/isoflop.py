"""Checks of an IsoFLOP fit: each is a status with a name and one sentence."""

from collections.abc import Sequence

import numpy as np

from lmscale.study.fits.approaches import isoflop_minima
from lmscale.study.fits.approaches.isoflop_valleys import IsoFlopValley
from lmscale.study.fits.checks import parametric
from lmscale.study.fits.results.common import Status
from lmscale.study.fits.results.isoflop import IsoFlop
from lmscale.study.fits.runs import UsableRuns


def of_isoflop(
    fit: IsoFlop,
    runs: UsableRuns,
    valleys: Sequence[IsoFlopValley],
    minima: Sequence[isoflop_minima.ValleyMinimum],
    *,
    line: isoflop_minima.MinimaLine,
    window: float | None,
    seed: int,
) -> list[Status]:
    """Every check of an Approach 2 fit."""
    statuses = [_left_out(fit), _scatter(fit, line), *_weights(fit, line)]
    statuses += _other_method(fit, valleys, seed, window)
    statuses += _choices(fit)
    statuses += [] if fit.bias is None else [fit.bias.status(fit.method)]
    statuses += _leave_one_out(fit, minima)
    statuses += parametric.extrapolation(fit.at, fit.largest_flops)
    statuses += parametric.of_training(runs)
    return statuses


def _left_out(fit: IsoFlop) -> Status:
    budgets = [d for d in fit.dropped if d.run.startswith("budget")]
    if not budgets:
        return Status("minima", f"all {len(fit.minima)} budgets have a convex valley with its minimum inside the sizes")
    sentence = "; ".join(f"{d.run[7:]} FLOPs ({d.reason})" for d in budgets)
    return Status(
        "minima rejected", f"{len(budgets)} of {len(budgets) + len(fit.minima)} budgets left out: {sentence}", "warning"
    )


def _scatter(fit: IsoFlop, line: isoflop_minima.MinimaLine) -> Status:
    """Do the minima lie on the line as closely as their noise allows?"""
    if len(fit.minima) < 3:
        return Status("line", "two minima fix the line: nothing is left to judge it by", "warning")
    sentence = (
        f"the minima scatter by {line.residual_sd:.3f} in ln N* about the line; noise gives {line.expected_sd:.3f}"
    )
    if line.unexplained_sd > 0:
        sentence += f"; the rest, {line.unexplained_sd:.3f}, is added to the weights and the draws"
    return Status("line", sentence, "warning" if line.residual_sd > 2.5 * max(line.expected_sd, 1e-3) else "ok")


def _choices(fit: IsoFlop) -> list[Status]:
    """What was asked for in place of the usual choices, and how far it moves D*."""
    statuses = []
    if fit.budget_flops == "mean":
        statuses.append(Status("budgets", "every budget lies at the mean FLOPs of its runs, as asked"))
    if fit.tokens_line is not None:
        by_model = 1 - fit.compute.p * fit.a
        sentence = (
            f"D* ~ C^{fit.tokens_line[1]:.4f} by a line of its own; by the compute model from N*, C^{by_model:.4f}"
        )
        statuses.append(Status("tokens", sentence, "note" if abs(fit.tokens_line[1] - by_model) > 0.005 else "ok"))
    return statuses


def _weights(fit: IsoFlop, line: isoflop_minima.MinimaLine) -> list[Status]:
    if not fit.weighted:
        return [Status("weights", f"a = {fit.a:.4f}, every budget weighed alike, as asked")]
    return [
        Status(
            "weights",
            f"a = {fit.a:.4f} weighted by the minima's noise, {line.unweighted:.4f} unweighted",
            "note" if abs(fit.a - line.unweighted) > 0.02 else "ok",
        )
    ]


def _other_method(fit: IsoFlop, valleys: Sequence[IsoFlopValley], seed: int, window: float | None) -> list[Status]:
    other = "akima" if fit.method == "parabola" else "parabola"
    rng = np.random.default_rng(seed)
    draws, between = 200 if fit.resamples else 1, fit.noise_freedom is not None
    noise_r = np.full(draws, fit.noise_nats if fit.resamples else 0.0)
    others = [
        f
        for v in valleys
        if not isinstance(f := isoflop_minima.valley_minimum(v, other, noise_r=noise_r, rng=rng, window=window), str)
    ]
    if len(others) < 2:
        return [Status("interpolation", f"{other} finds fewer than two minima", "note")]
    line = isoflop_minima.power_law(
        np.array([f.flops for f in others]), others, draws if fit.resamples else 0, between, seed, not fit.weighted
    )
    return [
        Status(
            "interpolation",
            f"a = {fit.a:.4f} by {fit.method}, {line.a:.4f} by {other} ({len(others)} budgets)",
            "note" if abs(line.a - fit.a) > 0.03 else "ok",
        )
    ]


def _leave_one_out(fit: IsoFlop, minima: Sequence[isoflop_minima.ValleyMinimum]) -> list[Status]:
    """The budget that moves a most, and what the largest budget does to a line through the others."""
    if len(minima) < 3:
        return []
    flops, between = np.array([f.flops for f in minima]), fit.noise_freedom is not None
    moved = []
    for index in range(len(minima)):
        rest = [f for j, f in enumerate(minima) if j != index]
        a, *_ = isoflop_minima.weighted_line(
            np.delete(flops, index), rest, bool(fit.resamples), between, not fit.weighted
        )
        moved.append(a - fit.a)
    worst = int(np.argmax(np.abs(moved)))
    a, shift, *_ = isoflop_minima.weighted_line(flops[:-1], minima[:-1], bool(fit.resamples), between, not fit.weighted)
    miss = float(np.exp(shift)) * flops[-1] ** a / minima[-1].params - 1
    return [
        Status(
            "influence",
            f"leaving out one budget moves a by at most {moved[worst]:+.4f} ({flops[worst]:.3g} FLOPs)",
            "note" if abs(moved[worst]) > 0.03 else "ok",
        ),
        Status("largest budget left out", f"the line through the others misses its N* by {100 * miss:+.1f} %"),
    ]
