"""A law of size, data and a third axis, and runs of it."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from lmscale.study.laws import Input, Law, Parameter


@dataclass(frozen=True)
class Three(Law):
    """A law of size, data and a third axis that may be zero or negative."""

    E: Any
    A: Any
    B: Any
    alpha: Any
    c: Any

    NAME: ClassVar[str] = "three"
    FORMULA: ClassVar[str] = "L = E + A/N^alpha + B/D^alpha + c x"
    PARAMETERS: ClassVar[tuple[Parameter, ...]] = (
        Parameter("E", 0.1, 10, (1, 2), log=False),
        Parameter("A", 1e-3, 1e9, (1e2, 1e4)),
        Parameter("B", 1e-3, 1e9, (1e2, 1e4)),
        Parameter("alpha", 0.05, 2, (0.2, 0.5), log=False),
        Parameter("c", -1, 1, log=False),
    )
    INPUTS: ClassVar[tuple[Any, ...]] = ("params", "tokens", Input("x", "number"))

    def loss(self, params: Any, tokens: Any, x: Any) -> Any:
        return self.E + self.A * params**-self.alpha + self.B * tokens**-self.alpha + self.c * x


TRUTH = Three(1.8, 400.0, 1500.0, 0.34, 0.05)


def three_axes(rates: tuple[float, ...] = (), noise: float = 0.0) -> pd.DataFrame:
    """Runs on a grid of N, D and x, with FLOPs; each at several learning rates, the middle one best."""
    rng = np.random.default_rng(0)
    rows = [
        {"run": f"{n:g} {d:g} {x:g} {rate:g}", "params": n, "tokens": d, "x": x, "peak_lr": rate}
        for n in (1e7, 3e7, 1e8)
        for d in (1e8, 1e9, 4e9)
        for x in (-1.0, 0.0, 2.0)
        for rate in rates or (1e-3,)
    ]
    table = pd.DataFrame(rows).assign(flops=lambda t: 6 * t.params * t.tokens)
    exact = TRUTH.loss(table.params, table.tokens, table.x)
    worse = 0.01 * np.abs(np.log10(table.peak_lr / 1e-3))
    table["loss_nats"] = (exact + worse) * np.exp(noise * rng.standard_normal(len(table)))
    return table if rates else table.drop(columns="peak_lr")
