"""The downstream ladder: from scale to task loss to score, fitted on small models and held against larger ones.

Two steps (Bhagia 2024, arXiv 2412.04403). Task loss follows L = E + A/N^alpha + B/D^beta, or E + A/C^alpha where only
compute is known; the score follows the loss by a sigmoid, score = b + a / (1 + exp(k (L - L0))), or by the error law of
Gadre 2024 (arXiv 2403.08540), error = eps - c exp(-gamma L). Task loss is any loss of the right answer: bits per byte,
nats per token, or validation loss where no task loss is known.

Every one of these is linear in all but two of its unknowns. Those two lie on a grid and the rest has a closed solution,
so that all bootstrap resamples are fitted at once. Axes: n runs, G grid points, K linear coefficients, R resamples.

A score can be predicted only where the small models pin the link down. Where all of them are at chance, any foot to
come fits them equally well; the status says so.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lmscale.core.errors import UserError, nearest
from lmscale.study.fits.results.common import Status, clean

if TYPE_CHECKING:
    import pandas as pd

Link = Literal["sigmoid", "error-law"]
LINKS = ("sigmoid", "error-law")
FEWEST = 5
LEVEL = 0.95
EXPONENTS = np.geomspace(0.05, 1.2, 24)
NARROW = 0.5
"""An interval wider than this share of what lies between chance and the ceiling predicts nothing."""
ABOVE = 3.0
"""Standard deviations of the scatter by which the best small models must stand above chance."""


@dataclass(frozen=True)
class PredictedScore:
    """One model larger than those fitted."""

    scale: Mapping[str, float]
    measured: float | None
    predicted: float
    interval: tuple[float, float]
    """95 % of one new model: of the law and of a model's own scatter."""
    loss: float
    """Predicted task loss."""

    def __str__(self) -> str:
        where = " ".join(f"{name} = {value:.3g}" for name, value in self.scale.items())
        said = f"{where}: predicted {self.predicted:.3f} [{self.interval[0]:.3f}, {self.interval[1]:.3f}]"
        return said if self.measured is None else f"{said}, measured {self.measured:.3f}"


@dataclass(frozen=True)
class Ladder:
    """A fitted ladder and what it says of the models that it has not seen."""

    link: str
    inputs: tuple[str, ...]
    fitted_runs: int
    held_out: tuple[PredictedScore, ...]
    mean_error: float
    """Mean absolute error of the held-out scores; NaN without any."""
    inside: float
    """Share of the held-out scores within their interval."""
    status: tuple[Status, ...]
    curve: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
    """Loss, score, and the ends of its 95 % interval: the link, to be drawn."""

    @property
    def can_predict(self) -> bool:
        """Whether the small models fix the scores of the large ones."""
        return not any(status.severity == "warning" for status in self.status)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        held = [vars(one) | {"scale": dict(one.scale)} for one in self.held_out]
        return clean(
            {"link": self.link, "inputs": self.inputs, "fitted_runs": self.fitted_runs, "held_out": held,
             "mean_error": self.mean_error, "inside": self.inside, "can_predict": self.can_predict,
             "status": [status.to_json() for status in self.status]}
        )  # fmt: skip

    def __str__(self) -> str:
        head = f"Ladder over {', '.join(self.inputs)} with the {self.link} link, {self.fitted_runs} models fitted"
        rows = [f"  {one}" for one in self.held_out]
        said = [f" {'!' if status.severity == 'warning' else '-'} {status.sentence}" for status in self.status]
        return "\n".join([head, *rows, *said])


def ladder(
    table: "pd.DataFrame",
    *,
    chance: float,
    link: Link = "sigmoid",
    ceiling: float = 1.0,
    resamples: int = 200,
    seed: int = 0,
) -> Ladder:
    """Fit the runs of `table` that are not `held_out` and predict the others.

    Columns: `task_loss`, `score`, `held_out`, and `params` with `tokens`, or `flops`. A held-out run may lack its
    score.
    Raises `UserError` for a column that is absent, fewer than five runs to fit, or an unknown link.
    """
    if link not in LINKS:
        raise UserError(f"no link from loss to score is called {link!r}{nearest(link, LINKS)}")
    inputs = ("params", "tokens") if {"params", "tokens"} <= set(table) else ("flops",)
    for name in ("task_loss", "score", "held_out", *inputs):
        if name not in table:
            raise UserError(
                f"a ladder needs the column {name!r}: task_loss, score, held_out, params and tokens or flops"
            )
    held = table["held_out"].astype(bool).to_numpy()
    small, large = table[~held], table[held]
    if len(small) < FEWEST:
        raise UserError(f"a ladder has {len(small)} runs to fit: it needs {FEWEST} or more that are not held out")
    rng = np.random.default_rng(seed)
    weight_Rn = np.concatenate([np.ones((1, len(small))), rng.exponential(size=(resamples, len(small)))])
    small_scale, large_scale = ([part[name].to_numpy(float) for name in inputs] for part in (small, large))
    loss_n, score_n = small["task_loss"].to_numpy(float), small["score"].to_numpy(float)
    if not (np.isfinite(loss_n).all() and np.isfinite(score_n).all() and all((s > 0).all() for s in small_scale)):
        raise UserError("the fitted runs of a ladder need a task loss, a score and positive scales, all of them finite")
    losses = _Fit(_power_basis(small_scale), loss_n, weight_Rn, least=(0.0,) * (1 + len(inputs)))
    scores = _Fit(_link_basis(loss_n, link, loss_n), score_n, weight_Rn, least=_least(link))
    loss_spread, score_spread = losses.scatter(), scores.scatter()
    found = []
    for index in range(len(large)):
        at = [values[index : index + 1] for values in large_scale]
        loss_R = losses.at(_power_basis(at, small_scale))[:, 0]
        drawn_R = loss_R + loss_spread * rng.normal(size=len(loss_R))
        score_R = _link_at(scores, drawn_R, link, loss_n) + score_spread * rng.normal(size=len(loss_R))
        centre = float(_link_at(scores, loss_R[:1], link, loss_n)[0])
        low, high = np.quantile(score_R[1:] if resamples else score_R, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        measured = float(large["score"].iloc[index])
        found.append(
            PredictedScore(
                scale={name: float(value[0]) for name, value in zip(inputs, at)},
                measured=None if math.isnan(measured) else measured,
                predicted=float(np.clip(centre, 0, ceiling)),
                interval=(float(np.clip(low, 0, ceiling)), float(np.clip(high, 0, ceiling))),
                loss=float(loss_R[0]),
            )
        )
    known = [one for one in found if one.measured is not None]
    errors = [abs(one.predicted - one.measured) for one in known if one.measured is not None]
    inside = [one.interval[0] <= one.measured <= one.interval[1] for one in known if one.measured is not None]
    status = _status(score_n, score_spread, chance, ceiling, found, errors)
    lowest = min([*loss_n, *(one.loss for one in found)])
    grid = np.linspace(lowest, loss_n.max(), 80)
    scores_RG = np.stack([_link_at(scores, np.full(len(weight_Rn), value), link, loss_n) for value in grid], axis=1)
    ends = np.quantile(scores_RG, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return Ladder(
        link, inputs, len(small), tuple(found), float(np.mean(errors)) if errors else math.nan,
        float(np.mean(inside)) if inside else math.nan, tuple(status), (grid, scores_RG[0], ends[0], ends[1]),
    )  # fmt: skip


def _status(
    score_n: np.ndarray,
    spread: float,
    chance: float,
    ceiling: float,
    found: Sequence[PredictedScore],
    errors: Sequence[float],
) -> list[Status]:
    status = []
    top = float(np.sort(score_n)[-2:].mean())
    if top - chance <= ABOVE * spread:
        said = (
            f"the best fitted models score {top:.3f}, not clear of chance ({chance:.3f}) beside their scatter "
            f"({spread:.3f}): no foot can be predicted from them, since any that is still to come fits as well"
        )
        status.append(Status("at chance", said, "warning"))
    widest = max((one.interval[1] - one.interval[0] for one in found), default=0.0)
    if widest > NARROW * (ceiling - chance):
        said = f"the 95 % interval is up to {widest:.2f} wide: the small models do not fix the scores of the large ones"
        status.append(Status("wide", said, "warning"))
    if errors:
        said = f"held-out scores are missed by {np.mean(errors):.3f} on average, {np.max(errors):.3f} at most"
        status.append(Status("held out", said))
    return status


class _Fit:
    """Weighted least squares with the nonlinear unknowns on a grid: the best of all grid points for every resample."""

    def __init__(self, basis_GnK: np.ndarray, y_n: np.ndarray, weight_Rn: np.ndarray, least: Sequence[float]) -> None:
        gram_RGKL = np.einsum("rn,gnk,gnl->rgkl", weight_Rn, basis_GnK, basis_GnK, optimize=True)
        right_RGK = np.einsum("rn,gnk,n->rgk", weight_Rn, basis_GnK, y_n, optimize=True)
        scale = np.trace(gram_RGKL, axis1=-2, axis2=-1)[..., None, None]
        gram_RGKL = gram_RGKL + 1e-10 * scale * np.eye(basis_GnK.shape[-1])
        values_RGK = np.linalg.solve(gram_RGKL, right_RGK[..., None])[..., 0]
        values_RGK = np.maximum(values_RGK, np.asarray(least))
        # the squared error less y's own square: a quadratic form, without the residuals of every grid point
        error_RG = np.einsum("rgk,rgkl,rgl->rg", values_RGK, gram_RGKL, values_RGK, optimize=True)
        error_RG -= 2 * np.einsum("rgk,rgk->rg", values_RGK, right_RGK)
        self.best_R = error_RG.argmin(-1)
        here = np.arange(len(weight_Rn))
        self.values_RK = values_RGK[here, self.best_R]
        self.residual_n = y_n - basis_GnK[self.best_R[0]] @ self.values_RK[0]
        self.unknowns = basis_GnK.shape[-1] + 2

    def scatter(self) -> float:
        """Standard deviation of one run about the fit."""
        return float(np.sqrt((self.residual_n**2).sum() / max(1, len(self.residual_n) - self.unknowns)))

    def at(self, basis_GmK: np.ndarray) -> np.ndarray:
        """Values (R, m) at new points."""
        return np.einsum("rmk,rk->rm", basis_GmK[self.best_R], self.values_RK)


def _power_basis(scales: Sequence[np.ndarray], fitted: Sequence[np.ndarray] | None = None) -> np.ndarray:
    """1, N^-alpha, D^-beta (or 1, C^-alpha) at every pair of exponents (G, n, K); scales in units of their median."""
    units = [float(np.median(values)) for values in (fitted or scales)]
    powers = [(values / unit)[None, :] ** -EXPONENTS[:, None] for values, unit in zip(scales, units)]
    if len(powers) == 1:
        return np.stack([np.ones_like(powers[0]), powers[0]], axis=-1)
    size = len(EXPONENTS)
    first, second = np.repeat(powers[0], size, axis=0), np.tile(powers[1], (size, 1))
    return np.stack([np.ones_like(first), first, second], axis=-1)


def _least(link: Link) -> tuple[float, float]:
    return (0.0, 0.0) if link == "sigmoid" else (-np.inf, 0.0)


def _grid(link: Link, fitted_n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The two nonlinear unknowns: steepness and middle of the sigmoid (G,), or gamma of the error law alone."""
    span = float(np.ptp(fitted_n)) or 1.0
    steep = np.geomspace(0.7, 30, 28) / span
    if link == "error-law":
        return steep, np.zeros(len(steep))
    middle = np.linspace(fitted_n.min() - 1.5 * span, fitted_n.max() + 0.5 * span, 91)
    return np.repeat(steep, len(middle)), np.tile(middle, len(steep))


def _link_basis(loss: np.ndarray, link: Link, fitted_n: np.ndarray) -> np.ndarray:
    """Basis (G, m, 2) of the score at losses (m,): a floor, and what rises as the loss falls."""
    steep_G, middle_G = _grid(link, fitted_n)
    if link == "error-law":  # score = 1 - eps + c exp(-gamma L): the same as floor + c exp(-gamma (L - max L))
        rising = np.exp(-steep_G[:, None] * (loss[None, :] - fitted_n.max()))
    else:
        rising = 1 / (1 + np.exp(np.clip(steep_G[:, None] * (loss[None, :] - middle_G[:, None]), -50, 50)))
    return np.stack([np.ones_like(rising), rising], axis=-1)


def _link_at(scores: _Fit, loss_R: np.ndarray, link: Link, fitted_n: np.ndarray) -> np.ndarray:
    """The score of every resample (R,) at its own loss."""
    steep_G, middle_G = _grid(link, fitted_n)
    best_R = scores.best_R[: len(loss_R)]
    steep_R, middle_R = steep_G[best_R], middle_G[best_R]
    if link == "error-law":
        rising_R = np.exp(-steep_R * (loss_R - fitted_n.max()))
    else:
        rising_R = 1 / (1 + np.exp(np.clip(steep_R * (loss_R - middle_R), -50, 50)))
    values_RK = scores.values_RK[: len(loss_R)]
    return np.asarray(values_RK[:, 0] + values_RK[:, 1] * rising_R)
