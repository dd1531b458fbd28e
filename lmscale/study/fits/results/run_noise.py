"""How far the loss of one run scatters, and how well that is known."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class RunNoise:
    """The standard deviation of one run's loss in nats, its source, and the degrees of freedom behind it."""

    sd: float
    source: str
    freedom: float | None
    """None where it is given, and so taken as certain."""

    def draws(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """One standard deviation per draw, (count,): an estimated one is itself uncertain, as in Student's t."""
        if self.freedom is None or self.sd == 0:
            return np.full(count, self.sd)
        return np.asarray(self.sd * np.sqrt(self.freedom / rng.chisquare(self.freedom, size=count)))
