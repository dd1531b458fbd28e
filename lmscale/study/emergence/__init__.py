"""At which scale does an ability appear, how sure are we, and is it real or made by the metric?

    result = emergence.detect("scores.csv", axis="params")  # or a DataFrame
    print(result)                                           # every task with its class, threshold and verdict
    result.select("addition")[0].threshold                  # the foot of the rise, on the axis

A table has one row per task, metric and scale; `scores` names its columns. Names are loaded on first
use, so that `lmscale.commands.emergence` (the arguments of the command line) costs nothing to import.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
