"""Which class a curve is of, and the numbers that say so.

    emergent      at chance in small models, above it in large ones, and a rise that their trend does not predict
    smooth        improves with scale without such a foot
    inverse       gets worse with scale
    u-shaped      gets worse, then better
    flat          no trend, though a gain of `DETECTABLE` would have been seen
    undetermined  no trend, and the data could not have shown one

Every test of one kind over all curves of one call is one family, whose false discovery rate the step of Benjamini and
Hochberg holds at `q`: the largest models above chance, a trend either way, a bend.

Emergent needs the largest models above chance and a curve with a foot that is better than every curve without
(`foot.margin`); the limits in score there apply to hard metrics, whose unit is known.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from lmscale.core.quantities import Z_95
from lmscale.study.emergence.curves import Curve
from lmscale.study.emergence.foot import FLAT_HANDICAP, margin
from lmscale.study.emergence.likelihood import EDGE, NoiseKind, pearson
from lmscale.study.emergence.shapes import PARAMETERS, FittedShape, fit_all

CLASSES = ("emergent", "smooth", "flat", "inverse", "u-shaped", "undetermined")
BEND = 3.84
FALL, RISE = 0.03, 0.05
DETECTABLE = 0.1
POWER = Z_95 + 0.84
"""Standard errors of a gain that a two-sided 5 % test sees four times out of five."""
LACK_OF_FIT = 0.01
"""Scatter about the best curve that is rarer than this under the assumed noise widens the noise to what is seen."""
TREND_FREEDOM, BEND_FREEDOM = 2.5, 4.0
"""Degrees of freedom whose chi^2 the ratios of hinge or saturating, and of vee, to flat follow when nothing is there. A
knot is no regular parameter: of 2000 flat curves with 8, 12 and 30 scales the 95 % quantiles of the former, rises only,
are 4.3, 5.2 and 5.9 (half of chi^2 with 2.5: 5.4), of the latter 7.7, 8.1 and 8.9 (chi^2 with 4: 9.5)."""


@dataclass(frozen=True)
class Batch:
    """Curves of one kind of noise side by side, padded with scales of no weight; a better score is a higher one."""

    curves: Sequence[Curve]
    noise: NoiseKind
    u_TS: np.ndarray
    score_TS: np.ndarray
    weight_TS: np.ndarray
    chance_T: np.ndarray
    """In the sense of `score_TS`; NaN where unknown."""
    scales_T: np.ndarray


@dataclass(frozen=True)
class CurveTests:
    """Fits and tests of a batch, all (T,)."""

    shapes: dict[str, FittedShape]
    phi_T: np.ndarray
    """Factor of the assumed variance that the scatter about the best curve asks for."""
    p_T: dict[str, np.ndarray]
    """p-values: above_chance, trend (either way), bend (any two lines against no trend)."""
    up_T: np.ndarray
    """Whether the trend, if it is one, goes up."""
    margin_T: np.ndarray
    """BIC by which an emergent curve is better than all others (`foot.margin`)."""
    detectable_T: np.ndarray
    """The smallest gain that the largest models would have shown; NaN where the unit is unknown."""

    def ratio(self, name: str, base: str) -> np.ndarray:
        """Twice the log likelihood ratio of two shapes."""
        gain_T = self.shapes[name].log_likelihood_T - self.shapes[base].log_likelihood_T
        return 2 * gain_T.clip(min=0) / self.phi_T

    def bic(self, name: str, scales_T: np.ndarray) -> np.ndarray:
        """BIC under the widened noise."""
        return -2 * self.shapes[name].log_likelihood_T / self.phi_T + PARAMETERS[name] * np.log(scales_T)


def padded_batch(curves: Sequence[Curve], noise: NoiseKind) -> Batch:
    """Curves that share their kind of noise as padded arrays."""
    scales_T = np.array([len(curve.x_S) for curve in curves])
    shape = (len(curves), int(scales_T.max()))
    u_TS, score_TS, weight_TS = np.ones(shape), np.zeros(shape), np.zeros(shape)
    for row, curve in enumerate(curves):
        size = scales_T[row]
        u_TS[row, :size] = curve.u_S
        score_TS[row, :size] = curve.better * curve.score_S
        weight_TS[row, :size] = curve.weight_S
    chance_T = np.array([curve.better * curve.chance for curve in curves])
    return Batch(curves, noise, u_TS, score_TS, weight_TS, chance_T, scales_T)


def fit_and_test(data: Batch) -> CurveTests:
    """Fit every shape to every curve and test it."""
    shapes = fit_all(data.u_TS, data.score_TS, data.weight_TS, data.noise)
    phi_T, estimated_T = _scatter(data, shapes)
    top_score_T, top_weight_T = _top(data)
    hard_T = np.array([curve.kind == "hard" for curve in data.curves])
    margin_T = margin(data.u_TS, data.score_TS, data.weight_TS, data.chance_T, hard_T, phi_T, shapes)
    detectable_T = _detectable(data, top_weight_T, phi_T)
    tests = CurveTests(shapes, phi_T, {}, np.ones(len(phi_T), bool), margin_T, detectable_T)
    sign_T = np.sign(shapes["line"].values_TK[:, 1] - shapes["line"].values_TK[:, 0])
    line_T = _tail(tests.ratio("line", "flat"), 1, data.scales_T, estimated_T)
    ways = {}
    for name, way in (("up", 1), ("down", -1)):
        one_sided_T = np.where(sign_T == way, line_T / 2, 1 - line_T / 2)
        bent_T = np.zeros(len(phi_T))
        for shape in ("hinge", "saturating"):
            going_T = way * (shapes[shape].values_TK[:, 1] - shapes[shape].values_TK[:, 0]) > 0
            bent_T = np.maximum(bent_T, np.where(going_T, tests.ratio(shape, "flat"), 0))
        bent_T = _tail(bent_T, TREND_FREEDOM, data.scales_T, estimated_T)
        ways[name] = combined(one_sided_T, np.where(bent_T < 1, bent_T / 2, 1 - bent_T / 2))
    tests.p_T["trend"] = np.minimum(1, 2 * np.minimum(ways["up"], ways["down"]))
    tests.up_T[:] = ways["up"] < ways["down"]
    tests.p_T["bend"] = _tail(tests.ratio("vee", "flat"), BEND_FREEDOM, data.scales_T, estimated_T)
    tests.p_T["above_chance"] = _above_chance(data, top_score_T, top_weight_T / phi_T)
    return tests


def classify(data: Batch, tests: CurveTests, q_T: dict[str, np.ndarray], q: float) -> np.ndarray:
    """The class of every curve; `q_T` are the tests' adjusted p-values."""
    shapes = tests.shapes
    hard_T = np.array([curve.kind == "hard" for curve in data.curves])
    falls_T = shapes["vee"].values_TK[:, 0] - shapes["vee"].values_TK[:, 1]
    rises_T = shapes["vee"].values_TK[:, 2] - shapes["vee"].values_TK[:, 1]
    # an S-shaped rise bends too, but a ramp follows it better than two lines do
    bends_T = (tests.ratio("vee", "hinge") > BEND) & (tests.ratio("vee", "flat") > tests.ratio("ramp", "flat"))
    u_shaped_T = bends_T & (falls_T > FALL * hard_T) & (rises_T > RISE * hard_T) & (q_T["bend"] < q)
    emergent_T = (tests.margin_T > 0) & (q_T["above_chance"] < q)
    blind_T = tests.detectable_T > DETECTABLE
    trend_T = q_T["trend"] < q
    order = [u_shaped_T, emergent_T, trend_T & ~tests.up_T, trend_T, blind_T]
    return np.select(order, ["u-shaped", "emergent", "inverse", "smooth", "undetermined"], "flat")


def leaves_floor(data: Batch, tests: CurveTests) -> np.ndarray:
    """Curves that a flat start explains better than a trend from the first scale on: they bend upwards."""
    foot_bic_T = np.minimum(tests.bic("hinge", data.scales_T), tests.bic("ramp", data.scales_T))
    without_T = np.minimum(tests.bic("line", data.scales_T), tests.bic("saturating", data.scales_T))
    better_T = (foot_bic_T < without_T) & (foot_bic_T < tests.bic("flat", data.scales_T) - FLAT_HANDICAP)
    levels_T2 = _levels(data, tests)
    return better_T & (levels_T2[:, 1] > levels_T2[:, 0])


def _levels(data: Batch, tests: CurveTests) -> np.ndarray:
    """Scores (T, 2) before and after the rise, of the ramp where it is the better of the two curves with a foot."""
    ramp_T = tests.bic("ramp", data.scales_T) < tests.bic("hinge", data.scales_T)
    return np.where(ramp_T[:, None], tests.shapes["ramp"].values_TK, tests.shapes["hinge"].values_TK)


def adjusted(p: np.ndarray) -> np.ndarray:
    """Benjamini and Hochberg's adjusted p-values (1995, doi 10.1111/j.2517-6161.1995.tb02031.x)."""
    return np.asarray(stats.false_discovery_control(p)) if len(p) else p


def combined(*p: np.ndarray) -> np.ndarray:
    """One p-value of several dependent tests of one hypothesis: Cauchy's (Liu and Xie 2020, arXiv 1808.09011)."""
    inside = np.clip(p, 1e-15, 1 - 1e-15)
    return np.asarray(stats.cauchy.sf((1 / np.tan(np.pi * inside)).mean(axis=0)))


def _scatter(data: Batch, shapes: dict[str, FittedShape]) -> tuple[np.ndarray, np.ndarray]:
    """Phi (T,), and where it is estimated rather than 1."""
    phi_T = np.full(len(data.curves), np.inf)
    rare_T = np.ones(len(data.curves), bool)
    for name, shape in shapes.items():
        freedom_T = np.maximum(data.scales_T - PARAMETERS[name], 1)
        chi2_T = pearson(shape.mean_TS, data.score_TS, data.weight_TS, data.noise)
        phi_T = np.minimum(phi_T, chi2_T / freedom_T)
        rare_T &= stats.chi2.sf(chi2_T, freedom_T) < LACK_OF_FIT
    unknown_T = ~np.array([curve.noise_known for curve in data.curves])
    estimated_T = unknown_T | (rare_T & (phi_T > 1))
    tiny_T = 1e-12 * np.maximum(1e-12, (data.score_TS**2).max(-1))
    return np.where(estimated_T, np.maximum(phi_T, tiny_T), 1.0), estimated_T


def _top(data: Batch) -> tuple[np.ndarray, np.ndarray]:
    """Score and weight (T,) of the largest models together: two, or a sixth of the scales."""
    size_T = np.maximum(2, np.rint(data.scales_T / 6))
    last_TS = (np.arange(data.u_TS.shape[1]) >= (data.scales_T - size_T)[:, None]) & (data.weight_TS > 0)
    weight_T = (data.weight_TS * last_TS).sum(-1)
    return (data.score_TS * data.weight_TS * last_TS).sum(-1) / weight_T, weight_T


def _above_chance(data: Batch, score_T: np.ndarray, weight_T: np.ndarray) -> np.ndarray:
    """p-values of the largest models against chance: exact binomial of n_eff, or normal; 0 where chance is unknown."""
    if data.noise == "binomial":
        # at a chance of 0 a single right answer would be proof; one in two hundred may be luck, or a slip of the scorer
        chance_T = np.maximum(data.chance_T, 0.005)
        n_T = np.maximum(np.rint(weight_T), 1)
        return np.asarray(stats.binom.sf(np.rint(score_T * n_T) - 1, n_T, chance_T))
    p_T = stats.norm.sf((score_T - data.chance_T) * np.sqrt(weight_T))
    return np.where(np.isnan(data.chance_T), 0.0, p_T)


def _detectable(data: Batch, top_weight_T: np.ndarray, phi_T: np.ndarray) -> np.ndarray:
    if data.noise == "gaussian":
        return np.full(len(phi_T), np.nan)
    chance_T = data.chance_T.clip(0.02, 1 - EDGE)
    return POWER * np.sqrt(chance_T * (1 - chance_T) * phi_T / top_weight_T)


def _tail(ratio_T: np.ndarray, freedom: float, scales_T: np.ndarray, estimated_T: np.ndarray) -> np.ndarray:
    """The p-value of a likelihood ratio: chi^2, or F where the noise is estimated from the same scatter."""
    by_f_T = stats.f.sf(ratio_T / freedom, freedom, np.maximum(scales_T - 4, 1))
    return np.where(estimated_T, by_f_T, stats.chi2.sf(ratio_T, freedom))
