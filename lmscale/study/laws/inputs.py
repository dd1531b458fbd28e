"""What a law is a function of: inputs with a role, a unit, and the values that a run may have there."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from lmscale.core.arguments import checked, hint, shown
from lmscale.core.errors import UserError, nearest

Role = Literal["size", "data", "compute", "share", "count", "loss", "amount", "number"]
ROLES: dict[str, str] = {
    "size": "parameters, above 0",
    "data": "tokens, characters or examples, above 0",
    "compute": "FLOPs, above 0",
    "share": "from 0 to 1",
    "count": "things counted, 0 or more",
    "loss": "a loss, this run's or another's, above 0",
    "amount": "any other quantity above 0",
    "number": "any finite number",
}
"""Role -> the values that it allows."""
LARGEST = 1e40
"""Above it, or below its inverse, no input or loss lies, and squares overflow."""


@checked
@dataclass(frozen=True)
class Input:
    """One input of a law, or its target. Raises `UserError` for a role that is none.

    A user's law names inputs of its own in `INPUTS`: `("params", "tokens", Input("temperature", "number"))`.
    """

    name: str
    role: Role
    unit: str = ""
    least: float | None = None
    """The smallest value that a run may have; None is the role's own limit."""

    def __post_init__(self) -> None:
        if not str(self.name).isidentifier():
            raise UserError(f"Input({self.name!r}): the name is that of a column, for example 'experts'")
        if self.role not in ROLES:
            raise UserError(
                f"the input {self.name!r} has the role {self.role!r}{nearest(str(self.role), ROLES)}: "
                f"a role is {', '.join(ROLES)}"
            )
        if self.least is not None and not math.isfinite(self.least):
            raise UserError(f"the input {self.name!r} has the least value {self.least}: give a finite one")

    def impossible(self, values_n: np.ndarray) -> tuple[np.ndarray, str]:
        """Which finite values no run can have (n,), and the reason in words."""
        if self.least is not None:
            return values_n < self.least, f"{self.name} is below {self.least:g}"
        if self.role == "share":
            return (values_n < 0) | (values_n > 1), f"{self.name} is no share from 0 to 1"
        if self.role == "count":
            return values_n < 0, f"{self.name} is negative"
        if self.role == "number":
            return np.zeros(len(values_n), dtype=bool), ""
        return ~(values_n > 0), f"{self.name} is not positive"

    def check(self, value: Any, where: str) -> float:
        """One value as a float. Raises `UserError` where it is none that a run can have."""
        try:
            if isinstance(value, str | bytes | bool):  # of which float() takes some
                raise TypeError
            number = float(value)
        except OverflowError:
            number = math.inf
        except (TypeError, ValueError):
            fix = hint(value, wants_number=True)
            raise UserError(f"{where} gives {self.name} = {shown(value)}: a number is needed{fix}") from None
        if not math.isfinite(number) or abs(number) > LARGEST:
            raise UserError(f"{where} gives {self.name} = {shown(value)}: a finite number below {LARGEST:g} is needed")
        bad, reason = self.impossible(np.array([number]))
        if bad[0]:
            raise UserError(f"{where} gives {self.name} = {number:g}: {reason}")
        return number


KNOWN_INPUTS: dict[str, Input] = {
    one.name: one
    for one in (
        Input("params", "size", "parameters"),
        Input("active_params", "size", "parameters that one token passes"),
        Input("tokens", "data", "tokens"),
        Input("unique_tokens", "data", "tokens"),
        Input("flops", "compute", "FLOPs"),
        Input("loss_nats", "loss", "nats per token"),
        Input("rate_sum", "amount", "sum of learning rates"),
        Input("annealing_sum", "number", "sum of falls of the learning rate"),
        Input("experts", "count", "experts per layer", least=1),
        Input("granularity", "amount", "width of a dense layer over an expert's"),
        Input("sparsity", "share", "share of the experts that a token does not use"),
        Input("streams", "count", "parallel streams", least=1),
        Input("teacher_loss", "loss", "nats per token"),
        Input("finetuning_tokens", "data", "tokens"),
        Input("weight_bits", "amount", "bits per weight"),
        Input("activation_bits", "amount", "bits per activation"),
        Input("kv_bits", "amount", "bits per cached key or value"),
        Input("params_non_vocab", "size", "parameters outside of the vocabulary"),
        Input("params_vocab", "size", "parameters of the vocabulary"),
        Input("characters", "data", "characters"),
        Input("kl", "number", "nats", least=0),
        Input("samples", "count", "samples per problem"),
        Input("datastore_tokens", "data", "tokens", least=0),
        Input("error", "share"),
        Input("accuracy", "share"),
        Input("coverage", "share", "share of problems solved"),
        Input("reward", "number"),
        Input("loss_unigram_nats", "number", "nats per token, less those of a unigram model"),
        Input("transferred_tokens", "data", "tokens"),
    )
}
"""Inputs and targets of the package's own laws, by the names of their columns."""

MEASURED_INPUTS = frozenset(
    ("loss_nats", "rate_sum", "annealing_sum", "kl", "error", "accuracy", "coverage", "reward", "loss_unigram_nats")
)
"""Inputs that are measured on a run, or follow from its schedule: no axes that a design sets."""

PLANNED_INPUTS = ("params", "tokens", "unique_tokens", "active_params", "experts", "granularity", "sparsity")
"""Inputs that the configuration of a run states before it is trained: a sweep is designed for laws of these."""


@checked
def input_named(name: str, own: dict[str, Input] | None = None) -> Input:
    """The input of a name: a law's own, a known one, a share of a mixture, or any finite number."""
    known = {**KNOWN_INPUTS, **(own or {})}
    if name in known:
        return known[name]
    return Input(name, "share" if name.startswith("share_") else "number")
