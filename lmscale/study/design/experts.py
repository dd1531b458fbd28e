"""What experts are worth: the dense model of equal loss, and the best number of experts under limits of a machine.

Both follow from a law of N, experts and, where it has them, tokens; N are the active parameters, which set the FLOPs of
a token. E experts are E times the parameters of the MLP: with finer experts, of which each token takes several, E is
the expansion rate (Krajewski 2024, arXiv 2402.07871), not the number of matrices.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmscale.core.arguments import Count, Positive, checked
from lmscale.core.config import check
from lmscale.core.config.checks import positive
from lmscale.core.errors import UserError
from lmscale.core.quantities import quantity
from lmscale.study.laws import SIX_ND, ComputeModel, Law

SMALLEST, LARGEST = 1e2, 1e18
"""Parameters between which sizes are searched, as in `Law.optimum`."""
POINTS = 400
"""Sizes of the grid on which a minimum is located before it is refined."""
REFINEMENTS = 60
"""Golden sections or halvings, each at least .62 times the last interval: 60 leave 13 digits."""
POWERS_OF_TWO = tuple(2**power for power in range(10))
"""1, a dense model, to 512 experts: the range of Clark 2022."""
MLP_SHARE = 2 / 3
"""Share of the MLPs in the matrices of a transformer's layers whose MLP has 8 width^2 numbers and attention 4."""
INFERENCE_FLOPS = 2.0
"""Forward FLOPs of a token per active parameter."""


def total_params(active_params: Any, experts: Any, share: float = MLP_SHARE) -> Any:
    """All parameters of a model of which a token passes `active_params`, a `share` of them in MLPs that exist
    `experts` times."""
    return active_params * (1 + share * (experts - 1))


@checked
@dataclass(frozen=True, kw_only=True)
class ExpertLimits:
    """What a machine and a service allow; None is no limit."""

    memory_bytes: float | None = None
    """Memory for all parameters of all experts, chosen by a token or not."""
    bytes_per_param: float = 2.0
    """2 to serve a model in bfloat16; 16 to train it with AdamW in float32 (parameter, gradient, two moments)."""
    flops_per_token: float | None = None
    """Forward FLOPs of a token, which the active parameters alone set."""

    def __post_init__(self) -> None:
        positive(self, "bytes_per_param")
        for name in ("memory_bytes", "flops_per_token"):
            if getattr(self, name) is not None:
                positive(self, name)

    def active_params(self, experts: int, total: Callable[[Any, Any], Any]) -> float:
        """The most active parameters of a model with so many experts."""
        by_flops = LARGEST if self.flops_per_token is None else self.flops_per_token / INFERENCE_FLOPS
        if self.memory_bytes is None:
            return min(LARGEST, by_flops)
        room = self.memory_bytes / self.bytes_per_param
        low, high = 0.0, room
        for _ in range(REFINEMENTS):  # `total` may be any rule that grows with N
            middle = (low + high) / 2
            low, high = (middle, high) if total(middle, experts) <= room else (low, middle)
        return min(LARGEST, by_flops, low)


NO_LIMITS = ExpertLimits()


@dataclass(frozen=True)
class ExpertChoice:
    """The best model of one number of experts under the limits; losses in nats per token, or the law's own target."""

    experts: int
    active_params: float
    total_params: float
    tokens: float
    """D that the budget buys at this size, or the length of a law without tokens."""
    loss_nats: float
    dense_params: float
    """N of the dense model with this loss after as many tokens; infinite where none is as good."""


@checked
def effective_dense_params(law: Law, params: Positive, experts: Positive, tokens: Positive | None = None) -> float:
    """N of the dense model, of one expert, that has the loss of `params` active parameters with so many experts.

    The effective parameter count of Clark 2022 (arXiv 2202.01169, section 5.3), by bisection, so that any law of N and
    experts has one. Raises `UserError` for a law without experts, and where no dense model is as good.
    """
    loss = _loss_of(law, tokens)
    check(params > 0 and experts >= 1, f"N = {params:g} with {experts:g} experts: a model has N > 0 and experts >= 1")
    target = float(loss(params, experts, tokens))
    low, high = math.log(SMALLEST), math.log(LARGEST)
    at_low, at_high = (float(loss(math.exp(end), 1.0, tokens)) for end in (low, high))
    if not at_high <= target <= at_low:
        raise UserError(
            f"no dense model of {SMALLEST:.0e} to {LARGEST:.0e} parameters has the loss {target:.4g} that the law "
            f"{law.NAME!r} states at N = {quantity(params)} with {experts:g} experts: it lies beyond the law's reach"
        )
    for _ in range(REFINEMENTS):
        middle = (low + high) / 2
        low, high = (middle, high) if float(loss(math.exp(middle), 1.0, tokens)) > target else (low, middle)
    return math.exp((low + high) / 2)


@checked
def expert_choices(
    law: Law,
    flops: Positive,
    limits: ExpertLimits = NO_LIMITS,
    *,
    experts: Sequence[Count] = POWERS_OF_TWO,
    tokens: Positive | None = None,
    compute: ComputeModel = SIX_ND,
    total: Callable[[Any, Any], Any] = total_params,
) -> list[ExpertChoice]:
    """For each number of experts that the limits leave room for, the best size at a budget of training FLOPs.

    Args:
        law: of N (active), experts and, where it has them, tokens; then the size is traded against the length.
        flops: C of training, C = k N^p D with the active N (`compute`).
        limits: what total memory and the FLOPs of a token allow.
        experts: the numbers that are compared; 1 is a dense model.
        tokens: D where the law has none, as Clark's, which is of one length; the budget then bounds N.
        total: all parameters from (active, experts).

    Raises `UserError` where the law has no experts, `tokens` is missing or superfluous, and where nothing fits.
    """
    loss = _loss_of(law, tokens, traded=True)
    check(flops > 0, f"flops = {flops:g}: a budget is positive")
    check(bool(experts) and min(experts) >= 1, f"experts = {tuple(experts)}: give numbers of at least 1, as (1, 8, 64)")
    budget_params = LARGEST if tokens is None else (flops / (compute.k * tokens)) ** (1 / compute.p)
    choices = []
    for number in sorted(set(experts)):
        most = min(limits.active_params(number, total), budget_params)
        if most > SMALLEST:
            choices.append(_best_size(law, loss, flops, number, most, tokens, compute, total))
    if not choices:
        raise UserError(
            f"the limits leave no room for a model of {SMALLEST:g} active parameters with {min(experts)} experts or "
            f"more: raise memory_bytes, flops_per_token or flops, or compare fewer experts"
        )
    return choices


@checked
def optimal_experts(law: Law, flops: Positive, limits: ExpertLimits = NO_LIMITS, **options: Any) -> ExpertChoice:
    """The best of `expert_choices`, whose options these are: how many experts, of what size, on how many tokens.

    Without a limit of memory more experts are always better under the published laws: the answer is then the largest
    number compared. Raises `UserError` as `expert_choices` does.
    """
    return min(expert_choices(law, flops, limits, **options), key=lambda choice: choice.loss_nats)


def _best_size(
    law: Law,
    loss: Callable[[Any, Any, Any], Any],
    flops: float,
    experts: int,
    most: float,
    tokens: float | None,
    compute: ComputeModel,
    total: Callable[[Any, Any], Any],
) -> ExpertChoice:
    """The size up to `most` active parameters with the lowest loss at a budget."""

    def length(params: Any) -> Any:
        return compute.tokens(flops, params) if tokens is None else tokens

    def at(log_params: Any) -> Any:
        params = np.exp(log_params)
        return np.asarray(loss(params, float(experts), length(params)), dtype=float)

    grid = np.linspace(math.log(SMALLEST), math.log(most), POINTS)
    losses = at(grid)
    best = int(np.argmin(np.where(np.isfinite(losses), losses, np.inf)))
    low, high = grid[max(0, best - 1)], grid[min(POINTS - 1, best + 1)]
    golden = (math.sqrt(5) - 1) / 2
    for _ in range(REFINEMENTS):
        left, right = high - golden * (high - low), low + golden * (high - low)
        low, high = (low, right) if at(left) < at(right) else (left, high)
    params = min(most, float(np.exp((low + high) / 2)))
    here = float(length(params))
    value = float(loss(params, float(experts), here))
    try:
        dense = effective_dense_params(law, params, experts, here if "tokens" in law.INPUTS else None)
    except UserError:
        dense = math.inf
    return ExpertChoice(experts, params, float(total(params, experts)), here, value, dense)


def _loss_of(law: Law, tokens: float | None, traded: bool = False) -> Callable[[Any, Any, Any], Any]:
    """The law as a function of (N, experts, tokens), whatever the order of its inputs.

    The length of a law of tokens is given, unless it is `traded` against N at a budget; then that of a law without
    tokens is. Raises `UserError` for a law of other inputs, and for a length that is missing or given twice.
    """
    size = next((name for name in law.INPUTS if name.endswith("params")), None)
    check(
        size is not None and "experts" in law.INPUTS and set(law.INPUTS) <= {size, "experts", "tokens"},
        f"the law {law.NAME!r} is a function of {', '.join(law.INPUTS)}: take one of N and experts, with tokens or "
        f"without",
    )
    takes_length = ("tokens" in law.INPUTS) != traded
    check(not takes_length or tokens is not None, f"the law {law.NAME!r} needs the length of training: give tokens")
    check(
        takes_length or tokens is None,
        f"tokens = {tokens}: the law {law.NAME!r} {'trades tokens against N' if traded else 'is one of no tokens'}; "
        f"leave them out",
    )
    check(tokens is None or tokens > 0, f"tokens = {tokens}: must be positive")
    order = {size: 0, "experts": 1, "tokens": 2}
    return lambda *inputs: law.loss(*(inputs[order[name]] for name in law.INPUTS))
