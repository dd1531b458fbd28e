"""What one checkpoint holds: the arrays of a state, and facts about them: types, shapes, a sum of the bits of each.

Orbax does not notice numbers that have changed on the disk; the sum of an array's bits is the same on every mesh.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, Sharding

from lmscale.core.config import check
from lmscale.lm.devices.collectives import any_process
from lmscale.lm.devices.sharding import replicated


def facts_of(run_id: str, state: Any) -> dict[str, Any]:
    """What is saved beside the state of a run."""
    return {"run_id": run_id, "arrays": _types(state), "bits": _bit_sums(state)}


def read(folder: Path, run_id: str, like: Any) -> tuple[Any, dict[str, Any], str]:
    """(state, facts, "") of the checkpoint in `folder`, placed as `like` says, or (None, {}, why it cannot be used).

    `like` is an abstract state or, as a mapping of some of its fields, a part of one: only that is read. The answer is
    the same in all processes; Orbax's handlers read without waiting for others, so that one alone may fail. Raises
    `UserError` for a checkpoint of another run, architecture or optimizer.
    """
    facts, problem = _attempt(lambda: read_facts(folder))
    if any(any_process(bool(problem))):
        return None, {}, problem or "another process could not read it"
    _check_same(folder, run_id, facts, like)
    state, problem = _attempt(lambda: _restore(folder / "state", like))
    if any(any_process(bool(problem))):
        return None, {}, problem or "another process could not read it"
    changed = [name for name, bits in _bit_sums(state).items() if bits != facts["bits"][name]]
    return state, facts, f"the numbers of {changed[0]} have changed since they were saved" if changed else ""


def read_facts(folder: Path) -> dict[str, Any]:
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


def _restore(folder: Path, like: Any) -> Any:
    import orbax.checkpoint as ocp

    if not isinstance(like, dict):
        return ocp.StandardCheckpointHandler().restore(folder, args=ocp.args.StandardRestore(like))
    how = ocp.checkpoint_utils.construct_restore_args(like)
    part = ocp.args.PyTreeRestore(item=like, restore_args=how, partial_restore=True)
    return ocp.PyTreeCheckpointHandler().restore(folder, args=part)


def _check_same(folder: Path, run_id: str, facts: dict[str, Any], like: Any) -> None:
    here, there = _types(like), facts["arrays"]
    if isinstance(like, dict):  # a part of a state
        there = {name: kind for name, kind in there.items() if name.split(".")[0] in like}
    differing = next((name for name in {**here, **there} if here.get(name) != there.get(name)), None)
    difference = (
        ""
        if differing is None
        else f"{differing} is {there.get(differing, 'absent')} there, {here.get(differing, 'absent')} here"
    )
    check(
        facts["run_id"] == run_id,
        f"{folder.parent} holds checkpoints of run {facts['run_id']}, but this configuration is run {run_id}"
        + f" ({difference})" * bool(difference)
        + "; train it in a folder of its own",
    )
    check(
        not difference,
        f"the checkpoint of step {folder.name} in {folder.parent} is of another version of lmscale ({difference}); go "
        f"on with that version, or delete the folder to begin anew",
    )


def _attempt(read: Callable[[], Any]) -> tuple[Any, str]:
    """What `read` returns, or the first line of what went wrong."""
    try:
        return read(), ""
    except Exception as error:
        return None, (str(error).splitlines() or [type(error).__name__])[0][:200] or type(error).__name__


def _by_path(state: Any) -> dict[str, Any]:
    """The arrays of a state, present or abstract, by their path."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): x
        for path, x in jax.tree_util.tree_leaves_with_path(state)
    }


def _types(state: Any) -> dict[str, str]:
    """Path -> type and shape, as in "float32[256, 64]"."""
    return {name: f"{x.dtype}{list(x.shape)}" for name, x in _by_path(state).items()}


def _bit_sums(state: Any) -> dict[str, int]:
    """Path -> sum of the array's bits as unsigned integers, modulo 2^32: exact in any order, so on any mesh."""
    arrays = _by_path(state)
    first = next(iter(arrays.values())).sharding
    mesh = getattr(first, "mesh", None)
    sums = _summed(replicated(mesh) if isinstance(mesh, Mesh) else first)(list(arrays.values()))
    return dict(zip(arrays, np.asarray(sums).tolist()))


@cache
def _summed(everywhere: Sharding) -> jax.stages.Wrapped:
    return jax.jit(lambda arrays: jnp.stack([_sum(x) for x in arrays]), out_shardings=everywhere)


def _sum(x: jax.Array) -> jax.Array:
    words = jax.lax.bitcast_convert_type(x, jnp.dtype(f"uint{8 * x.dtype.itemsize}"))
    return jnp.sum(words, dtype=jnp.uint32)
