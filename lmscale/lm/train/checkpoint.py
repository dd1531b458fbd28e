"""Checkpoints of a run: the whole train state and how far it is, saved by Orbax in the background, atomically.

Neither data nor randomness need a state of their own: batch t is a pure function of (data, seed, t), of the parameters
too where a model learns from its own samples, and the key of step t's dropout one of (seed, t); so the step is the
position of both.
"""

import errno
import gc
import logging
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax

from lmscale.core.config import check
from lmscale.core.files import storage_error
from lmscale.core.run_folder import CHECKPOINT_FOLDER
from lmscale.lm.devices.collectives import any_process, barrier, broadcast
from lmscale.lm.devices.distributed import is_main
from lmscale.lm.train import checkpoint_content as content

NEWEST = 2
"""Newest checkpoints kept: where the last turns out to be corrupt, the one before is the next best."""
MOST_STEPS = 1024
"""Checkpoints of one run that are looked at: `NEWEST`, and those that branches start from."""
STEP = re.compile(r"0|[1-9][0-9]{0,9}")
"""Name of the folder of a checkpoint; any other file or folder there is none."""
ROOM_FACTOR, ROOM_BYTES = 1.1, 2**20
"""Free space required before a save: so many times the state, and a little for Orbax's own files."""


class Checkpoints:
    """The checkpoints of one run. Orbax is imported when the first is saved or looked for.

    Several processes share the folder and call every method together.
    """

    def __init__(self, folder: Path, identity: content.Identity | str, kept_steps: Sequence[int] = ()) -> None:
        """`identity` is that of the run, or its run_id where any data will do.

        `kept_steps` are those whose checkpoints outlive newer ones, and the run.
        """
        self.folder = (folder / CHECKPOINT_FOLDER).absolute()
        self.identity = content.Identity(identity) if isinstance(identity, str) else identity
        self.kept_steps = tuple(kept_steps)
        self._manager: Any = None

    def _open(self) -> Any:
        if self._manager is None:
            import orbax.checkpoint as ocp

            # What Orbax logs with a traceback it also raises, and here that becomes a sentence.
            logging.getLogger("absl").setLevel(logging.CRITICAL)
            policies = ocp.checkpoint_managers
            preserved = [policies.LatestN(n=NEWEST), policies.CustomSteps(self.kept_steps)]
            options = ocp.CheckpointManagerOptions(
                preservation_policy=policies.AnyPreservationPolicy(preserved),
                enable_async_checkpointing=True,
                cleanup_tmp_directories=True,
            )
            self._manager = ocp.CheckpointManager(self.folder, options=options)
        return self._manager

    @contextmanager
    def _storing(self) -> Iterator[None]:
        """Turn a write that the file system refuses, now or in the background, into a `UserError`; nothing is left."""
        problem = None
        try:
            yield
        except Exception as error:
            problem = _refusal(error)
            if problem is None:
                raise
        if problem is None:
            return
        self._manager = None
        for rest in self.folder.glob("*.orbax-checkpoint-tmp") if is_main() else ():
            shutil.rmtree(rest, ignore_errors=True)
        gc.collect()  # Orbax's unfinished coroutines complain when the interpreter has to end them
        raise storage_error(self.folder, problem)

    def save(self, state: Any, facts: dict[str, Any]) -> None:
        """Start saving `state` (with a field `step`) and a mapping of JSON values; returns while it is written."""
        import orbax.checkpoint as ocp

        step = int(state.step)
        with self._storing():
            manager = self._open()
            manager.wait_until_finished()
            if step in manager.all_steps():
                return
            self._check_room(state)
            facts = {**content.facts_of(self.identity, state), **facts}
            items = {"state": ocp.args.StandardSave(state), "facts": ocp.args.JsonSave(facts)}
            manager.save(step, args=ocp.args.Composite(**items))

    def _check_room(self, state: Any) -> None:
        """Orbax must not be the one to find the disk full: its threads then write tracebacks that none can catch."""
        required = ROOM_FACTOR * sum(leaf.nbytes for leaf in jax.tree.leaves(state)) + ROOM_BYTES
        if any(any_process(shutil.disk_usage(self.folder).free < required)):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def restore(self, like: Any) -> tuple[Any, dict[str, Any], list[str]]:
        """The newest readable checkpoint, placed as the abstract state `like` says: no second state is made beside it.

        Returns (state or None, its facts, one sentence for every checkpoint that could not be read and was skipped).
        Raises `UserError` for a checkpoint of another run, architecture or optimizer, `OtherData` for one of other
        data.
        """
        skipped: list[str] = []
        for step in self.steps():
            state, facts, problem = content.read(self.folder / str(step), self.identity, like)
            if not problem:
                return state, facts, skipped
            skipped.append(f"the checkpoint of step {step} in {self.folder} cannot be read and is skipped: {problem}")
            self._set_aside(step)
        return None, {}, skipped

    def restore_step(self, step: int, like: Any) -> tuple[Any, dict[str, Any]]:
        """The state, or the part of it that `like` names, and the facts of `step`.

        Raises `UserError` where that checkpoint is not there or cannot be read.
        """
        steps = self.steps()
        check(
            step in steps,
            f"run {self.identity.run_id} has no checkpoint of step {step} in {self.folder}; there are those of "
            f"{', '.join(map(str, sorted(steps))) or 'no step'}",
        )
        state, facts, problem = content.read(self.folder / str(step), self.identity, like)
        check(not problem, f"the checkpoint of step {step} in {self.folder} cannot be read: {problem}")
        return state, facts

    def steps(self) -> list[int]:
        """Steps of which there is a whole checkpoint, the newest first. A folder gets such a name when it is whole."""
        steps = [int(path.name) for path in self.folder.glob("*") if STEP.fullmatch(path.name) and path.is_dir()]
        return broadcast(sorted(steps, reverse=True), MOST_STEPS)

    def _set_aside(self, step: int) -> None:
        """Rename an unreadable checkpoint: the step can be saved again, and nothing is lost if the fault was ours."""
        if is_main():
            aside = self.folder / f"unreadable-{step}"
            shutil.rmtree(aside, ignore_errors=True)
            (self.folder / str(step)).rename(aside)
        barrier()
        self._open().reload()

    def close(self) -> None:
        """Wait until everything is on disk. Raises `UserError` where it does not fit."""
        with self._storing():
            if self._manager is not None:
                self._manager.close()
                self._manager = None

    def remove(self) -> None:
        """Close, and delete the checkpoints of the run, but for those that others begin from."""
        self.close()
        names = {str(step) for step in self.kept_steps}
        for path in (self.folder.glob("*") if names else [self.folder]) if is_main() else []:
            if path.name not in names:
                shutil.rmtree(path, ignore_errors=True)


def _refusal(error: BaseException | None) -> OSError | None:
    """The file system's error behind what Orbax raised, if that is what it was."""
    while error is not None:
        if isinstance(error, OSError):
            return error
        # TensorStore's errors carry the system's number in their text only.
        if code := re.search(r"os_error_code='(\d+)'", str(error)):
            return OSError(int(code[1]), os.strerror(int(code[1])))
        error = error.__cause__ or error.__context__
    return None
