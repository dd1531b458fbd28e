"""Bradley-Terry ratings of models from votes on pairs of their texts, against N.

P(i is preferred to j) = 1 / (1 + 10^((R_j - R_i) / 400)) (Bradley and Terry 1952, in the units of Elo): 100 points more
win 64 % of the votes. Ratings have mean 0: only differences mean something. Maximum likelihood by the library `choix`,
with half a win each way added to every two models that were compared, so that a model that never lost has a finite
rating, drawn towards the others.
"""

import importlib.util
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmscale.core.config import check
from lmscale.lm.eval.judge.bias import units_of
from lmscale.lm.eval.judge.bootstrap import LEVEL
from lmscale.lm.eval.judge.pairs import Result
from lmscale.lm.eval.judge.texts import Author

ELO = 400 / math.log(10)
"""Points of a rating per natural unit."""
ADDED_WINS = 0.5
ITERATIONS = 10_000


@dataclass(frozen=True)
class Rating:
    """How a model's texts do in votes against those of the others."""

    model: str
    params: float | None
    """N, where it is known."""
    rating: float
    low: float
    high: float
    stderr: float
    """Standard deviation over the draws."""
    share: float
    """The share of its votes that it won."""
    pairs: int


@dataclass(frozen=True)
class Ratings:
    """The ratings of all models, lowest N first, and how they grow with it."""

    ratings: list[Rating]
    per_tenfold_params: float | None
    """Points for ten times the N, by least squares; None with fewer than three sizes."""
    per_tenfold_interval: tuple[float, float] | None

    def sentences(self) -> list[str]:
        """What the intervals do not say."""
        ends = {0.0: "lost", 1.0: "won"}
        return [
            f"{one.model} {ends[one.share]} all its votes: how far it is from the others is a bound, not an estimate"
            for one in self.ratings
            if one.share in ends
        ]

    def to_json(self) -> dict[str, Any]:
        """What --json writes."""
        return asdict(self)


def rate(results: Sequence[Result], authors: Sequence[Author], resamples: int, seed: int) -> Ratings:
    """Ratings with 95 % intervals, for which prompts (of few prompts, pairs) are drawn anew.

    Raises `UserError` where some models were never compared with the others, or the extra is not installed.
    """
    check(importlib.util.find_spec("choix") is not None, "ratings need choix: pip install 'lmscale[judge]'")
    models = [author for author in authors if any(author.name in _models(one) for one in results)]
    number = {author.name: i for i, author in enumerate(models)}
    check(len(models) >= 2, "ratings need votes on texts of two models at least")
    units = [_wins([results[i] for i in unit], number) for unit in units_of([one.pair.prompt for one in results])]
    wins = np.array(units)
    _check_connected(wins.sum(0), models)
    compared = (wins.sum(0) + wins.sum(0).T) > 0
    point = _bradley_terry(wins.sum(0), compared)
    rng = np.random.default_rng(seed)
    draws = np.array(
        [_bradley_terry(wins[rng.integers(0, len(units), len(units))].sum(0), compared) for _ in range(resamples)]
    )
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    total = wins.sum(0)
    ratings = [
        Rating(
            author.name, author.params, float(point[i]), float(low[i]), float(high[i]), float(draws[:, i].std(ddof=1)),
            float(total[i].sum() / (total[i].sum() + total[:, i].sum())),
            sum(author.name in _models(one) for one in results),
        )
        for i, author in enumerate(models)
    ]  # fmt: skip
    return Ratings(ratings, *_slope(models, point, draws))


def _models(result: Result) -> tuple[str, str]:
    return result.pair.a.model, result.pair.b.model


def _wins(results: Sequence[Result], number: dict[str, int]) -> NDArray[np.float64]:
    """wins[i, j]: how many of the pairs of i and j were won by i, shares of votes added up."""
    wins = np.zeros((len(number), len(number)))
    for one in results:
        a, b = (number[model] for model in _models(one))
        wins[a, b] += one.share
        wins[b, a] += 1 - one.share
    return wins


def _check_connected(wins: NDArray[np.float64], models: Sequence[Author]) -> None:
    from scipy.sparse.csgraph import connected_components

    count, group = connected_components(wins + wins.T, directed=False)
    if count > 1:
        groups = defaultdict(list)
        for author, label in zip(models, group):
            groups[int(label)].append(author.name)
        first, second = list(groups.values())[:2]
        check(
            False, f"{first[0]} and {second[0]} were never compared, nor by way of others: let all models continue the "
            "same prompts",
        )  # fmt: skip


def _bradley_terry(wins: NDArray[np.float64], compared: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Ratings in points, with mean 0."""
    import choix

    natural = choix.ilsr_pairwise_dense(wins + ADDED_WINS * compared, max_iter=ITERATIONS)
    return np.asarray((natural - natural.mean()) * ELO)


def _slope(
    models: Sequence[Author], point: NDArray[np.float64], draws: NDArray[np.float64]
) -> tuple[float | None, tuple[float, float] | None]:
    """Points for ten times the N, and the interval."""
    known = [i for i, author in enumerate(models) if author.params is not None]
    logs = np.log10([float(models[i].params or 1) for i in known])
    if len(set(np.round(logs, 3))) < 3:
        return None, None
    centred = (logs - logs.mean()) / ((logs - logs.mean()) ** 2).sum()
    low, high = np.quantile(draws[:, known] @ centred, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(point[known] @ centred), (float(low), float(high))


def rating_rows(ratings: Ratings, authors: Sequence[Author], task: str) -> list[dict[str, Any]]:
    """A row of scores for every rating."""
    by_name = {author.name: author for author in authors}
    return [
        {
            "model": one.model, "params": one.params, **dict(by_name[one.model].columns), "task": task,
            "metric": "rating", "kind": "graded", "shots": 0, "score": one.rating, "stderr": one.stderr, "n": one.pairs,
            "chance": None, "higher_is_better": True,
        }
        for one in ratings.ratings
    ]  # fmt: skip
