"""What one reader is, and which values it may give of a damaged input."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Reader:
    """A function of the package that reads a file, and a valid file of its kind."""

    name: str
    write: Callable[[Path], Path]
    """Makes the input in an empty folder; gives the file that is to be damaged."""
    read: Callable[[Path], Any]
    """Calls the package's reader on the damaged file."""
    form: str = "binary"
    """As `damage.damaged` takes it."""
    exact: bool = False
    """Whether the input carries checksums, so that no other numbers may be read from it."""
    finite: bool = True
    """Whether every number that is read is finite."""
    may_hold: Callable[[Any], bool] = lambda value: True
    """What holds for whatever is read."""
    changes: bool = False
    """Whether reading changes the folder, so that each example needs a new copy."""
    slow: bool = False
    """Whether one example takes over a tenth of a second."""
    text: bool = False
    """Whether the file stands for an argument of the command line, so that nothing else can lie in its place."""

    def __str__(self) -> str:
        return self.name.replace(" ", "-")


def plain(value: Any) -> Any:  # noqa: PLR0911
    """`value` as something that can be compared: arrays, tables and dataclasses as tuples."""
    import pandas as pd

    if isinstance(value, pd.DataFrame):
        return tuple(map(str, value.columns)), tuple(plain(value.iloc[:, i].tolist()) for i in range(value.shape[1]))
    if isinstance(value, np.ndarray) or hasattr(value, "__array__"):
        array = np.asarray(value)
        return str(array.dtype), array.shape, array.tobytes()
    if is_dataclass(value) and not isinstance(value, type):
        return tuple((field.name, plain(getattr(value, field.name))) for field in fields(value))
    if isinstance(value, Mapping):
        return tuple((str(key), plain(item)) for key, item in value.items())
    if isinstance(value, list | tuple):
        return tuple(map(plain, value))
    if isinstance(value, float) and math.isnan(value):
        return "nan"
    return value


def all_finite(value: Any) -> bool:
    """Whether every number in `value` is finite; NaN in a table is a missing value."""
    import pandas as pd

    if isinstance(value, pd.DataFrame):
        numbers = value.select_dtypes("number").to_numpy(float)
        return not np.isinf(numbers).any()
    if isinstance(value, np.ndarray):
        return value.dtype.kind not in "fc" or bool(np.isfinite(value).all())
    if is_dataclass(value) and not isinstance(value, type):
        return all(all_finite(getattr(value, field.name)) for field in fields(value))
    if isinstance(value, Mapping):
        return all(map(all_finite, value.values()))
    if isinstance(value, list | tuple):
        return all(map(all_finite, value))
    return not isinstance(value, float) or math.isfinite(value)
