"""Which form predicts best? Laws ranked by their error on unseen runs, never by their fit to seen ones."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lmscale.core.arguments import checked
from lmscale.core.errors import UserError, nearest
from lmscale.study.fits.approaches.parametric import loss_law
from lmscale.study.fits.options import FitOptions, chosen
from lmscale.study.fits.results.common import Dropped, Status, clean, dropped_lines, percentiles, span, status_lines
from lmscale.study.fits.results.loss_law import LossLaw
from lmscale.study.fits.results.notebook import Printed
from lmscale.study.fits.runs import UsableRuns, usable
from lmscale.study.grouping import group_count, group_values, in_largest_group
from lmscale.study.laws import Law, form, input_named
from lmscale.study.tables import TableSource, flags

if TYPE_CHECKING:
    import pandas as pd


RESAMPLES = 200


@dataclass(frozen=True)
class Candidate:
    """One law's score. Errors are root mean squares of ln(measured / predicted) over the unseen runs."""

    law: str
    error: float
    interval: tuple[float, float]
    """95 %, over bootstrap resamples of the fitted runs."""
    bias: float
    """Mean of ln(measured / predicted): above 0 the law predicts too low."""
    in_sample: float
    """The error on the fitted runs: shown, not used."""
    beaten: float
    """Share of resamples in which this law's error is above the best law's."""
    fit: LossLaw


@dataclass(frozen=True)
class Comparison(Printed):
    """Candidates, best first; laws that the table cannot support, with the reason."""

    candidates: tuple[Candidate, ...]
    left_out: tuple[tuple[str, str], ...]
    unseen: tuple[str, ...]
    """The runs that were predicted."""
    rule: str
    """How they were chosen."""
    dropped: tuple[Dropped, ...] = ()
    """Runs that were neither fitted nor predicted, with the reason."""
    status: tuple[Status, ...] = ()
    """What is in doubt about the runs."""

    def to_json(self) -> dict[str, Any]:
        return clean(
            {
                "rule": self.rule,
                "unseen": list(self.unseen),
                "candidates": [
                    {k: v for k, v in c.__dict__.items() if k != "fit"} | {"parameters": c.fit.law.values()}
                    for c in self.candidates
                ],
                "left_out": [{"law": law, "reason": reason} for law, reason in self.left_out],
                "dropped": [dropped.to_json() for dropped in self.dropped],
                "status": [status.to_json() for status in self.status],
            }
        )

    def __str__(self) -> str:
        lines = [
            f"Laws by their error on {len(self.unseen)} unseen runs ({self.rule}):",
            f"  {'law':>18}  {'error':>7}  {'95 %':>18}  {'bias':>7}  {'in sample':>9}  worse than best in",
        ]
        for c in self.candidates:
            lines.append(
                f"  {c.law:>18}  {100 * c.error:>6.2f}%  {span([100 * v for v in c.interval], '.2f'):>18}  "
                f"{100 * c.bias:>+6.2f}%  "
                f"{100 * c.in_sample:>8.2f}%  {100 * c.beaten:.0f} % of resamples"
            )
        lines += [f"  {law} left out: {reason}" for law, reason in self.left_out]
        return "\n".join([*lines, *dropped_lines(self.dropped), *status_lines(self.status)])


@checked
def compare(
    table: TableSource,
    laws: str | type[Law] | Sequence[str | type[Law]] = ("chinchilla", "outer-exponent", "over-training", "kaplan"),
    options: FitOptions | None = None,
    **changes: Any,
) -> Comparison:
    """Fit every law to the smaller runs and predict the rest.

    `laws` are names, classes or import paths; `changes` are fields of `FitOptions`: loss, delta, resamples (200 unless
    given), seed, rates, columns, where. Unseen are the rows marked `held_out`; without any, those of the largest budget
    (or, where rows have no budgets, the largest tenth by FLOPs). Seen and unseen rows pass through `runs.usable`, as
    those of any fit, with the inputs of all laws together: so every law sees the same runs and resamples, and is judged
    by the same losses. A law whose columns the table lacks, or whose target is not the first one's, is left out. Raises
    `UserError` where no law can be fitted, or no run is left to predict.
    """
    shapes = [form(law) for law in ([laws] if isinstance(laws, str | type) else laws)]
    if not shapes:
        raise UserError("no law was given to compare: name several, as in ['chinchilla', 'kaplan']")
    names = dict.fromkeys(name for shape in shapes for name in (*shape.INPUTS, shape.TARGET))
    rows, options = chosen("compare", options, changes).read(table, tuple(names))
    resamples = RESAMPLES if options.resamples is None else options.resamples
    options = replace(options, resamples=resamples, check=False, at=(), residual=None, fixed=None)
    shapes, left_out = _fitting(rows, shapes)
    inputs = tuple(dict.fromkeys(name for shape in shapes for name in shape.INPUTS))
    target = shapes[0].TARGET
    train, test, rule = split(rows, inputs, target, options.rates, shapes)
    candidates, drawn_errors = [], {}
    for shape in shapes:
        try:
            fitted = loss_law(train.table, shape, options)
        except UserError as error:
            left_out.append((shape.NAME, str(error)))
            continue
        candidate, drawn_errors[shape.NAME] = _judged(fitted, shape, test, max(resamples, 1))
        candidates.append(candidate)
    if not candidates:
        raise UserError("no law could be fitted: " + "; ".join(f"{law}: {reason}" for law, reason in left_out))
    candidates.sort(key=lambda candidate: candidate.error)
    best = drawn_errors[candidates[0].law] * (1 + 1e-6)
    ranked = (replace(one, beaten=float(np.mean(drawn_errors[one.law] > best))) for one in candidates)
    return Comparison(
        tuple(ranked),
        tuple(left_out),
        tuple(test.names),
        rule,
        _together(train.dropped, test.dropped),
        _doubts(train, test),
    )


def _judged(fitted: LossLaw, shape: type[Law], test: UsableRuns, draws: int) -> tuple[Candidate, np.ndarray]:
    """A fitted law with its errors on the unseen runs, not yet compared with others; the error in every draw."""
    measured, columns = test.column(shape.TARGET), [test.column(name) for name in shape.INPUTS]
    predicted = np.broadcast_to(np.asarray(fitted.law.loss(*columns), dtype=float), measured.shape)
    gap = _gap(predicted, measured)
    drawn = predicted[:, None]
    if fitted.samples is not None:
        drawn = np.asarray(fitted.samples.loss(*[column[:, None] for column in columns]))
    errors = np.sqrt(np.mean(_gap(drawn, measured[:, None]) ** 2, axis=0))
    residual = _gap(np.asarray(fitted.residuals["predicted"]), np.asarray(fitted.residuals["measured"]))
    candidate = Candidate(
        law=shape.NAME,
        error=float(np.sqrt(np.mean(gap**2))),
        interval=percentiles(errors, 0.95),
        bias=-float(gap.mean()),
        in_sample=float(np.sqrt(np.mean(residual**2))),
        beaten=0.0,
        fit=fitted,
    )
    return candidate, np.broadcast_to(errors, (draws,)) if drawn.shape[-1] == 1 else errors


def _gap(predicted: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """ln(predicted / measured); the plain difference of a target that may be 0 or negative, as a reward."""
    if (measured > 0).all() and (predicted > 0).all():
        return np.asarray(np.log(predicted / measured))
    return np.asarray(predicted - measured)


def _fitting(table: "pd.DataFrame", shapes: list[type[Law]]) -> tuple[list[type[Law]], list[tuple[str, str]]]:
    """The laws whose columns the table has, and the others with the reason. Raises `UserError` where it has none's."""
    good: list[type[Law]] = []
    left_out = []
    for shape in shapes:
        lacking = [name for name in (*shape.INPUTS, shape.TARGET) if name not in table]
        if lacking:
            near = nearest(lacking[0], map(str, table.columns))
            left_out.append((shape.NAME, f"the table has no column {lacking[0]!r}{near}"))
        elif good and shape.TARGET != good[0].TARGET:
            left_out.append((shape.NAME, f"it states {shape.TARGET}, and {good[0].NAME!r} states {good[0].TARGET}"))
        else:
            good.append(shape)
    if not good:
        raise UserError("no law could be fitted: " + "; ".join(f"{law}: {reason}" for law, reason in left_out))
    return good, left_out


def _together(*dropped: Sequence[Dropped]) -> tuple[Dropped, ...]:
    return tuple(dict.fromkeys(item for items in dropped for item in items))


def _doubts(train: UsableRuns, test: UsableRuns) -> tuple[Status, ...]:
    unseen = [replace(status, sentence=f"unseen runs: {status.sentence}") for status in test.statuses]
    return (*train.statuses, *(unseen if test.statuses != train.statuses else ()))


def split(
    table: "pd.DataFrame",
    inputs: Sequence[str] = ("params", "tokens"),
    target: str = "loss_nats",
    rates: str = "inside",
    shapes: Sequence[type[Law]] = (),
) -> tuple[UsableRuns, UsableRuns, str]:
    """(seen, unseen, rule), both as `runs.usable` leaves them.

    Raises `UserError` where no run is left on either side, or the table does not state which are large.
    """
    if "held_out" in table and (marked := flags(table, "held_out")).any():
        rows = table.drop(columns="held_out")
        seen, unseen = (_usable(rows[side], inputs, target, rates, shapes) for side in (~marked, marked))
        return seen, unseen, "marked held_out"
    runs = usable(table, inputs, target, rates, law=shapes, positive_target=_logs(shapes))
    rows = runs.table
    budgets = runs.column("flops_budget") if "flops_budget" in rows else np.full(len(rows), np.nan)
    if np.isfinite(budgets).all() and group_count(budgets) > 1:
        top = in_largest_group(budgets)
        largest = group_values(budgets)[top][0]
        return _part(runs, ~top), _part(runs, top), f"the largest budget, {largest:.3g} FLOPs"
    scale = _scale(rows, inputs)
    if scale is None or len(rows) < 10:
        raise UserError(
            "comparing laws needs runs to predict: mark them held_out, or give at least 10 runs with FLOPs or sizes"
        )
    edge = float(np.sort(np.asarray(rows[scale]))[-max(3, len(rows) // 10)])
    top = np.asarray(rows[scale] >= edge)
    if top.all():
        raise UserError(f"all runs have one value of {scale}: mark the runs to predict held_out")
    unit = "FLOPs" if scale == "flops" else scale
    return _part(runs, ~top), _part(runs, top), f"the largest tenth, from {edge:.3g} {unit}"


def _scale(rows: "pd.DataFrame", inputs: Sequence[str]) -> str | None:
    """The column by which runs are large: FLOPs, else the first input that is a size, data or a count."""
    if "flops" in rows and rows["flops"].notna().all():
        return "flops"
    large = (name for name in inputs if input_named(name).role in ("size", "data", "compute", "count", "amount"))
    return next(large, None)


def _logs(shapes: Sequence[type[Law]]) -> bool:
    """Whether a law fits the logarithm of the target, which is then positive."""
    return not shapes or any(shape.RESIDUAL == "log" for shape in shapes)


def _usable(
    rows: "pd.DataFrame", inputs: Sequence[str], target: str, rates: str, shapes: Sequence[type[Law]]
) -> UsableRuns:
    """`usable` rows whose table also states what was dropped, for the fits that take it."""
    runs = usable(rows, inputs, target, rates, law=shapes, positive_target=_logs(shapes))
    return _part(runs, np.ones(len(runs), dtype=bool))


def _part(runs: UsableRuns, keep_n: np.ndarray) -> UsableRuns:
    rows = runs.table[keep_n].reset_index(drop=True)
    rows.attrs = {**rows.attrs, "dropped": [item.to_json() for item in runs.dropped]}
    return replace(runs, table=rows)
