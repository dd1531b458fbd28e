"""Checkpoints of a run: the whole train state and how far it is, saved by Orbax in the background, atomically.

Neither data nor randomness need a state of their own: batch t is a pure function of (data, seed, t), and the key of
step t's dropout one of (seed, t), so the step is the position of both. Orbax does not notice numbers that have changed
on the disk; so every array is saved with a sum of its bits, which is the same on every mesh.
"""

import errno
import gc
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding

from lmscale.core.config import check
from lmscale.core.files import storage_error
from lmscale.core.run_folder import CHECKPOINT_FOLDER
from lmscale.lm.devices.collectives import any_process, barrier, broadcast
from lmscale.lm.devices.distributed import is_main

KEPT = 2
"""Checkpoints kept: where the newest turns out to be corrupt, the one before is the next best."""
ROOM_FACTOR, ROOM_BYTES = 1.1, 2**20
"""Free space wanted before a save: so many times the state, and a little for Orbax's own files."""


class Checkpoints:
    """The checkpoints of the run `run_id`. Orbax is imported when the first is saved or looked for.

    Several processes share the folder and call every method together.
    """

    def __init__(self, folder: Path, run_id: str, kept_steps: Sequence[int] = ()) -> None:
        """`kept_steps` are those whose checkpoints outlive newer ones, and the run."""
        self.folder = (folder / CHECKPOINT_FOLDER).absolute()
        self.run_id, self.kept_steps = run_id, tuple(kept_steps)
        self._manager: Any = None

    def _open(self) -> Any:
        if self._manager is None:
            import orbax.checkpoint as ocp

            # What Orbax logs with a traceback it also raises, and here that becomes a sentence.
            logging.getLogger("absl").setLevel(logging.CRITICAL)
            policies = ocp.checkpoint_managers
            kept = [policies.LatestN(n=KEPT), policies.CustomSteps(self.kept_steps)]
            options = ocp.CheckpointManagerOptions(
                preservation_policy=policies.AnyPreservationPolicy(kept),
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
            facts = {"run_id": self.run_id, "arrays": _described(state), "bits": _bits(state), **facts}
            items = {"state": ocp.args.StandardSave(state), "facts": ocp.args.JsonSave(facts)}
            manager.save(step, args=ocp.args.Composite(**items))

    def _check_room(self, state: Any) -> None:
        """Orbax must not be the one to find the disk full: its threads then write tracebacks that none can catch."""
        wanted = ROOM_FACTOR * sum(leaf.nbytes for leaf in jax.tree.leaves(state)) + ROOM_BYTES
        if any(any_process(shutil.disk_usage(self.folder).free < wanted)):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def restore(self, like: Any) -> tuple[Any, dict[str, Any], list[str]]:
        """The newest sound checkpoint, placed as the abstract state `like` says: no other state is made beside it.

        Returns (state or None, its facts, one sentence for every checkpoint that could not be read and was skipped).
        Raises `UserError` for a checkpoint of another run, architecture or optimizer.
        """
        if not any(any_process(self.folder.is_dir())):
            return None, {}, []
        skipped: list[str] = []
        for step in broadcast(sorted(self._open().all_steps(), reverse=True), KEPT + 1):
            state, facts, problem = self._read(step, like)
            if not problem:
                return state, facts, skipped
            skipped.append(f"the checkpoint of step {step} in {self.folder} cannot be read and is skipped: {problem}")
            self._set_aside(step)
        return None, {}, skipped

    def _read(self, step: int, like: Any) -> tuple[Any, dict[str, Any], str]:
        """The state and facts of `step`, or why they cannot be used; the same in all processes.

        Orbax's handlers read without waiting for other processes: one alone may fail.
        """
        import orbax.checkpoint as ocp

        folder = self.folder / str(step)
        facts, problem = _attempt(lambda: _facts(folder))
        if any(any_process(bool(problem))):
            return None, {}, problem or "another process could not read it"
        self._check_same(step, facts, _described(like))
        handler = ocp.StandardCheckpointHandler()
        state, problem = _attempt(lambda: handler.restore(folder / "state", args=ocp.args.StandardRestore(like)))
        if any(any_process(bool(problem))):
            return None, {}, problem or "another process could not read it"
        changed = [name for name, bits in _bits(state).items() if bits != facts["bits"][name]]
        return state, facts, f"the numbers of {changed[0]} have changed since they were saved" if changed else ""

    def _check_same(self, step: int, facts: dict[str, Any], here: dict[str, str]) -> None:
        there = facts["arrays"]
        differs = [name for name in {**here, **there} if here.get(name) != there.get(name)]
        said = "".join(
            f"{name} is {there.get(name, 'absent')} there, {here.get(name, 'absent')} here" for name in differs[:1]
        )
        check(
            facts["run_id"] == self.run_id,
            f"{self.folder} holds checkpoints of run {facts['run_id']}, but this configuration is run {self.run_id}"
            + f" ({said})" * bool(said)
            + "; train it in a folder of its own",
        )
        check(
            not differs,
            f"the checkpoint of step {step} in {self.folder} is of another version of lmscale ({said}); go on with "
            f"that version, or delete the folder to begin anew",
        )

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
        kept = {str(step) for step in self.kept_steps}
        for path in (self.folder.glob("*") if kept else [self.folder]) if is_main() else []:
            if path.name not in kept:
                shutil.rmtree(path, ignore_errors=True)


def _facts(folder: Path) -> dict[str, Any]:
    """What was saved beside the state. Raises `ValueError` where that is not whole, as a full disk can leave it."""
    import orbax.checkpoint as ocp

    try:
        facts = ocp.JsonCheckpointHandler().restore(folder / "facts", args=ocp.args.JsonRestore())
    except ValueError as error:  # of JSON, or of its characters
        raise ValueError(f"its facts are empty or spoiled ({error})") from None
    arrays, bits = (facts.get(name) if isinstance(facts, dict) else None for name in ("arrays", "bits"))
    if not (isinstance(arrays, dict) and isinstance(bits, dict) and "run_id" in facts and {*arrays} == {*bits}):
        raise ValueError("its facts are incomplete")
    return dict(facts)


def _attempt(read: Callable[[], Any]) -> tuple[Any, str]:
    """What `read` returns, or the first line of what went wrong."""
    try:
        return read(), ""
    except Exception as error:
        return None, (str(error).splitlines() or [type(error).__name__])[0][:200] or type(error).__name__


def _named(state: Any) -> dict[str, Any]:
    """The arrays of a state, present or abstract, by their path."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): x
        for path, x in jax.tree_util.tree_leaves_with_path(state)
    }


def _described(state: Any) -> dict[str, str]:
    """Name -> type and shape, as in "float32[256, 64]"."""
    return {name: f"{x.dtype}{list(x.shape)}" for name, x in _named(state).items()}


def _bits(state: Any) -> dict[str, int]:
    """Name -> sum of the array's bits as unsigned integers, modulo 2^32: exact in any order, so on any mesh."""
    arrays = _named(state)
    sums = _sums(state.step.sharding)(list(arrays.values()))
    return dict(zip(arrays, np.asarray(sums).tolist()))


@cache
def _sums(everywhere: Sharding) -> jax.stages.Wrapped:
    return jax.jit(lambda arrays: jnp.stack([_sum(x) for x in arrays]), out_shardings=everywhere)


def _sum(x: jax.Array) -> jax.Array:
    words = jax.lax.bitcast_convert_type(x, jnp.dtype(f"uint{8 * x.dtype.itemsize}"))
    return jnp.sum(words, dtype=jnp.uint32)


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
