"""The process that trains a run, or several packed ones: how it is started, watched and stopped."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from lmscale.core.files import open_append, storage_error, write_json
from lmscale.core.run_folder import CONFIG_FILE, LOG_FILE
from lmscale.core.signals import LIFELINE_VARIABLE, STOP_SECONDS
from lmscale.study.launch import failures
from lmscale.study.launch.lease import LAUNCH_VARIABLE, SEEN_DEAD_VARIABLE
from lmscale.study.launch.slot import Slot
from lmscale.study.launch.work import Work


@dataclass(eq=False)
class Program:
    """A process, the slots that it takes and the runs that it trains."""

    slots: list[Slot]
    works: list[Work]
    process: "subprocess.Popen[bytes]"
    launch: str
    memory_kills: int
    """Processes that the system had killed for lack of memory when this one was started."""

    @property
    def slot(self) -> Slot:
        """All its slots as one."""
        return Slot.joined(self.slots)

    @property
    def advanced(self) -> bool:
        """Whether any of its runs has done a step more."""
        return any(work.advanced for work in self.works)


def start(
    works: list[Work], slots: list[Slot], launch: str, lifeline: int, wandb: str, command: Sequence[str] = ()
) -> Program:
    """Start `lmscale train` for `works` in `slots`, their configurations written; `command` comes before it.

    The process ends when nobody holds the other end of the pipe `lifeline` any more. Raises `StorageError` on a full
    disk, `UserError` where a run's folder cannot be written or its log is a link or a pipe.
    """
    slot, log_file = Slot.joined(slots), works[0].folder / LOG_FILE
    configs = [work.folder / CONFIG_FILE for work in works]
    for work, config in zip(works, configs):
        write_json(config, work.config.to_json())
    marks = {LAUNCH_VARIABLE: launch}
    if not command:  # srun passes no descriptors on, and Slurm itself ends what a dead job has left
        marks[LIFELINE_VARIABLE] = str(lifeline)
    if works[0].seen_dead:
        marks[SEEN_DEAD_VARIABLE] = str(works[0].seen_dead)
    trainer = [sys.executable, "-m", "lmscale", "train", *map(str, configs), "--wandb", wandb]
    try:
        for work in works[1:]:
            with open_append(work.folder / LOG_FILE) as log:
                log.write(f"in one program with run {works[0].run_id}: see its log\n".encode())
        with open_append(log_file) as log:
            process = subprocess.Popen(
                [*command, *trainer],
                env={**os.environ, **slot.environment, **marks},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=(lifeline,),
                start_new_session=True,  # Ctrl-C reaches the launcher alone, which then stops its runs cleanly
            )
    except OSError as error:
        raise storage_error(log_file, error) from error
    return Program(slots, works, process, launch, failures.memory_kills())


def terminate(programs: Sequence[Program]) -> None:
    """Ask every program to save and stop; kill those that have not stopped in time."""
    for program in programs:
        if program.process.poll() is None:
            program.process.send_signal(signal.SIGTERM)
    limit = time.monotonic() + STOP_SECONDS
    for program in programs:
        try:
            program.process.wait(max(0.0, limit - time.monotonic()))
        except subprocess.TimeoutExpired:
            program.process.kill()
            program.process.wait()
