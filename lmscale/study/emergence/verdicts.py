"""Whether graded metrics of the same task bear out what a hard metric shows, or say that the metric made it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lmscale.study.emergence.finding import Finding


def with_verdicts(findings: Sequence[Finding]) -> list[Finding]:
    """The findings, hard metrics that bend upwards from a floor judged by graded metrics of the same task and setting.

    A graded metric that is emergent too corroborates; one that improves smoothly says that the metric made the bend. Of
    several graded metrics all that are either must agree, and the evidence names each. A hard metric that is smooth,
    because its bend comes early or its gain is small yet, may owe the bend to the metric as well; it has no emergence
    to corroborate.
    """
    graded: dict[tuple[Any, ...], list[Finding]] = {}
    for finding in findings:
        if finding.curve.kind == "graded":
            graded.setdefault(_key(finding), []).append(finding)
    return [_judged(finding, graded.get(_key(finding), [])) for finding in findings]


def _judged(finding: Finding, beside: Sequence[Finding]) -> Finding:
    emergent = finding.cls == "emergent"
    bent = finding.cls == "smooth" and finding.evidence["leaves_floor"]
    if finding.curve.kind != "hard" or not (emergent or bent):
        return finding
    vote = {"emergent": "corroborated", "smooth": "metric-induced"}
    votes = {vote[other.cls] for other in beside if other.cls in vote}
    verdict = votes.pop() if len(votes) == 1 else "undetermined"
    if not emergent and verdict != "metric-induced":
        return finding
    evidence = {**finding.evidence, "graded": {other.curve.metric: other.cls for other in beside}}
    return replace(finding, verdict=verdict, evidence=evidence)


def _key(finding: Finding) -> tuple[Any, ...]:
    return finding.curve.task, finding.curve.axis, *sorted(finding.curve.setting.items())
