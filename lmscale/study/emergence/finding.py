"""`Finding`: the class of one curve, its threshold, and the evidence for both."""

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
    """corroborated, metric-induced or undetermined, for a hard metric that bends upwards from a floor; else None."""
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


def axes(findings: Sequence[Finding]) -> list[Axis]:
    """The axes of the findings, in the order in which they came."""
    return list(dict.fromkeys(finding.curve.axis for finding in findings))
