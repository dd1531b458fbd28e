"""The programs of a run on arrays that have a shape, a type and a placement but no numbers: nothing is allocated."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lmscale.core.config import ModelConfig, Reinforcement, RunConfig
from lmscale.lm.devices.sharding import batch_sharding, shardings
from lmscale.lm.eval.pair_validation import jitted_values
from lmscale.lm.eval.validation import rows_at_once, window_losses
from lmscale.lm.model.parameters import parameter_table
from lmscale.lm.objectives import Batch, Reference, make_objective
from lmscale.lm.train import pack
from lmscale.lm.train.optimizer import Hyperparameters
from lmscale.lm.train.step import make_step


class AbstractProgram(NamedTuple):
    """A function that can be traced, and its arguments."""

    function: jax.stages.Wrapped
    arguments: tuple[Any, ...]
    kinds: dict[str, Any]
    """Kind of memory -> the arguments of it, as trees."""
    tokens: int
    """Tokens of all devices that it reads."""
    beside: dict[str, Any]
    """Kind of memory -> what stays on the devices while it runs, as trees."""

    def trace(self) -> Any:
        """The jaxpr of the program; to be called under `jax.set_mesh`."""
        return self.function.trace(*self.arguments)

    def argument_bytes(self) -> dict[str, int]:
        """Kind of memory -> bytes of its arguments on one device."""
        return _bytes_by_kind(self.kinds)

    def bytes_beside(self) -> dict[str, int]:
        """Kind of memory -> bytes on one device of what stays there while it runs."""
        return _bytes_by_kind(self.beside)


def training_step(
    config: RunConfig, mesh: Mesh, reference_model: ModelConfig | None, packed: int = 1
) -> AbstractProgram:
    """The step that `train` compiles, with its donated state; that of `packed` runs like `config` in one program."""
    reference, objective = abstract_reference(reference_model, mesh), make_objective(config, reference_model)
    programs = make_step(config, mesh, objective, reference)
    step = pack.packed_step(programs, config, packed, objective)
    hyper = jax.eval_shape(lambda: Hyperparameters.of(config))
    state, batch, hyper = (stacked(one, packed, mesh) for one in (programs.state, abstract_batch(config, mesh), hyper))
    kinds = {
        "parameters": state.params,
        "optimizer": state.opt_state,
        "averaged": state.ema,
        "reference": reference,
        "batch": batch,
    }
    return AbstractProgram(step, (state, batch, hyper, reference), kinds, packed * config.batch_tokens, {})


def stacked(tree: Any, packed: int, mesh: Mesh) -> Any:
    """What `pack.stack` makes of `packed` trees like this one, on the one device of `mesh`."""
    if packed == 1:
        return tree
    whole = NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((packed, *leaf.shape), leaf.dtype, sharding=whole), tree)


def validation_batch(
    config: RunConfig, mesh: Mesh, reference_model: ModelConfig | None, packed: int = 1
) -> AbstractProgram:
    """The function that validation calls for every batch of the whole held-out set that the run asks for, and the
    state of training that stays in memory meanwhile: of `packed` runs all of it, beside a copy of one's parameters."""
    state, reference = make_step(config, mesh).state, abstract_reference(reference_model, mesh)
    params, context, sequences = state.eval_params, config.model.context, config.example_sequences
    rows = rows_at_once(max(1, config.validation_tokens // (sequences * context)), sequences * context, mesh)
    shape, tokens = (rows, *[2] * config.data.pairs), rows * sequences * context
    windows = _array((*shape, context + 1), np.int32, batch_sharding(mesh))
    beside: dict[str, Any] = {"optimizer": state.opt_state, **({} if state.ema is None else {"averaged": state.params})}
    if packed > 1:
        beside = {"state of all runs": stacked(state, packed, mesh)}
    if not config.data.pairs:
        kinds = {"parameters": params, "batch": windows}
        beside["reference"] = reference
        return AbstractProgram(window_losses(config, mesh), (params, windows), kinds, tokens, beside)
    pairs = {"tokens": windows, "scored": _array((*shape, context), np.bool_, batch_sharding(mesh))}
    function = jitted_values(config, mesh, reference_model)
    by_kind = {"parameters": params, "reference": reference, "batch": pairs}
    return AbstractProgram(function, (params, reference, pairs), by_kind, tokens, beside)


def abstract_batch(config: RunConfig, mesh: Mesh) -> Batch:
    """A batch of the run as its source makes it: of text, of pairs of answers, or of answers that it draws."""
    rows, context = config.batch_examples, config.model.context
    sharding: NamedSharding = batch_sharding(mesh)
    shape = (rows, *[2] * config.data.pairs)
    tokens, scored = (_array((*shape, context + 1), np.int32, sharding), _array((*shape, context), np.bool_, sharding))
    if isinstance(config.objective, Reinforcement):
        number = _array((rows,), np.float32, sharding)
        batch = {"tokens": tokens, "scored": scored, "reward": number, "advantage": number}
        if config.objective.updates > 1:
            batch["drawn_log_p"] = _array((rows, context), np.float32, sharding)
        return batch
    return {"tokens": tokens, "scored": scored} if config.scores_answers else tokens


def abstract_reference(model: ModelConfig | None, mesh: Mesh) -> Reference:
    """The parameters of a teacher or reference, placed as those of a checkpoint are."""
    if model is None:
        return ()
    table = parameter_table(model)
    placed = shardings({name: (row.shape, row.axes) for name, row in table.items()}, mesh)
    return {name: _array(row.shape, jnp.dtype(model.param_dtype), placed[name]) for name, row in table.items()}


def _array(shape: tuple[int, ...], dtype: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)


def _bytes_by_kind(trees: dict[str, Any]) -> dict[str, int]:
    return {kind: device_bytes(tree) for kind, tree in trees.items() if jax.tree.leaves(tree)}


def device_bytes(tree: Any) -> int:
    """Bytes of a tree of abstract arrays on one device."""
    return sum(map(_leaf_bytes, jax.tree.leaves(tree)))


def _leaf_bytes(leaf: Any) -> int:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return 0
    shard: Callable[[tuple[int, ...]], tuple[int, ...]] = leaf.sharding.shard_shape
    return int(np.prod(shard(leaf.shape), dtype=np.int64)) * np.dtype(leaf.dtype).itemsize
