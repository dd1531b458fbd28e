"""What stands in for fits, runs and held-out checks where the sentences of a report are tested."""

from types import SimpleNamespace

import numpy as np
import pandas as pd

from lmscale.study.fits.predict.held_out import HeldOutBudget, HeldOutRun
from lmscale.study.fits.results.common import Prediction
from lmscale.study.laws import Allocation, ComputeModel


class Line:
    """A fit with a = `a`, D*/N* = `ratio` at every C between `low` and `high`, N* = 1000 (C / 1e12)^a."""

    states_optimum = True
    largest_flops = 1e12

    def __init__(self, approach="3", a=0.5, ratio=30.0, low=25.0, high=40.0, resamples=10, p=1.0, n_runs=9):
        self.approach, self.a, self.ratio, self.ends, self.n_runs = approach, a, ratio, (low, high), n_runs
        self.resamples, self.compute, self.status, self.dropped = resamples, ComputeModel(6.0, p), (), ()

    def exponents(self):
        return {"params": self.a}

    def optimum(self, flops):
        ratio = self.ratio(flops) if callable(self.ratio) else self.ratio
        return Allocation(flops, 1000.0 * (flops / 1e12) ** self.a, 20000.0, ratio, 2.0)

    def interval(self, quantity, level):
        assert level == 0.95
        optimum = SimpleNamespace(params=1, tokens=2, tokens_per_param=3)
        value = quantity(SimpleNamespace(optimum=lambda c: optimum, exponents=lambda: {"params": 4}))
        return {
            1: (900.0, 1100.0),
            2: (18000.0, 22000.0),
            3: self.ends,
            4: (self.a - 0.01, self.a + 0.01),
        }[value]


def runs(top=1e12, **columns):
    """Nine fitted runs and one held out, of 1e11 FLOPs to `top`."""
    table = pd.DataFrame({"run": [f"r{i}" for i in range(10)], "params": 1e3, "tokens": 1e4, "loss_nats": 2.0,
                          "flops": np.geomspace(1e11, top, 10), "held_out": [False] * 9 + [True]})  # fmt: skip
    table.loc[8, "flops"] = top
    return table.assign(**columns)


def held_out_run(name, predicted, measured, half=0.05):
    ends = (predicted - half, predicted + half)
    prediction = Prediction({"params": 1e3, "tokens": 1e4}, predicted, ends, ends, 0.95)
    return HeldOutRun(name, prediction, measured)


def budget(predicted, measured, predicted_ends=(900.0, 1100.0), measured_ends=(1050.0, 1300.0)):
    return HeldOutBudget(
        1e13, predicted, predicted_ends, measured, measured_ends, 2.0, 2.0, "edge: lowest at the smallest"
    )
