"""Approach 3: a parametric loss law through all runs (Hoffmann 2022, section 3.3; refit by Besiroglu 2024)."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from lmscale.errors import UserError, nearest
from lmscale.fits import checks
from lmscale.fits.problem import Problem
from lmscale.fits.result import (
    LEVELS,
    Dropped,
    Prediction,
    Status,
    allocation_json,
    allocation_lines,
    both_levels,
    clean,
    dropped_lines,
    percentiles,
    sampled,
    shared_json,
    span,
    status_lines,
)
from lmscale.fits.runs import Runs, compute_model, resample_counts, usable
from lmscale.laws import SIX_ND, Allocation, ComputeModel, Law, form

if TYPE_CHECKING:
    import pandas as pd

PUBLISHED_AT = (1e18, 1e19, 1e20, 1e21, 1e22, 1e23, 5.76e23, 1e24, 1e25, 1e26)
"""Budgets at which the published Chinchilla runs are usually quoted; 5.76e23 is Gopher's."""


@dataclass(frozen=True)
class LossLaw:
    """A fitted law with its bootstrap of R resamples. Losses in nats per token, or the law's own target."""

    law: Law
    samples: Law | None
    """The law whose parameters are arrays (R,), one per bootstrap resample; None where none were asked for."""
    loss_function: str
    delta: float
    residual: str
    objective: float
    """Sum over runs of Huber (0.5 r^2 inside delta, delta (|r| - delta/2) outside), |r| or r^2."""
    residuals: Mapping[str, Any]
    """Columns run, the law's inputs, measured, predicted, residual (predicted minus measured, of ln L or of L)."""
    compute: ComputeModel = SIX_ND
    largest_flops: float = math.nan
    status: tuple[Status, ...] = ()
    dropped: tuple[Dropped, ...] = ()
    notes: tuple[str, ...] = ()
    table_hash: str = ""
    seed: int = 0
    at: tuple[float, ...] = ()
    name: str = ""
    fixed: tuple[str, ...] = ()
    """Parameters that were held, not fitted."""

    approach: ClassVar[str] = "3"

    @property
    def n_runs(self) -> int:
        return len(self.residuals["residual"])

    @property
    def resamples(self) -> int:
        return 0 if self.samples is None else len(next(iter(self.samples.values().values())))

    def optimum(self, flops: Any) -> Allocation:
        """The compute-optimal N, D and loss at `flops` under the table's compute model.

        Raises `UserError` as the law does.
        """
        return self.law.optimum(flops, self.compute)

    def exponents(self) -> dict[str, Any]:
        """{"params": a, "tokens": b} of N* ~ C^a and D* ~ C^b; empty for a law without them."""
        return self.law.exponents(self.compute)

    def resample(self, index: int | slice = slice(None)) -> "LossLaw":
        """This fit with the parameters of one resample, or of all (then every answer is an array)."""
        if self.samples is None:
            raise UserError("this fit has no resamples; fit with --resamples 4000 to state intervals")
        values = {name: value[index] for name, value in self.samples.values().items()}
        return replace(self, law=type(self.law)(**values), samples=None)

    def draws(self, quantity: str | Callable[["LossLaw"], Any]) -> np.ndarray:
        """`quantity` of every resample (R,): a parameter's name, "a", "b", or a function of the fit."""
        if isinstance(quantity, str):
            known = {**self.resample().law.values(), **_exponent_names(self.resample().exponents())}
            if quantity not in known:
                raise UserError(
                    f"the fit has no quantity {quantity!r}; known: {', '.join(known)}, or give a function of the fit"
                )
            return np.asarray(known[quantity], dtype=float)
        return sampled(quantity, self.resample(), self.resample, self.resamples)

    def interval(self, quantity: str | Callable[["LossLaw"], Any], level: float = 0.95) -> tuple[float, float]:
        """The percentile bootstrap interval of any quantity the law can state: where the *law* lies.

        A new run scatters more; see `predict`. Raises `UserError` for an unknown name or a fit without resamples.
        """
        return percentiles(self.draws(quantity), level)

    def predict(self, level: float = 0.95, **inputs: float) -> Prediction:
        """The loss at new inputs (params=..., tokens=...), with the law's interval and one new run's.

        A new run's scatter is drawn from the fit's residuals, widened by sqrt(n / (n - p)) for the p fitted parameters.
        Raises `UserError` where an input is missing.
        """
        needed = self.law.INPUTS
        if set(inputs) != set(needed):
            raise UserError(
                f"predict was given {', '.join(inputs) or 'nothing'}: the law {self.law.NAME!r} takes "
                f"{', '.join(needed)}"
            )
        order = [inputs[name] for name in needed]
        loss = float(self.law.loss(*order))
        if self.samples is None:
            return Prediction(dict(inputs), loss, (math.nan, math.nan), (math.nan, math.nan), level)
        lies = np.asarray(self.samples.loss(*order))
        residual = np.asarray(self.residuals["residual"])
        fitted = len(self.law.names()) - len(self.fixed)
        widen = math.sqrt(self.n_runs / max(1, self.n_runs - fitted))
        noise = -widen * np.random.default_rng(self.seed).choice(residual, size=lies.shape)
        lands = lies * np.exp(noise) if self.residual == "log" else lies + noise
        return Prediction(dict(inputs), loss, percentiles(lies, level), percentiles(lands, level), level)

    def allocations(self, at: Sequence[float] | None = None) -> list[dict[str, Any]]:
        """The optimum at each budget as plain numbers with 80 % and 95 % intervals; empty for a law without one."""
        if self.law.INPUTS[:2] != ("params", "tokens"):
            return []
        batch = None if self.samples is None else self.resample()
        with np.errstate(all="ignore"):  # a resample that fixes no law may have its optimum at infinity
            return [
                allocation_json(self.optimum(flops), None if batch is None else batch.optimum(flops))
                for flops in (self.at if at is None else at)
            ]

    def _all_draws(self) -> dict[str, np.ndarray]:
        if self.samples is None:
            return {}
        return {
            name: np.asarray(v)
            for name, v in {**self.samples.values(), **_exponent_names(self.resample().exponents())}.items()
        }

    def to_json(self, samples: bool = False) -> dict[str, Any]:
        """Plain numbers, JSON-ready; `samples` adds the resampled parameters, which new intervals need."""
        draws = self._all_draws()
        return clean(
            {
                "approach": self.approach,
                "law": self.law.NAME,
                "formula": self.law.FORMULA,
                "source": self.law.SOURCE,
                "name": self.name,
                "loss_function": self.loss_function,
                "delta": self.delta,
                "residual": self.residual,
                **shared_json(self),
                "parameters": self.law.values(),
                "standard_errors": {k: float(np.std(v, ddof=1)) if len(v) > 1 else math.nan for k, v in draws.items()},
                "intervals": both_levels(draws),
                "fixed": list(self.fixed),
                "seed": self.seed,
                "residuals": dict(self.residuals),
                **(
                    {"samples": {k: np.asarray(v) for k, v in self.samples.values().items()}}
                    if samples and self.samples
                    else {}
                ),
            }
        )

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "LossLaw":
        """The fit again. Without saved samples it states its law and optimum, but no new interval."""
        shape = form(value["law"])
        samples = value.get("samples")
        compute = value["compute_model"]
        return cls(
            law=shape(**value["parameters"]),
            samples=shape(*[np.asarray(samples[name]) for name in shape.names()]) if samples else None,
            loss_function=value["loss_function"],
            delta=value["delta"],
            residual=value["residual"],
            objective=value["objective"],
            residuals={k: np.asarray(v) if k != "run" else list(v) for k, v in value["residuals"].items()},
            compute=ComputeModel(compute["k"], compute["p"], compute["largest_residual"]),
            largest_flops=math.nan if value["largest_flops"] is None else value["largest_flops"],
            status=tuple(Status(s["name"], s["sentence"], s["severity"]) for s in value["status"]),
            dropped=tuple(Dropped(d["run"], d["reason"]) for d in value["dropped"]),
            notes=tuple(value["notes"]),
            table_hash=value["table_hash"],
            seed=value["seed"],
            at=tuple(a["flops"] for a in value["allocations"]),
            name=value["name"],
            fixed=tuple(value["fixed"]),
        )

    def __str__(self) -> str:
        draws = self._all_draws()
        how = {"huber": f"Huber (delta = {self.delta:g})", "lad": "absolute deviations", "squared": "squares"}[
            self.loss_function
        ]
        of = "ln L" if self.residual == "log" else "L"
        rms = np.sqrt(np.mean(np.square(self.residuals["residual"])))
        lines = [
            f"Approach 3{': ' + self.name if self.name else ''}: {self.law.FORMULA} through {self.n_runs} runs",
            f"  sum of {how} on {of}: {self.objective:.14g}; rms residual {rms:.4f}",
        ]
        for name, value in {**self.law.values(), **_exponent_names(self.exponents())}.items():
            label = {"a": "a (N* ~ C^a)", "b": "b (D* ~ C^b)"}.get(name, name) if self.exponents() else name
            said = f"  {label:>14} = {value:<12.7g}"
            if name in self.fixed:
                said += " (held)"
            elif name in draws and self.resamples > 1:
                said += f" s.e. {np.std(draws[name], ddof=1):<9.4g}"
                said += " ".join(
                    f" {100 * level:g} % {span(percentiles(draws[name], level), '.5g')}" for level in LEVELS
                )
            lines.append(said)
        if rows := self.allocations():
            lines += allocation_lines(rows, str(self.compute))
        lines += [f"  {note}" for note in self.notes]
        lines += dropped_lines(self.dropped)
        return "\n".join([*lines, *status_lines(self.status)])


def _exponent_names(exponents: Mapping[str, Any]) -> dict[str, Any]:
    return {short: exponents[name] for short, name in (("a", "params"), ("b", "tokens")) if name in exponents}


def loss_law(
    table: "pd.DataFrame",
    law: str | type[Law] = "chinchilla",
    *,
    loss: str = "huber",
    delta: float = 1e-3,
    residual: str | None = None,
    resamples: int = 4000,
    seed: int = 0,
    strata: str | None = None,
    clusters: str | None = None,
    fixed: Mapping[str, float] | None = None,
    at: Sequence[float] | None = None,
    check: bool = True,
) -> LossLaw:
    """Fit a law to the rows of a canonical table (see `lmscale.tables`); rows marked `held_out` are left out.

    `loss` is "huber" (Hoffmann 2022, eq. 3; summed, not averaged), "lad" or "squared"; `residual` is "log" or "raw",
    None takes the form's own. The bootstrap draws runs; `strata` and `clusters` name columns whose groups keep their
    size, or are drawn whole (a column `trunk` with shared values is a cluster unless told otherwise). `fixed` holds
    parameters. `at` are the budgets whose allocation is stated. `check` False leaves out the checks that fit again.

    Raises `UserError` for unknown columns, no usable run, or fewer runs than parameters.
    """
    shape = form(law) if isinstance(law, str) else law
    runs = usable(table, shape.INPUTS, shape.TARGET)
    problem = Problem(
        shape,
        tuple(runs.column(name) for name in shape.INPUTS),
        runs.column(shape.TARGET),
        loss,
        delta,
        residual or shape.RESIDUAL,
        fixed,
    )
    distinct = len(runs.table.drop_duplicates(list(shape.INPUTS)))
    if distinct < len(problem.free):
        raise UserError(
            f"{len(runs)} runs at {distinct} distinct points cannot fix the {len(problem.free)} parameters of the law "
            f"{shape.NAME!r}: add runs, or hold parameters with fixed"
        )
    best = problem.best()
    compute, compute_status = compute_model(runs.table)
    status = [*runs.statuses, compute_status]
    notes = list(runs.notes)
    if clusters is None and "trunk" in runs.table and runs.table["trunk"].duplicated().any():
        clusters = "trunk"
        notes.append("branches of one trunk share their noise: the bootstrap draws whole trunks")
    samples, converged = None, 0
    if resamples:
        counts = resample_counts(
            np.random.default_rng(seed), len(runs), resamples, _labels(runs, strata), _labels(runs, clusters)
        )
        counts, thin = _rich_enough(runs, shape, counts, len(problem.free))
        status += thin
        values_pb, good = problem.many(counts, best.values_p)
        samples, converged = problem.law(values_pb), int(good.sum())
    fitted = shape(*[float(v) for v in best.values_p])
    largest = float(runs.table["flops"].max()) if "flops" in runs.table else math.nan
    wanted, without = _with_optimum(fitted, compute, tuple(at) if at is not None else decades(runs))
    status += without
    status += checks.of_loss_law(
        problem,
        best,
        runs,
        compute,
        samples=samples,
        converged=converged,
        at=wanted,
        largest_flops=largest,
        refit=check,
    )
    measured = problem.target_n
    predicted = np.asarray(fitted.loss(*problem.inputs))
    residuals = {
        "run": runs.names,
        **dict(zip(shape.INPUTS, problem.inputs)),
        "measured": measured,
        "predicted": predicted,
        "residual": problem.residuals(best.values_p),
    }
    return LossLaw(
        law=fitted,
        samples=samples,
        loss_function=loss,
        delta=delta,
        residual=problem.residual,
        objective=best.objective,
        residuals=residuals,
        compute=compute,
        largest_flops=largest,
        status=tuple(status),
        dropped=runs.dropped,
        notes=tuple(notes),
        table_hash=runs.digest(),
        seed=seed,
        at=wanted,
        fixed=tuple(fixed or ()),
    )


def _rich_enough(runs: Runs, shape: type[Law], counts: np.ndarray, unknowns: int) -> tuple[np.ndarray, list[Status]]:
    """The resamples that hold at least as many distinct points as the law has unknowns: the others fix no law."""
    point = runs.table.groupby(list(shape.INPUTS), sort=False).ngroup().to_numpy()
    held = np.zeros((point.max() + 1, counts.shape[1]), dtype=bool)
    np.logical_or.at(held, point, counts > 0)
    good = held.sum(axis=0) >= unknowns
    if good.all():
        return counts, []
    said = f"{int((~good).sum())} of {len(good)} resamples hold fewer than {unknowns} distinct points and are left out"
    if not good.any():
        raise UserError(f"{said}: the table is too small for a bootstrap; fit with --resamples 0")
    return counts[:, good], [Status("small table", f"{said}: intervals are too narrow", "warning")]


def _with_optimum(law: Law, compute: ComputeModel, at: Sequence[float]) -> tuple[tuple[float, ...], list[Status]]:
    """The budgets at which the law has an optimum, and a status for the others; none for a law without model sizes."""
    if law.INPUTS[:2] != ("params", "tokens"):
        return (), []
    good, said = [], ""
    for flops in at:
        try:
            law.optimum(flops, compute)
            good.append(flops)
        except UserError as error:
            said = str(error)
    return tuple(good), [Status("no optimum", said, "warning")] if said else []


def decades(runs: Runs) -> tuple[float, ...]:
    """Powers of ten from the smallest run's FLOPs to about ten times the largest's."""
    if "flops" not in runs.table or not np.isfinite(runs.column("flops")).any():
        return ()
    log_flops = np.log10(runs.column("flops"))
    return tuple(10.0**power for power in range(math.floor(np.nanmin(log_flops)), math.ceil(np.nanmax(log_flops)) + 2))


def _labels(runs: Runs, column: str | None) -> Any:
    if column is None:
        return None
    if column == "budget":
        column = "flops_budget"
    if column not in runs.table:
        raise UserError(
            f"the table has no column {column!r} to group the bootstrap by"
            f"{nearest(column, map(str, runs.table.columns))}"
        )
    return runs.table[column].astype(str)
