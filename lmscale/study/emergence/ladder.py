"""The downstream ladder: from scale to task loss to score, fitted on small models and checked on larger ones.

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
from typing import TYPE_CHECKING, Any

import numpy as np

from lmscale.core.errors import UserError, nearest
from lmscale.study.emergence import ladder_fit
from lmscale.study.emergence.ladder_fit import LINKS, GridFit, Link, power_basis
from lmscale.study.fits.results.common import Status, clean
from lmscale.study.fits.results.notebook import Printed

if TYPE_CHECKING:
    import pandas as pd

FEWEST = 5
LEVEL = 0.95
ENDS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
"""Quantiles at the ends of every interval."""
NARROW = 0.5
"""An interval wider than this share of what lies between chance and the ceiling predicts nothing."""
ABOVE = 3.0
"""Standard deviations of the scatter by which the best small models must stand above chance."""


@dataclass(frozen=True)
class PredictedScore(Printed):
    """The predicted score of one model that is larger than those fitted."""

    scale: Mapping[str, float]
    measured: float | None
    predicted: float
    interval: tuple[float, float]
    """Where one new model lands, 95 %: the law's own uncertainty and a model's scatter."""
    loss: float
    """Predicted task loss."""

    def __str__(self) -> str:
        where = " ".join(f"{name} = {value:.3g}" for name, value in self.scale.items())
        prediction = f"{where}: predicted {self.predicted:.3f} [{self.interval[0]:.3f}, {self.interval[1]:.3f}]"
        return prediction if self.measured is None else f"{prediction}, measured {self.measured:.3f}"


@dataclass(frozen=True)
class Ladder(Printed):
    """A fitted ladder and its predictions for the models that it has not seen."""

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
        held_out = [vars(one) | {"scale": dict(one.scale)} for one in self.held_out]
        return clean(
            {"link": self.link, "inputs": self.inputs, "fitted_runs": self.fitted_runs, "held_out": held_out,
             "mean_error": self.mean_error, "inside": self.inside, "can_predict": self.can_predict,
             "status": [status.to_json() for status in self.status]}
        )  # fmt: skip

    def __str__(self) -> str:
        head = f"Ladder over {', '.join(self.inputs)} with the {self.link} link, {self.fitted_runs} models fitted"
        rows = [f"  {one}" for one in self.held_out]
        remarks = [f" {'!' if status.severity == 'warning' else '-'} {status.sentence}" for status in self.status]
        return "\n".join([head, *rows, *remarks])


def ladder(
    table: "pd.DataFrame",
    *,
    chance: float,
    link: Link = "sigmoid",
    ceiling: float = 1.0,
    resamples: int = 200,
    seed: int = 0,
) -> Ladder:
    """Fit the runs of `table` that are not `held_out` and predict the scores of the others.

    Columns: `task_loss`, `score`, `held_out`, and `params` with `tokens`, or `flops`. A held-out run may lack its
    score.
    Raises `UserError` for a column that is absent, fewer than five runs to fit, or an unknown link.
    """
    if link not in LINKS:
        raise UserError(f"no link from loss to score is called {link!r}{nearest(link, LINKS)}")
    inputs = ("params", "tokens") if {"params", "tokens"} <= set(table) else ("flops",)
    small, large = _split(table, inputs)
    rng = np.random.default_rng(seed)
    weight_Rn = np.concatenate([np.ones((1, len(small))), rng.exponential(size=(resamples, len(small)))])
    steps = _Steps(small, inputs, link, weight_Rn)
    predictions = tuple(steps.predict(large.iloc[[index]], ceiling, rng) for index in range(len(large)))
    known = [(one, one.measured) for one in predictions if one.measured is not None]
    errors = [abs(one.predicted - measured) for one, measured in known]
    inside = [one.interval[0] <= measured <= one.interval[1] for one, measured in known]
    return Ladder(
        link=link,
        inputs=inputs,
        fitted_runs=len(small),
        held_out=predictions,
        mean_error=float(np.mean(errors)) if errors else math.nan,
        inside=float(np.mean(inside)) if inside else math.nan,
        status=tuple(_status(steps, chance, ceiling, predictions, errors)),
        curve=steps.curve(min([*steps.loss_n, *(one.loss for one in predictions)])),
    )


def _split(table: "pd.DataFrame", inputs: Sequence[str]) -> "tuple[pd.DataFrame, pd.DataFrame]":
    """The runs to fit and those to predict. Raises `UserError` for what cannot be fitted."""
    for name in ("task_loss", "score", "held_out", *inputs):
        if name not in table:
            raise UserError(
                f"a ladder needs the column {name!r}: task_loss, score, held_out, params and tokens or flops"
            )
    is_held_out = table["held_out"].astype(bool).to_numpy()
    small, large = table[~is_held_out], table[is_held_out]
    if len(small) < FEWEST:
        raise UserError(f"a ladder has {len(small)} runs to fit: it needs {FEWEST} or more that are not held out")
    values = small[["task_loss", "score", *inputs]].to_numpy(float)
    if not (np.isfinite(values[:, :2]).all() and (values[:, 2:] > 0).all()):
        raise UserError("the fitted runs of a ladder need a task loss, a score and positive scales, all of them finite")
    return small, large


class _Steps:
    """Both steps fitted to the small models: from scale to task loss, and from task loss to score."""

    def __init__(self, small: "pd.DataFrame", inputs: Sequence[str], link: Link, weight_Rn: np.ndarray) -> None:
        self.inputs, self.link, self.resamples = inputs, link, len(weight_Rn) - 1
        self.scales = [small[name].to_numpy(float) for name in inputs]
        self.loss_n, self.score_n = small["task_loss"].to_numpy(float), small["score"].to_numpy(float)
        least = (0.0,) * (1 + len(inputs))
        self.losses = GridFit(power_basis(self.scales), self.loss_n, weight_Rn, least=least)
        basis = ladder_fit.link_basis(self.loss_n, link, self.loss_n)
        self.scores = GridFit(basis, self.score_n, weight_Rn, least=ladder_fit.least_coefficients(link))
        self.loss_scatter, self.score_scatter = self.losses.scatter(), self.scores.scatter()

    def score_at(self, loss_R: np.ndarray) -> np.ndarray:
        """The score of every resample at its own loss (R,)."""
        return ladder_fit.link_at(self.scores, loss_R, self.link, self.loss_n)

    def predict(self, run: "pd.DataFrame", ceiling: float, rng: np.random.Generator) -> PredictedScore:
        """The score of one larger model; its interval adds the scatter of both steps."""
        scales = [run[name].to_numpy(float) for name in self.inputs]
        loss_R = self.losses.at(power_basis(scales, self.scales))[:, 0]
        drawn_R = loss_R + self.loss_scatter * rng.normal(size=len(loss_R))
        score_R = self.score_at(drawn_R) + self.score_scatter * rng.normal(size=len(loss_R))
        centre = float(self.score_at(loss_R[:1])[0])
        low, high = np.quantile(score_R[1:] if self.resamples else score_R, ENDS)
        measured = float(run["score"].iloc[0])
        return PredictedScore(
            scale={name: float(value[0]) for name, value in zip(self.inputs, scales)},
            measured=None if math.isnan(measured) else measured,
            predicted=float(np.clip(centre, 0, ceiling)),
            interval=(float(np.clip(low, 0, ceiling)), float(np.clip(high, 0, ceiling))),
            loss=float(loss_R[0]),
        )

    def curve(self, lowest: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Loss, score, and the ends of its interval, from the `lowest` loss to the highest that was fitted."""
        grid = np.linspace(lowest, self.loss_n.max(), 80)
        scores_RG = np.stack([self.score_at(np.full(self.resamples + 1, value)) for value in grid], axis=1)
        low, high = np.quantile(scores_RG, ENDS, axis=0)
        return grid, scores_RG[0], low, high


def _status(
    steps: _Steps, chance: float, ceiling: float, predictions: Sequence[PredictedScore], errors: Sequence[float]
) -> list[Status]:
    """Whether the small models fix the scores of the large ones, and by how much these are missed."""
    status = []
    top = float(np.sort(steps.score_n)[-2:].mean())
    if top - chance <= ABOVE * steps.score_scatter:
        sentence = (
            f"the best fitted models score {top:.3f}, not clear of chance ({chance:.3f}) beside their scatter "
            f"({steps.score_scatter:.3f}): no foot can be predicted from them, since any that is still to come fits as "
            f"well"
        )
        status.append(Status("at chance", sentence, "warning"))
    widest = max((one.interval[1] - one.interval[0] for one in predictions), default=0.0)
    if widest > NARROW * (ceiling - chance):
        sentence = f"the 95 % interval is up to {widest:.2f} wide: the small models do not fix the large ones' scores"
        status.append(Status("wide", sentence, "warning"))
    if errors:
        sentence = f"held-out scores are missed by {np.mean(errors):.3f} on average, {np.max(errors):.3f} at most"
        status.append(Status("held out", sentence))
    return status
