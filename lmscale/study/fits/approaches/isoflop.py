"""Approach 2: the lowest loss of each compute budget, and how its model size grows with compute (IsoFLOP)."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lmscale.core.arguments import checked
from lmscale.core.errors import UserError
from lmscale.study.fits.approaches import isoflop_minima
from lmscale.study.fits.approaches.isoflop_valleys import IsoFlopValley, valleys_of
from lmscale.study.fits.options import FitOptions, chosen
from lmscale.study.fits.results.common import (
    Dropped,
    Status,
    both_levels,
    no_intervals,
)
from lmscale.study.fits.results.isoflop import BudgetMinimum, IsoFlop
from lmscale.study.fits.results.run_noise import RunNoise
from lmscale.study.fits.runs import UsableRuns, compute_model, usable
from lmscale.study.fits.uncertainty import isoflop_bias, isoflop_noise
from lmscale.study.grouping import budgets_of_flops, stated_budgets
from lmscale.study.laws import ComputeModel
from lmscale.study.tables import TableSource

NAMED = 3
"""Budgets that an error names one by one."""


@checked
def isoflop(table: TableSource, options: FitOptions | None = None, **changes: Any) -> IsoFlop:
    """Find each budget's minimum and fit ln N* on ln C, weighted by the minima's noise; `held_out` rows are left out.

    `changes` are fields of `FitOptions`: valley, noise_nats, window, weights, budget_flops, tokens_fit,
    resamples, seed, rates, at, check, columns, where.
    Budgets are the column `flops_budget` (or `flops`, where its values repeat). `valley` is "parabola" (of the loss in
    ln N, Hoffmann 2022; over sizes within a factor `window` of the lowest, None takes all), "akima" (Porian 2024,
    arXiv 2406.19146: Akima interpolation of ln L on ln N, minimum on a fine grid), or "auto": parabolas unless they
    miss the runs by more than three times its noise. Each of `resamples` draws adds normal noise of `noise_nats` to
    every run and finds the minima again; None takes the spread of equal runs (seeds), else the scatter about the
    parabolas, or for Akima what no parabola through four neighbouring sizes explains.

    Where the minima scatter about the line by more than that noise explains, the rest enters weights and draws too;
    and every second draw is less the interpolation's bias (`isoflop_bias.py`), so that intervals include it. A given
    `noise_nats` is all that is drawn, as in Porian 2024. `rates` chooses among the runs of several learning rates at
    one N and D (see `runs.usable`). `check` adds the statuses.

    Three choices are made as most papers do: a budget lies at its stated FLOPs (`budget_flops` "mean": at those of its
    runs), the line weighs the minima by their noise (`weights` "equal": not), and D* follows from N* by the compute
    model (`tokens_fit` "valley": from valleys in ln D and a line of their own, as where D follows from no N and C).

    A budget whose valley is not convex, whose lowest run is its smallest or largest, whose minimum lies outside its
    sizes, or loses half its draws that way, is left out and named. Raises `UserError` where fewer than two are left.
    """
    rows, options = chosen("isoflop", options, changes).read(table)
    noise_nats, window, resamples, seed = options.noise_nats, options.window, options.count("2"), options.seed
    runs = usable(rows, ("params",), rates=options.rates)
    budgets, notes, dropped = _budgets(runs)
    notes, dropped = [*runs.notes, *notes], [*runs.dropped, *dropped]
    valleys = valleys_of(runs, budgets, stated=options.budget_flops)
    noise = isoflop_noise.noise(valleys) if noise_nats is None else RunNoise(noise_nats, "given", None)
    method, method_status = _method(str(options.valley), valleys, noise)
    compute, compute_status = compute_model(runs.table)
    noiseless = isoflop_bias.noiseless_valleys(runs, valleys, compute)
    if method == "parabola" and window is None and noise.source.startswith("third"):
        noise = isoflop_noise.parabola_noise(valleys, noiseless.valleys)
    no_noise = bool(resamples) and noise_nats is None and noise.sd == 0
    resamples = 0 if no_noise else resamples
    rng = np.random.default_rng(seed)
    noise_r = noise.draws(resamples, rng) if resamples else np.zeros(1)
    minima, rejected = _minima(valleys, method, noise_r=noise_r, rng=rng, window=window)
    dropped += rejected
    flops = np.array([minimum.flops for minimum in minima])
    used = [valley for valley in valleys if any(valley.flops == minimum.flops for minimum in minima)]
    gaps = isoflop_bias.gaps(noiseless, minima, method=method, window=window, compute=compute)
    if noise_nats is None:
        minima = gaps.in_half_the_draws(minima)
    equal = options.weights == "equal"
    line = isoflop_minima.power_law(flops, minima, resamples, noise_nats is None, seed, equal)
    tokens_line = None
    if options.tokens_fit == "valley":
        tokens_line = _tokens_line(runs, budgets, minima, options, method=method, noise_r=noise_r, draws=resamples)
    points = tuple(_minimum(minimum, compute, resamples) for minimum in minima)
    budgets_stated = options.budgets if options.budgets is not None else tuple(float(f) for f in flops)
    status = [*runs.statuses, compute_status, method_status]
    if no_noise:
        status.append(no_intervals(f"one run's noise comes out as 0 nats ({noise.source})"))
    fit = IsoFlop(
        G=line.G,
        a=line.a,
        loss_curve=line.loss_curve,
        samples=_with_tokens(line.samples, tokens_line),
        minima=points,
        method=method,
        noise_nats=noise.sd,
        noise_source=noise.source,
        noise_freedom=noise.freedom,
        window=window,
        tokens_line=None if tokens_line is None else (tokens_line.G, tokens_line.a),
        weighted=not equal,
        budget_flops=options.budget_flops,
        bias=gaps.along(line.weights, in_draws=noise_nats is None),
        objective=line.objective,
        n_runs=sum(len(v.loss_n) for v in used),
        largest_flops=float(flops.max()),
        compute=compute,
        dropped=tuple(dropped),
        notes=tuple(notes),
        table_hash=runs.digest(),
        size_column=runs.size_column,
        seed=seed,
        at=budgets_stated,
        rates=options.rates,
    )
    if options.check:
        from lmscale.study.fits.checks import isoflop

        status += isoflop.of_isoflop(fit, runs, used, minima, line=line, window=window, seed=seed)
    return replace(fit, status=tuple(status))


def _method(asked: str, valleys: Sequence[IsoFlopValley], noise: RunNoise) -> tuple[str, Status]:
    """How the minima are found, and why."""
    if asked != "auto":
        return asked, Status("method", f"{asked}, as given")
    method, why = isoflop_noise.choose(valleys, noise.sd)
    return method, Status("method", f"{method}: {why}", "ok" if method == "parabola" else "note")


def _minima(
    valleys: Sequence[IsoFlopValley],
    method: str,
    *,
    noise_r: np.ndarray,
    rng: np.random.Generator,
    window: float | None,
) -> tuple[list[isoflop_minima.ValleyMinimum], list[Dropped]]:
    """The minima of the budgets that have one; the others with the reason. Raises `UserError` for fewer than two."""
    minima, dropped = [], []
    for valley in valleys:
        minimum = isoflop_minima.valley_minimum(valley, method, noise_r=noise_r, rng=rng, window=window)
        if isinstance(minimum, str):
            dropped.append(Dropped(f"budget {valley.flops:.4g}", minimum))
        else:
            minima.append(minimum)
    if len(minima) < 2:
        budgets: dict[str, list[str]] = {}
        for item in dropped:
            budgets.setdefault(item.reason, []).append(item.run)
        reasons = "; ".join(f"{_named(several)}: {why}" for why, several in budgets.items())
        reasons = reasons or "the table has one budget"
        raise UserError(
            f"Approach 2 needs the minima of at least two compute budgets and found {len(minima)} ({reasons}): "
            f"add budgets, or sizes on both sides of each minimum"
        )
    return minima, dropped


def _named(budgets: Sequence[str]) -> str:
    """Budgets that a sentence is about: all of a few, the first and the last of many."""
    first, last = (one.removeprefix("budget ") for one in (budgets[0], budgets[-1]))
    return ", ".join(budgets) if len(budgets) <= NAMED else f"{len(budgets)} budgets, {first} to {last} FLOPs"


def _tokens_line(
    runs: UsableRuns,
    budgets: np.ndarray,
    minima: Sequence[isoflop_minima.ValleyMinimum],
    options: FitOptions,
    *,
    method: str,
    noise_r: np.ndarray,
    draws: int,
) -> isoflop_minima.MinimaLine:
    """D* = H C^b through the lowest points of the valleys along ln D, of the budgets that have one along ln N."""
    flops_used = {minimum.flops for minimum in minima}
    along_tokens = valleys_of(runs, budgets, "tokens", options.budget_flops)
    valleys = [valley for valley in along_tokens if valley.flops in flops_used]
    rng = np.random.default_rng(options.seed)
    lowest, _ = _minima(valleys, method, noise_r=noise_r, rng=rng, window=options.window)
    flops = np.array([minimum.flops for minimum in lowest])
    equal = options.weights == "equal"
    return isoflop_minima.power_law(flops, lowest, draws, options.noise_nats is None, options.seed, equal)


def _with_tokens(
    samples: dict[str, np.ndarray] | None, tokens_line: isoflop_minima.MinimaLine | None
) -> dict[str, np.ndarray] | None:
    """The draws with those of the line of D*, as many as both have."""
    if samples is None or tokens_line is None or tokens_line.samples is None:
        return samples
    other = tokens_line.samples
    shared = min(len(samples["a"]), len(other["a"]))
    return {**{name: v[:shared] for name, v in samples.items()}, "H": other["G"][:shared], "b": other["a"][:shared]}


def _minimum(minimum: isoflop_minima.ValleyMinimum, compute: ComputeModel, resamples: int) -> BudgetMinimum:
    params = minimum.params
    intervals: dict[str, dict[str, tuple[float, float]]] = {}
    if resamples:
        drawn = np.exp(minimum.log_params_r)
        tokens = compute.tokens(minimum.flops, drawn)
        intervals = both_levels(
            {"params": drawn, "tokens": tokens, "tokens_per_param": tokens / drawn, "loss_nats": minimum.loss_r}
        )
    return BudgetMinimum(
        minimum.flops,
        params,
        float(compute.tokens(minimum.flops, params)),
        minimum.loss_nats,
        minimum.n_runs,
        minimum.log_params_sd if resamples else math.nan,
        intervals,
    )


def _budgets(runs: UsableRuns) -> tuple[np.ndarray, list[str], list[Dropped]]:
    """The budget of every row (n,), NaN where it has none."""
    budgets = stated_budgets(runs.table)
    if not np.isnan(budgets).all():
        return budgets, [], [Dropped(run, "no compute budget") for run, b in zip(runs.names, budgets) if math.isnan(b)]
    budgets = budgets_of_flops(runs.table)
    if not np.isnan(budgets).all():
        return budgets, ["the table states no budgets; rows whose FLOPs agree within 1 % are taken as one"], []
    raise UserError(
        "Approach 2 needs the compute budget of each run, and the table has no column flops_budget above 0: "
        "name it with `columns='budget=...'`, or fit Approach 3"
    )
