"""`lmscale plan --optimal`: the run that a fitted law predicts to be best for a budget, and its predicted loss."""

import math
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmscale.commands.constraints import constraints_of
from lmscale.commands.plan.prior import fitted_law
from lmscale.core.config import check
from lmscale.core.counting import ACTIVE, TOTAL, count
from lmscale.core.errors import UserError
from lmscale.core.files import read_json
from lmscale.core.plans import PlannedRun, read_plan
from lmscale.study.fits import FittedOptimum, LossLaw, allocate, loss_law
from lmscale.study.fits.results.common import Prediction
from lmscale.study.fits.sizes import counted_by
from lmscale.study.sweep import Plan, Sweep, load, plan_of_runs

LEVEL = 0.95


@dataclass(frozen=True)
class OptimalRun:
    """One run, and what the law predicts of it."""

    plan: Plan
    fit: LossLaw
    flops: float
    tokens_per_param: float | None
    """D/N that was asked for; None took the law's optimum."""
    prediction: Prediction
    ratio_interval: tuple[float, float] | None
    """95 % interval of D*/N* at the budget."""
    constrained: FittedOptimum | None = None
    """The allocation under further constraints, where any were given."""

    def lines(self) -> list[str]:
        """Sentences for below the plan."""
        counts = count(self.plan.runs[0].config)
        ratio = counts.tokens / getattr(counts, self.fit.size_column)
        law, prediction = self.fit.law, self.prediction
        sentences = [f"By {law.NAME} through {self.fit.n_runs} runs, {self.fit.compute}: {law}"]
        if self.constrained is not None:
            sentences.append(f"{self.constrained}; this run has D/N = {ratio:.3g}")
        elif self.tokens_per_param is None:
            optimum = self.fit.optimum(self.flops)
            line = f"compute-optimal at {self.flops:.3g} FLOPs: N* = {float(optimum.params):.4g}"
            line += f" ({self.fit.size_column})" * (self.fit.size_column != TOTAL) + ", D*/N* = "
            line += f"{float(optimum.tokens_per_param):.3g}"
            if self.ratio_interval is not None:
                line += f" [{self.ratio_interval[0]:.3g}, {self.ratio_interval[1]:.3g}] ({LEVEL:.0%})"
            sentences.append(f"{line}; this run has D/N = {ratio:.3g}")
        else:
            sentences.append(f"D/N = {self.tokens_per_param:g} was asked for; this run has {ratio:.3g}")
        loss = f"predicted loss {prediction.loss_nats:.4f} nats per token"
        if not all(map(math.isfinite, prediction.interval)):
            return [*sentences, f"{loss}; no interval, since the fit's table is not here"]
        ends = (prediction.law_interval, prediction.mean_interval, prediction.interval)
        of_law, of_mean, of_run = (f"[{low:.4f}, {high:.4f}]" for low, high in ends)
        where = (
            f"the law lies in {of_law} if its form is right, the mean over such runs in {of_mean}, this run in {of_run}"
        )
        doubt = f"; warning: {prediction.warning}" if prediction.warning else ""
        return [*sentences, f"{loss}; {where} ({LEVEL:.0%}){doubt}"]

    def to_json(self) -> dict[str, Any]:
        """The budget, the law and the prediction as plain numbers."""
        value = {"flops": self.flops, "law": self.fit.law.values(), "prediction": self.prediction.to_json()}
        return value if self.constrained is None else {**value, "constrained": self.constrained.to_json()}


Limits = tuple[float | None, str | None, float | None]
"""Tokens of inference, memory of the weights, unique tokens; None where there is no such limit."""


def optimal(
    path: Path,
    flops: float,
    tokens_per_param: float | None,
    sweep: Sweep | None,
    limits: Limits = (None, None, None),
) -> OptimalRun:
    """The run that the fit in `path` predicts to be best for `flops` under `limits`, made by the recipe of `sweep`.

    Without `sweep` the recipe is that of the fitted runs: of sweeps/NAME.py, after the table's name. Raises `UserError`
    where there is no such file or the family has no such size.
    """
    check(flops > 0, f"--flops {flops:g}: must be positive")
    check(tokens_per_param is None or tokens_per_param > 0, f"--tokens-per-param {tokens_per_param}: must be positive")
    fit = fitted_law(path)
    sweep = sweep or _sweep_of(path)
    constrained, training = None, float(flops)
    if any(limit is not None for limit in limits):
        check(
            tokens_per_param is None, "--tokens-per-param fixes D/N, and further constraints choose it: leave one out"
        )
        constrained = allocate(_with_samples(path, fit), constraints_of(fit, flops, *limits))
        training = float(fit.compute.flops(*(constrained.optimum.inputs[name] for name in ("params", "tokens"))))
    params = _params(fit, flops, tokens_per_param) if constrained is None else constrained.optimum.inputs["params"]
    point = {_coordinate(fit, path): params, "flops": training, "seed": 0}
    try:
        config = sweep.recipe(point)
    except UserError as error:
        raise UserError(
            f"the recipe of sweep {sweep.name!r} cannot make the run of {flops:.3g} FLOPs: {error}; give a sweep whose "
            f"family reaches it, `lmscale plan SWEEP.py --optimal {path}`"
        ) from None
    origins = getattr(sweep.recipe, "origins", None)
    run = PlannedRun(
        config=config,
        held_out=True,  # a prediction to be checked
        flops_budget=training,
        origins={
            **(origins(point) if callable(origins) else {}),
            "point": f"the optimum of {path.name} at {flops:.4g} FLOPs",
        },
    )
    plan = plan_of_runs(f"{sweep.name}-optimal-{flops:.3g}".replace("+", ""), [run], question=sweep.question, law="")
    fit, counts = _with_samples(path, fit), count(config)
    prediction = fit.predict(LEVEL, params=float(getattr(counts, fit.size_column)), tokens=float(counts.tokens))
    interval = None
    if fit.samples is not None and tokens_per_param is None and constrained is None:
        interval = fit.interval(lambda one: one.optimum(flops).tokens_per_param, LEVEL)
    return OptimalRun(plan, fit, flops, tokens_per_param, prediction, interval, constrained)


def _coordinate(fit: LossLaw, path: Path) -> str:
    """The coordinate by which a recipe makes a model of the N of a fit. Raises `UserError` for an N without one."""
    check(
        fit.size_column in (TOTAL, ACTIVE),
        f"the fit in {path} counts N as {fit.size_column}, which no recipe takes: fit params or active_params",
    )
    return fit.size_column


def _params(fit: LossLaw, flops: float, tokens_per_param: float | None) -> float:
    """N: the law's optimum, or the N at which C = k N^p D meets the budget at the given D/N."""
    if tokens_per_param is None:
        return float(fit.optimum(flops).params)
    compute = fit.compute
    return float((flops / (compute.k * tokens_per_param)) ** (1 / (1 + compute.p)))


def _with_samples(path: Path, fit: LossLaw) -> LossLaw:
    """The fit with its resamples; where the file has none, they are drawn again with its seed if its table is here."""
    if fit.samples is not None:
        return fit
    from lmscale.study.tables import read_table

    try:
        table = counted_by(read_table(_table_of(path), None, None), fit.size_column)
        again = loss_law(
            table, type(fit.law), loss=fit.loss_function, delta=fit.delta, residual=fit.residual, resamples=1000,
            seed=fit.seed, rates=fit.rates, check=False, at=(), tied=fit.tied or None, bounds=fit.bounds or None,
            fixed={name: float(getattr(fit.law, name)) for name in fit.fixed} or None,
        )  # fmt: skip
    except UserError:
        return fit
    return again if again.table_hash == fit.table_hash else fit


def _sweep_of(path: Path) -> Sweep:
    """The sweep that planned the fitted runs, from the sweep file of its name."""
    table, name = _table_of(path), ""
    with suppress(OSError, ValueError):  # a `UserError` too: what can be no path, or holds no plan
        if Path(table).is_dir():
            name, _ = read_plan(Path(table))
    file = Path("sweeps") / f"{name}.py"
    if not name or not file.is_file():
        raise UserError(
            f"{path} was fitted to {table!r}, which no sweep file here belongs to; give the sweep whose recipe is to "
            f"make the run: `lmscale plan SWEEP.py --optimal {path}`"
        )
    return load(file)


def _table_of(path: Path) -> str:
    """The table that a saved fit was made from, as it was named; "" where the file does not say."""
    value = read_json(path, "fit")
    table = value.get("table") if isinstance(value, dict) else None
    return table if isinstance(table, str) else ""
