"""The runs of a sweep on their way to the end, on the places of one machine."""

import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count as numbers
from pathlib import Path

from lmscale.core.config import check
from lmscale.core.config.packable import packing_conflict
from lmscale.core.counting import count
from lmscale.core.errors import StorageError
from lmscale.core.exit_status import EXIT_STORAGE
from lmscale.core.files import storage_error, write_json
from lmscale.core.plans import PlannedRun
from lmscale.core.results import Outcome
from lmscale.core.run_folder import CONFIG_FILE, LOG_FILE, STOP_FILE, failure_reason, last_metrics
from lmscale.core.signals import LIFELINE_VARIABLE, STOP_SECONDS, stop_requested
from lmscale.study.launch import branches, failures, lease
from lmscale.study.launch.failures import Ending
from lmscale.study.launch.lease import LAUNCH_VARIABLE, SEEN_DEAD_VARIABLE, Observer, stop_asked
from lmscale.study.launch.slot import Slot
from lmscale.study.launch.watchers import Watcher
from lmscale.study.launch.work import Program, Work

POLL_SECONDS = 0.2
ELSEWHERE_SECONDS = 2.0
"""How often runs that other launchers train are looked at."""
BAD_PLACE = 3
"""So many different runs in a row that crash in one place: the place is at fault, and gets no more."""


@dataclass(frozen=True)
class Summary:
    """How a launch ended."""

    finished: int
    diverged: int
    failed: dict[str, str]
    """run_id -> why it has no outcome."""
    interrupted: bool


ELSEWHERE = Slot("another launcher")


class Pool:
    """Trains every run of `runs` that has no outcome in `folder`, on `places`; `command` comes before the worker's.

    Up to `pack` runs that are alike (`config.packable`) share a place and a program.
    """

    def __init__(
        self,
        runs: Sequence[PlannedRun],
        folder: Path,
        watcher: Watcher,
        places: list[Slot],
        *,
        wandb: str = "off",
        pack: int = 1,
        command: Sequence[str] = (),
        crashes: int = failures.CRASHES,
    ) -> None:
        self.runs, self.folder, self.watcher, self.free = list(runs), folder, watcher, list(places)
        self.wandb, self.pack, self.command, self.crashes = wandb, pack, tuple(command), crashes
        self.active: list[Program] = []
        self.waiting: list[Work] = []
        self.elsewhere: list[Work] = []
        self.failed: dict[str, str] = {}
        self._bad: defaultdict[str, set[str]] = defaultdict(set)
        self._name, self._numbers = f"{socket.gethostname()} {os.getpid()} {time.time_ns()}", numbers(1)
        self._looked, self._reading = 0.0, -1
        self._check_places()
        for planned in sorted(runs, key=lambda planned: -count(planned.config).flops):
            self._sort_in(planned)

    def _check_places(self) -> None:
        gpus = sum(slot.has_gpu for slot in self.free)
        for planned in self.runs if gpus else ():
            wanted = planned.config.mesh.devices
            check(
                wanted <= gpus,
                f"run {planned.config.run_id} is spread over {wanted} devices, and {gpus} are here; take fewer in its "
                f"mesh, or a machine with more",
            )

    def _sort_in(self, planned: PlannedRun) -> None:
        place = self.folder / planned.config.run_id
        if Outcome.read(place) is not None:
            return
        if (reason := failure_reason(place)) is not None:
            self.failed[planned.config.run_id] = reason
            return
        work = Work(planned, place, failures.tally(place), Observer(place))
        (self.elsewhere if work.observer.held() else self.waiting).append(work)

    def to_the_end(self) -> Summary:
        """Train until every run is at an end, or this process is asked to stop."""
        self._reading, lifeline = os.pipe()  # the runs stop when nobody holds its other end any more
        try:
            with stop_requested() as asked:
                file = self.folder / STOP_FILE
                interrupted = self._loop(lambda: asked() or file.exists())
        finally:
            os.close(self._reading)
            os.close(lifeline)
        outcomes = [Outcome.read(self.folder / planned.config.run_id) for planned in self.runs]
        states = [outcome.state for outcome in outcomes if outcome]
        failed = {} if interrupted else self.failed
        return Summary(states.count("finished"), states.count("diverged"), failed, interrupted)

    def _loop(self, stop: Callable[[], bool]) -> bool:
        try:
            while self.active or ((self.waiting or self.elsewhere) and not stop()):
                if stop():
                    self._terminate()
                else:
                    self._fill()
                    self._look_elsewhere()
                    self._give_up_without_places()
                time.sleep(POLL_SECONDS)
                for one in list(self.active):
                    self._look(one)
                    if one.process.poll() is not None:
                        self._ended(one, stop())
        finally:
            self._terminate()
        return stop()

    def _fill(self) -> None:
        """Start what is due, longest first, as long as there is room."""
        now = time.monotonic()
        due = [work for work in self.waiting if work.not_before <= now]
        while due:
            wanted = due[0].config.mesh.devices if self.free and self.free[0].has_gpu else 1
            if len(self.free) < wanted:
                return
            if company := self._company(due):
                taken = [self.free.pop(0) for _ in range(wanted)]
                self.waiting = [work for work in self.waiting if work not in company]
                try:
                    self.active.append(self._start(taken, company))
                except StorageError as error:
                    self.free.extend(taken)
                    for work in company:
                        self._again(taken[0], work, Ending(EXIT_STORAGE, str(error)), len(company))
            due = [work for work in due[1:] if work in self.waiting and work.not_before <= now]

    def _company(self, due: list[Work]) -> list[Work]:
        """The first of `due` with those that share its program; none where it cannot start now.

        No more than leaves something to do for every free place.
        """
        first = due[0]
        if not self._ready(first):
            return []
        if min(self.pack, first.tally.company) < 2 or first.config.mesh.devices > 1 or first.seen_dead:
            return [first]
        alike = [work for work in due[1:] if not work.seen_dead and not packing_conflict(first.config, work.config)]
        most = min(self.pack, math.ceil((1 + len(alike)) / len(self.free)))
        company = [first]
        for work in alike:
            if len(company) >= min(most, *(one.tally.company for one in (*company, work))):
                continue
            if self._ready(work):
                company.append(work)
        return company

    def _ready(self, work: Work) -> bool:
        """Whether the run can start now; one that no longer needs to leaves the queue."""
        if self._waits_for_trunk(work):
            return False
        if Outcome.read(work.folder) is not None:  # another launcher's work
            self.watcher.ended(ELSEWHERE, work.run, Outcome.read(work.folder), "")
        elif work.observer.held():
            self.elsewhere.append(work)
        elif (work.folder / STOP_FILE).exists():
            self.failed[work.run_id] = "stopped by `lmscale stop`"
        else:
            return True
        self.waiting.remove(work)
        return False

    def _waits_for_trunk(self, work: Work) -> bool:
        """Whether this is a branch whose trunk is yet to reach the point where it leaves."""
        run = work.run
        if not run.trunk or branches.begun(run, self.folder) or branches.source(run, self.folder).is_dir():
            return False
        trunk = self.folder / run.trunk
        ours = any(planned.config.run_id == run.trunk for planned in self.runs) and run.trunk not in self.failed
        return ours and Outcome.read(trunk) is None and failure_reason(trunk) is None

    def _start(self, taken: list[Slot], works: list[Work]) -> Program:
        launch, slot, log_file = f"{self._name} {next(self._numbers)}", Slot.of(taken), works[0].folder / LOG_FILE
        configs = [work.folder / CONFIG_FILE for work in works]
        for work, config in zip(works, configs):
            work.begin()
            if work.run.trunk:
                branches.begin(work.run, self.folder)
            write_json(config, work.config.to_json())
        marks = {LAUNCH_VARIABLE: launch}
        if not self.command:  # srun hands no descriptors on, and Slurm itself ends what a dead job has left
            marks[LIFELINE_VARIABLE] = str(self._reading)
        if works[0].seen_dead:
            marks[SEEN_DEAD_VARIABLE] = str(works[0].seen_dead)
        trainer = [sys.executable, "-m", "lmscale", "train", *map(str, configs), "--wandb", self.wandb]
        try:
            for work in works[1:]:
                with (work.folder / LOG_FILE).open("a", encoding="utf-8") as log:
                    log.write(f"in one program with run {works[0].run_id}: see its log\n")
            with log_file.open("ab") as log:
                process = subprocess.Popen(
                    [*self.command, *trainer],
                    env={**os.environ, **slot.environment, **marks},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    pass_fds=(self._reading,),
                    start_new_session=True,  # Ctrl-C reaches the launcher alone, which then stops its runs in order
                )
        except OSError as error:
            raise storage_error(log_file, error) from error
        for work in works:
            self.watcher.started(slot, work.run)
        return Program(taken, works, process, launch, failures.memory_kills())

    def _look(self, one: Program) -> None:
        for work in one.works:
            row = last_metrics(work.folder)
            if row is not None and row["step"] != work.seen:
                work.seen = row["step"]
                self.watcher.advanced(one.slot, work.run, row)

    def _ended(self, one: Program, stopping: bool) -> None:
        self.active.remove(one)
        self.free.extend(one.slots)
        memory_ran_out = failures.memory_kills() > one.memory_kills
        ending = failures.judge(one.process.returncode, one.works[0].folder, memory_ran_out)
        for work in one.works:
            for attempt in reversed(lease.history(work.folder)):
                if attempt.value.get("launch") == one.launch:
                    lease.finish(attempt.path, ending.status, ending.reason)
        asked = stopping or any(stop_asked(work.folder) for work in one.works)
        if ending.kind == "stopped" and not asked and not one.got_on:  # by whom? at least it must get on
            ending = Ending(1, "stopped before it had done a step more")
        self._blame(one, ending)
        for work in one.works:
            self._sort_out(one, work, ending, stopping)

    def _sort_out(self, one: Program, work: Work, ending: Ending, stopping: bool) -> None:
        """Say how an attempt at a run has ended, and do what is to be done about it."""
        outcome = Outcome.read(work.folder)
        if outcome is not None:
            self.watcher.ended(one.slot, work.run, outcome, "")
        elif ending.kind == "busy":
            self.elsewhere.append(work)
            self.watcher.ended(one.slot, work.run, None, "is being trained by another launcher")
        elif ending.kind == "stopped" and stop_asked(work.folder):
            self.failed[work.run_id] = "stopped by `lmscale stop`"
            self.watcher.ended(one.slot, work.run, None, "stopped")
        elif stopping:
            self.watcher.ended(one.slot, work.run, None, ending.reason)
        else:
            self._again(one.slot, work, ending, len(one.works))

    def _blame(self, one: Program, ending: Ending) -> None:
        """Note which runs crash where before they have done a step; take out a place where one after the other does."""
        bad = self._bad[one.slot.name]
        if ending.kind != "crash" or one.got_on or any(Outcome.read(work.folder) for work in one.works):
            bad.clear()
        elif ending.status != -signal.SIGKILL:  # that was somebody's will, no fault of the place
            bad.add(one.works[0].run_id)
        if len(bad) >= BAD_PLACE:
            self.free = [slot for slot in self.free if slot not in one.slots]

    def _again(self, slot: Slot, work: Work, ending: Ending, together: int) -> None:
        """Put a run that has no outcome back into the queue, or give it up; say which."""
        counts = work.tally.add(ending.kind, together)
        pause = failures.pause_seconds(ending.kind, work.tally.counts, self.crashes) if counts else 0.0
        lighter = failures.lighter(work.run.config, work.tally.counts["memory"])
        if pause is None or lighter is None:
            self._fail(slot, work, ending.reason)
            return
        work.not_before = time.monotonic() + pause
        self.waiting.append(work)
        self.waiting.sort(key=lambda work: -count(work.config).flops)
        now = f"once more in {pause:.0f} s"
        if not counts:
            now = f"once more with {work.tally.company:.0f} in one program instead of {together}"
        elif ending.kind == "memory":
            now = f"once more with {lighter.optimizer.micro_batches} micro-batches, remat {lighter.model.remat!r}"
        self.watcher.ended(slot, work.run, None, f"{ending.reason}; {now}")

    def _fail(self, slot: Slot, work: Work, reason: str) -> None:
        self.failed[work.run_id] = reason
        try:
            failures.give_up(work.folder, reason)
        except StorageError as error:
            reason = f"{reason} ({error})"
        self.watcher.ended(slot, work.run, None, reason)

    def _give_up_without_places(self) -> None:
        """Where every place was taken out, leave the runs as they are: another machine may do better."""
        if self.free or self.active or not self.waiting:
            return
        host = socket.gethostname()
        for work in self.waiting:
            self.failed[work.run_id] = f"not started again: every place on {host} has failed {BAD_PLACE} runs in a row"
        self.waiting.clear()

    def _look_elsewhere(self) -> None:
        """See how runs in other hands are; take those over whose holder is dead."""
        if not self.elsewhere or time.monotonic() - self._looked < ELSEWHERE_SECONDS:
            return
        self._looked = time.monotonic()
        for work in list(self.elsewhere):
            if (outcome := Outcome.read(work.folder)) is not None:
                self.elsewhere.remove(work)
                self.watcher.ended(ELSEWHERE, work.run, outcome, "")
            elif (reason := failure_reason(work.folder)) is not None:
                self.elsewhere.remove(work)
                self.failed[work.run_id] = reason
            elif not work.observer.held():
                self.elsewhere.remove(work)
                work.tally, work.seen_dead = failures.tally(work.folder), work.observer.number
                self.waiting.append(work)

    def _terminate(self) -> None:
        """Ask every run to save and stop; kill what has not stopped in time."""
        for one in self.active:
            if one.process.poll() is None:
                one.process.send_signal(signal.SIGTERM)
        limit = time.monotonic() + STOP_SECONDS
        for one in self.active:
            try:
                one.process.wait(max(0.0, limit - time.monotonic()))
            except subprocess.TimeoutExpired:
                one.process.kill()
                one.process.wait()
