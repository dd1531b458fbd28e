"""`Emergence`: what the detector says of all curves of a table, with the family that they were tested in."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lmscale.study.emergence.finding import Finding
from lmscale.study.emergence.words import lines


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
        return "\n".join(lines(self.findings, self.notes, self.q, self.rho))
