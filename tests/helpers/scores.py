"""Tables of scores whose curve over model size is known."""

import numpy as np
import pandas as pd

SIZES = np.geomspace(1e6, 1e11, 10)


def scores(mean, *, task="t", n=1000, chance=0.0, metric="accuracy", sizes=SIZES, **more):
    """Rows of a hard metric whose scores are exactly `mean` of `n`."""
    columns = {"task": task, "metric": metric, "kind": "hard", "params": sizes, "n": n, "chance": chance, **more}
    return pd.DataFrame(columns).assign(correct=np.rint(np.asarray(mean) * n))


def graded(mean, *, task="t", metric="token accuracy", stderr=0.01, sizes=SIZES, **more):
    columns = {"task": task, "metric": metric, "kind": "graded", "params": sizes, "stderr": stderr, **more}
    return pd.DataFrame(columns).assign(score=np.asarray(mean))


def hinge(foot, top, chance=0.0, sizes=SIZES):
    u = (np.log10(sizes) - 6) / 5
    return chance + (top - chance) * np.clip((u - foot) / (1 - foot), 0, 1)
