"""What a law is: parameters with bounds and starts, a loss, an optimum under a compute model."""

import hashlib
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from lmscale.core.errors import UserError


@dataclass(frozen=True)
class ComputeModel:
    """Training FLOPs of N parameters and D tokens: C = k N^p D. The field's convention is k = 6, p = 1."""

    k: float = 6.0
    p: float = 1.0
    largest_residual: float | None = None
    """Largest relative misfit of the table's own FLOPs; None where k and p are a convention, not a fit."""

    def tokens(self, flops: Any, params: Any) -> Any:
        return flops / (self.k * params**self.p)

    def flops(self, params: Any, tokens: Any) -> Any:
        return self.k * params**self.p * tokens

    def __str__(self) -> str:
        if self.p == 1:
            return f"C = {self.k:.4g} N D"
        formula = f"C = {self.k:.4g} N^{self.p:.4f} D"
        if self.largest_residual is None:
            return formula
        return f"{formula}, regressed from the table's FLOPs (largest misfit {100 * self.largest_residual:.2g} %)"


SIX_ND = ComputeModel()
AT_END = 1e-6
"""A parameter this near to an end of its range, relatively, rests on it."""


@dataclass(frozen=True)
class Allocation:
    """The compute-optimal split of a budget: floats, or arrays over resamples. Units as in the module."""

    flops: Any
    params: Any
    tokens: Any
    tokens_per_param: Any
    loss_nats: Any


@dataclass(frozen=True)
class Parameter:
    """One unknown of a law, with its bounds. Raises `UserError` for bounds or starts that cannot be."""

    name: str
    low: float
    high: float
    starts: tuple[float, ...] = ()
    """Values from which it is searched, crossed with those of the others; none takes the middle of the bounds."""
    log: bool = True
    """Whether its logarithm is what is searched, and what designs and conditions are judged by; it is then positive."""

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise UserError(f"Parameter({self.name!r}): the name is that of a field of the law, for example 'alpha'")
        if not -math.inf < self.low < self.high < math.inf:
            raise UserError(
                f"parameter {self.name!r} lies between {self.low:g} and {self.high:g}: give finite bounds, the lower "
                f"one first"
            )
        if self.log and not self.low > 0:
            raise UserError(
                f"parameter {self.name!r} is searched by its logarithm and its lower bound is {self.low:g}: give a "
                f"positive one, or log=False"
            )
        if outside := [start for start in self.starts if not self.low <= start <= self.high]:
            raise UserError(
                f"parameter {self.name!r} starts at {outside[0]:g}, outside of its bounds {self.low:g} to {self.high:g}"
            )

    @property
    def middle(self) -> float:
        """Half way between the bounds, on the scale of the search."""
        return math.sqrt(self.low) * math.sqrt(self.high) if self.log else (self.low + self.high) / 2


@dataclass(frozen=True)
class Birth:
    """Where the class of a law comes from: its import path, and the SHA-256 of the file that it stood in then."""

    path: str
    sha256: str


BORN: dict[type["Law"], Birth] = {}
"""Every class of a law in this process, in the order of their definition."""


def _birth(law: type["Law"]) -> Birth:
    """ "module:Class" for a module that can be imported by name, "file.py:Class" for any other file."""
    module = sys.modules.get(law.__module__)
    file = getattr(module, "__file__", None)
    readable = file is not None and not law.__module__.startswith("lmscale.") and Path(file).is_file()
    sha256 = hashlib.sha256(Path(file).read_bytes()).hexdigest() if readable and file is not None else ""
    place = getattr(module, "__law_file__", None)
    if place is None:
        by_name = getattr(module, "__spec__", None) is not None and law.__module__ != "__main__"
        place = law.__module__ if by_name or file is None else _from_here(Path(file))
    return Birth(f"{place}:{law.__qualname__}", sha256)


def _from_here(file: Path) -> str:
    """The path from the working directory, where the file is below it."""
    file = file.resolve()
    return str(file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file)


@dataclass(frozen=True)
class Law:
    """Base of every form. Fields are the parameters, in order; `citation` is the source of an instance's numbers."""

    citation: str = field(default="", kw_only=True, compare=False, repr=False)

    NAME: ClassVar[str] = ""
    FORMULA: ClassVar[str] = ""
    SOURCE: ClassVar[str] = ""
    PARAMETERS: ClassVar[tuple[Parameter, ...]] = ()
    INPUTS: ClassVar[tuple[str, ...]] = ("params", "tokens")
    TARGET: ClassVar[str] = "loss_nats"
    RESIDUAL: ClassVar[str] = "log"
    """Fit ln L ("log") or L itself ("raw") unless asked otherwise."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        BORN[cls] = _birth(cls)

    @classmethod
    def names(cls) -> tuple[str, ...]:
        return tuple(parameter.name for parameter in cls.PARAMETERS)

    def values(self) -> dict[str, Any]:
        """Parameter values by name."""
        return {name: getattr(self, name) for name in self.names()}

    def at_bounds(self) -> tuple[str, ...]:
        """The parameters on or beyond an end of their range: limited by it, not estimated. None of a law of arrays."""
        names = []
        for parameter, value in zip(self.PARAMETERS, self.values().values()):
            low, high = parameter.low + AT_END * abs(parameter.low), parameter.high - AT_END * abs(parameter.high)
            if np.ndim(value) == 0 and not low < value < high:
                names.append(parameter.name)
        return tuple(names)

    def loss(self, *inputs: Any) -> Any:
        """The loss at INPUTS, in the order of INPUTS; broadcasts."""
        raise NotImplementedError

    def optimum(self, flops: Any, compute: ComputeModel = SIX_ND) -> Allocation:
        """The minimum of `loss` along `compute`, by a grid over ln N and golden sections: 13 digits of loss.

        Raises `UserError` where the form knows no model size, or where the minimum lies outside 1e2-1e18 parameters; of
        many resamples, those whose minimum lies outside are NaN.
        """
        if self.INPUTS[:2] != ("params", "tokens"):
            raise UserError(
                f"the law {self.NAME!r} is a function of {', '.join(self.INPUTS)}: it states no optimal "
                f"model size; fit a law of params and tokens, for example 'chinchilla'"
            )
        return self._search(flops, compute)

    def _search(self, flops: Any, compute: ComputeModel) -> Allocation:
        def at(log_params: Any) -> Any:
            return self.loss(np.exp(log_params), compute.tokens(flops, np.exp(log_params)))

        shape = np.broadcast_shapes(np.shape(flops), *(np.shape(value) for value in self.values().values()))
        grid = np.linspace(np.log(1e2), np.log(1e18), 737)
        losses = np.stack([np.broadcast_to(at(np.full(shape, point)), shape) for point in grid])
        best = losses.argmin(axis=0)
        outside = (best == 0) | (best == len(grid) - 1)
        if np.all(outside):
            raise UserError(
                f"the law {self.NAME!r} has no optimum between 1e2 and 1e18 parameters at {flops} FLOPs; "
                f"its parameters do not trade model size against data"
            )
        best = np.clip(best, 1, len(grid) - 2)
        low, high = grid[best - 1], grid[best + 1]
        golden = (np.sqrt(5) - 1) / 2
        for _ in range(60):
            left, right = high - golden * (high - low), low + golden * (high - low)
            smaller = np.real(at(left)) < np.real(at(right))
            low, high = np.where(smaller, low, left), np.where(smaller, right, high)
        log_params = (low + high) / 2
        if np.iscomplexobj(losses):
            log_params = _newton(at, log_params)
        params = np.where(outside, np.nan, np.exp(log_params))[()]
        tokens = compute.tokens(flops, params)
        return Allocation(flops, params, tokens, tokens / params, self.loss(params, tokens))

    def exponents(self, compute: ComputeModel = SIX_ND) -> dict[str, Any]:
        """{"params": a, "tokens": b} of N* ~ C^a, D* ~ C^b; empty where the optimum is no power law."""
        return {}

    def __str__(self) -> str:
        return f"{self.FORMULA}   " + ", ".join(f"{name} = {value:.7g}" for name, value in self.values().items())


def _newton(loss: Callable[[Any], Any], log_params: Any, step: float = 1e-3) -> Any:
    """One Newton step towards the minimum of a complex loss from that of its real part.

    A derivative by a complex step (Squire and Trapp 1998) rides on the imaginary part of the parameters, which a search
    that compares real numbers loses.
    """
    right, here, left = (loss(log_params + offset) for offset in (step, 0.0, -step))
    return log_params - step / 2 * (right - left) / (right - 2 * here + left)
