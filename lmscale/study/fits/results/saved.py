"""Fields of saved JSON, checked as they are read: whatever a file holds becomes a value, or one sentence names it."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from lmscale.core.counting import SIZES
from lmscale.core.errors import UserError
from lmscale.study.laws import ComputeModel

Value = TypeVar("Value")


@dataclass(frozen=True)
class SavedFields:
    """The fields of one JSON object; `what` names it in sentences, "the prediction p.json"."""

    value: Mapping[str, Any]
    what: str

    @classmethod
    def of(cls, value: Any, what: str) -> "SavedFields":
        """Raises `UserError` where the value is no object."""
        if not isinstance(value, Mapping):
            raise UserError(f"{what} is {shown(value)}, and must be a JSON object with named fields")
        return cls(value, what)

    def __getitem__(self, name: str) -> Any:
        if name not in self.value:
            raise UserError(f"{self.what} lacks the field {name!r}: it was cut or edited; write it again")
        return self.value[name]

    def number(self, name: str) -> float:
        """A finite number."""
        return number(self[name], f"{name!r} of {self.what}")

    def text(self, name: str) -> str:
        """A string."""
        return text(self[name], f"{name!r} of {self.what}")

    def one_of(self, name: str, choices: Sequence[str]) -> str:
        """One of the words `choices`."""
        if self[name] not in choices:
            raise UserError(f"{name!r} of {self.what} is {shown(self[name])}, and must be {' or '.join(choices)}")
        return str(self[name])

    def count(self, name: str) -> int:
        """A whole number, 0 or more."""
        value = self[name]
        if type(value) is not int or not 0 <= value < 2**63:
            raise UserError(f"{name!r} of {self.what} is {shown(value)}, and must be a whole number, 0 or more")
        return value

    def part(self, name: str) -> "SavedFields":
        """An object inside this one."""
        return SavedFields.of(self[name], f"{name!r} of {self.what}")

    def numbers(self, name: str) -> dict[str, float]:
        """An object whose values are all finite numbers."""
        part = self.part(name)
        return {str(key): part.number(key) for key in part.value}

    def each(self, name: str, read: Callable[[Any, str], Value]) -> list[Value]:
        """The elements of a list, each read by `read(element, what it is)`."""
        if not isinstance(self[name], list):
            raise UserError(f"{name!r} of {self.what} is {shown(self[name])}, and must be a list")
        return [read(item, f"element {index + 1} of {name!r} of {self.what}") for index, item in enumerate(self[name])]


def text(value: Any, what: str) -> str:
    """A string. Raises `UserError` for anything else."""
    if not isinstance(value, str):
        raise UserError(f"{what} is {shown(value)}, and must be a text")
    return value


def number(value: Any, what: str) -> float:
    """A finite number. Raises `UserError` for anything else, integers beyond all floats included."""
    try:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError
        return float(value)
    except (ValueError, OverflowError):
        raise UserError(f"{what} is {shown(value)}, and must be a finite number") from None


def number_or_nan(value: Any, what: str) -> float:
    """A finite number, or NaN for null, as which JSON holds what is not finite."""
    return math.nan if value is None else number(value, what)


def saved_compute(fields: SavedFields) -> ComputeModel:
    """The compute model of a saved fit."""
    part = fields.part("compute_model")
    residual = None if part["largest_residual"] is None else part.number("largest_residual")
    return ComputeModel(part.number("k"), part.number("p"), residual)


def saved_size(fields: SavedFields) -> str:
    """The count that is the N of a saved fit; all parameters in one of before there were others."""
    return fields.one_of("size_column", SIZES) if "size_column" in fields.value else "params"


def interval(value: Any, what: str) -> tuple[float, float]:
    """Two finite numbers in order."""
    if not isinstance(value, list) or len(value) != 2:
        raise UserError(f"{what} is {shown(value)}, and must be a list of two numbers")
    low, high = number(value[0], what), number(value[1], what)
    if low > high:
        raise UserError(f"{what} is {shown(value)}: the lower end comes first")
    return low, high


def shown(value: Any, most: int = 40) -> str:
    """A value as it stands in a sentence, cut where it is long."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 10**most:
        return f"an integer of more than {most} digits"
    if isinstance(value, Mapping | list):
        return f"{'an object' if isinstance(value, Mapping) else 'a list'} of {len(value)} elements"
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}..."


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Turn what reading a damaged file raises into one sentence."""
    try:
        yield
    except UserError:
        raise
    except KeyError as error:
        raise UserError(f"{what} lacks the field {error}: it was cut or edited; write it again") from None
    except (TypeError, ValueError, AttributeError, IndexError, OverflowError, RecursionError) as error:
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise UserError(f"{what} holds a value of another type than was written ({reason}); write it again") from None


def equally_long(columns: Any, names: Sequence[str], what: str) -> list[NDArray[np.float64]]:
    """The columns `names` of an object of columns of numbers. Raises `UserError` unless all are lists of one length."""
    arrays = [np.asarray(SavedFields.of(columns, what)[name], dtype=float) for name in names]
    if any(array.ndim != 1 or array.shape != arrays[0].shape for array in arrays):
        raise UserError(f"{what} are not lists of one length: the file was cut or edited; write it again")
    return arrays
