"""The curves that a score may follow over a scale u in [0, 1], and how well each fits.

    flat        one value                                  1 parameter
    line        a value at each end                        2
    hinge       flat to the knot, then a line              3
    saturating  a line to the knot, then flat              3
    ramp        flat, a line, flat again                   4: how a rise that ends inside the range looks
    vee         two lines that meet at the knot            4: falls and rises, or bends

Compared by BIC; the knot lies on a grid, so that every candidate is a linear model in its knot values. Axes as in
`likelihood`.
"""

from dataclasses import dataclass

import numpy as np

from lmscale.study.emergence.likelihood import NoiseKind, fit_knots

KNOTS = np.linspace(0.02, 0.98, 33)
WIDTHS = (0.15, 0.35, 0.65)
"""Where a ramp from u ends: this share of what is left up to 1."""
PARAMETERS = {"flat": 1, "line": 2, "hinge": 3, "saturating": 3, "ramp": 4, "vee": 4}


@dataclass(frozen=True)
class FittedShape:
    """The best curve of one shape for every curve of a batch."""

    log_likelihood_T: np.ndarray
    bic_T: np.ndarray
    values_TK: np.ndarray
    mean_TS: np.ndarray
    """The fitted scores."""
    log_likelihood_TG: np.ndarray
    """The likelihood of every candidate."""
    values_TGK: np.ndarray


def rise(u: np.ndarray, foot: np.ndarray | float, width: float = 1.0) -> np.ndarray:
    """0 up to `foot`, 1 from `foot + width (1 - foot)` on, a line between."""
    return np.clip((u - foot) / (width * (1 - foot)), 0, 1)


def two_levels(share: np.ndarray) -> np.ndarray:
    """The basis (..., 2) of a curve that goes from one level (share 0) to another (share 1)."""
    return np.stack([1 - share, share], axis=-1)


def bases(u_TS: np.ndarray) -> dict[str, np.ndarray]:
    """The basis (T, G, S, K) of every shape; of the ramp, G counts widths and knots together."""
    u_TGS, knot_G = u_TS[:, None, :], KNOTS[None, :, None]
    left, right = np.clip(u_TGS / knot_G, 0, 1), rise(u_TGS, knot_G)
    return {
        "flat": np.ones((*u_TGS.shape, 1)),
        "line": two_levels(u_TGS),
        "hinge": two_levels(right),
        "saturating": two_levels(left),
        "ramp": two_levels(np.concatenate([rise(u_TGS, knot_G, width) for width in WIDTHS], axis=1)),
        "vee": np.stack([1 - left, left * (1 - right), right], axis=-1),
    }


def fit_all(u_TS: np.ndarray, score_TS: np.ndarray, weight_TS: np.ndarray, noise: NoiseKind) -> dict[str, FittedShape]:
    """The best curve of every shape, by name."""
    scales_T = (weight_TS > 0).sum(-1)
    best = {}
    for name, basis_TGSK in bases(u_TS).items():
        values_TGK, likelihood_TG = fit_knots(basis_TGSK, score_TS, weight_TS, noise)
        best_T = likelihood_TG.argmax(-1)
        here = np.arange(len(best_T))
        values_TK, highest_T = values_TGK[here, best_T], likelihood_TG[here, best_T]
        best[name] = FittedShape(
            log_likelihood_T=highest_T,
            bic_T=-2 * highest_T + PARAMETERS[name] * np.log(scales_T),
            values_TK=values_TK,
            mean_TS=(basis_TGSK[here, best_T] @ values_TK[..., None])[..., 0],
            log_likelihood_TG=likelihood_TG,
            values_TGK=values_TGK,
        )
    return best
