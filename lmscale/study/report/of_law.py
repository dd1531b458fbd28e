"""The page about a law of other inputs than N and D alone: question, answer in sentences, meaning of its symbols."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lmscale.study.laws import Law
from lmscale.study.laws.inputs import ROLES
from lmscale.study.plots import compact, number, power
from lmscale.study.report import account
from lmscale.study.report.answer import LEVEL, NO_ANSWER
from lmscale.study.report.conventions import intervals, targets
from lmscale.study.report.kinds import Kind
from lmscale.study.report.methods import listed

if TYPE_CHECKING:
    import pandas as pd

    from lmscale.study.fits import LossLaw

REQUIRED = ("params", "tokens", "flops", "loss_nats")
"""Columns that every section reads, empty where a table has none."""


def kind_of_law(law: type[Law]) -> Kind:
    """The kind of a page about a law; its question names what the law is of."""
    target = "the loss" if law.TARGET == "loss_nats" else law.TARGET
    question = f"How does {target} depend on {listed(law.INPUTS)}, by the law {law.NAME!r}?"
    return Kind("law", f"The law {law.NAME!r} of", question, fits_law=True, inputs=(*law.INPUTS, law.TARGET))


def with_columns(table: "pd.DataFrame") -> "pd.DataFrame":
    """The table with empty columns where it has none of N, D, C and the loss."""
    attributes = table.attrs
    filled = table.assign(**{name: np.nan for name in REQUIRED if name not in table})
    filled.attrs = attributes
    return filled


def answer(fits: Sequence[Any]) -> list[str]:
    """The law with its numbers, how well it fits, and its best allocation where it states one."""
    return [sentence for fit in fits if fit.approach == "3" for sentence in _of_fit(fit)]


def _of_fit(fit: "LossLaw") -> list[str]:
    if any(status.name == NO_ANSWER for status in fit.status):
        return [f"These runs do not fix the law {fit.law.NAME!r}: its parameters below are arbitrary."]
    rms = float(np.sqrt(np.mean(np.square(np.asarray(fit.residuals["residual"])))))
    scale = f"{100 * rms:.2g} % (root mean square of ln L)" if fit.residual == "log" else f"{rms:.3g} {fit.unit}"
    sentences = [account.parameters(fit), f"It misses the fitted runs by {scale}."]
    if fit.states_optimum and np.isfinite(fit.largest_flops):
        sentences.append(_allocation(fit))
    return sentences


def _allocation(fit: "LossLaw") -> str:
    """The optimum at the largest fitted budget, at the given values of the further inputs."""
    (best,) = fit.allocations((fit.largest_flops,))
    given = ", ".join(f"{name} = {number(value)}" for name, value in fit.given.items())
    ends = best["intervals"].get(f"{LEVEL:g}", {})

    def stated(name: str) -> str:
        low, high = ends.get(name, (np.nan, np.nan))
        return compact(best[name]) + (f" ({compact(low)} to {compact(high)})" if np.isfinite(low) else "")

    return (
        f"At the compute of the largest fitted run, C = {power(fit.largest_flops)} FLOPs{', and ' if given else ''}"
        f"{given}, the optimum is N* = {stated('params')} parameters on D* = {stated('tokens')} tokens."
    )


def conventions(kind: Kind, fits: Sequence[Any]) -> list[tuple[str, str]]:
    """(symbol, meaning) of the law's inputs and target, and what an interval is."""
    law = next((type(fit.law) for fit in fits if fit.approach == "3"), Law)
    declared = [law.input(name) for name in kind.inputs]  # of a law that was not fitted, the usual meanings
    return [
        *((one.name, f"{one.unit + '; ' if one.unit else ''}{ROLES[one.role]}") for one in declared),
        *targets(fits),
        *intervals(fits),
    ]
