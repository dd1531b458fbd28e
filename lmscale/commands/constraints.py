"""Flags that constrain: values, ranges and pairs of parameters; FLOPs, memory and tokens of an allocation."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tyro.constructors import PrimitiveConstructorSpec

from lmscale.core.errors import UserError

if TYPE_CHECKING:
    from lmscale.study.fits import FittedOptimum, LossLaw
    from lmscale.study.laws.allocation import Constraint

BYTES = {"": 1.0, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


def named(text: str, read: Callable[[str], Any], example: str) -> dict[str, Any]:
    """{"E": ...} from "E=...,A=...", each value by `read`. Raises `UserError` for no pair, or a name given twice."""
    values: dict[str, Any] = {}
    for pair in filter(None, (part.strip() for part in text.split(","))):
        name, sign, given = (part.strip() for part in pair.partition("="))
        try:
            value = read(given) if sign and name else None
        except ValueError:
            value = None
        if value is None:
            raise UserError(f"{pair!r} is no pair of a name and a value: write them as in {example}")
        if name in values:
            raise UserError(f"{name} is given twice, {values[name]} and {given}: give it once")
        values[name] = value
    if not values:
        raise UserError(f"no pair of a name and a value was given: write them as in {example}")
    return values


def _range(text: str) -> tuple[float, float]:
    low, high = text.split(":")
    return float(low), float(high)


def _word(text: str) -> str:
    if not text.isidentifier():
        raise ValueError(text)
    return text


def _spec(read: Callable[[str], Any], example: str) -> PrimitiveConstructorSpec[Any]:
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=example,
        instance_from_str=lambda strings: named(strings[0], read, example),
        is_instance=lambda value: value is None or isinstance(value, Mapping),
        str_from_instance=lambda value: [str(value)],
    )


VALUES = _spec(float, "E=1.8,alpha=0.34")
RANGES = _spec(_range, "alpha=0.1:0.5")
CHOICES = _spec(_range, "experts=1:64")
TIES = _spec(_word, "beta=alpha")


def bytes_of(text: str) -> float:
    """80e9 of "80GB", "80 GB" or "80e9". Raises `UserError` for what is no amount of memory."""
    match = re.fullmatch(r"\s*([\d.]+(?:[eE][+-]?\d+)?)\s*([a-zA-Z]*)\s*", text)
    factor = BYTES.get(match[2].upper().removesuffix("B") + "B" if match[2] else "") if match else None
    try:
        value = float(match[1]) * factor if match and factor else 0.0
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise UserError(f"--memory {text}: write an amount with its unit, as in 80GB")
    return value


@dataclass(frozen=True)
class Limits:
    """What flags say of an allocation: budget, constraints, the inputs that are given and those to be chosen."""

    flops: float | None = None
    inference_tokens: float | None = None
    memory: str | None = None
    unique_tokens: float | None = None
    teacher_params: float | None = None
    teacher_tokens: float | None = None
    given: Mapping[str, float] | None = None
    choose: Mapping[str, tuple[float, float]] | None = None

    @classmethod
    def of(cls, args: Any) -> "Limits":
        """The limits among a verb's arguments, which have their names. Raises `UserError` for impossible numbers."""
        limits = cls(**{name: getattr(args, name) for name in cls.__dataclass_fields__})
        for name in ("flops", "inference_tokens", "unique_tokens", "teacher_params", "teacher_tokens"):
            value = getattr(limits, name)
            if value is not None and not 1 <= value < float("inf"):
                raise UserError(f"--{name.replace('_', '-')} {value:g}: a finite number of at least 1")
        if limits.flops is None:
            for name in ("inference_tokens", "teacher_params"):
                if getattr(limits, name) is not None:
                    raise UserError(f"--{name.replace('_', '-')} needs --flops, the FLOPs of all of it together")
        if limits.teacher_tokens is not None and limits.teacher_params is None:
            raise UserError("--teacher-tokens needs --teacher-params, the size of the teacher")
        return limits

    @property
    def constrain(self) -> bool:
        """Whether they say more than a budget of training FLOPs."""
        own = (self.inference_tokens, self.memory, self.unique_tokens, self.teacher_params, self.given, self.choose)
        return any(value is not None for value in own)

    def constraints(self, fit: "LossLaw") -> "list[Constraint]":
        """The constraints on the law of a fit, under its own compute model. Raises `UserError` where it lacks one."""
        from lmscale.study.design import total_params
        from lmscale.study.laws import at_most, weights_memory

        inputs, limits = fit.law.INPUTS, self._spending(fit)
        if self.memory is not None:
            limits.append(weights_memory(bytes_of(self.memory), total=total_params if "experts" in inputs else None))
        if self.unique_tokens is not None and "unique_tokens" not in inputs:
            if "tokens" not in inputs:
                raise UserError(f"--unique-tokens: the law {fit.law.NAME!r} is of {', '.join(inputs)}, without tokens")
            limits.append(at_most("tokens", self.unique_tokens))
        return limits

    def _spending(self, fit: "LossLaw") -> "list[Constraint]":
        """The budget of FLOPs: of training, and of inference and a teacher where these are named."""
        from lmscale.study.laws import Constraint, lifetime_flops, teacher_flops, training_flops

        if self.flops is None:
            return []
        if self.teacher_params is None:
            if self.inference_tokens is None:
                return [training_flops(self.flops, fit.compute)]
            return [lifetime_flops(self.flops, self.inference_tokens, fit.compute)]
        training = teacher_flops(self.flops, self.teacher_params, self.teacher_tokens or 0.0, fit.compute)
        if self.inference_tokens is None:
            return [training]
        read = self.inference_tokens
        return [
            Constraint(
                "FLOPs of student, teacher and inference",
                self.flops,
                lambda x: training.cost(x) + fit.compute.flops(x["params"], read) / 3,
            )
        ]

    def values(self, fit: "LossLaw") -> dict[str, float]:
        """The inputs that are given, those of the fit where no others are. Raises `UserError` for impossible values."""
        given = {**{name: value for name, value in fit.given.items() if name not in (self.choose or {})}}
        if self.unique_tokens is not None and "unique_tokens" in fit.law.INPUTS:
            given["unique_tokens"] = self.unique_tokens
        given |= self.given or {}
        return {name: fit.law.input(name).check(value, "--given") for name, value in given.items()}

    def free(self, fit: "LossLaw", given: Mapping[str, float]) -> dict[str, tuple[float, float]]:
        """The inputs to be chosen, each with its range. Raises `UserError` for none, and for one that is given too."""
        from lmscale.study.laws.allocation import WIDEST

        if both := [name for name in self.choose or {} if name in given]:
            raise UserError(f"{both[0]} is both given and to be chosen: leave one out")
        sizes = [name for name in ("params", "tokens") if name in fit.law.INPUTS and name not in given]
        free: dict[str, tuple[float, float]] = {**dict.fromkeys(sizes, WIDEST), **(self.choose or {})}
        if not free:
            raise UserError(
                f"no input of the law {fit.law.NAME!r} is left to be chosen: leave params or tokens out, or name "
                f"others with --choose {fit.law.INPUTS[-1]}=LOW:HIGH"
            )
        return free

    def best(self, fit: "LossLaw", given: Mapping[str, float] | None = None) -> "FittedOptimum":
        """The best inputs of the law under them, `given` added to what is given. Raises `UserError` as `allocate`."""
        from lmscale.study.fits import allocate

        known = {**self.values(fit), **(given or {})}
        return allocate(fit, self.constraints(fit), free=self.free(fit, known), given=known)
