"""A trained run as StableHLO: functions that JAX runs without lmscale, on a CPU, an NVIDIA GPU or a TPU.

Two functions are exported, with any number of rows and any number of tokens up to the context: `logits` reads whole
rows, `extend` reads the next tokens of rows of which a KV cache remembers the rest. Letters as in `transformer`.
"""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from lmscale.core.config import ModelConfig
from lmscale.core.files import atomic_write, write_json
from lmscale.lm.model.kv_cache import KVCache, extend, init_cache
from lmscale.lm.model.parameters import Params, parameter_table
from lmscale.lm.model.transformer import scanned
from lmscale.lm.use.hf.tokenizer_files import TOKENIZER_FILE, specification
from lmscale.lm.use.hf.write import cropped, cropped_config
from lmscale.lm.use.load import TrainedRun

PLATFORMS = ("cpu", "cuda", "tpu")
LOGITS_FILE, EXTEND_FILE = "logits.stablehlo", "extend.stablehlo"
PARAMETERS_FILE, DESCRIPTION_FILE = "parameters.npz", "description.json"
COMPATIBILITY = (
    "jax promises to run it in versions of itself up to six months newer and three weeks older than the one that wrote "
    "it (jax.export, compatibility guarantees)"
)


class Function(NamedTuple):
    """An exported function, and what it takes and gives in words."""

    exported: export.Exported
    arguments: str
    result: str


def write_stablehlo(folder: Path, run: TrainedRun, record: dict[str, Any]) -> None:
    """Write the functions, their parameters, a description and the tokenizer into `folder`.

    Raises `UserError` where the tokenizer and the model do not belong together.
    """
    config = cropped_config(run)
    # NumPy's files have no bfloat16: it widens without loss, and the functions round to their own type as before
    params = {name: np.asarray(jax.device_get(value), np.float32) for name, value in run.params.items()}
    params = cropped(params, config.vocab)
    functions = {LOGITS_FILE: logits_function(config), EXTEND_FILE: extend_function(config)}
    for name, function in functions.items():
        with atomic_write(folder / name, "wb") as file:
            file.write(function.exported.serialize())
    with atomic_write(folder / PARAMETERS_FILE, "wb") as file:
        np.savez(file, allow_pickle=False, **{name: params[name] for name in parameter_table(config)})
    write_json(folder / TOKENIZER_FILE, specification(run.tokenizer)[0])
    write_json(folder / DESCRIPTION_FILE, _description(config, run, functions) | {"lmscale": record})


def _description(config: ModelConfig, run: TrainedRun, functions: dict[str, Function]) -> dict[str, Any]:
    exported = functions[LOGITS_FILE].exported
    return {
        "functions": {
            name: {"arguments": function.arguments, "result": function.result} for name, function in functions.items()
        },
        "parameters": {name: list(row.shape) for name, row in parameter_table(config).items()},
        "vocab": config.vocab,
        "context": config.context,
        "layers": config.layers,
        "kv_heads": config.num_kv_heads,
        "head_features": config.head_width,
        "compute_dtype": config.compute_dtype,
        "end_of_document": run.tokenizer.end_of_document,
        "platforms": list(exported.platforms),
        "calling_convention_version": exported.calling_convention_version,
        "jax": jax.__version__,
        "compatibility": COMPATIBILITY,
    }


def logits_function(config: ModelConfig) -> Function:
    """(parameters, tokens [B, T]) -> logits [B, T, V]."""

    def logits(params: Params, tokens_BT: jax.Array) -> jax.Array:
        rows, time = tokens_BT.shape
        return extend(params, init_cache(config, rows, time), tokens_BT, jnp.full(rows, time, jnp.int32), config)[0]

    rows, time = _sizes(config)
    exported = _export(logits, _parameters(config), _like((rows, time), "int32"))
    return Function(exported, "parameters, tokens int32 [B, T]", "logits float32 [B, T, V] of the token after each")


def extend_function(config: ModelConfig) -> Function:
    """(parameters, cache, tokens [B, T], counts [B]) -> logits [B, T, V] and the cache, as `kv_cache.extend`."""

    def extended(
        params: Params, cache: dict[str, jax.Array], tokens_BT: jax.Array, counts_B: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        logits_BTV, after = extend(params, _unstacked(cache, config), tokens_BT, counts_B, config)
        return logits_BTV, _stacked(after)

    rows, time = _sizes(config)
    empty = jax.eval_shape(lambda: _stacked(init_cache(config, rows, config.context)))
    cache = {name: _like(value.shape, value.dtype) for name, value in empty.items()}
    exported = _export(extended, _parameters(config), cache, _like((rows, time), "int32"), _like((rows,), "int32"))
    shapes = ", ".join(f"{name} {value.dtype} [{', '.join(map(str, value.shape))}]" for name, value in cache.items())
    return Function(
        exported,
        f"parameters, cache (a mapping, all zeros before the first token: {shapes}), tokens int32 [B, T], counts int32 "
        f"[B]: how many tokens of each row are no padding",
        "logits float32 [B, T, V] and the cache behind those tokens",
    )


BY_LAYER = ("keys", "values", "occupied")
"""Fields of a cache that have an array for each layer."""


def _stacked(cache: KVCache) -> dict[str, jax.Array]:
    """The cache as a mapping of arrays, those of keys and values [L, B, G, S, K], of experts with room [L, B, E]."""

    def whole(each: tuple[jax.Array, ...]) -> jax.Array:
        return each[0] if each[0].ndim in (3, 5) else jnp.stack(each)

    fields = {name: value for name, value in cache._asdict().items() if name not in BY_LAYER or value}
    return {name: whole(value) if name in BY_LAYER else value for name, value in fields.items()}


def _unstacked(cache: dict[str, jax.Array], config: ModelConfig) -> KVCache:
    arrays = {
        name: (cache[name],) if scanned(config) else tuple(cache[name][layer] for layer in range(config.layers))
        for name in BY_LAYER
        if name in cache
    }
    return KVCache(**{**cache, **arrays})  # type: ignore[arg-type]


def _export(function: Any, *arguments: Any) -> export.Exported:
    return export.export(jax.jit(function), platforms=PLATFORMS)(*arguments)


def _sizes(config: ModelConfig) -> tuple[Any, Any]:
    """B and T, of which a call decides."""
    rows, time = export.symbolic_shape("B, T", constraints=[f"T <= {config.context}"])
    return rows, time


def _parameters(config: ModelConfig) -> dict[str, jax.ShapeDtypeStruct]:
    return {name: _like(row.shape, "float32") for name, row in parameter_table(config).items()}


def _like(shape: tuple[Any, ...], dtype: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)
