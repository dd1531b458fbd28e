"""Approach 2: the lowest loss of each compute budget, and how its model size grows with compute (IsoFLOP)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from lmscale.core.errors import UserError, nearest
from lmscale.study.fits.approaches import minima
from lmscale.study.fits.approaches.powerfit import PowerFit
from lmscale.study.fits.result import (
    Dropped,
    Status,
    allocation_lines,
    both_levels,
    clean,
    dropped_lines,
    span,
    status_lines,
)
from lmscale.study.fits.runs import Runs, compute_model, usable
from lmscale.study.fits.uncertainty import valley_bias, valley_noise
from lmscale.study.fits.uncertainty.valley_bias import Bias
from lmscale.study.laws import ComputeModel

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Minimum:
    """The lowest point of one budget's valley. params, tokens, loss in nats; intervals from the noise draws."""

    flops: float
    params: float
    tokens: float
    loss_nats: float
    n_runs: int
    log_params_sd: float
    """Standard deviation of ln N* over the noise draws."""
    intervals: Mapping[str, Mapping[str, tuple[float, float]]]

    def to_json(self) -> dict[str, Any]:
        return clean({**self.__dict__, "tokens_per_param": self.tokens / self.params})


@dataclass(frozen=True, kw_only=True)
class IsoFlop(PowerFit):
    """N* = G C^a through the minima of the budgets; the draws add a run's noise to every loss, and hold the bias."""

    minima: tuple[Minimum, ...]
    noise_nats: float
    noise_source: str
    noise_freedom: float | None = None
    """Degrees of freedom behind `noise_nats`; None where it was given."""
    window: float | None = None
    bias: Bias | None = None
    """Of the interpolation; None where fewer than two valleys of the known law have a minimum."""

    approach: ClassVar[str] = "2"
    SOURCE: ClassVar[str] = "Hoffmann 2022, arXiv 2203.15556, section 3.2"
    LOSS_FUNCTION: ClassVar[str] = "weighted squares of ln N*"

    def to_json(self, samples: bool = False) -> dict[str, Any]:
        """As every fit's, with `minima` and `bias`."""
        own = {
            "minima": [m.to_json() for m in self.minima],
            "noise_nats": self.noise_nats,
            "noise_source": self.noise_source,
            "noise_freedom": self.noise_freedom,
            "window": self.window,
            "bias": None if self.bias is None else self.bias.to_json(),
        }
        return {**super().to_json(samples), **clean(own)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "IsoFlop":
        """The fit again; new intervals need saved samples."""
        fields = ("flops", "params", "tokens", "loss_nats", "n_runs", "log_params_sd", "intervals")
        minima = tuple(Minimum(*[m[name] for name in fields]) for m in value["minima"])
        return cls(
            minima=minima,
            noise_nats=value["noise_nats"],
            noise_source=value["noise_source"],
            noise_freedom=value["noise_freedom"],
            window=value["window"],
            bias=None if value["bias"] is None else Bias.from_json(value["bias"]),
            **cls._fields(value),
        )

    def __str__(self) -> str:
        lines = [
            f"Approach 2{': ' + self.name if self.name else ''}: N* = G C^a through the minima of {len(self.minima)} "
            f"budgets, "
            f"{self.n_runs} runs; {self.method}",
            f"  noise of one run {self.noise_nats:.4g} nats ({self.noise_source})",
            *self._exponent_lines(),
            f"  {'C (FLOPs)':>10}  {'N*':>9}  {'95 %':>20}  {'D*':>9}  {'D*/N*':>7}  {'loss':>7}  runs",
        ]
        for m in self.minima:
            inner = span(m.intervals["0.95"]["params"], ".3g") if m.intervals else "-"
            lines.append(
                f"  {m.flops:>10.3g}  {m.params:>9.3g}  {inner:>20}  {m.tokens:>9.3g}  {m.tokens / m.params:>7.2f}  "
                f"{m.loss_nats:>7.4f}  {m.n_runs}"
            )
        if rows := self.allocations():
            lines += allocation_lines(rows, str(self.compute))
        lines += [f"  {note}" for note in self.notes]
        return "\n".join([*lines, *dropped_lines(self.dropped), *status_lines(self.status)])


def isoflop(
    table: "pd.DataFrame",
    *,
    method: str = "auto",
    resamples: int = 1000,
    seed: int = 0,
    noise_nats: float | None = None,
    window: float | None = None,
    rates: str = "inside",
    at: Sequence[float] | None = None,
    check: bool = True,
) -> IsoFlop:
    """Find each budget's minimum and fit ln N* on ln C, weighted by the minima's noise; `held_out` rows are left out.

    Budgets are the column `flops_budget` (or `flops`, where its values repeat). `method` is "parabola" (of the loss in
    ln N, Hoffmann 2022; over sizes within a factor `window` of the lowest, None takes all), "akima" (Porian 2024,
    arXiv 2406.19146: Akima interpolation of ln L on ln N, minimum on a fine grid), or "auto": parabolas unless they
    miss the runs by more than three times its noise. Each of `resamples` draws adds
    normal noise of `noise_nats` to every run and finds the minima again; None takes the spread of equal runs (seeds),
    else the scatter about the parabolas, or for Akima what no parabola through four neighbouring sizes explains.

    Where the minima scatter about the line by more than that noise explains, the rest enters weights and draws too;
    and every second draw is less the interpolation's bias (`valley_bias.py`), so that intervals hold it. A given
    `noise_nats` is taken at its word, as in Porian 2024: draws of that noise and of nothing else. `rates` says what
    enters of a cell run at several learning rates (see `runs.usable`). `check` adds the statuses.

    A budget whose valley is not convex, whose lowest run is its smallest or largest, whose minimum lies outside its
    sizes, or loses half its draws that way, is left out and named. Raises `UserError` where fewer than two are left.
    """
    if method not in minima.METHODS:
        raise UserError(f"no IsoFLOP method is called {method!r}{nearest(method, minima.METHODS)}")
    runs = usable(table, ("params",), rates=rates)
    budgets, notes, dropped = _budgets(runs)
    notes, dropped = [*runs.notes, *notes], [*runs.dropped, *dropped]
    valleys = valley_noise.valleys(runs, budgets)
    noise = valley_noise.noise(valleys) if noise_nats is None else valley_noise.Noise(noise_nats, "given", None)
    chosen = Status("method", f"{method}, as asked for")
    if method == "auto":
        method, why = valley_noise.choose(valleys, noise.sd)
        chosen = Status("method", f"{method}: {why}", "ok" if method == "parabola" else "note")
    compute, compute_status = compute_model(runs.table)
    ideal = valley_bias.ideal(runs, valleys, compute)
    if method == "parabola" and window is None and noise.source.startswith("third"):
        noise = valley_noise.parabola_noise(valleys, ideal.valleys)
    rng = np.random.default_rng(seed)
    noise_r = noise.draws(resamples, rng) if resamples else np.zeros(1)
    kept = []
    for valley in valleys:
        found = minima.find(valley, method, noise_r=noise_r, rng=rng, window=window)
        if isinstance(found, str):
            dropped.append(Dropped(f"budget {valley.flops:.4g}", found))
        else:
            kept.append(found)
    if len(kept) < 2:
        reasons = (
            "; ".join(f"{d.run}: {d.reason}" for d in dropped if d.run.startswith("budget"))
            or "the table has one budget"
        )
        raise UserError(
            f"Approach 2 needs the minima of at least two compute budgets and found {len(kept)} ({reasons}): "
            f"add budgets, or sizes on both sides of each minimum"
        )
    flops = np.array([found.flops for found in kept])
    used = [valley for valley in valleys if any(valley.flops == found.flops for found in kept)]
    gaps = valley_bias.gaps(ideal, kept, method=method, window=window, compute=compute)
    if noise_nats is None:
        kept = gaps.in_half_the_draws(kept)
    line = minima.power_law(flops, kept, resamples, noise_nats is None, seed)
    points = tuple(_minimum(found, compute, resamples) for found in kept)
    wanted = tuple(at) if at is not None else tuple(float(f) for f in flops)
    status = [*runs.statuses, compute_status, chosen]
    fit = IsoFlop(
        G=line.G,
        a=line.a,
        loss_curve=line.loss_curve,
        samples=line.samples,
        minima=points,
        method=method,
        noise_nats=noise.sd,
        noise_source=noise.source,
        noise_freedom=noise.freedom,
        window=window,
        bias=gaps.along(line.weights, in_draws=noise_nats is None),
        objective=line.objective,
        n_runs=sum(len(v.loss_n) for v in used),
        largest_flops=float(flops.max()),
        compute=compute,
        dropped=tuple(dropped),
        notes=tuple(notes),
        table_hash=runs.digest(),
        at=wanted,
        rates=rates,
    )
    if check:
        from lmscale.study.fits.checks import isoflop

        status += isoflop.of_isoflop(fit, runs, used, kept, line=line, window=window, seed=seed)
    return replace(fit, status=tuple(status))


def _minimum(found: minima.Found, compute: ComputeModel, resamples: int) -> Minimum:
    params = found.params
    intervals: dict[str, dict[str, tuple[float, float]]] = {}
    if resamples:
        drawn = np.exp(found.log_params_r)
        tokens = compute.tokens(found.flops, drawn)
        intervals = both_levels(
            {"params": drawn, "tokens": tokens, "tokens_per_param": tokens / drawn, "loss_nats": found.loss_r}
        )
    return Minimum(
        found.flops,
        params,
        float(compute.tokens(found.flops, params)),
        found.loss_nats,
        found.n_runs,
        found.log_params_sd if resamples else math.nan,
        intervals,
    )


def _budgets(runs: Runs) -> tuple[np.ndarray, list[str], list[Dropped]]:
    """The budget of every row (n,), NaN where it has none."""
    budgets = runs.column("flops_budget") if "flops_budget" in runs.table else np.full(len(runs), np.nan)
    budgets = np.where(np.isfinite(budgets) & (budgets > 0), budgets, np.nan)
    if not np.isnan(budgets).all():
        return budgets, [], [Dropped(run, "no compute budget") for run, b in zip(runs.names, budgets) if math.isnan(b)]
    if "flops" in runs.table:
        flops = runs.column("flops")
        values, counts = np.unique(flops, return_counts=True)
        if len(values) >= 2 and (counts >= 3).sum() >= 2:
            return flops, ["the table states no budgets; rows with equal FLOPs are taken as one"], []
    raise UserError(
        "Approach 2 needs the compute budget of each run, and the table has no column flops_budget above 0: "
        "name it with --columns budget=..., or fit with --approach 3"
    )
