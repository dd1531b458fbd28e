"""Checkpoints of a run: the whole train state and how far it is, saved by Orbax in the background, atomically.

The data need no state of their own: batch t is a pure function of (data, seed, t), so the step is the position.
"""

import errno
import gc
import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax

from lmscale.config import check
from lmscale.files import storage_error

CHECKPOINT_FOLDER = "checkpoints"
ROOM_FACTOR, ROOM_BYTES = 1.1, 2**20
"""Free space wanted before a save: so many times the state, and a little for Orbax's own files."""


class Checkpoints:
    """The checkpoints of the run `run_id`. Orbax is imported when the first is saved or looked for."""

    def __init__(self, folder: Path, run_id: str) -> None:
        self.folder = (folder / CHECKPOINT_FOLDER).absolute()
        self.run_id = run_id
        self._manager: Any = None

    def _open(self) -> Any:
        if self._manager is None:
            import orbax.checkpoint as ocp

            # What Orbax logs with a traceback it also raises, and here that becomes a sentence.
            logging.getLogger("absl").setLevel(logging.CRITICAL)
            options = ocp.CheckpointManagerOptions(
                preservation_policy=ocp.checkpoint_managers.LatestN(n=2),
                enable_async_checkpointing=True,
                cleanup_tmp_directories=True,
            )
            self._manager = ocp.CheckpointManager(self.folder, options=options)
        return self._manager

    @contextmanager
    def _storing(self) -> Iterator[None]:
        """A write that the file system refuses, now or in the background, becomes a `UserError` and leaves nothing."""
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
        for rest in self.folder.glob("*.orbax-checkpoint-tmp"):
            shutil.rmtree(rest, ignore_errors=True)
        gc.collect()  # Orbax's unfinished coroutines complain when the interpreter has to end them
        raise storage_error(self.folder, problem)

    def save(self, state: Any, facts: dict[str, Any]) -> None:
        """Start saving `state` (with a field `step`) and a mapping of JSON values; returns while it is written."""
        import orbax.checkpoint as ocp

        step = int(state.step)
        items = {
            "state": ocp.args.StandardSave(state),
            "facts": ocp.args.JsonSave({"run_id": self.run_id, **facts}),
        }
        with self._storing():
            manager = self._open()
            manager.wait_until_finished()
            if step not in manager.all_steps():
                self._check_room(state)
                manager.save(step, args=ocp.args.Composite(**items))

    def _check_room(self, state: Any) -> None:
        """Orbax must not be the one to find the disk full: its threads then write tracebacks that none can catch."""
        wanted = ROOM_FACTOR * sum(leaf.nbytes for leaf in jax.tree.leaves(state)) + ROOM_BYTES
        if shutil.disk_usage(self.folder).free < wanted:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def restore(self, like: Any) -> tuple[Any, dict[str, Any], list[str]]:
        """The newest readable checkpoint, placed as the abstract state `like` says.

        Returns (state or None, its facts, one sentence for every checkpoint that could not be read and was skipped).
        Raises `UserError` for a checkpoint of another run.
        """
        if not self.folder.is_dir():
            return None, {}, []
        import orbax.checkpoint as ocp

        skipped: list[str] = []
        for step in sorted(self._open().all_steps(), reverse=True):
            try:
                facts = self._open().restore(step, args=ocp.args.Composite(facts=ocp.args.JsonRestore())).facts
                if facts["run_id"] == self.run_id:
                    args = ocp.args.Composite(state=ocp.args.StandardRestore(like))
                    return self._open().restore(step, args=args).state, facts, skipped
            except Exception as error:
                summary = (str(error).splitlines() or [type(error).__name__])[0][:200]
                skipped.append(
                    f"the checkpoint of step {step} in {self.folder} cannot be read and is skipped: {summary}"
                )
                self._set_aside(step)
            else:
                check(
                    False,
                    f"{self.folder} holds checkpoints of run {facts['run_id']}, but this configuration is run "
                    f"{self.run_id}; train it in a folder of its own",
                )
        return None, {}, skipped

    def _set_aside(self, step: int) -> None:
        """Rename an unreadable checkpoint: the step can be saved again, and nothing is lost if the fault was ours."""
        aside = self.folder / f"unreadable-{step}"
        shutil.rmtree(aside, ignore_errors=True)
        (self.folder / str(step)).rename(aside)
        self._open().reload()

    def close(self) -> None:
        """Wait until everything is on disk. Raises `UserError` where it does not fit."""
        with self._storing():
            if self._manager is not None:
                self._manager.close()
                self._manager = None

    def remove(self) -> None:
        """Close, and delete all checkpoints of the run."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def abstract(state: Any) -> Any:
    """Shapes, types and placements of `state`, without its values."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)


def _refusal(error: BaseException | None) -> OSError | None:
    """The file system's error behind what Orbax raised, if that is what it was."""
    while error is not None:
        if isinstance(error, OSError):
            return error
        # TensorStore's errors carry the system's number in their text only.
        if found := re.search(r"os_error_code='(\d+)'", str(error)):
            return OSError(int(found[1]), os.strerror(int(found[1])))
        error = error.__cause__ or error.__context__
    return None
