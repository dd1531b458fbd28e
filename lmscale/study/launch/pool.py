"""A pool: the runs of a sweep, trained to their ends in the slots of one machine."""

import math
import os
import signal
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count as numbers
from pathlib import Path

from lmscale.core.config import check
from lmscale.core.config.packable import packing_conflict
from lmscale.core.counting import count
from lmscale.core.errors import UserError
from lmscale.core.exit_status import exit_status
from lmscale.core.plans import PlannedRun
from lmscale.core.results import outcome_or_problem
from lmscale.core.run_folder import SCORED_ON, STOP_FILE, being_scored, failure_reason, last_metrics
from lmscale.core.signals import lifeline, stop_requested
from lmscale.study.launch import branches, failures, lease, parents, program
from lmscale.study.launch.failures import Ending
from lmscale.study.launch.lease import Observer, stop_asked
from lmscale.study.launch.program import Program
from lmscale.study.launch.slot import Slot
from lmscale.study.launch.watchers import Watcher
from lmscale.study.launch.work import Work

POLL_SECONDS = 0.2
ELSEWHERE_SECONDS = 2.0
"""How often the runs that other launchers train are looked at."""
BAD_SLOT = 3
"""Different runs in a row that crash in one slot before the slot is held to be at fault, and gets no more runs."""
ELSEWHERE = Slot("another launcher")
STOPPED = "stopped by `lmscale stop`"


@dataclass(frozen=True)
class Summary:
    """How a launch ended."""

    finished: int
    diverged: int
    failed: dict[str, str]
    """run_id -> why it has no outcome."""
    interrupted: bool


class Pool:
    """Trains every run of `runs` that has no outcome in `folder`, in `slots`; `command` comes before the worker's.

    Up to `pack` runs that may be packed (`config.packable`) share a slot and a program.
    """

    def __init__(
        self,
        runs: Sequence[PlannedRun],
        folder: Path,
        watcher: Watcher,
        slots: list[Slot],
        *,
        wandb: str = "off",
        pack: int = 1,
        command: Sequence[str] = (),
        crashes: int = failures.CRASHES,
    ) -> None:
        self.runs, self.folder, self.watcher, self.free = list(runs), folder, watcher, list(slots)
        self.wandb, self.pack, self.command, self.crashes = wandb, pack, tuple(command), crashes
        self.active: list[Program] = []
        self.waiting: list[Work] = []
        self.elsewhere: list[Work] = []
        self.failed: dict[str, str] = {}
        self._crashed: defaultdict[str, set[str]] = defaultdict(set)
        self._name, self._numbers = f"{socket.gethostname()} {os.getpid()} {time.time_ns()}", numbers(1)
        self._looked, self._lifeline = 0.0, -1
        self._check_meshes()
        for planned in sorted(runs, key=lambda planned: -count(planned.config).flops):
            self._enqueue(planned)

    def _check_meshes(self) -> None:
        gpus = sum(slot.has_gpu for slot in self.free)
        for planned in self.runs if gpus else ():
            devices = planned.config.mesh.devices
            check(
                devices <= gpus,
                f"run {planned.config.run_id} is spread over {devices} devices, and {gpus} are here; take fewer in its "
                f"mesh, or a machine with more",
            )

    def _enqueue(self, planned: PlannedRun) -> None:
        folder = self.folder / planned.config.run_id
        outcome, problem = outcome_or_problem(folder, planned.config)
        if outcome is not None:
            return
        reason = problem or failure_reason(folder)
        if reason is not None:
            self.failed[planned.config.run_id] = reason
            return
        work = Work(planned, folder, failures.tally(folder), Observer(folder))
        (self.elsewhere if work.observer.at_work() else self.waiting).append(work)

    def run(self) -> Summary:
        """Train until every run is at an end, or this process is asked to stop."""
        with lifeline() as self._lifeline, stop_requested() as requested:
            file = self.folder / STOP_FILE
            interrupted = self._loop(lambda: requested() or file.exists())
        outcomes = [outcome_or_problem(self.folder / planned.config.run_id)[0] for planned in self.runs]
        states = [outcome.state for outcome in outcomes if outcome]
        failed = {} if interrupted else self.failed
        return Summary(states.count("finished"), states.count("diverged"), failed, interrupted)

    def _loop(self, stop: Callable[[], bool]) -> bool:
        try:
            while self.active or ((self.waiting or self.elsewhere) and not stop()):
                if stop():
                    program.terminate(self.active)
                else:
                    self._fill()
                    self._look_elsewhere()
                    self._give_up_without_slots()
                time.sleep(POLL_SECONDS)
                for one in list(self.active):
                    self._report_steps(one)
                    if one.process.poll() is not None:
                        self._ended(one, stop())
        finally:
            program.terminate(self.active)
        return stop()

    def _fill(self) -> None:
        """Start the runs that are due, longest first, while there is room."""
        now = time.monotonic()
        due = [work for work in self.waiting if work.not_before <= now]
        while due:
            needed = due[0].config.mesh.devices if self.free and self.free[0].has_gpu else 1
            if len(self.free) < needed:
                return
            if works := self._packed(due):
                self.waiting = [work for work in self.waiting if work not in works]
                self._start(works, [self.free.pop(0) for _ in range(needed)])
            due = [work for work in due[1:] if work in self.waiting and work.not_before <= now]

    def _packed(self, due: list[Work]) -> list[Work]:
        """The first of `due` with the runs that share its program; none where it cannot start now.

        A pack is small enough to leave something to do for every free slot.
        """
        first = due[0]
        if not self._ready(first):
            return []
        if min(self.pack, first.tally.max_pack_size) < 2 or first.config.mesh.devices > 1 or first.seen_dead:
            return [first]
        alike = [work for work in due[1:] if not work.seen_dead and not packing_conflict(first.config, work.config)]
        most = min(self.pack, math.ceil((1 + len(alike)) / len(self.free)))
        works = [first]
        for work in alike:
            if len(works) < min(most, *(one.tally.max_pack_size for one in (*works, work))) and self._ready(work):
                works.append(work)
        return works

    def _ready(self, work: Work) -> bool:
        """Whether the run can start now; one that no longer needs to leaves the queue."""
        if self._waits_for_trunk(work) or self._waits_for_parents(work):
            return False
        if reason := parents.problem(work.run, self.folder, self.failed):
            self.failed[work.run_id] = reason  # not for good: a parent may get another attempt
            self.watcher.ended(ELSEWHERE, work.run, None, reason)
        elif self._at_an_end(ELSEWHERE, work):
            pass
        elif work.observer.at_work():
            self.elsewhere.append(work)
        elif (work.folder / STOP_FILE).exists():
            self.failed[work.run_id] = STOPPED
        else:
            return True
        self.waiting.remove(work)
        return False

    def _waits_for_trunk(self, work: Work) -> bool:
        """Whether this is a branch whose trunk has yet to reach the step where it leaves."""
        run = work.run
        if not run.trunk or branches.begun(run, self.folder) or branches.source(run, self.folder).is_dir():
            return False
        trunk = self.folder / run.trunk
        ours = any(planned.config.run_id == run.trunk for planned in self.runs) and run.trunk not in self.failed
        return ours and outcome_or_problem(trunk) == (None, "") and failure_reason(trunk) is None

    def _waits_for_parents(self, work: Work) -> bool:
        """Whether a run that this one needs is still to be trained, here or by another launcher."""
        if not work.run.config.parents:
            return False
        active = [work for one in self.active for work in one.works]
        pending = {other.run_id for other in (*self.waiting, *self.elsewhere, *active)}
        return bool(parents.unfinished(work.run, pending - {work.run_id}))

    def _start(self, works: list[Work], slots: list[Slot]) -> None:
        launch = f"{self._name} {next(self._numbers)}"
        try:
            for work in works:
                work.begin()
            one = program.start(works, slots, launch, self._lifeline, self.wandb, self.command)
        except UserError as error:  # a full disk, a folder that cannot be written, a link where a log belongs
            self.free.extend(slots)
            for work in works:
                self._try_again(slots[0], work, Ending(exit_status(error), str(error)), len(works))
            return
        self.active.append(one)
        for work in works:
            self.watcher.started(one.slot, work.run)

    def _report_steps(self, one: Program) -> None:
        for work in one.works:
            row, scored_on = last_metrics(work.folder), being_scored(work.folder)
            if row is None or (row["step"], scored_on) == (work.last_step, work.scored_on):
                continue
            work.last_step, work.scored_on = row["step"], scored_on
            self.watcher.advanced(one.slot, work.run, {**row, SCORED_ON: scored_on} if scored_on else row)

    def _ended(self, one: Program, stopping: bool) -> None:
        self.active.remove(one)
        self.free.extend(one.slots)
        memory_ran_out = failures.memory_kills() > one.memory_kills
        ending = failures.judge(one.process.returncode, one.works[0].folder, memory_ran_out)
        for work in one.works:
            for attempt in reversed(lease.history(work.folder)):
                if attempt.value.get("launch") == one.launch:
                    lease.record_end(attempt.path, ending.status, ending.reason)
        asked = stopping or any(stop_asked(work.folder) for work in one.works)
        if ending.kind == "stopped" and not asked and not one.advanced:  # by someone unknown; it must at least advance
            ending = Ending(1, "stopped before it had done a step more")
        self._blame_slot(one, ending)
        for work in one.works:
            self._decide(one, work, ending, stopping)

    def _decide(self, one: Program, work: Work, ending: Ending, stopping: bool) -> None:
        """Report how an attempt at a run has ended, and do what follows from it."""
        if self._at_an_end(one.slot, work):
            return
        if ending.kind == "busy":
            self.elsewhere.append(work)
            self.watcher.ended(one.slot, work.run, None, "is being trained by another launcher")
        elif ending.kind == "stopped" and stop_asked(work.folder):
            self.failed[work.run_id] = STOPPED
            self.watcher.ended(one.slot, work.run, None, "stopped")
        elif stopping:
            self.watcher.ended(one.slot, work.run, None, ending.reason)
        else:
            self._try_again(one.slot, work, ending, len(one.works))

    def _at_an_end(self, slot: Slot, work: Work) -> bool:
        """Whether the run has an outcome, or one that cannot be believed: that run then fails; report which."""
        outcome, problem = outcome_or_problem(work.folder, work.run.config)
        if problem:
            self.failed[work.run_id] = problem
        if outcome is not None or problem:
            self.watcher.ended(slot, work.run, outcome, problem)
        return outcome is not None or bool(problem)

    def _blame_slot(self, one: Program, ending: Ending) -> None:
        """Note which runs crash in a slot before their first step; remove a slot in which one after the other does."""
        crashed = self._crashed[one.slot.name]
        if ending.kind != "crash" or one.advanced or any(outcome_or_problem(work.folder)[0] for work in one.works):
            crashed.clear()
        elif ending.status != -signal.SIGKILL:  # somebody wanted that; the slot is not at fault
            crashed.add(one.works[0].run_id)
        if len(crashed) >= BAD_SLOT:
            self.free = [slot for slot in self.free if slot not in one.slots]

    def _try_again(self, slot: Slot, work: Work, ending: Ending, pack_size: int) -> None:
        """Put a run without an outcome back into the queue, or give it up; report which."""
        counts = work.tally.add(ending.kind, pack_size)
        pause = failures.pause_seconds(ending.kind, work.tally.counts, self.crashes) if counts else 0.0
        smaller = failures.with_less_memory(work.run.config, work.tally.counts["memory"])
        if pause is None or smaller is None:
            self._fail(slot, work, ending.reason)
            return
        work.not_before = time.monotonic() + pause
        self.waiting.append(work)
        self.waiting.sort(key=lambda work: -count(work.config).flops)
        next_attempt = f"in {pause:.0f} s"
        if not counts:
            next_attempt = f"with {work.tally.max_pack_size:.0f} in one program instead of {pack_size}"
        elif ending.kind == "memory":
            next_attempt = f"with {smaller.optimizer.micro_batches} micro-batches, remat {smaller.model.remat!r}"
        self.watcher.ended(slot, work.run, None, f"{ending.reason}; once more {next_attempt}")

    def _fail(self, slot: Slot, work: Work, reason: str) -> None:
        self.failed[work.run_id] = reason
        try:
            failures.give_up(work.folder, reason)
        except UserError as error:
            reason = f"{reason} ({error})"
        self.watcher.ended(slot, work.run, None, reason)

    def _give_up_without_slots(self) -> None:
        """Where every slot was removed, leave the runs as they are: another machine may do better."""
        if self.free or self.active or not self.waiting:
            return
        host = socket.gethostname()
        for work in self.waiting:
            self.failed[work.run_id] = f"not started again: every slot of {host} has failed {BAD_SLOT} runs in a row"
        self.waiting.clear()

    def _look_elsewhere(self) -> None:
        """Check the runs that other launchers train; take over those whose holder is dead."""
        if not self.elsewhere or time.monotonic() - self._looked < ELSEWHERE_SECONDS:
            return
        self._looked = time.monotonic()
        for work in list(self.elsewhere):
            if self._at_an_end(ELSEWHERE, work):
                self.elsewhere.remove(work)
            elif (reason := failure_reason(work.folder)) is not None:
                self.elsewhere.remove(work)
                self.failed[work.run_id] = reason
            elif not work.observer.at_work():
                self.elsewhere.remove(work)
                work.tally, work.seen_dead = failures.tally(work.folder), work.observer.number
                self.waiting.append(work)
