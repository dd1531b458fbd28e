"""What a law is: parameters with bounds and starts, inputs with roles, a loss, an optimum under a compute model."""

import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from lmscale.core import files
from lmscale.core.arguments import Amounts, checked, shown
from lmscale.core.errors import UserError, nearest
from lmscale.core.user_code import called
from lmscale.study.laws.compute import SIX_ND, Allocation, ComputeModel
from lmscale.study.laws.inputs import Input, input_named
from lmscale.study.laws.optimum import no_optimum, search
from lmscale.study.laws.parameter import Parameter

AT_END = 1e-6
"""A parameter this near to an end of its range, relatively, rests on it."""
SHARES_SUM = 0.01
"""How far from one the printed shares of a mixture may sum."""


@dataclass(frozen=True)
class Birth:
    """Where the class of a law comes from: its import path, and the SHA-256 of the file that it stood in then."""

    path: str
    sha256: str


OWN_METHODS = {"__post_init__", "loss", "optimum", "exponents", "to_search", "from_search"}
"""What a form defines, and fits, plans and predictions call."""
BORN: dict[type["Law"], Birth] = {}
"""Every class of a law in this process, in the order of their definition."""


def _birth(law: type["Law"]) -> Birth:
    """ "module:Class" for a module that can be imported by name, "file.py:Class" for any other file."""
    module = sys.modules.get(law.__module__)
    file = getattr(module, "__file__", None)
    readable = file is not None and not law.__module__.startswith("lmscale.") and Path(file).is_file()
    sha256 = files.sha256(file) if readable and file is not None else ""
    place = getattr(module, "__law_file__", None)
    if place is None:
        by_name = getattr(module, "__spec__", None) is not None and law.__module__ != "__main__"
        place = law.__module__ if by_name or file is None else _from_here(Path(file))
    return Birth(f"{place}:{law.__qualname__}", sha256)


def _locate_errors(law: type["Law"]) -> None:
    """Let an error in a method of a user's law say where in the user's file it was raised."""
    for name in OWN_METHODS & vars(law).keys():
        defined = vars(law)[name]
        of_class = isinstance(defined, classmethod | staticmethod)
        method = defined.__func__ if of_class else defined
        if callable(method) and method is not vars(Law).get(name):
            what = f"the {name} of the law {law.NAME or law.__qualname__!r}"
            located = _located(method, what)
            setattr(law, name, type(defined)(located) if of_class else located)


def _check_names(law: type["Law"]) -> None:
    """Raises `UserError` unless inputs, shares and the target of a class are names."""
    for name, of in (("INPUTS", law.INPUTS), ("SHARES", law.SHARES), ("TARGET", (law.TARGET,))):
        if not isinstance(of, tuple | list) or not all(isinstance(one, str | Input) for one in of):
            rule = "a name" if name == "TARGET" else "a tuple of names, with a comma also after one, ('params',)"
            raise UserError(f"the law class {law.__qualname__} has {name} = {getattr(law, name)!r}: it is {rule}")


def _located(method: Callable[..., Any], what: str) -> Callable[..., Any]:
    """`method`, an error in which is a `UserError` with the file and the line; `what` is the method in words."""

    @functools.wraps(method)
    def wrapper(*arguments: Any, **named: Any) -> Any:
        return called(what, method, *arguments, **named)

    return wrapper


def _of_numbers(loss: Callable[..., Any]) -> Callable[..., Any]:
    """`loss`, which says what is wrong with inputs that are none; it is called too often to look at each before."""

    @functools.wraps(loss)
    def checked_loss(self: "Law", *inputs: Any, **named: Any) -> Any:
        try:
            value = loss(self, *inputs, **named)
        except (UserError, TypeError, ValueError, ArithmeticError):
            _check_inputs(self, {**dict(zip(self.INPUTS, inputs)), **named})
            raise
        if type(value) is complex:  # a power of a negative number of Python
            _check_inputs(self, {**dict(zip(self.INPUTS, inputs)), **named})
        return value

    return checked_loss


def _then_checked(own: Callable[["Law"], None]) -> Callable[["Law"], None]:
    """A `__post_init__` of a law's own, after which its parameters are numbers."""

    @functools.wraps(own)
    def wrapper(self: "Law") -> None:
        own(self)
        Law.__post_init__(self)

    return wrapper


def _check_inputs(law: "Law", inputs: Mapping[str, Any]) -> None:
    """Raises `UserError` for an input that is no number, or none that a run can have; of arrays for other items."""
    for name, value in inputs.items():
        if hasattr(value, "tangents") or np.iscomplexobj(value):
            continue
        if isinstance(value, str) or np.ndim(value) == 0:
            law.input(name).check(value, f"the loss of the law {law.NAME!r}")
        elif getattr(getattr(value, "dtype", None), "kind", None) not in ("b", "i", "u", "f"):
            raise UserError(
                f"the loss of the law {law.NAME!r} gives {name} = {shown(value)}: give a number, or np.array([...])"
            )


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
    SHARES: ClassVar[tuple[str, ...]] = ()
    """Inputs that sum to one in every run."""
    BENT: ClassVar[tuple[str, ...]] = ()
    """Parameters in whose place the solvers have another unknown (`to_search`): along theirs the valley is bent."""
    OWN_INPUTS: ClassVar[dict[str, Input]] = {}
    """Inputs that `INPUTS` or `TARGET` declare as an `Input`, by name; the others are looked up in `KNOWN_INPUTS`."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        _check_names(cls)
        declared = [one for one in (*cls.INPUTS, cls.TARGET) if isinstance(one, Input)]
        cls.OWN_INPUTS = {**cls.OWN_INPUTS, **{one.name: one for one in declared}}
        cls.INPUTS = tuple(one.name if isinstance(one, Input) else one for one in cls.INPUTS)
        cls.TARGET = cls.TARGET.name if isinstance(cls.TARGET, Input) else cls.TARGET
        BORN[cls] = _birth(cls)
        if not cls.__module__.startswith("lmscale."):
            _locate_errors(cls)
        if callable(loss := vars(cls).get("loss")) and loss is not Law.loss:
            cls.loss = _of_numbers(loss)  # type: ignore[method-assign]
        if callable(own := vars(cls).get("__post_init__")):
            cls.__post_init__ = _then_checked(own)  # type: ignore[method-assign, assignment]

    def __post_init__(self) -> None:
        """Raises `UserError` for a parameter that is no number, nor an array of them."""
        for one in self.PARAMETERS:
            one.check(getattr(self, one.name, 0.0), type(self).__name__)

    @classmethod
    def input(cls, name: str) -> Input:
        """The role, unit and range of one of `INPUTS`, or of the target."""
        return input_named(name, cls.OWN_INPUTS)

    @classmethod
    def further_inputs(cls) -> tuple[str, ...]:
        """The inputs besides params and tokens that `loss` needs; one with a default is not among them."""
        parameters = list(inspect.signature(cls.loss).parameters.values())[1:]
        if any(one.kind is inspect.Parameter.VAR_POSITIONAL for one in parameters):
            needed = list(cls.INPUTS)
        else:
            needed = [name for name, one in zip(cls.INPUTS, parameters) if one.default is inspect.Parameter.empty]
        return tuple(name for name in needed if name not in ("params", "tokens"))

    @classmethod
    def splits_compute(cls) -> bool:
        """Whether the law trades model size against data: it is a function of params and of tokens."""
        return {"params", "tokens"} <= set(cls.INPUTS)

    @classmethod
    def to_search(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """What the solvers search in place of the parameters, under the same names and on the same scales."""
        return dict(values)

    @classmethod
    def from_search(cls, unknowns: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters from what the solvers search: the inverse of `to_search`, of plain numbers or duals."""
        return dict(unknowns)

    @classmethod
    def names(cls) -> tuple[str, ...]:
        return tuple(parameter.name for parameter in cls.PARAMETERS)

    def values(self) -> dict[str, Any]:
        """Parameter values by name."""
        return {name: getattr(self, name) for name in self.names()}

    def at_bounds(self, bounds: Mapping[str, tuple[float, float]] | None = None) -> tuple[str, ...]:
        """The parameters on or beyond an end of their range, or of `bounds`: limited, not estimated.

        None of a law of arrays.
        """
        names = []
        for parameter, value in zip(self.PARAMETERS, self.values().values()):
            low, high = (bounds or {}).get(parameter.name, (parameter.low, parameter.high))
            low, high = low + AT_END * abs(low), high - AT_END * abs(high)
            if np.ndim(value) == 0 and not low < value < high:
                names.append(parameter.name)
        return tuple(names)

    def loss(self, *inputs: Any) -> Any:
        """The loss at INPUTS, in the order of INPUTS; broadcasts."""
        raise NotImplementedError

    def loss_of(self, **inputs: Any) -> Any:
        """The loss at inputs by name; those with a default may be absent."""
        return self.loss(*[inputs[name] for name in self.INPUTS[: _last_given(self.INPUTS, inputs)]])

    @checked
    def optimum(self, flops: Amounts, compute: ComputeModel = SIX_ND, **given: Any) -> Allocation:
        """The minimum of `loss` along `compute` at `given` values of the further inputs: 13 digits of loss.

        Raises `UserError` where the form knows no model size, a further input is not given, or the loss falls for ever
        smaller or larger models; of many resamples, those without a minimum are NaN.
        """
        if not self.splits_compute():
            raise UserError(
                f"the law {self.NAME!r} is a function of {', '.join(self.INPUTS)}: it states no optimal "
                f"model size; fit a law of params and tokens, for example 'chinchilla'"
            )
        self.check_given(given)
        return self._search(flops, compute, given)

    def check_given(self, given: Mapping[str, Any]) -> None:
        """Raises `UserError` where a further input has no value, or a value belongs to none."""
        others = [name for name in self.INPUTS if name not in ("params", "tokens")]
        if unknown := [name for name in given if name not in others]:
            raise UserError(
                f"the law {self.NAME!r} has no further input {unknown[0]!r}"
                f"{nearest(unknown[0], others) if others else ': it is a function of params and tokens'}"
            )
        if lacking := [name for name in self.further_inputs() if name not in given]:
            values = ",".join(f"{name}=..." for name in lacking)
            raise UserError(
                f"the optimum of the law {self.NAME!r} depends on {' and '.join(lacking)}: give `given='{values}'`"
            )

    @classmethod
    def check_shares(cls, inputs: Mapping[str, float]) -> None:
        """Raises `UserError` where the shares of a mixture do not sum to one."""
        total = sum(inputs[name] for name in cls.SHARES)
        if cls.SHARES and not abs(total - 1) <= SHARES_SUM:
            raise UserError(f"the shares {', '.join(cls.SHARES)} sum to {total:.4g}: they are parts of one")

    def _search(self, flops: Any, compute: ComputeModel, given: Mapping[str, Any] | None = None) -> Allocation:
        others = given or {}

        def at(log_params: Any) -> Any:
            params = np.exp(log_params)
            return self.loss_of(params=params, tokens=compute.tokens(flops, params), **others)

        shape = np.broadcast_shapes(np.shape(flops), *(np.shape(value) for value in self.values().values()))
        log_params, below, above = search(at, shape)
        outside = below | above
        if np.all(outside):
            raise no_optimum(self.NAME, flops, below, above)
        params = np.where(outside, np.nan, np.exp(log_params))[()]
        tokens = compute.tokens(flops, params)
        loss = self.loss_of(params=params, tokens=tokens, **others)
        return Allocation(flops, params, tokens, tokens / params, loss)

    def exponents(self, compute: ComputeModel = SIX_ND) -> dict[str, Any]:
        """{"params": a, "tokens": b} of N* ~ C^a, D* ~ C^b; empty where the optimum is no power law."""
        return {}

    def __str__(self) -> str:
        return f"{self.FORMULA}   " + ", ".join(f"{name} = {value:.7g}" for name, value in self.values().items())


def _last_given(inputs: tuple[str, ...], given: Mapping[str, Any]) -> int:
    """How many of the inputs, from the first on, have a value: `loss` takes them in order."""
    return next((index for index, name in enumerate(inputs) if name not in given), len(inputs))
