"""Whether the fitted runs leave room for the form of the law: the outcome of a test, and its sentences."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lmscale.study.fits.results.common import Status
from lmscale.study.fits.results.saved import SavedFields

DOES_NOT_FIT, FITS, NOT_TESTED = "form does not fit", "form fits", "form not tested"
"""Names of the status."""
RARE = 0.01
"""Probability below which a misfit is called one: a right form is accused in one of a hundred studies."""


@dataclass(frozen=True)
class LackOfFit:
    """How probable residuals this smooth, or this large, are under a law of the right form.

    `misfit` and `noise` are root mean squares of what is smooth in the residuals and of one run's scatter, in per cent
    of the loss (of a law that is fitted to plain differences: in units of its target).
    """

    p: float
    misfit: float
    noise: float
    unit: str
    evidence: str
    """Where the noise is known from, with its degrees of freedom."""

    @property
    def fits(self) -> bool:
        """Whether chance explains the residuals."""
        return self.p >= RARE

    def status(self) -> Status:
        """A warning before anybody extrapolates, where the form does not fit."""
        size = f"the residuals have a part of {self.misfit:.2g}{self.unit} that is smooth in the inputs, and one run "
        size += f"scatters by {self.noise:.2g}{self.unit} ({self.evidence})"
        if self.fits:
            return Status(FITS, f"{size}: a right form leaves as much with probability {self.p:.2g}")
        sentence = (
            f"{size}: a right form leaves as much with probability {self.p:.1g}; intervals of the law do not hold the "
            f"truth; the interval of the mean allows for the misfit; compare other forms with `fits.compare`"
        )
        return Status(DOES_NOT_FIT, sentence, "warning")

    def to_json(self) -> dict[str, Any]:
        """Plain numbers."""
        return {**self.__dict__, "fits": self.fits}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "LackOfFit":
        """The inverse of `to_json`. Raises `UserError` for what is none."""
        fields = SavedFields.of(value, "'lack_of_fit' of the saved fit")
        p, misfit, noise = map(fields.number, ("p", "misfit", "noise"))
        return cls(p, misfit, noise, fields.text("unit"), fields.text("evidence"))
