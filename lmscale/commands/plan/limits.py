"""The limits of a sweep, `max_flops` and `max_hours`, checked before anything starts and while runs are at work."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from lmscale.commands.plan.hardware import hardware_of
from lmscale.commands.plan.rows import price_plan
from lmscale.core.counting import count
from lmscale.core.errors import UserError
from lmscale.core.files import write_text
from lmscale.core.plans import PlannedRun
from lmscale.core.results import Outcome, outcome_or_problem
from lmscale.core.run_folder import STOP_FILE
from lmscale.study.launch import Slot, Watcher
from lmscale.study.sweep import Plan


def check_limits(plan: Plan, folder: Path) -> None:
    """Raise `UserError` where finished and remaining runs together exceed what the sweep may spend.

    FLOPs are exact, hours are estimated, from the sweep's own finished runs as soon as there are any.
    """
    limit_flops, limit_hours = plan.sweep.max_flops, plan.sweep.max_hours
    if limit_flops is None and limit_hours is None:
        return
    outcomes = {run.config.run_id: outcome_or_problem(folder / run.config.run_id)[0] for run in plan.runs}
    ended = [outcome for outcome in outcomes.values() if outcome is not None]
    left = [run for run in plan.runs if outcomes[run.config.run_id] is None]
    # Branches count in full: one whose trunk has failed is trained from its first step.
    spent = sum(outcome.flops + outcome.reference_flops + outcome.batch_flops for outcome in ended)
    ahead = sum(count(run.config).flops + run.reference_flops + run.batch_flops for run in left)
    if limit_flops is not None and spent + ahead > limit_flops:
        raise UserError(
            f"the sweep may spend {limit_flops:.4g} FLOPs, {spent:.4g} are spent and {ahead:.4g} are still planned; "
            f"leave out runs worth {spent + ahead - limit_flops:.3g} or raise Sweep.max_flops"
        )
    if limit_hours is not None and left:
        hardware = hardware_of(plan.runs, folder)
        hours = sum(outcome.wall_seconds for outcome in ended) / 3600
        apart = [replace(run, trunk="", branch_step=None) for run in left]
        rest = price_plan(Plan(plan.sweep, apart), hardware, None).run_hours
        if hours + rest > limit_hours:
            raise UserError(
                f"the sweep may take {limit_hours:g} hours of runs, {hours:.3g} are spent and {rest:.3g} are still "
                f"planned ({hardware.title}); leave out runs or raise Sweep.max_hours"
            )


def within_hours(plan: Plan, folder: Path, watcher: Watcher, report: Callable[[str], object]) -> Watcher:
    """`watcher`, extended to stop the sweep once its runs have taken `Sweep.max_hours`."""
    if plan.sweep.max_hours is None:
        return watcher
    outcomes = (outcome_or_problem(folder / run.config.run_id)[0] for run in plan.runs)
    before = sum(outcome.wall_seconds for outcome in outcomes if outcome)
    return WithinHours(watcher, folder, plan.sweep.max_hours, before, report)


class WithinHours:
    """A watcher that adds up the time of all runs and, at the limit, asks the launcher to stop; every run saves."""

    def __init__(
        self, watcher: Watcher, folder: Path, max_hours: float, before: float, report: Callable[[str], object]
    ) -> None:
        self.watcher, self.folder, self.max_hours, self.report = watcher, folder, max_hours, report
        self.spent = before
        """Seconds of runs that have ended."""
        self.since: dict[str, float] = {}
        """run_id of every run at work -> when it was started, on the steady clock."""

    def started(self, slot: Slot, run: PlannedRun) -> None:
        """Start the run's clock."""
        self.since[run.config.run_id] = time.monotonic()
        self.watcher.started(slot, run)

    def advanced(self, slot: Slot, run: PlannedRun, row: dict[str, Any]) -> None:
        """Compare the time of all runs with the limit."""
        self.watcher.advanced(slot, run, row)
        now = time.monotonic()
        hours = (self.spent + sum(now - begun for begun in self.since.values())) / 3600
        if hours >= self.max_hours and not (self.folder / STOP_FILE).exists():
            write_text(self.folder / STOP_FILE, "")
            self.report(
                f"the sweep has taken the {self.max_hours:g} hours that it may take; its runs save and stop; to "
                f"continue, raise Sweep.max_hours"
            )

    def ended(self, slot: Slot, run: PlannedRun, outcome: Outcome | None, problem: str) -> None:
        """Stop the run's clock."""
        if (begun := self.since.pop(run.config.run_id, None)) is not None:
            self.spent += time.monotonic() - begun
        self.watcher.ended(slot, run, outcome, problem)
