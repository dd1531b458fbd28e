"""Curves of known class and onset, with the noise that the detector assumes, on which its error rates are checked."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from lmscale.study.emergence.curves import RHO

if TYPE_CHECKING:
    import pandas as pd

Rise = Callable[[np.ndarray], np.ndarray]

RISES: dict[str, Rise] = {
    "straight": np.asarray,
    "saturating": lambda v: np.minimum(1, 2 * v),
    "s-shaped": lambda v: v * v * (3 - 2 * v),
    "concave": np.sqrt,
}
"""How a score goes from its floor (0) to its top (1) over what is left of the range above the onset."""
CHANCES = (0.0, 0.2, 0.25, 0.5)
EXAMPLES = (200, 500, 1000)
SCALES = (6, 8, 10, 12)
LOG10_RANGE = (6.0, 11.0)
FEET = (0.38, 0.8)
"""Where onsets lie on the range: clear of the third in which a foot shows no absence."""


def simulated_scores(
    per_class: int, *, shape: str = "straight", rho: float = RHO, seed: int = 0
) -> "tuple[pd.DataFrame, pd.DataFrame]":
    """A table of scores, and the truth by task: its `class` and, of emergent ones, the log10 `onset`."""
    import pandas as pd

    rng = np.random.default_rng(seed)
    rows, truth = [], {}
    for cls in ("emergent", "smooth", "flat", "inverse", "u-shaped"):
        for index in range(per_class):
            task = f"{cls} {index}"
            size, n = int(rng.choice(SCALES)), int(rng.choice(EXAMPLES))
            chance = float(rng.choice(CHANCES[2:] if cls in ("inverse", "u-shaped") else CHANCES))
            low, high = LOG10_RANGE
            log10_S = np.linspace(low, high, size) + rng.normal(0, 0.1, size)
            foot = float(rng.uniform(*FEET))
            u_S = ((log10_S - low) / (high - low)).clip(0, 1)
            mean_S = (chance + _excess(cls, u_S, foot, RISES[shape], rng)).clip(0, 1)
            correct_S = rng.binomial(n, _drawn(mean_S, rho, rng))
            truth[task] = (cls, low + foot * (high - low) if cls == "emergent" else np.nan)
            for log10, correct in zip(log10_S, correct_S):
                rows.append((task, "accuracy", "hard", 10.0**log10, int(correct), n, chance))
    columns = ["task", "metric", "kind", "params", "correct", "n", "chance"]
    classes = pd.DataFrame.from_dict(truth, orient="index", columns=["class", "onset"])
    return pd.DataFrame(rows, columns=columns), classes


def _excess(cls: str, u_S: np.ndarray, foot: float, rise: Rise, rng: np.random.Generator) -> np.ndarray:
    """Score above chance at u (S,)."""
    size = float(rng.uniform(0.15, 0.45))
    if cls == "emergent":
        return size * rise(np.clip((u_S - foot) / (1 - foot), 0, 1))
    if cls == "smooth":
        return 0.05 + size * u_S ** float(rng.uniform(0.5, 1))
    if cls == "inverse":
        return -0.5 * size * u_S
    if cls == "u-shaped":
        return -0.25 * np.minimum(u_S / foot, 1) + (size + 0.1) * np.clip((u_S - foot) / (1 - foot), 0, 1)
    return np.zeros(len(u_S))


def _drawn(mean_S: np.ndarray, rho: float, rng: np.random.Generator) -> np.ndarray:
    """Rates of models whose expected rate is `mean_S`: a beta distribution with intra-class correlation `rho`."""
    if rho == 0:
        return mean_S
    inside = mean_S.clip(1e-9, 1 - 1e-9)
    strength = (1 - rho) / rho
    return np.where((mean_S <= 0) | (mean_S >= 1), mean_S, rng.beta(inside * strength, (1 - inside) * strength))
