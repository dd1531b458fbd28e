"""Verdicts as lines for a terminal."""

from collections import Counter
from collections.abc import Sequence

from lmscale.core.quantities import counted
from lmscale.study.emergence.classes import CLASSES
from lmscale.study.emergence.finding import UNIT, Finding, axes
from lmscale.study.emergence.foot import EARLIEST

ROWS = 60
"""Curves beyond which smooth, flat and undetermined ones are named and no longer laid out."""
LONG = ("smooth", "flat", "undetermined")


def summary_lines(findings: Sequence[Finding], notes: Sequence[str], q: float, rho: float) -> list[str]:
    """The whole result: per axis a summary, the curves by class, and what was assumed."""
    lines: list[str] = []
    for axis in axes(findings):
        lines += [*_axis([finding for finding in findings if finding.curve.axis == axis], axis), ""]
    lines.append(
        f"Tests are one family per axis, false discovery rate {q:g} (Benjamini and Hochberg); rho = "
        f"{rho:.3g}. The threshold is the foot of the rise, the last scale with the score of the floor; "
        f"its interval is 95 %."
    )
    lines.append(f"A foot in the first {100 * EARLIEST:.0f} % of the range shows no absence: such curves are smooth.")
    return lines + [f" - {note}" for note in notes]


def _axis(findings: Sequence[Finding], axis: str) -> list[str]:
    count = Counter(finding.cls for finding in findings)
    summary = ", ".join(f"{count[cls]} {cls}" for cls in CLASSES if count[cls])
    head = f"{counted(len(findings), 'curve')} over {axis} ({UNIT[axis]}): {summary}"
    many = len(findings) > ROWS
    shown = [one for cls in CLASSES for one in _sorted(findings, cls) if not many or cls not in LONG]
    rows = [finding_cells(finding) for finding in shown]
    columns = ("task", "metric", "class", "threshold [95 %]", "score, first to last", "chance", "verdict")
    widths = [max(len(line[i]) for line in [columns, *rows]) for i in range(len(columns))]
    body = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in [columns, *rows]]
    named = []
    for cls in LONG if many else ():
        if count[cls]:
            names = sorted({f"{one.curve.name} ({one.curve.metric})" for one in findings if one.cls == cls})
            named.append(f"{cls}: {', '.join(names)}")
    return [head, *(body if rows else []), *named]


def _sorted(findings: Sequence[Finding], cls: str) -> list[Finding]:
    better = -1 if findings[0].curve.axis == "loss" else 1
    return sorted(
        (finding for finding in findings if finding.cls == cls),
        key=lambda finding: (better * (finding.threshold or 0), finding.curve.name, finding.curve.metric),
    )


def finding_cells(finding: Finding) -> tuple[str, ...]:
    """The cells of one finding, in the order of the columns."""
    curve = finding.curve
    form = ".3f" if curve.axis == "loss" else ".2e"
    threshold = "–"
    if finding.threshold is not None and finding.interval is not None:
        low, high = finding.interval
        threshold = f"{finding.threshold:{form}} [{low:{form}}, {high:{form}}]"
    chance = "–" if curve.chance != curve.chance else f"{curve.chance:.3f}"
    graded = finding.evidence.get("graded", {})
    beside = f" ({', '.join(f'{metric} {cls}' for metric, cls in graded.items())})" if graded else ""
    verdict = f"{finding.verdict}{beside}" if finding.verdict else ""
    if finding.verdict == "undetermined" and not graded:
        verdict = "undetermined (no graded metric)"
    scores = f"{curve.score_S[0]:.3f} to {curve.score_S[-1]:.3f}"
    kind = "" if curve.kind == "hard" else ", graded"
    return curve.name, curve.metric + kind, finding.cls, threshold, scores, chance, verdict
