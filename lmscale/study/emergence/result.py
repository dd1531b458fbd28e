"""`Emergence`: the findings about all curves of a table, with the family that they were tested in."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lmscale.core.arguments import checked
from lmscale.study.emergence.finding import Finding
from lmscale.study.emergence.summary import summary_lines
from lmscale.study.fits.results.notebook import Printed


@dataclass(frozen=True)
class Emergence(Printed):
    """Every curve of a table with its verdict."""

    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    """What was assumed and left out, in sentences."""
    q: float
    rho: float

    def to_json(self) -> list[dict[str, Any]]:
        """A list of objects, one per finding."""
        return [finding.to_json() for finding in self.findings]

    @checked
    def select(
        self, task: str, metric: str | None = None, axis: str | None = None, **setting: str
    ) -> Sequence[Finding]:
        """The findings about a task, narrowed by metric, axis and settings."""
        return [
            finding
            for finding in self.findings
            if finding.curve.task == task
            and metric in (None, finding.curve.metric)
            and axis in (None, finding.curve.axis)
            and all(finding.curve.setting.get(key) == value for key, value in setting.items())
        ]

    def __str__(self) -> str:
        return "\n".join(summary_lines(self.findings, self.notes, self.q, self.rho))
