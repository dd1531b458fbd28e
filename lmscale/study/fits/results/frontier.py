"""A fitted frontier: N* = G C^a through the lower envelope of all training curves.

`approaches/envelope.py` fits one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from lmscale.study.fits.results.common import allocation_lines, clean, dropped_lines, status_lines
from lmscale.study.fits.results.power_law import PowerFit
from lmscale.study.fits.results.saved import SavedFields, reading


@dataclass(frozen=True)
class EnvelopePoint:
    """One point of the envelope: FLOPs, params, tokens, loss in nats, and the run that reached it."""

    flops: float
    params: float
    tokens: float
    loss_nats: float
    run: str
    in_line: bool
    """Whether the line goes through it."""

    def to_json(self) -> dict[str, Any]:
        return clean({**self.__dict__, "tokens_per_param": self.tokens / self.params})


@dataclass(frozen=True, kw_only=True)
class Frontier(PowerFit):
    """N* = G C^a through the envelope; the draws resample whole runs."""

    frontier: tuple[EnvelopePoint, ...]

    approach: ClassVar[str] = "1"
    SOURCE: ClassVar[str] = "Hoffmann 2022, arXiv 2203.15556, section 3.1"
    LOSS_FUNCTION: ClassVar[str] = "squares of ln N*"

    def to_json(self, samples: bool = False) -> dict[str, Any]:
        """Plain numbers as of every fit, with `frontier`."""
        return {**super().to_json(samples), "frontier": [point.to_json() for point in self.frontier]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Frontier":
        """The fit again; new intervals need saved samples. Raises `UserError` for a missing field or another type."""
        with reading("the saved fit"):
            return cls._from_json(SavedFields.of(value, "the saved fit").value)

    @classmethod
    def _from_json(cls, value: Mapping[str, Any]) -> "Frontier":
        points = tuple(
            EnvelopePoint(*[p[name] for name in ("flops", "params", "tokens", "loss_nats", "run", "in_line")])
            for p in value["frontier"]
        )
        return cls(frontier=points, **cls._fields(value))

    def __str__(self) -> str:
        names = {point.run for point in self.frontier}
        lines = [
            f"Approach 1{': ' + self.name if self.name else ''}: N* = G C^a through "
            f"{sum(point.in_line for point in self.frontier)} of {len(self.frontier)} points of the envelope "
            f"({self.method}) of {self.n_runs} runs, {len(names)} of which are on it",
            *self._exponent_lines(),
        ]
        if rows := self.allocations():
            lines += allocation_lines(rows, str(self.compute))
        lines += [f"  {note}" for note in self.notes]
        return "\n".join([*lines, *dropped_lines(self.dropped), *status_lines(self.status)])
