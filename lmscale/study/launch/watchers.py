"""Who is told how the runs of a pool get on."""

from typing import Any, Protocol

from lmscale.core.errors import UserError
from lmscale.core.plans import PlannedRun
from lmscale.core.results import Outcome
from lmscale.study.launch.slot import Slot


class Watcher(Protocol):
    """Told what happens; `progress.Bars` draws it."""

    def started(self, slot: Slot, run: PlannedRun) -> None:
        """`run` begins in `slot`."""

    def advanced(self, slot: Slot, run: PlannedRun, row: dict[str, Any]) -> None:
        """`row` is the newest line of the run's metrics."""

    def ended(self, slot: Slot, run: PlannedRun, outcome: Outcome | None, problem: str) -> None:
        """The attempt is over; `problem` says why there is no outcome, and what happens now."""


class Lines:
    """A watcher that says in a line what a job's log should hold."""

    def started(self, slot: Slot, run: PlannedRun) -> None:
        print(f"run {run.config.run_id} begins on {slot.name}", flush=True)

    def advanced(self, slot: Slot, run: PlannedRun, row: dict[str, Any]) -> None:
        """Nothing: the metrics are in the run's folder."""

    def ended(self, slot: Slot, run: PlannedRun, outcome: Outcome | None, problem: str) -> None:
        said = problem if outcome is None else f"{outcome.state} {outcome.reason}"
        print(f"run {run.config.run_id}: {said}", flush=True)


class Insistent:
    """A watcher for measurements: says nothing, and gives up where a run does not finish, which is then none."""

    def started(self, slot: Slot, run: PlannedRun) -> None:
        """Nothing."""

    def advanced(self, slot: Slot, run: PlannedRun, row: dict[str, Any]) -> None:
        """Nothing."""

    def ended(self, slot: Slot, run: PlannedRun, outcome: Outcome | None, problem: str) -> None:
        """Raise `UserError` for anything but a finished run."""
        if outcome is None or outcome.state != "finished":
            raise UserError(f"run {run.config.run_id} did not finish: {problem or (outcome and outcome.reason)}")
