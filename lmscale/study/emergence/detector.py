"""From a table of scores to verdicts: where an ability appears, how sure that is, and what graded metrics say."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lmscale.core.arguments import Number, checked
from lmscale.core.errors import UserError, nearest
from lmscale.core.quantities import counted
from lmscale.core.threads import on_all_cores
from lmscale.study.emergence import bigbench
from lmscale.study.emergence.classes import (
    Batch,
    CurveTests,
    adjusted,
    classify,
    fit_and_test,
    leaves_floor,
    padded_batch,
)
from lmscale.study.emergence.curves import AXES, Axis, Curve, axes_of, curves_along
from lmscale.study.emergence.finding import Finding
from lmscale.study.emergence.folder import of_one_stage, read_scores
from lmscale.study.emergence.likelihood import NoiseKind
from lmscale.study.emergence.onset import Onset, find_onset
from lmscale.study.emergence.result import Emergence
from lmscale.study.emergence.scores import canonical, unit_doubts
from lmscale.study.emergence.verdicts import with_verdicts
from lmscale.study.tables import TableSource, query, read_rows
from lmscale.study.tables.states import unfinished

if TYPE_CHECKING:
    import pandas as pd

MOST_RESAMPLES = 100_000
"""Draws of a bootstrap: each is fitted at every foot."""
NAMED = 3
"""Most words for the state of a run that a sentence lists."""
CHUNK = 500_000
"""Candidates times scales that are fitted at once: their arrays stay within tens of megabytes."""


@checked
def detect(
    table: TableSource,
    axis: Axis | None = None,
    *,
    columns: Mapping[str, str] | None = None,
    where: str | None = None,
    rho: Number | None = None,
    q: Number = 0.05,
    resamples: int = 100,
    seed: int = 0,
) -> Emergence:
    """The class of every task and metric of `table` along `axis`; unset, along every axis that the table has.

    `table` is a DataFrame, what `tables.read_rows` reads, or the folder of a sweep whose runs have scores; its columns
    are those of `scores`, or mapped by `columns` (our name -> the table's), and `where` keeps the rows for which it
    holds. `rho` is the intra-class correlation of one scale's answers (unset: from seeds, else .003), `q` the false
    discovery rate, `resamples` the bootstrap's draws at each of three feet. Raises `UserError` for a table that cannot
    be read as scores.
    """
    if axis is not None and axis not in AXES:
        raise UserError(f"scores lie over no axis {axis!r}{nearest(str(axis), AXES)}")
    if not 0 < q < 1 or not 0 <= resamples <= MOST_RESAMPLES or seed < 0 or (rho is not None and not 0 <= rho < 1):
        raise UserError(
            f"q = {q:g} and rho = {rho} lie between 0 and 1; resamples = {resamples} is a count of at most "
            f"{MOST_RESAMPLES:,}, and seed = {seed} is 0 or more"
        )
    table, left_out = _of_finished(_rows(table, where))
    rows = canonical(table, columns)
    axes = axes_of(rows) if axis is None else [axis]
    if not axes:
        raise UserError("the table has no axis: give a column params, flops, loss, or x for any other scale")
    findings: list[Finding] = []
    notes: list[str] = [*table.attrs.get("notes", []), *left_out, *unit_doubts(rows)]
    assumed = rho if rho is not None else float("nan")
    for name in axes:
        try:
            curves, assumed, remarks = curves_along(rows, name, rho)
        except UserError as error:
            if axis is not None or (name == axes[-1] and not findings):
                raise
            notes.append(f"axis {name} is left out: {error}")
            continue
        notes += [f"axis {name}: {remark}" for remark in remarks]
        findings += judge_curves(curves, q=q, resamples=resamples, seed=seed)
    return Emergence(tuple(findings), tuple(notes), q, assumed)


def _rows(table: "pd.DataFrame | str | Path", where: str | None) -> "pd.DataFrame":
    if isinstance(table, str | Path):
        folder = Path(table).is_dir()
        return of_one_stage(read_scores(Path(table), where=where)) if folder else read_rows(table, where=where)
    return table if where is None else query(table, where)


def _of_finished(table: "pd.DataFrame") -> "tuple[pd.DataFrame, list[str]]":
    """The rows whose run finished, as far as the table says, and a sentence about the others.

    Raises `UserError` where no row is left.
    """
    states = unfinished(table)
    if not (lost := states != "").any():
        return table, []
    words = ", ".join(sorted({str(word) for word in states[lost]})[:NAMED])
    sentence = f"{counted(int(lost.sum()), 'row')} of runs that did not finish ({words})"
    if lost.all():
        raise UserError(f"the table has only {sentence}: a half-trained model is no point of a curve")
    return table[~lost], [f"left out: {sentence}"]


def judge_curves(curves: Sequence[Curve], *, q: float = 0.05, resamples: int = 100, seed: int = 0) -> list[Finding]:
    """The findings about curves of one axis, in their order: one family of tests."""
    batches: list[tuple[Batch, CurveTests]] = []
    noises: tuple[NoiseKind, ...] = ("binomial", "gaussian")
    for noise in noises:
        members = [curve for curve in curves if curve.noise == noise]
        for part in _parts(members):
            batches.append((data := padded_batch(part, noise), fit_and_test(data)))
    names = ("above_chance", "trend", "bend")
    q_values = {name: adjusted(np.concatenate([tests.p_T[name] for _, tests in batches])) for name in names}
    findings: dict[int, Finding] = {}
    start = 0
    for data, tests in batches:
        here = slice(start, start := start + len(data.curves))
        q_T = {name: values[here] for name, values in q_values.items()}
        for curve, finding in zip(data.curves, _findings(data, tests, q_T, q, resamples, seed)):
            findings[id(curve)] = replace(finding, evidence={**finding.evidence, "family_size": len(curves)})
    return with_verdicts([findings[id(curve)] for curve in curves])


def _parts(members: Sequence[Curve]) -> list[Sequence[Curve]]:
    """Curves of about equal numbers of scales, few enough at a time for memory."""
    members = sorted(members, key=lambda curve: len(curve.x_S))
    parts: list[Sequence[Curve]] = []
    start = 0
    while start < len(members):
        size = max(1, CHUNK // (250 * len(members[min(start + 500, len(members) - 1)].x_S)))
        parts.append(members[start : start + size])
        start += size
    return parts


def _findings(
    data: Batch, tests: CurveTests, q_T: dict[str, np.ndarray], q: float, resamples: int, seed: int
) -> list[Finding]:
    """The findings of one batch, without the verdicts."""
    class_T = classify(data, tests, q_T, q)
    bent_T = leaves_floor(data, tests)
    bic = {name: tests.bic(name, data.scales_T) for name in tests.shapes}
    findings = []
    emergent = [row for row in range(len(data.curves)) if class_T[row] == "emergent"]
    onsets = dict(zip(emergent, on_all_cores(lambda row: _onset(data, tests, row, resamples, seed), emergent)))
    for row, curve in enumerate(data.curves):
        best = onsets.get(row)
        findings.append(
            Finding(
                curve=curve,
                cls=str(class_T[row]),
                verdict=None,
                threshold=None if best is None else curve.at(best.foot),
                interval=None if best is None else _ascending(curve, best.interval),
                evidence={"leaves_floor": bool(bent_T[row]), **_evidence(data, tests, q_T, bic, row, best)},
                fitted=_fitted(data, tests, bic, row, str(class_T[row]), best),
            )
        )
    return findings


def _onset(data: Batch, tests: CurveTests, row: int, resamples: int, seed: int) -> Onset:
    size, curve = int(data.scales_T[row]), data.curves[row]
    # each curve has a stream of its own, so that its interval does not depend on what else the table holds
    rng = np.random.default_rng([seed, *f"{curve.name} {curve.metric}".encode()])
    weight_S = data.weight_TS[row, :size] / tests.phi_T[row]
    return find_onset(data.u_TS[row, :size], data.score_TS[row, :size], weight_S, curve.n_S, data.noise, resamples, rng)


def _ascending(curve: Curve, interval: tuple[float, float]) -> tuple[float, float]:
    low, high = sorted(curve.at(end) for end in interval)
    return low, high


def _evidence(
    data: Batch,
    tests: CurveTests,
    q_T: dict[str, np.ndarray],
    bic_T: dict[str, np.ndarray],
    row: int,
    best: Onset | None,
) -> dict[str, Any]:
    """The numbers behind a class."""
    curve = data.curves[row]
    bic = {name: float(values[row]) for name, values in bic_T.items()}
    lowest = min(bic.values())
    n_S = curve.n_S[np.isfinite(curve.n_S)]
    score_S = curve.better * curve.score_S
    evidence: dict[str, Any] = {
        "scales": len(curve.x_S),
        "range": [float(curve.x_S[0]), float(curve.x_S[-1])],
        "examples": [float(n_S.min()), float(n_S.max())] if len(n_S) else None,
        "chance": curve.chance,
        "first_score": float(curve.score_S[0]),
        "last_score": float(curve.score_S[-1]),
        "bic_above_best": {name: value - lowest for name, value in bic.items()},
        "best_shape": min(bic, key=lambda name: bic[name]),
        "margin": float(tests.margin_T[row]),
        "p": {name: float(values[row]) for name, values in tests.p_T.items()},
        "q": {name: float(values[row]) for name, values in q_T.items()},
        "scatter_factor": float(tests.phi_T[row]),
        "smallest_detectable_gain": float(tests.detectable_T[row]),
        "breakthroughness": bigbench.breakthroughness(score_S),
        "linearity": bigbench.linearity(score_S),
    }
    if curve.kind == "hard":
        evidence["normalised_last"] = float(bigbench.normalised(curve.score_S, curve.chance, curve.ceiling)[-1])
    if best is not None:
        score = curve.better * best.rise[1]
        evidence |= {
            "onset": "foot of the rise",
            "floor": float(score[0]),
            "gain": float(score[-1] - score[0]),
            "likelihood_cut": best.cut,
            "bracket": bracket(curve),
        }
    return evidence


def bracket(curve: Curve, p: float = 0.05) -> list[float | None]:
    """The last scale that is not above chance, and the first from which on all are, each tested alone."""
    if curve.kind != "hard":
        return [None, None]
    from scipy import stats

    right_S = np.rint(curve.score_S * curve.weight_S)
    above_S = stats.binom.sf(right_S - 1, np.rint(curve.weight_S), max(curve.chance, 0.005)) < p
    not_yet = np.flatnonzero(~above_S)
    if not len(not_yet):
        return [None, float(curve.x_S[0])]
    last = int(not_yet[-1])
    return [float(curve.x_S[last]), float(curve.x_S[last + 1]) if last + 1 < len(curve.x_S) else None]


def _fitted(
    data: Batch, tests: CurveTests, bic_T: dict[str, np.ndarray], row: int, cls: str, best: Onset | None
) -> tuple[np.ndarray, np.ndarray] | None:
    """The curve of the class, for a figure."""
    curve = data.curves[row]
    if best is not None:
        u, score = best.rise
        return np.array([curve.at(value) for value in u]), curve.better * score
    trends = ["line", "saturating", "hinge", "ramp"]
    names = {"u-shaped": ["vee"], "flat": ["flat"], "undetermined": ["flat"]}.get(cls, trends)
    name = min(names, key=lambda name: bic_T[name][row])
    size = data.scales_T[row]
    return curve.x_S, curve.better * tests.shapes[name].mean_TS[row, :size]
