"""The two steps of the ladder as weighted least squares: two nonlinear unknowns on a grid, the rest solved exactly.

So all bootstrap resamples are fitted at once. Axes: n runs, m points, G grid points, K linear coefficients,
R resamples.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

Link = Literal["sigmoid", "error-law"]
LINKS = ("sigmoid", "error-law")
EXPONENTS = np.geomspace(0.05, 1.2, 24)


class GridFit:
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


def power_basis(scales: Sequence[np.ndarray], fitted: Sequence[np.ndarray] | None = None) -> np.ndarray:
    """1, N^-alpha, D^-beta (or 1, C^-alpha) at every pair of exponents (G, n, K); scales in units of their median."""
    units = [float(np.median(values)) for values in (fitted or scales)]
    powers = [(values / unit)[None, :] ** -EXPONENTS[:, None] for values, unit in zip(scales, units)]
    if len(powers) == 1:
        return np.stack([np.ones_like(powers[0]), powers[0]], axis=-1)
    size = len(EXPONENTS)
    first, second = np.repeat(powers[0], size, axis=0), np.tile(powers[1], (size, 1))
    return np.stack([np.ones_like(first), first, second], axis=-1)


def least_coefficients(link: Link) -> tuple[float, float]:
    """The smallest value of each coefficient: 0 for both terms of a sigmoid, and for the rise of the error law."""
    return (0.0, 0.0) if link == "sigmoid" else (-np.inf, 0.0)


def _grid(link: Link, fitted_n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The two nonlinear unknowns: steepness and middle of the sigmoid (G,), or gamma of the error law alone."""
    span = float(np.ptp(fitted_n)) or 1.0
    steep = np.geomspace(0.7, 30, 28) / span
    if link == "error-law":
        return steep, np.zeros(len(steep))
    middle = np.linspace(fitted_n.min() - 1.5 * span, fitted_n.max() + 0.5 * span, 91)
    return np.repeat(steep, len(middle)), np.tile(middle, len(steep))


def link_basis(loss: np.ndarray, link: Link, fitted_n: np.ndarray) -> np.ndarray:
    """Basis (G, m, 2) of the score at losses (m,): a floor, and what rises as the loss falls."""
    steep_G, middle_G = _grid(link, fitted_n)
    if link == "error-law":  # score = 1 - eps + c exp(-gamma L): the same as floor + c exp(-gamma (L - max L))
        rising = np.exp(-steep_G[:, None] * (loss[None, :] - fitted_n.max()))
    else:
        rising = 1 / (1 + np.exp(np.clip(steep_G[:, None] * (loss[None, :] - middle_G[:, None]), -50, 50)))
    return np.stack([np.ones_like(rising), rising], axis=-1)


def link_at(scores: GridFit, loss_R: np.ndarray, link: Link, fitted_n: np.ndarray) -> np.ndarray:
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
