"""How far a judge and people agree: Krippendorff's alpha and Cohen's kappa, with intervals.

Alpha (Krippendorff 2018, chapter 12) takes any number of raters and missing grades; the distance of two grades is their
difference squared, of two preferences 0 or 1. Kappa (Cohen 1960; weighted, Cohen 1968) is of two raters: the judge and
one person, averaged over persons by their texts. Both are 1 for full agreement and 0 for that of chance. Krippendorff's
customary bounds: .8 to rely on, .667 for tentative conclusions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmscale.lm.eval.judge.bootstrap import Estimate, Indices, estimate
from lmscale.lm.eval.judge.grades import Grading, mean_grades
from lmscale.lm.eval.judge.human import HumanGrade
from lmscale.lm.eval.judge.rubric import Rubric

RELIABLE, TENTATIVE = 0.8, 0.667
NAN = float("nan")
Matrix = NDArray[np.float64]
"""Grades [raters, texts], NaN where one is missing."""


def alpha(grades_RT: Matrix, *, nominal: bool = False) -> float:
    """Krippendorff's alpha; NaN where no text has two grades, or all grades are one.

    1 - (disagreement within texts) / (disagreement of all grades with all), each over pairs of grades. Squared
    differences over ordered pairs of m grades add up to 2 (m sum x^2 - (sum x)^2), so no pair is looked at: a library
    that counts pairs of values takes seconds where grades are means.
    """
    there_RT = ~np.isnan(grades_RT)
    pairable_T = there_RT.sum(0) >= 2
    there_RT, grades_RT = there_RT[:, pairable_T], grades_RT[:, pairable_T]
    if not pairable_T.any():
        return NAN
    values = np.unique(grades_RT[there_RT])
    # a preference is a unit vector, so that the squared distance of two is 0 or 2; a grade has one dimension
    x_KRT = (grades_RT == values[:, None, None]).astype(float) if nominal else (grades_RT - values[0])[None]
    x_KRT = np.where(there_RT, x_KRT, 0.0)
    graders_T, sum_KT, squares_T = there_RT.sum(0), x_KRT.sum(1), (x_KRT**2).sum((0, 1))
    within = ((graders_T * squares_T - (sum_KT**2).sum(0)) / (graders_T - 1)).sum()
    count = graders_T.sum()
    between = (count * squares_T.sum() - (sum_KT.sum(1) ** 2).sum()) / (count - 1)
    return float(1 - within / between) if len(values) > 1 else NAN


def kappa(first_T: NDArray[np.float64], second_T: NDArray[np.float64], *, nominal: bool = False) -> float:
    """Cohen's kappa of two raters, with weights of squared distance unless `nominal`; missing grades are left out.

    1 - (disagreement) / (disagreement if the two graded independently). NaN where the latter is 0.
    """
    both = ~(np.isnan(first_T) | np.isnan(second_T))
    x, y = first_T[both], second_T[both]
    if not len(x):
        return NAN
    crossed = x[:, None] != y[None, :] if nominal else (x[:, None] - y[None, :]) ** 2
    expected = float(np.mean(crossed))
    observed = float(np.mean(x != y) if nominal else np.mean((x - y) ** 2))
    return 1 - observed / expected if expected > 0 else NAN


def mean_kappa(judge_T: NDArray[np.float64], people_RT: Matrix, *, nominal: bool = False) -> float:
    """The judge's kappa with each person, weighted by the texts that both graded."""
    shared = [int((~(np.isnan(judge_T) | np.isnan(person_T))).sum()) for person_T in people_RT]
    values = [kappa(judge_T, person_T, nominal=nominal) for person_T in people_RT]
    weights = [0 if np.isnan(value) else count for value, count in zip(values, shared)]
    return float(np.average(np.nan_to_num(values), weights=weights)) if sum(weights) else NAN


@dataclass(frozen=True)
class Agreement:
    """The agreement on one criterion, or on preferences."""

    what: str
    texts: int
    """Graded by the judge and a person."""
    people: int
    alpha: Estimate
    """Krippendorff's alpha of the judge and all people."""
    kappa: Estimate
    """Cohen's kappa of the judge and one person, on average."""
    people_alpha: Estimate
    """Krippendorff's alpha of the people alone: what a judge can be measured by."""

    def to_json(self) -> dict[str, Any]:
        """What --json writes."""
        estimates = {name: getattr(self, name).to_json() for name in ("alpha", "kappa", "people_alpha")}
        return {"what": self.what, "texts": self.texts, "people": self.people, **estimates}

    def sentence(self) -> str:
        """What the numbers allow."""
        value = self.alpha.value
        if np.isnan(value):
            return f"{self.what}: agreement cannot be measured, since all grades are one or no text has two"
        words = "reliable" if value >= RELIABLE else "tentative" if value >= TENTATIVE else "not to be relied on"
        own = "" if np.isnan(self.people_alpha.value) else f"; people among themselves: alpha {self.people_alpha}"
        return (
            f"{self.what}: alpha {self.alpha}, kappa {self.kappa} on {self.texts:,} texts and {self.people} "
            f"{'person' if self.people == 1 else 'people'}: {words}{own}"
        )


def agreement(
    what: str, judge: Mapping[str, float], people: Mapping[str, Mapping[str, float]], resamples: int, seed: int,
    *, nominal: bool = False,
) -> Agreement:  # fmt: skip
    """The agreement of a judge's grades by text with those of each person, on the texts that both graded."""
    ids = [id for id in judge if any(id in grades for grades in people.values())]
    judge_T = np.array([judge[id] for id in ids], float)
    people_RT = np.array([[grades.get(id, NAN) for id in ids] for grades in people.values()], float)
    people_RT = people_RT.reshape(len(people), len(ids))
    all_RT = np.vstack([judge_T[None], people_RT])

    def of_all(drawn: Indices) -> float:
        return alpha(all_RT[:, drawn], nominal=nominal)

    def of_two(drawn: Indices) -> float:
        return mean_kappa(judge_T[drawn], people_RT[:, drawn], nominal=nominal)

    def of_people(drawn: Indices) -> float:
        return alpha(people_RT[:, drawn], nominal=nominal)

    graded = sum(any(id in grades for id in ids) for grades in people.values())
    three = [estimate(statistic, len(ids), resamples, seed) for statistic in (of_all, of_two, of_people)]
    return Agreement(what, len(ids), graded, *three)


def grade_agreements(
    gradings: Sequence[Grading], human: Sequence[HumanGrade], rubric: Rubric, resamples: int, seed: int
) -> list[Agreement]:
    """The agreement of the judge with people on every criterion that people graded."""
    by_criterion: dict[str, dict[str, dict[str, float]]] = {criterion.name: {} for criterion in rubric.criteria}
    for one in human:
        for name, value in one.grades.items():
            by_criterion[name].setdefault(one.rater, {})[one.id] = value
    return [
        agreement(name, mean_grades(gradings, name), people, resamples, seed)
        for name, people in by_criterion.items()
        if people
    ]
