"""By how much the best curve that is emergent explains the scores better than the best that is not.

Emergent curves stay at chance up to a foot in the upper part of the range and then rise by a gain worth the name: as a
line to the end (hinge) or to a level that is reached before (ramp). Chance is known, so a floor *at* chance costs no
parameter; a floor somewhere near it does. The others are flat, line, saturating, and every hinge or ramp that is not
emergent: one whose foot comes too early, whose floor is no chance, or whose gain is too small.
"""

import numpy as np

from lmscale.study.emergence.likelihood import EDGE, log_likelihood
from lmscale.study.emergence.shapes import KNOTS, PARAMETERS, WIDTHS, FittedShape, bases

EARLIEST = 1 / 3
"""A foot in the lower third shows no absence: a rise from the first models on looks the same."""
EXCESS = 0.05
GAIN = 0.05
FLAT_HANDICAP = 2.0
"""BIC by which an emergent curve must beat a flat one: a positive answer is to be more than the better of two."""
STEPS = 8
RISING = {"hinge": KNOTS, "ramp": np.tile(KNOTS, len(WIDTHS))}
"""The foot of every candidate (G,)."""


def margin(
    u_TS: np.ndarray,
    score_TS: np.ndarray,
    weight_TS: np.ndarray,
    chance_T: np.ndarray,
    hard_T: np.ndarray,
    phi_T: np.ndarray,
    shapes: dict[str, FittedShape],
) -> np.ndarray:
    """BIC of the best curve that is not emergent less that of the best that is (T,).

    The limits in score and the floor at chance are for the hard curves of `hard_T`, whose unit is known.
    """
    log_scales_T = np.log((weight_TS > 0).sum(-1))

    def bic(log_likelihood: np.ndarray, parameters: int) -> np.ndarray:
        cost_T = parameters * log_scales_T
        return -2 * log_likelihood / _beside(phi_T, log_likelihood) + _beside(cost_T, log_likelihood)

    others = [bic(shapes[name].log_likelihood_T, PARAMETERS[name]) for name in ("flat", "line", "saturating")]
    others[0] = others[0] - FLAT_HANDICAP
    emergent = [np.full(len(phi_T), np.inf)]
    for name, foot_G in RISING.items():
        shape = shapes[name]
        floor_TG, top_TG = shape.values_TGK[..., 0], shape.values_TGK[..., 1]
        late_TG, soft_T1 = foot_G >= EARLIEST, ~hard_T[:, None]
        at_chance_TG = soft_T1 | (floor_TG <= chance_T[:, None] + EXCESS)
        gain_TG = top_TG - floor_TG > np.where(soft_T1, 0, GAIN)
        is_emergent_TG = late_TG & at_chance_TG & gain_TG
        bic_TG = bic(shape.log_likelihood_TG, PARAMETERS[name])
        emergent.append(np.where(is_emergent_TG, bic_TG, np.inf).min(-1))
        others.append(np.where(~is_emergent_TG & (top_TG > floor_TG), bic_TG, np.inf).min(-1))
        if hard_T.any():
            rise_TGS = bases(u_TS)[name][..., 1]
            bic_TG = bic(_from_chance(rise_TGS, score_TS, weight_TS, chance_T), PARAMETERS[name] - 1)
            emergent.append(np.where(hard_T[:, None] & late_TG, bic_TG, np.inf).min(-1))
    return np.min(others, axis=0) - np.min(emergent, axis=0)


def _beside(value_T: np.ndarray, array: np.ndarray) -> np.ndarray:
    return value_T.reshape(-1, *[1] * (array.ndim - 1))


def _from_chance(rise_TGS: np.ndarray, score_TS: np.ndarray, weight_TS: np.ndarray, chance_T: np.ndarray) -> np.ndarray:
    """Log likelihoods (T, G) of the best rises from chance by `GAIN` or more."""
    chance_TG1 = chance_T.clip(EDGE, 1 - EDGE)[:, None, None]
    least_TG1 = np.minimum(chance_TG1 + GAIN, 1 - EDGE)
    score_TGS, weight_TGS = score_TS[:, None], weight_TS[:, None]
    top_TG1 = np.broadcast_to((chance_TG1 + 1) / 2, (*rise_TGS.shape[:2], 1))
    for _ in range(STEPS):
        mean_TGS = (chance_TG1 * (1 - rise_TGS) + top_TG1 * rise_TGS).clip(EDGE, 1 - EDGE)
        weighted_TGS = rise_TGS * weight_TGS / (mean_TGS * (1 - mean_TGS))
        slope_TG1 = (weighted_TGS * (score_TGS - mean_TGS)).sum(-1, keepdims=True)
        curvature_TG1 = (weighted_TGS * rise_TGS).sum(-1, keepdims=True)
        top_TG1 = (top_TG1 + slope_TG1 / (curvature_TG1 + 1e-9)).clip(least_TG1, 1 - EDGE)
    mean_TGS = chance_TG1 * (1 - rise_TGS) + top_TG1 * rise_TGS
    return log_likelihood(mean_TGS, score_TGS, weight_TGS, "binomial")
