"""`lmscale plan --optimal`: the run that a fitted law predicts to be best for a budget, and its predicted loss."""

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmscale.commands.constraints import Limits
from lmscale.commands.plan.prior import fitted_law
from lmscale.core.config import check
from lmscale.core.counting import ACTIVE, TOTAL, count
from lmscale.core.errors import UserError
from lmscale.core.files import read_json
from lmscale.core.plans import PlannedRun, read_plan
from lmscale.study.design import inputs_of
from lmscale.study.fits import FittedOptimum, LossLaw, loss_law
from lmscale.study.fits.results.common import Prediction, span
from lmscale.study.fits.sizes import counted_by
from lmscale.study.recipes.experts import EXPERT_COUNTS as WHOLE
from lmscale.study.sweep import Plan, Sweep, load, plan_of_runs
from lmscale.study.sweep.points import COORDINATES

LEVEL = 0.95


@dataclass(frozen=True)
class OptimalRun:
    """What a law predicts to be best under a budget and constraints, and the run that is nearest to it."""

    fit: LossLaw
    flops: float | None
    """Training FLOPs of the run; None where none was planned."""
    plan: Plan | None = None
    unplanned: str = ""
    """Why there is no run."""
    prediction: Prediction | None = None
    tokens_per_param: float | None = None
    """D/N that was asked for; None took the law's optimum."""
    ratio_interval: tuple[float, float] | None = None
    """95 % interval of D*/N* at the budget."""
    constrained: FittedOptimum | None = None
    """The allocation under further constraints, where any were given."""

    def lines(self) -> list[str]:
        """Sentences for below the plan."""
        law = self.fit.law
        sentences = [f"By {law.NAME} through {self.fit.n_runs} runs, {self.fit.compute}: {law}"]
        if self.plan is None or self.prediction is None:
            return [*sentences, str(self.constrained), f"no run is planned: {self.unplanned}"]
        return [*sentences, self._allocation(), self._prediction(self.prediction)]

    def _allocation(self) -> str:
        """The optimum, and how near the run comes to it."""
        assert self.plan is not None
        counts = count(self.plan.runs[0].config)
        ratio = counts.tokens / getattr(counts, self.fit.size_column)
        if self.constrained is not None:
            return f"{self.constrained}; this run has D/N = {ratio:.3g}"
        if self.tokens_per_param is not None:
            return f"D/N = {self.tokens_per_param:g} was asked for; this run has {ratio:.3g}"
        optimum = self.fit.optimum(self.flops)
        line = f"compute-optimal at {self.flops:.3g} FLOPs: N* = {float(optimum.params):.4g}"
        line += f" ({self.fit.size_column})" * (self.fit.size_column != TOTAL) + ", D*/N* = "
        line += f"{float(optimum.tokens_per_param):.3g}"
        if self.ratio_interval is not None:
            line += f" {span(self.ratio_interval, '.3g')} ({LEVEL:.0%})"
        return f"{line}; this run has D/N = {ratio:.3g}"

    def _prediction(self, prediction: Prediction) -> str:
        unit = "nats per token" if self.fit.unit == "nats" else self.fit.unit
        loss = f"predicted loss {prediction.loss_nats:.4f} {unit}"
        if not all(map(math.isfinite, prediction.interval)):
            return f"{loss}; no interval, since the fit's table is not here"
        ends = (prediction.law_interval, prediction.mean_interval, prediction.interval)
        of_law, of_mean, of_run = (f"[{low:.4f}, {high:.4f}]" for low, high in ends)
        where = (
            f"the law lies in {of_law} if its form is right, the mean over such runs in {of_mean}, this run in {of_run}"
        )
        doubt = f"; warning: {prediction.warning}" if prediction.warning else ""
        return f"{loss}; {where} ({LEVEL:.0%}){doubt}"

    def to_json(self) -> dict[str, Any]:
        """The budget, the law, the allocation and the prediction as plain numbers."""
        value: dict[str, Any] = {"flops": self.flops, "law": self.fit.law.values()}
        if self.prediction is not None:
            value["prediction"] = self.prediction.to_json()
        return value if self.constrained is None else {**value, "constrained": self.constrained.to_json()}


def optimal(path: Path, limits: Limits, tokens_per_param: float | None, sweep: Sweep | None) -> OptimalRun:
    """What the fit in `path` predicts to be best under `limits`, and the run at it, made by the recipe of `sweep`.

    Without `sweep` the recipe is that of the fitted runs: of sweeps/NAME.py, after the table's name. An allocation that
    no recipe here can make is stated without a run. Raises `UserError` where nothing meets the limits, the family has
    no such size, or the budget alone is asked for and no recipe is known.
    """
    check(tokens_per_param is None or tokens_per_param > 0, f"--tokens-per-param {tokens_per_param}: must be positive")
    fit = fitted_law(path, any_inputs=True)
    if not limits.constrain and fit.law.INPUTS == ("params", "tokens"):
        return _at_budget(path, fit, limits.flops, tokens_per_param, sweep or _sweep_of(path))
    check(tokens_per_param is None, "--tokens-per-param fixes D/N, and further constraints choose it: leave one out")
    fit = _with_samples(path, fit)
    best = limits.best(fit)
    try:
        sweep = sweep or _sweep_of(path)
        point = _point(fit, best.optimum.inputs, path)
    except UserError as error:
        return OptimalRun(fit, None, unplanned=str(error), constrained=best)
    plan = _plan_of_one(path, sweep, point)
    inputs = inputs_of(plan.runs[0].config, fit.law.INPUTS, fit.size_column)
    prediction = fit.predict(LEVEL, **inputs)
    return OptimalRun(fit, point["flops"], plan, prediction=prediction, constrained=best)


def _at_budget(
    path: Path, fit: LossLaw, flops: float | None, tokens_per_param: float | None, sweep: Sweep
) -> OptimalRun:
    """The best run for a budget of training FLOPs alone, or that of a given D/N."""
    assert flops is not None
    plan = _plan_of_one(
        path, sweep, {_coordinate(fit, path): _params(fit, flops, tokens_per_param), "flops": float(flops), "seed": 0}
    )
    fit = _with_samples(path, fit)
    prediction = fit.predict(LEVEL, **inputs_of(plan.runs[0].config, fit.law.INPUTS, fit.size_column))
    interval = None
    if fit.samples is not None and tokens_per_param is None:
        interval = fit.interval(lambda one: one.optimum(flops).tokens_per_param, LEVEL)
    return OptimalRun(fit, float(flops), plan, "", prediction, tokens_per_param, interval)


def _point(fit: LossLaw, inputs: Mapping[str, float], path: Path) -> dict[str, float]:
    """The point of a sweep at an allocation. Raises `UserError` for an input that no point has."""
    others = [name for name in fit.law.INPUTS if name not in ("params", "tokens")]
    if unknown := [name for name in others if name not in COORDINATES]:
        raise UserError(f"a point of a sweep has no {unknown[0]}, of which the law {fit.law.NAME!r} is")
    if lacking := [name for name in ("params", "tokens") if name not in inputs]:
        raise UserError(f"the law {fit.law.NAME!r} chooses no {lacking[0]}: give `given='{lacking[0]}=...'`")
    flops = float(fit.compute.flops(inputs["params"], inputs["tokens"]))
    whole = {name: round(inputs[name]) if name in WHOLE else inputs[name] for name in others}
    return {_coordinate(fit, path): inputs["params"], "flops": flops, "seed": 0, **whole}


def _plan_of_one(path: Path, sweep: Sweep, point: dict[str, float]) -> Plan:
    """The plan of the run at a point. Raises `UserError` where the recipe has no such size."""
    flops = point["flops"]
    try:
        config = sweep.recipe({name: value for name, value in point.items() if name != "unique_tokens"})
        if "unique_tokens" in point:  # how often the text is repeated follows from the length, which the shape sets
            point = {**{name: value for name, value in point.items() if name != "flops"}, "tokens": config.tokens}
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
        flops_budget=flops,
        origins={
            **(origins(point) if callable(origins) else {}),
            "point": f"the optimum of {path.name} at {flops:.4g} FLOPs",
        },
    )
    return plan_of_runs(f"{sweep.name}-optimal-{flops:.3g}".replace("+", ""), [run], question=sweep.question, law="")


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
        inputs = (*fit.law.INPUTS, fit.law.TARGET)
        table = counted_by(read_table(_table_of(path), None, None, inputs), fit.size_column)
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
    from lmscale.study.fits.results.artefact import FIT_AGAIN

    value = read_json(path, "fit", FIT_AGAIN)
    table = value.get("table") if isinstance(value, dict) else None
    return table if isinstance(table, str) else ""
