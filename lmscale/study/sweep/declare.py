"""What a sweep file declares: `Sweep`, a value that states what is to be learned before anything is run."""

import runpy
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lmscale.core.config import ExamConfig, RunConfig, check, check_types
from lmscale.core.errors import UserError, nearest
from lmscale.study.laws import Law, form, import_path
from lmscale.study.sweep.points import Point


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
    """The law of params and tokens that the runs are to identify, which the plan is judged by: a name, or a law of your
    own by class or import path ("mine.py:MyLaw"); empty where the runs are for something else, as tuning a rate is."""
    target_flops: float | None = None
    """The budget at which the law is to be used."""
    max_flops: float | None = None
    """Training FLOPs that all runs together may spend; a launch that would exceed them is refused."""
    max_hours: float | None = None
    """Hours of wall time, summed over runs, that the sweep may take."""

    def __post_init__(self) -> None:
        check_types(self)
        check(
            bool(self.name.strip(".")) and all(c.isalnum() or c in "-_." for c in self.name),
            f"Sweep.name = {self.name!r}: it names a folder, so use letters, digits, '-', '_' and '.'",
        )
        check(len(self.points) > 0, f"sweep {self.name!r} has no points")
        if self.law:
            law = form(self.law)
            check(
                law.INPUTS[:2] == ("params", "tokens"),
                f"Sweep.law = {law.NAME!r} is a law of {', '.join(law.INPUTS)}: runs are planned for one of params and "
                f"tokens, for example 'chinchilla'",
            )
            object.__setattr__(self, "law", import_path(law) or law.NAME)
        for name in ("target_flops", "max_flops", "max_hours"):
            value = getattr(self, name)
            check(value is None or value > 0, f"Sweep.{name} = {value!r}: must be positive; None is no limit")


def load(path: str | Path) -> Sweep:
    """The `SWEEP` that a sweep file defines.

    Raises `UserError` when the file is absent, defines no `SWEEP`, or fails: the line and its error are named.
    """
    path = Path(path)
    if not path.is_file():
        others = [other.name for other in (path if path.is_dir() else path.parent).glob("*.py")]
        raise UserError(f"there is no sweep file {path}{nearest(path.name, others) if others else ''}")
    try:
        names = runpy.run_path(str(path), run_name="sweep")
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except Exception as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = error.lineno if isinstance(error, SyntaxError) else frames[-1].lineno if frames else "?"
        raise UserError(f"{path}, line {line}: {type(error).__name__}: {error}") from None
    sweep = names.get("SWEEP")
    if sweep is None:
        variables = [name for name, value in names.items() if isinstance(value, Sweep)]
        hint = f"; it defines a Sweep as {variables[0]}: call that SWEEP" if variables else "; write SWEEP = Sweep(...)"
        raise UserError(f"{path} defines no SWEEP{hint}")
    check(isinstance(sweep, Sweep), f"{path}: SWEEP is of type {type(sweep).__name__}; write SWEEP = Sweep(...)")
    return sweep
