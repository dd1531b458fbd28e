"""How published tensors are laid out: each is a part of one of our parameters, transposed and laid flat.

The same list of entries writes a published folder and reads it, so that the two ways cannot disagree.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmscale.core.config import check
from lmscale.core.errors import nearest

Array = NDArray[Any]
LAYER, EXPERT = "{layer}", "{expert}"


@dataclass(frozen=True)
class Entry:
    """A published tensor that holds a part of a parameter."""

    tensor: str
    """Its name; `{layer}` and `{expert}` stand for the numbers of the layer and of the expert."""
    param: str
    """Name in `parameter_table`."""
    index: tuple[Any, ...] = ()
    """The part, as an index of the parameter's axes without those of the layers and of the experts."""
    axes: tuple[int, ...] | None = None
    """The axes of the part in the order in which the tensor has them; None leaves them."""
    rows: int | None = None
    """How many of those axes are the tensor's rows, the others its columns; None makes a vector of all."""

    def part(self, value: Array) -> Array:
        """The part of a layer's or expert's parameter, axes in the tensor's order: a view, which can be written to."""
        part = value[self.index]
        return part if self.axes is None else part.transpose(self.axes)

    def shape(self, part_shape: Sequence[int]) -> tuple[int, ...]:
        """The tensor's shape."""
        if self.rows is None:
            return (math.prod(part_shape),)
        return math.prod(part_shape[: self.rows]), math.prod(part_shape[self.rows :])


@dataclass(frozen=True)
class Constant:
    """A published tensor that our model has no parameter for, because it is the same number everywhere."""

    tensor: str
    value: float
    shape: tuple[int, ...]


def names(entry: Entry | Constant, layers: int, experts: int = 1) -> list[str]:
    """The names of an entry's tensors, one per layer and expert where there is one of each."""
    return [name for name, _ in _places(entry, layers, experts)]


def _places(entry: Entry | Constant, layers: int, experts: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The name of each tensor of an entry, and the index of its layer and expert in the parameter."""
    numbers = {LAYER: layers, EXPERT: experts}
    signs = [sign for sign in numbers if sign in entry.tensor]
    for index in itertools.product(*(range(numbers[sign]) for sign in signs)):
        name = entry.tensor
        for sign, number in zip(signs, index):
            name = name.replace(sign, str(number))
        yield name, index


def to_tensors(
    params: Mapping[str, Array], entries: Iterable[Entry | Constant], layers: int, experts: int = 1
) -> dict[str, Array]:
    """Name -> array of every published tensor, from our parameters."""
    dtype = params["embedding"].dtype
    tensors: dict[str, Array] = {}
    for entry in entries:
        for name, index in _places(entry, layers, experts):
            if isinstance(entry, Constant):
                tensors[name] = np.full(entry.shape, entry.value, dtype)
                continue
            part = entry.part(params[entry.param][index])
            tensors[name] = np.ascontiguousarray(part.reshape(entry.shape(part.shape)))
    return tensors


def from_tensors(
    tensors: Mapping[str, Array],
    entries: Iterable[Entry | Constant],
    shapes: Mapping[str, tuple[int, ...]],
    layers: int,
    dtype: np.dtype[Any],
    experts: int = 1,
) -> dict[str, Array]:
    """Our parameters of these `shapes`, from published tensors.

    Raises `UserError` for a tensor that is missing, of another shape, that nothing reads, or whose numbers are not
    finite.
    """
    params = {name: np.empty(shape, dtype) for name, shape in shapes.items()}
    unread = set(tensors)
    for entry in entries:
        for name, index in _places(entry, layers, experts):
            check(name in tensors, f"the tensor {name} is missing{nearest(name, unread)}")
            unread.discard(name)
            if isinstance(entry, Constant):
                _check_constant(entry, name, tensors[name])
                continue
            part = entry.part(params[entry.param][index])
            expected = entry.shape(part.shape)
            check(
                tensors[name].shape == expected,
                f"the tensor {name} has the shape {list(tensors[name].shape)}, but the configuration says "
                f"{list(expected)}",
            )
            check(bool(np.isfinite(tensors[name]).all()), f"the tensor {name} holds numbers that are not finite")
            part[...] = tensors[name].reshape(part.shape)
    check(not unread, f"the tensor {min(unread, default='')} belongs to no parameter that the configuration names")
    return params


def _check_constant(entry: Constant, name: str, tensor: Array) -> None:
    check(
        tensor.shape == entry.shape and bool((tensor == entry.value).all()),
        f"the tensor {name} is not {entry.value:g} everywhere: lmscale has no parameter for it under these options",
    )
