"""`lmscale plan --optimal`: from a fitted law and a budget to one run, with the loss that is predicted of it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmscale.commands.plan.prior import fitted_law
from lmscale.core.config import check
from lmscale.core.counting import count
from lmscale.core.errors import UserError
from lmscale.core.files import read_json
from lmscale.core.plans import PlannedRun, read_plan
from lmscale.study.fits import LossLaw, loss_law
from lmscale.study.fits.results.common import Prediction
from lmscale.study.sweep import Plan, Sweep, load, of_runs_made

LEVEL = 0.95


@dataclass(frozen=True)
class Optimal:
    """One run, and what the law says of it."""

    plan: Plan
    fit: LossLaw
    flops: float
    tokens_per_param: float | None
    """D/N that was asked for; None took the law's own optimum."""
    prediction: Prediction
    ratio_interval: tuple[float, float] | None
    """Of D*/N* at the budget, 95 %."""

    def lines(self) -> list[str]:
        """What is printed under the plan."""
        counts = count(self.plan.runs[0].config)
        law, found = self.fit.law, self.prediction
        said = [f"By {law.NAME} through {self.fit.n_runs} runs, {self.fit.compute}: {law}"]
        if self.tokens_per_param is None:
            optimum = self.fit.optimum(self.flops)
            line = f"compute-optimal at {self.flops:.3g} FLOPs: N* = {float(optimum.params):.4g}, D*/N* = "
            line += f"{float(optimum.tokens_per_param):.3g}"
            if self.ratio_interval is not None:
                line += f" [{self.ratio_interval[0]:.3g}, {self.ratio_interval[1]:.3g}] ({LEVEL:.0%})"
            said.append(f"{line}; this run has D/N = {counts.tokens_per_param:.3g}")
        else:
            said.append(f"D/N = {self.tokens_per_param:g} was asked for; this run has {counts.tokens_per_param:.3g}")
        if self.fit.samples is None:
            said.append(
                f"predicted loss {found.loss_nats:.4f} nats per token; no interval, since the fit's table is not here"
            )
        else:
            said.append(
                f"predicted loss {found.loss_nats:.4f} nats per token; the law lies in [{found.law_interval[0]:.4f}, "
                f"{found.law_interval[1]:.4f}], this run in [{found.interval[0]:.4f}, {found.interval[1]:.4f}] "
                f"({LEVEL:.0%})"
            )
        return said

    def to_json(self) -> dict[str, Any]:
        """Plain numbers."""
        return {"flops": self.flops, "law": self.fit.law.values(), "prediction": self.prediction.to_json()}


def optimal(path: Path, flops: float, tokens_per_param: float | None, sweep: Sweep | None) -> Optimal:
    """The run that the fit in `path` holds best for `flops`, by the recipe of `sweep`.

    Without `sweep` it is the one that the fitted runs were planned by: sweeps/NAME.py of the table's name. Raises
    `UserError` where that is not to be found or its family has no such size.
    """
    check(flops > 0, f"--flops {flops:g}: must be positive")
    check(tokens_per_param is None or tokens_per_param > 0, f"--tokens-per-param {tokens_per_param}: must be positive")
    fit = fitted_law(path)
    sweep = sweep or _sweep_of(path)
    point = {"params": _params(fit, flops, tokens_per_param), "flops": float(flops), "seed": 0}
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
        flops_budget=float(flops),
        origins={
            **(origins(point) if callable(origins) else {}),
            "point": f"the optimum of {path.name} at {flops:.4g} FLOPs",
        },
    )
    plan = of_runs_made(f"{sweep.name}-optimal-{flops:.3g}".replace("+", ""), [run], question=sweep.question, law="")
    fit, counts = _with_samples(path, fit), count(config)
    prediction = fit.predict(LEVEL, params=float(counts.params), tokens=float(counts.tokens))
    interval = None
    if fit.samples is not None and tokens_per_param is None:
        interval = fit.interval(lambda one: one.optimum(flops).tokens_per_param, LEVEL)
    return Optimal(plan, fit, flops, tokens_per_param, prediction, interval)


def _params(fit: LossLaw, flops: float, tokens_per_param: float | None) -> float:
    """N: the law's, or where the compute model gives C = k N^p D at the ratio asked for."""
    if tokens_per_param is None:
        return float(fit.optimum(flops).params)
    compute = fit.compute
    return float((flops / (compute.k * tokens_per_param)) ** (1 / (1 + compute.p)))


def _with_samples(path: Path, fit: LossLaw) -> LossLaw:
    """The fit, with its resamples: where the file has none, fitted again to the same table as the same seed gives."""
    if fit.samples is not None:
        return fit
    from lmscale.study.tables import read_table

    named = read_json(path, "fit").get("table")
    try:
        table = read_table(str(named), None, None)
        again = loss_law(
            table, type(fit.law), loss=fit.loss_function, delta=fit.delta, residual=fit.residual, resamples=1000,
            seed=fit.seed, rates=fit.rates, check=False, at=(),
        )  # fmt: skip
    except UserError:
        return fit
    return again if again.table_hash == fit.table_hash else fit


def _sweep_of(path: Path) -> Sweep:
    """The sweep file of the runs that were fitted, by name."""
    table = read_json(path, "fit").get("table", "")
    name = ""
    if Path(table).is_dir():
        name, _ = read_plan(Path(table))
    file = Path("sweeps") / f"{name}.py"
    if not name or not file.is_file():
        raise UserError(
            f"{path} was fitted to {table!r}, which no sweep file here belongs to; give the sweep whose recipe is to "
            f"make the run: `lmscale plan SWEEP.py --optimal {path}`"
        )
    return load(file)
