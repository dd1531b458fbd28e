"""At which scale does an ability appear, how sure are we, and is it real or made by the metric?

    found = emergence.detect("scores.csv", axis="params")   # or a DataFrame
    print(found)                                            # every task with its class, threshold and verdict
    found.of("addition")[0].threshold                       # the foot of the rise, on the axis

A table has one row per task, metric and scale; `lmscale.emergence.scores` names its columns. Names are loaded on first
use, so that `lmscale.emergence.command` (the arguments of the command line) costs nothing to import.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lmscale.emergence.detector import detect
    from lmscale.emergence.result import Emergence, Finding

_HOME = {"detect": "detector", "Emergence": "result", "Finding": "result"}

__all__ = ["Emergence", "Finding", "detect"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value
