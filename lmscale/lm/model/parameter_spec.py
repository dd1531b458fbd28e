"""One row of the parameter table."""

from dataclasses import dataclass
from typing import Literal

from lmscale.lm.devices.sharding import Axes


@dataclass(frozen=True)
class ParameterSpec:
    """One row of the parameter table."""

    shape: tuple[int, ...]
    axes: Axes
    """Logical axis names; `sharding.RULES` maps them onto the mesh."""
    role: Literal["table", "hidden", "head", "vector"]
    """A token or position table, a matrix inside a layer, an output head, a gain or a bias."""
    mean: float = 0.0
    std: float = 0.0
    """Initial values are normal with this mean and standard deviation; gains start at 1, biases at 0."""
    inputs: tuple[int, ...] = ()
    outputs: tuple[int, ...] = ()
    """Axes of a matrix that are summed over, and that it gives; the others count separate matrices."""
    lr_multiplier: float = 1.0
    decay_multiplier: float = 1.0
    """Factor of the weight decay; 0 for vectors."""
    epsilon_multiplier: float = 1.0
    """Factor of Adam's epsilon."""
