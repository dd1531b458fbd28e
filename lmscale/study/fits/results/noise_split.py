"""The noise of one run's loss in its parts: seed, evaluation, hyper-parameter search; each where the table tells it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lmscale.study.fits.results.common import Status
from lmscale.study.fits.results.run_noise import RunNoise
from lmscale.study.fits.results.saved import SavedFields

PARTS = ("seed", "evaluation", "search")


@dataclass(frozen=True)
class NoiseSplit:
    """Standard deviations of one run's loss, in the unit of the target; None where the table does not tell."""

    seed: RunNoise | None
    """The scatter of runs that differ in nothing but the seed."""
    evaluation: RunNoise | None
    """The error of the measurement: the sample of text that a run is scored on."""
    search: RunNoise | None
    """The error of the tuning: how differently far the best rate tried lies above its valley's minimum, by cell."""

    @property
    def known(self) -> dict[str, RunNoise]:
        """The parts that the table tells, by name."""
        return {name: part for name in PARTS if (part := getattr(self, name)) is not None}

    def status(self, unit: str) -> Status:
        """The parts in one sentence."""
        known = [f"{name} {part.sd:.2g} {unit} ({part.source})" for name, part in self.known.items()]
        unknown = [name for name in PARTS if name not in self.known]
        rest = f"the table does not tell the noise of {' and of '.join(unknown)}" if unknown else ""
        return Status("noise of one run", "; ".join(filter(None, [*known, rest])))

    def to_json(self) -> dict[str, Any]:
        """Plain numbers; null for a part that is not known."""
        return {name: dict(self.known[name].__dict__) if name in self.known else None for name in PARTS}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "NoiseSplit":
        """The inverse of `to_json`. Raises `UserError` for what is none."""
        fields = SavedFields.of(value, "'noise_split' of the saved fit")
        return cls(*(_part(fields, name) for name in PARTS))


def _part(fields: SavedFields, name: str) -> RunNoise | None:
    if fields[name] is None:
        return None
    part = fields.part(name)
    return RunNoise(part.number("sd"), part.text("source"), None if part["freedom"] is None else part.number("freedom"))
