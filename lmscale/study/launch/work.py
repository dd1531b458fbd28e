"""A run that has no outcome yet, as its launcher knows it."""

from dataclasses import dataclass
from pathlib import Path

from lmscale.core.config import RunConfig
from lmscale.core.plans import PlannedRun
from lmscale.core.run_folder import last_metrics
from lmscale.study.launch import failures
from lmscale.study.launch.failures import Tally
from lmscale.study.launch.lease import Observer


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
    """Number of another launcher's attempt that was watched until it was surely dead, or 0."""
    first_step: int = -1
    """The step that the metrics had reached before the current attempt."""
    last_step: int = -1
    """The step that they have reached since."""
    scored_on: str = ""
    """What the run was being scored on when it was last looked at (`run_folder.being_scored`)."""

    @property
    def config(self) -> RunConfig:
        """The configuration to train: with less memory for every attempt that ran out of it."""
        return failures.with_less_memory(self.run.config, self.tally.counts["memory"]) or self.run.config

    @property
    def run_id(self) -> str:
        return self.run.config.run_id

    def begin(self) -> None:
        """Note where an attempt begins."""
        row = last_metrics(self.folder)
        self.first_step, self.last_step = row["step"] if row else -1, -1

    @property
    def advanced(self) -> bool:
        """Whether the attempt has done a step more."""
        return self.last_step > self.first_step
