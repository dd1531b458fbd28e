"""Which form predicts best? Laws ranked by their error on unseen runs, never by their fit to seen ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lmscale.errors import UserError
from lmscale.fits.losslaw import LossLaw
from lmscale.fits.parametric import loss_law
from lmscale.fits.result import clean, percentiles, span
from lmscale.laws import Law, form
from lmscale.tables import flags

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Candidate:
    """One law's score. Errors are root mean squares of ln(predicted / measured) over the unseen runs."""

    law: str
    error: float
    interval: tuple[float, float]
    """95 %, over bootstrap resamples of the fitted runs."""
    bias: float
    """Mean of ln(predicted / measured): above 0 the law is too pessimistic."""
    in_sample: float
    """The same error on the fitted runs: shown because everyone asks, not used."""
    beaten: float
    """Share of resamples in which this law's error is above the best law's."""
    fit: LossLaw


@dataclass(frozen=True)
class Comparison:
    """Candidates, best first; laws that the table cannot support, with the reason."""

    candidates: tuple[Candidate, ...]
    left_out: tuple[tuple[str, str], ...]
    unseen: tuple[str, ...]
    """The runs that were predicted."""
    rule: str
    """How they were chosen."""

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
        return "\n".join([*lines, *(f"  {law} left out: {reason}" for law, reason in self.left_out)])


def compare(
    table: "pd.DataFrame",
    laws: Sequence[str | type[Law]] = ("chinchilla", "outer-exponent", "over-training", "kaplan"),
    *,
    loss: str = "huber",
    delta: float = 1e-3,
    resamples: int = 200,
    seed: int = 0,
) -> Comparison:
    """Fit every law to the smaller runs and predict the rest.

    Unseen are the rows marked `held_out`; without any, those of the largest budget (or, where rows have no budgets, the
    largest tenth by FLOPs). All laws see the same resamples. Raises `UserError` where no law can be fitted.
    """
    train, test, rule = split(table)
    candidates, left_out, errors = [], [], {}
    for law in laws:
        shape = form(law) if isinstance(law, str) else law
        try:
            fitted = loss_law(train, shape, loss=loss, delta=delta, resamples=resamples, seed=seed, check=False, at=())
        except UserError as error:
            left_out.append((shape.NAME, str(error)))
            continue
        inputs = [np.asarray(test[name], dtype=float) for name in shape.INPUTS]
        measured = np.asarray(test[shape.TARGET], dtype=float)
        gap = np.log(np.asarray(fitted.law.loss(*inputs)) / measured)
        drawn = (
            fitted.resample().law.loss(*[column[:, None] for column in inputs])
            if resamples
            else np.exp(gap)[:, None] * measured[:, None]
        )
        drawn_errors = np.sqrt(np.mean(np.log(drawn / measured[:, None]) ** 2, axis=0))
        errors[shape.NAME] = drawn_errors
        residual = np.log(np.asarray(fitted.residuals["predicted"]) / np.asarray(fitted.residuals["measured"]))
        candidates.append(
            Candidate(
                shape.NAME,
                float(np.sqrt(np.mean(gap**2))),
                percentiles(drawn_errors, 0.95),
                float(gap.mean()),
                float(np.sqrt(np.mean(residual**2))),
                0.0,
                fitted,
            )
        )
    if not candidates:
        raise UserError("no law could be fitted: " + "; ".join(f"{law}: {reason}" for law, reason in left_out))
    candidates.sort(key=lambda c: c.error)
    best = errors[candidates[0].law]
    ranked = tuple(
        Candidate(
            c.law, c.error, c.interval, c.bias, c.in_sample, float(np.mean(errors[c.law] > best * (1 + 1e-6))), c.fit
        )
        for c in candidates
    )
    return Comparison(ranked, tuple(left_out), tuple(str(run) for run in test["run"]), rule)


def split(table: "pd.DataFrame") -> "tuple[pd.DataFrame, pd.DataFrame, str]":
    """(seen, unseen, rule), each of runs with a measured loss."""
    table = table[table["loss_nats"].notna()]
    if "held_out" in table and (held := flags(table, "held_out")).any():
        return table[~held], table[held], "marked held_out"
    if "flops_budget" in table and table["flops_budget"].notna().all() and table["flops_budget"].nunique() > 1:
        top = table["flops_budget"] >= 0.999 * table["flops_budget"].max()
        return table[~top], table[top], f"the largest budget, {table['flops_budget'].max():.3g} FLOPs"
    if "flops" not in table or len(table) < 10:
        raise UserError(
            "comparing laws needs runs to predict: mark them held_out, or give at least 10 runs with their FLOPs"
        )
    edge = float(np.sort(np.asarray(table["flops"]))[-max(3, len(table) // 10)])
    return table[table["flops"] < edge], table[table["flops"] >= edge], f"the largest tenth, from {edge:.3g} FLOPs"
