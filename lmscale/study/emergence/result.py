"""What the detector says: one `Finding` per curve, and `Emergence`, all of them with the family they were tested in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lmscale.study.emergence.curves import Axis, Curve
from lmscale.study.fits.results.common import clean

UNIT = {"params": "parameters", "flops": "training FLOPs", "loss": "nats per token", "x": "x"}


@dataclass(frozen=True)
class Finding:
    """The verdict on one curve."""

    curve: Curve
    cls: str
    """emergent, smooth, flat, inverse, u-shaped or undetermined."""
    verdict: str | None
    """Of a hard metric that bends upwards from a floor: corroborated, metric-induced or undetermined; else None."""
    threshold: float | None
    """The foot of the rise, on the axis: the last scale with the score of the floor."""
    interval: tuple[float, float] | None
    """95 %, on the axis, ascending."""
    evidence: Mapping[str, Any]
    fitted: tuple[np.ndarray, np.ndarray] | None = field(default=None, repr=False)
    """The curve to draw: axis and score."""

    def to_json(self) -> dict[str, Any]:
        """The finding as plain values; what is unknown is None."""
        curve = self.curve
        return clean(
            {
                "task": curve.task,
                "metric": curve.metric,
                "kind": curve.kind,
                **curve.setting,
                "axis": curve.axis,
                "class": self.cls,
                "verdict": self.verdict,
                "threshold": self.threshold,
                "interval": self.interval,
                "evidence": dict(self.evidence),
            }
        )


@dataclass(frozen=True)
class Emergence:
    """Every curve of a table with its verdict."""

    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    """What was assumed and left out, in sentences."""
    q: float
    rho: float

    def to_json(self) -> list[dict[str, Any]]:
        """A list of objects, one per finding."""
        return [finding.to_json() for finding in self.findings]

    def of(self, task: str, metric: str | None = None, axis: str | None = None, **setting: str) -> Sequence[Finding]:
        """The findings about a task, narrowed by metric, axis and settings."""
        return [
            one
            for one in self.findings
            if one.curve.task == task
            and metric in (None, one.curve.metric)
            and axis in (None, one.curve.axis)
            and all(one.curve.setting.get(key) == value for key, value in setting.items())
        ]

    def __str__(self) -> str:
        from lmscale.study.emergence.words import lines

        return "\n".join(lines(self))


def axes(findings: Sequence[Finding]) -> list[Axis]:
    """The axes of the findings, in the order in which they came."""
    return list(dict.fromkeys(finding.curve.axis for finding in findings))
