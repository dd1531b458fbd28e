"""A judge's grades by themselves: whether its samples agree, and whether it likes long texts."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmscale.lm.eval.judge.agreement import NAN, RELIABLE, Matrix, alpha
from lmscale.lm.eval.judge.bootstrap import Estimate, Indices, estimate
from lmscale.lm.eval.judge.grades import Grading, mean_grades
from lmscale.lm.eval.judge.rubric import Rubric


@dataclass(frozen=True)
class SelfConsistency:
    """How far the samples of a judge's grade agree with each other, of one criterion."""

    criterion: str
    texts: int
    """How many have two readable samples at least."""
    same: float
    """The share of them whose samples are all one."""
    alpha: Estimate

    def to_json(self) -> dict[str, Any]:
        """What --json writes."""
        return {"criterion": self.criterion, "texts": self.texts, "same": self.same, "alpha": self.alpha.to_json()}

    def sentence(self) -> str:
        """Whether the judge agrees with itself."""
        if self.same == 1:
            return f"{self.criterion}: the judge gives each of {self.texts:,} texts the same grade in all samples"
        doubt = "" if self.alpha.value >= RELIABLE else ", too little to rely on one sample"
        return (
            f"{self.criterion}: the judge disagrees with itself: it gives {self.same:.0%} of {self.texts:,} texts the "
            f"same grade in all samples; alpha between samples {self.alpha}{doubt}"
        )


def self_consistency(gradings: Sequence[Grading], rubric: Rubric, resamples: int, seed: int) -> list[SelfConsistency]:
    """The self-consistency of every criterion; none where no text has two readable samples."""
    samples: defaultdict[str, list[dict[str, float]]] = defaultdict(list)
    for one in gradings:
        if one.grades is not None:
            samples[one.text.id].append(one.grades)
    several = [grades for grades in samples.values() if len(grades) > 1]
    if not several:
        return []
    most = max(map(len, several))
    out = []
    for criterion in rubric.criteria:
        grades_RT = np.full((most, len(several)), NAN)
        for column, grades in enumerate(several):
            grades_RT[: len(grades), column] = [one[criterion.name] for one in grades]
        same = float(np.mean(np.nanmin(grades_RT, 0) == np.nanmax(grades_RT, 0)))
        between = estimate(_alpha_of(grades_RT), len(several), resamples, seed)
        out.append(SelfConsistency(criterion.name, len(several), same, between))
    return out


def _alpha_of(grades_RT: Matrix) -> Any:
    return lambda drawn: alpha(grades_RT[:, drawn])


def length_correlation(gradings: Sequence[Grading], criterion: str, resamples: int, seed: int) -> Estimate:
    """Spearman's rank correlation of a text's grade with its length in characters."""
    from scipy.stats import rankdata

    means = mean_grades(gradings, criterion)
    lengths = {one.text.id: len(one.text.text) for one in gradings}
    x, y = np.array([lengths[id] for id in means], float), np.array(list(means.values()), float)

    def spearman(drawn: Indices) -> float:
        a, b = rankdata(x[drawn]), rankdata(y[drawn])
        if len(drawn) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
            return NAN
        return float(np.corrcoef(a, b)[0, 1])

    return estimate(spearman, len(means), resamples, seed)
