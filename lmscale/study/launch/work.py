"""What a pool knows of its runs: those that have no outcome yet, and the processes that train them."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from lmscale.core.config import RunConfig
from lmscale.core.plans import PlannedRun
from lmscale.core.run_folder import last_metrics
from lmscale.study.launch import failures
from lmscale.study.launch.failures import Tally
from lmscale.study.launch.lease import Observer
from lmscale.study.launch.slot import Slot


@dataclass(eq=False)
class Work:
    """A run that has no outcome yet."""

    run: PlannedRun
    folder: Path
    tally: Tally
    observer: Observer
    not_before: float = 0.0
    """On the steady clock."""
    seen_dead: int = 0
    """Number of the attempt of another launcher that has been watched until it was sure to be dead, or 0."""
    first: int = -1
    """The step that its metrics had reached before the attempt at work."""
    seen: int = -1
    """And that they have reached since."""

    @property
    def config(self) -> RunConfig:
        """As it is run: cut smaller for every attempt that ran out of memory."""
        return failures.lighter(self.run.config, self.tally.counts["memory"]) or self.run.config

    @property
    def run_id(self) -> str:
        return self.run.config.run_id

    def begin(self) -> None:
        """Note where an attempt begins."""
        row = last_metrics(self.folder)
        self.first, self.seen = row["step"] if row else -1, -1

    @property
    def got_on(self) -> bool:
        """Whether the attempt has done a step more."""
        return self.seen > self.first


@dataclass(eq=False)
class Program:
    """A process, the places it takes and the runs it trains: one, or several packed ones."""

    slots: list[Slot]
    works: list[Work]
    process: "subprocess.Popen[bytes]"
    launch: str
    memory_kills: int

    @property
    def slot(self) -> Slot:
        """All its places as one."""
        return Slot.of(self.slots)

    @property
    def got_on(self) -> bool:
        """Whether any of its runs has."""
        return any(work.got_on for work in self.works)
