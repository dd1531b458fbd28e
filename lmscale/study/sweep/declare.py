"""What a sweep file declares: `Sweep`, a value that states what is to be learned before anything is run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lmscale.core import accelerators
from lmscale.core.config import ExamConfig, RunConfig, check, check_types
from lmscale.core.plans import PURPOSE
from lmscale.core.quantities import counted
from lmscale.core.text import checked_name
from lmscale.study.laws import PLANNED_INPUTS, Law, form, import_path
from lmscale.study.sweep.notebook import coordinate_text, points_html
from lmscale.study.sweep.points import Point, check_points


@dataclass(frozen=True)
class Sweep:
    """What is to be learned, stated before anything is run."""

    name: str
    points: Sequence[Point]
    recipe: Callable[[Point], RunConfig]
    """Turns a point into a run, and holds every opinion about how; see `recipes`."""
    held_out: Callable[[Point], bool] = lambda point: bool(point.get("held_out", False))
    """Whether no fit may see the runs of a point: they are the prediction, fixed before anything runs. By default the
    points that `hold_out` or a builder has marked."""
    tokens_per_param: tuple[float, float] = (0.1, 10_000.0)
    """Allowed range of D/N, N all parameters."""
    exam: ExamConfig | None = None
    """Benchmark tasks that every run is scored on; None keeps those of the recipe."""
    question: str = ""
    """One sentence, printed above the plan and the report."""
    device: str = ""
    """Where the sweep is meant to run, if not here: one of `accelerators.ACCELERATORS`."""
    law: str | type[Law] = "chinchilla"
    """The law that the runs are to identify, which the plan is judged by: a name, or a law of your own by class or
    import path ("mine.py:MyLaw"), of params, tokens and what else a run's configuration states (`laws.PLANNED_INPUTS`);
    empty where the runs are for something else, as tuning a rate is."""
    target_flops: float | None = None
    """The budget at which the law is to be used."""
    max_flops: float | None = None
    """Training FLOPs that all runs together may spend, those of reading teachers included; a launch that would exceed
    them is refused."""
    max_hours: float | None = None
    """Hours of wall time, summed over runs, that the sweep may take."""

    @property
    def title(self) -> str:
        """The name, and the question where one is asked."""
        return f"{self.name}: {self.question}" if self.question else self.name

    def _repr_html_(self) -> str:
        """What a notebook shows; `lmscale.plan` makes runs of the points, with exact N, D and C."""
        held_out = sum(map(self.held_out, self.points))
        named = (getattr(self.recipe, name, None) for name in ("name", "__name__"))
        recipe = next(filter(None, named), type(self.recipe).__name__)
        totals = f"{counted(len(self.points), 'point')}, {held_out} held out; recipe {recipe}"
        purpose = [
            f"{name} {coordinate_text(value)}" for name, value in self.purpose.items() if name != "question" and value
        ]
        return points_html(self.title, self.points, self.held_out, ["; ".join([totals, *purpose])])

    @property
    def purpose(self) -> dict[str, Any]:
        """What the runs are for, as their plan keeps it."""
        return {name: getattr(self, name) for name in PURPOSE}

    def __post_init__(self) -> None:
        check_types(self)
        checked_name(self.name, "Sweep.name")
        check(len(self.points) > 0, f"sweep {self.name!r} has no points")
        check_points(self.name, self.points)
        check(
            len(self.tokens_per_param) == 2 and 0 <= self.tokens_per_param[0] < self.tokens_per_param[1],
            f"Sweep.tokens_per_param = {self.tokens_per_param}: must be the lowest and the highest D/N, as (1, 99)",
        )
        if self.device:
            accelerators.by_name(self.device)
        if self.law:
            law = form(self.law)
            check(
                set(law.INPUTS) <= set(PLANNED_INPUTS),
                f"Sweep.law = {law.NAME!r} is a law of {', '.join(law.INPUTS)}: runs are planned for one of "
                f"{', '.join(PLANNED_INPUTS)}, for example 'chinchilla', of params and tokens",
            )
            object.__setattr__(self, "law", import_path(law) or law.NAME)
        for name in ("target_flops", "max_flops", "max_hours"):
            value = getattr(self, name)
            check(value is None or value > 0, f"Sweep.{name} = {value!r}: must be positive; None is no limit")
