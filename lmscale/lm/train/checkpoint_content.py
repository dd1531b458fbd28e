"""What one checkpoint holds: the arrays of a state, and facts about them: types, shapes, a sum of the bits of each.

Orbax does not notice numbers that have changed on the disk; the sum of an array's bits is the same on every mesh.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, Sharding

from lmscale.core.config import check
from lmscale.core.errors import UserError
from lmscale.core.run_folder import is_number
from lmscale.lm.devices.collectives import any_process
from lmscale.lm.devices.sharding import replicated

IDENTITY = ("data_fingerprint", "data_source", "tokenizer_fingerprint")
"""Facts that are texts; checkpoints of older versions lack them."""


class OtherData(UserError):
    """A checkpoint was trained on other data than its run is to go on with."""


@dataclass(frozen=True)
class Identity:
    """Which run a checkpoint is of, and what it was trained on."""

    run_id: str
    data_fingerprint: str | None = None
    """The corpus and the tokenizer; None where any will do, as for a start from the parameters of another run."""
    data_source: str = ""
    """The corpus in words."""
    tokenizer_fingerprint: str | None = None


def facts_of(identity: Identity, state: Any) -> dict[str, Any]:
    """What is saved beside the state of a run."""
    return {**asdict(identity), "step": int(state.step), "arrays": _types(state), "bits": _bit_sums(state)}


def read(folder: Path, identity: Identity, like: Any) -> tuple[Any, dict[str, Any], str]:
    """(state, facts, "") of the checkpoint in `folder`, placed as `like` says, or (None, {}, why it cannot be used).

    `like` is an abstract state or, as a mapping of some of its fields, a part of one: only that is read. The answer is
    the same in all processes; Orbax's handlers read without waiting for others, so that one alone may fail. Raises
    `UserError` for a checkpoint of another run, architecture or optimizer, and `OtherData` for one of other data.
    """
    facts, problem = _attempt(lambda: read_facts(folder))
    if any(any_process(bool(problem))):
        return None, {}, problem or "another process could not read it"
    _check_same(folder, identity.run_id, facts, like)
    _check_data(folder, identity, facts)
    state, problem = _attempt(lambda: _restore(folder / "state", like))
    if any(any_process(bool(problem))):
        return None, {}, problem or "another process could not read it"
    changed = [name for name, bits in _bit_sums(state).items() if bits != facts["bits"][name]]
    if changed:
        return None, {}, f"the numbers of {changed[0]} have changed since they were saved"
    if not isinstance(like, dict) and int(state.step) != int(folder.name):
        return None, {}, f"its state is that of step {int(state.step)}"
    return state, facts, ""


def read_facts(folder: Path) -> dict[str, Any]:
    """What was saved beside the state. Raises `ValueError` where that is not whole, as a full disk can leave it."""
    import orbax.checkpoint as ocp

    for path in folder.rglob("*"):
        if not (path.is_file() or path.is_dir()):  # Orbax would wait for the other end of a pipe
            raise ValueError(f"{path.relative_to(folder)} is a pipe, a device or a link to nothing")
    try:
        facts = ocp.JsonCheckpointHandler().restore(folder / "facts", args=ocp.args.JsonRestore())
    except (ValueError, RecursionError) as error:  # of JSON, or of its characters
        raise ValueError(f"its facts are empty or spoiled ({error})") from None
    if not isinstance(facts, dict) or not _whole(facts):
        raise ValueError("its facts are incomplete")
    if facts.get("step", int(folder.name)) != int(folder.name):
        raise ValueError(f"it is that of step {facts['step']}")
    return dict(facts)


def _whole(facts: dict[str, Any]) -> bool:
    """Whether facts have what a run needs to go on, in the right types; what older versions lack may be absent."""
    arrays, bits = facts.get("arrays"), facts.get("bits")
    columns = [facts.get("losses", []), *_values(facts.get("reported", {}))]
    return (
        isinstance(facts.get("run_id"), str)
        and isinstance(arrays, dict)
        and isinstance(bits, dict)
        and {*arrays} == {*bits}
        and type(facts.get("step", 0)) is int
        and all(is_number(facts.get(name, 0)) and facts.get(name, 0) >= 0 for name in ("seconds", "paused_seconds"))
        and (facts.get("open_seconds") is None or is_number(facts["open_seconds"]))
        and all(isinstance(facts.get(name) or "", str) for name in IDENTITY)
        and all(isinstance(column, list) and len(column) == len(columns[0]) for column in columns)
        and all(type(value) in (int, float) for column in columns for value in column)
        and (facts.get("load") is None or _is_load(facts["load"]))
    )


def _is_load(value: Any) -> bool:
    """Whether a value of JSON is the totals of some steps' experts: arrays of numbers over layers."""
    if not isinstance(value, dict) or value.keys() != {"counts_LE", "dropped_L", "entropy_L"}:
        return False
    counts, *rest = (value[name] for name in ("counts_LE", "dropped_L", "entropy_L"))
    rows = [*counts, *rest] if isinstance(counts, list) else [None]
    return (
        all(isinstance(row, list) and all(map(is_number, row)) for row in rows)
        and all(len(row) == len(counts) for row in rest)
        and len({len(row) for row in counts}) == 1
    )


def _values(mapping: Any) -> list[Any]:
    return list(mapping.values()) if isinstance(mapping, dict) else [None]


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


def _check_data(folder: Path, identity: Identity, facts: dict[str, Any]) -> None:
    """Checkpoints of older versions do not know what they were trained on."""
    there, here = facts.get("data_fingerprint"), identity.data_fingerprint
    if there and here and there != here:
        raise OtherData(
            f"the checkpoint of step {folder.name} in {folder.parent} was trained on other data: fingerprint {there}, "
            f"{facts.get('data_source') or 'unknown'}, and now it is {here}, {identity.data_source}; restore the "
            f"corpus and the tokenizer and go on (after `lmscale retry`, where the run was given up), or train on the "
            f"new data in another folder"
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
