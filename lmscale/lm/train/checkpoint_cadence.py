"""When a checkpoint is saved: every `checkpoint_seconds`, at the steps that branches begin from, and before a stop.

A run whose answers are in no checkpoint is saved, and stops, only where the next batch of them is drawn.
"""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from lmscale.core.config import RunConfig
from lmscale.lm.devices import collectives
from lmscale.lm.train.recorder import RunRecorder


class Decision(NamedTuple):
    """What the training loop does after a step."""

    stop: bool
    save: bool


class CheckpointCadence:
    """Decides after every step whether to save and whether to stop, alike in all processes of a run."""

    def __init__(self, config: RunConfig, stop: Callable[[], bool], done: int) -> None:
        """`stop` says whether this process was asked to; `done` steps are done already."""
        self._seconds, self._stop, self._steps_per_batch = config.checkpoint_seconds, stop, config.steps_per_batch
        self._stop_asked = self._save_asked = False
        self._any_process = collectives.AnyProcessPoll(done)
        self.saved()

    def saved(self) -> None:
        """Note that a checkpoint was just saved: the next is due `checkpoint_seconds` of wall time later."""
        self._saved_at = time.perf_counter()
        self._save_asked = False

    def decide(self, active: Sequence[RunRecorder]) -> Decision:
        """What to do now; several processes agree on it about once a second. Runs at their end need neither."""
        if all(run.over for run in active):
            return Decision(stop=False, save=False)
        due = time.perf_counter() - self._saved_at > self._seconds
        stop, save = self._any_process(active[0].done, self._stop(), due)
        self._stop_asked, self._save_asked = self._stop_asked or stop, self._save_asked or save
        if active[0].done % self._steps_per_batch:
            return Decision(stop=False, save=False)
        stop, save = self._stop_asked, self._save_asked
        branch_begins = any(run.done in run.config.kept_steps for run in active)
        return Decision(stop, stop or save or branch_begins)
