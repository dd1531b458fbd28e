"""Processes that compile, several at once within this machine's memory.

The largest program is compiled first and alone. How much memory that took bounds what the others take, and says how
many run at once; never more than there are cores.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from lmscale.core.compiled import CompiledRun, Effort
from lmscale.core.config import ModelConfig, RunConfig
from lmscale.core.errors import MemoryShortage, UserError
from lmscale.core.exit_status import EXIT_USER_ERROR
from lmscale.core.files import read_json
from lmscale.core.host import available_memory_bytes, usable_cores
from lmscale.core.machines import Machine
from lmscale.core.signals import LIFELINE_VARIABLE, lifeline
from lmscale.study.compiled.environment import environment

POLL_SECONDS = 0.05
COMMAND = (sys.executable, "-m", "lmscale.lm.aot.worker")
Finished = Callable[[str, CompiledRun], None]


@dataclass(frozen=True)
class Job:
    """A run to compile, the model that it reads, how hard the compiler is to try, and how many runs like it share the
    program."""

    config: RunConfig
    reference: ModelConfig | None = None
    effort: Effort = "full"
    packed: int = 1

    def request(self, machine: Machine) -> str:
        """What the process reads from standard input."""
        reference = None if self.reference is None else asdict(self.reference)
        return json.dumps(
            {
                "machine": machine.name,
                "config": self.config.to_json(),
                "reference": reference,
                "effort": self.effort,
                "packed": self.packed,
            }
        )


@dataclass
class _Worker:
    """A process that compiles one job."""

    key: str
    job: Job
    process: "subprocess.Popen[bytes]"
    reply: Path
    errors: Path
    alone: bool
    """Whether no other runs beside it, so that more memory will not come."""

    def problem(self) -> str:
        """The last line that it printed."""
        lines = self.errors.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1].removeprefix("lmscale: ")[:400] if lines else "the process printed nothing"


def compile_jobs(jobs: dict[str, Job], machine: Machine, finished: Finished, command: Sequence[str] = COMMAND) -> None:
    """Compile `jobs`, named by their keys, in that order; `finished` is called with each outcome.

    A process that the system ends for want of memory is started again once the others are done, alone. Raises
    `UserError` with what a process said, `MemoryShortage` where a program does not compile in all of this machine's
    memory; no process is left, not even where this one is killed.
    """
    waiting, killed, running = list(jobs.items()), list[tuple[str, Job]](), list[_Worker]()
    free, peak = available_memory_bytes(), 0
    with tempfile.TemporaryDirectory() as folder, lifeline() as held_open:
        start = partial(_start, machine=machine, folder=Path(folder), command=command, lifeline=held_open)
        try:
            while waiting or killed or running:
                most = places(peak, free)
                while waiting and len(running) < most:
                    running.append(start(*waiting.pop(0), alone=most == 1))
                if not running:
                    running.append(start(*killed.pop(0), alone=True))
                for worker in _ended(running):
                    running.remove(worker)
                    if worker.process.returncode == -signal.SIGKILL and not worker.alone:
                        killed.append((worker.key, worker.job))
                        continue
                    outcome = _outcome(worker, machine)
                    peak = max(peak, outcome.peak_bytes_here)
                    finished(worker.key, outcome)
        finally:
            for worker in running:
                worker.process.kill()
                worker.process.wait()


def places(peak: int, free: int | None, cores: int | None = None) -> int:
    """Processes at once: one until it is known that one takes `peak` bytes, then as many as `free` bytes hold."""
    if not peak:
        return 1
    cores = len(usable_cores()) if cores is None else cores
    return max(1, cores if free is None else min(cores, free // peak))


def _start(
    key: str, job: Job, *, machine: Machine, folder: Path, command: Sequence[str], lifeline: int, alone: bool
) -> _Worker:
    request, reply, errors = (folder / f"{key}.{name}" for name in ("request", "reply", "errors"))
    request.write_text(job.request(machine), encoding="utf-8")
    with request.open("rb") as stdin, errors.open("wb") as stderr:
        process = subprocess.Popen(
            [*command, str(reply)], stdin=stdin, stdout=subprocess.DEVNULL, stderr=stderr,
            env={**environment(machine, os.environ), LIFELINE_VARIABLE: str(lifeline)}, pass_fds=(lifeline,),
        )  # fmt: skip
    return _Worker(key, job, process, reply, errors, alone)


def _ended(running: list[_Worker]) -> list[_Worker]:
    """Wait until a process ends; all that have."""
    while not (ended := [worker for worker in running if worker.process.poll() is not None]):
        time.sleep(POLL_SECONDS)
    return ended


def _outcome(worker: _Worker, machine: Machine) -> CompiledRun:
    """What a process that has ended replied. Raises `UserError` where it replied nothing."""
    status = worker.process.returncode
    if status == -signal.SIGKILL:
        raise MemoryShortage(
            f"compiling run {worker.job.config.run_id} for {machine.name} takes more memory than this machine has; "
            f"compile a plan of smaller runs, or on a larger machine"
        )
    if status or not worker.reply.is_file():
        last_line = worker.problem()
        raise UserError(
            last_line if status == EXIT_USER_ERROR else f"the compiler for {machine.name} failed: {last_line}"
        )
    return CompiledRun.from_json(read_json(worker.reply, "outcome of a compilation"))
