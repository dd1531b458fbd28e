"""Which benchmark tasks a run is scored on."""

from dataclasses import dataclass
from typing import Literal

from lmscale.core.config.checks import check, check_types, positive


@dataclass(frozen=True, kw_only=True)
class ExamConfig:
    """Tasks on which a model is scored while it trains. They do not change what the run learns."""

    tasks: tuple[str, ...] = ()
    """FORMAT:PATH or synthetic:tasks(...), as `lmscale eval` takes them; nothing is downloaded."""
    shots: tuple[int, ...] = (0,)
    """Numbers of worked examples before every question; the model is scored with each."""
    draw: Literal["shared", "each"] = "shared"
    """The same examples for all questions of a task, or other ones for each question."""
    seed: int = 0
    """Seed of the draw of examples."""
    items: int | None = None
    """Score only this many leading items of every task; None scores all."""
    at: tuple[float, ...] = (1.0,)
    """Fractions of the run's steps after which it is scored."""

    def __post_init__(self) -> None:
        check_types(self)
        for spec in self.tasks:
            check(":" in spec, f"ExamConfig.tasks names {spec!r}; write FORMAT:PATH or synthetic:tasks(...)")
        check(
            all(shots >= 0 for shots in self.shots) and bool(self.shots),
            f"ExamConfig.shots = {list(self.shots)}: numbers of examples, 0 or more; (0,) asks without any",
        )
        check(
            all(0.0 < share <= 1.0 for share in self.at) and bool(self.at),
            f"ExamConfig.at = {list(self.at)}: shares of the run above 0 and at most 1; (1.0,) scores its end",
        )
        if self.items is not None:
            positive(self, "items")

    def steps(self, run_steps: int) -> frozenset[int]:
        """The steps of a run of `run_steps` after which it is scored."""
        return frozenset(max(1, round(share * run_steps)) for share in self.at) if self.tasks else frozenset()
