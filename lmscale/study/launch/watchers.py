"""Watchers of a launch: what a launcher calls as its runs begin, advance and end."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from lmscale.core.errors import UserError
from lmscale.core.plans import PlannedRun
from lmscale.core.results import Outcome
from lmscale.core.run_folder import METRICS_FILE, WANDB_OFF_FILE
from lmscale.study.launch.slot import Slot


class Watcher(Protocol):
    """What a launcher calls; `commands.progress.Bars` draws it."""

    def started(self, slot: Slot, run: PlannedRun) -> None:
        """`run` begins in `slot`."""

    def advanced(self, slot: Slot, run: PlannedRun, row: dict[str, Any]) -> None:
        """`row` is the newest line of the run's metrics, with `run_folder.SCORED_ON` while the run is being scored."""

    def ended(self, slot: Slot, run: PlannedRun, outcome: Outcome | None, problem: str) -> None:
        """The attempt is over; `problem` says why there is no outcome, and what happens next."""


class LogLines:
    """A watcher that prints a line per event, for the log of a cluster's job."""

    def started(self, slot: Slot, run: PlannedRun) -> None:
        print(f"run {run.config.run_id} begins on {slot.name}", flush=True)

    def advanced(self, slot: Slot, run: PlannedRun, row: dict[str, Any]) -> None:
        """Nothing: the metrics are in the run's folder."""

    def ended(self, slot: Slot, run: PlannedRun, outcome: Outcome | None, problem: str) -> None:
        result = problem if outcome is None else f"{outcome.state} {outcome.reason}"
        print(f"run {run.config.run_id}: {result}", flush=True)


class WandbWatcher:
    """`watcher`, extended to report once that W&B was switched off for the sweep: a run's own log is read by nobody."""

    def __init__(self, watcher: Watcher, folder: Path, report: Callable[[str], object]) -> None:
        """A new launch tries W&B again."""
        self.watcher, self.report = watcher, report
        self._file, self._reported = folder / WANDB_OFF_FILE, False
        with suppress(OSError):
            self._file.unlink()

    def started(self, slot: Slot, run: PlannedRun) -> None:
        self.watcher.started(slot, run)

    def advanced(self, slot: Slot, run: PlannedRun, row: dict[str, Any]) -> None:
        self._look()
        self.watcher.advanced(slot, run, row)

    def ended(self, slot: Slot, run: PlannedRun, outcome: Outcome | None, problem: str) -> None:
        self._look()
        self.watcher.ended(slot, run, outcome, problem)

    def _look(self) -> None:
        if self._reported:
            return
        with suppress(OSError):
            cause = self._file.read_text(encoding="utf-8", errors="replace").strip()
            self._reported = True
            self.report(
                f"Weights & Biases is switched off for the rest of this sweep: {cause}; every run keeps its rows in "
                f"{METRICS_FILE}"
            )


class RaiseOnFailure:
    """A watcher for measurements: silent, and an error where a run does not finish, whose time would mean nothing."""

    def started(self, slot: Slot, run: PlannedRun) -> None:
        """Nothing."""

    def advanced(self, slot: Slot, run: PlannedRun, row: dict[str, Any]) -> None:
        """Nothing."""

    def ended(self, slot: Slot, run: PlannedRun, outcome: Outcome | None, problem: str) -> None:
        """Raise `UserError` for anything but a finished run."""
        if outcome is None or outcome.state != "finished":
            raise UserError(f"run {run.config.run_id} did not finish: {problem or (outcome and outcome.reason)}")
