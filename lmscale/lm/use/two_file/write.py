"""A trained run as two files: its parameters, and a program that generates text with them."""

import math
from pathlib import Path
from typing import Any

import jax
import numpy as np

from lmscale.core.config import ModelConfig, check
from lmscale.core.counting import active_params_total, params_total
from lmscale.core.files import atomic_write, write_text
from lmscale.lm.model.attention import alibi_slopes
from lmscale.lm.model.parameters import parameter_table
from lmscale.lm.use.generate import STEPS_PER_CALL
from lmscale.lm.use.hf.fold import fold
from lmscale.lm.use.hf.published import Array
from lmscale.lm.use.hf.write import cropped, cropped_config
from lmscale.lm.use.load import TrainedRun
from lmscale.lm.use.two_file.constants import Constant, source
from lmscale.lm.use.two_file.template import program
from lmscale.lm.use.two_file.tokenizers import TOKENIZER_OPTIONS, TokenizerPart, check_tokenizer, tokenizer_part

PROGRAM_FILE, PARAMETERS_FILE = "model.py", "parameters.npz"
RENAMED = {"query_norm": "attention_query_norm", "key_norm": "attention_key_norm"} | {
    name: f"mlp_{name}" for name in ("router", "router_bias", "experts_in", "experts_out", "shared_in", "shared_out")
}
"""What a layer has begins with the name of its sublayer in the program."""


def write_two_file(folder: Path, run: TrainedRun, origin: str) -> None:
    """Write `model.py` and `parameters.npz` into `folder`; `origin` says there where the model comes from.

    Raises `UserError` for a tokenizer or an option that the program cannot have.
    """
    tokenizer = tokenizer_part(run.tokenizer)
    config = cropped_config(run)
    check(
        not config.scalar_head,
        "a reward model gives one number and no next token, so that the two files would have nothing to write; export "
        "the run that it started from",
    )
    check(
        config.router.capacity is None,
        f"router.capacity = {config.router.capacity} has no counterpart in the two files, whose program reads a text "
        f"token by token and drops none; take --format stablehlo",
    )
    params = {name: np.asarray(jax.device_get(value), np.float32) for name, value in run.params.items()}
    folded, plain = fold(cropped(params, config.vocab), config)
    texts = {
        "title": _title(plain),
        "file": PROGRAM_FILE,
        "parameters_file": PARAMETERS_FILE,
        "origin": origin,
        "constants": source([*model_constants(plain), *tokenizer.constants]),
        "patterns": tokenizer.patterns,
    }
    text = program(model_options(plain) | tokenizer_options(tokenizer), texts)
    check_tokenizer(text, run.tokenizer, tokenizer, PARAMETERS_FILE)
    write_text(folder / PROGRAM_FILE, text)
    with atomic_write(folder / PARAMETERS_FILE, "wb") as file:
        np.savez(file, allow_pickle=False, **_named(folded, plain), **tokenizer.arrays)


def _title(config: ModelConfig) -> str:
    active = f", {active_params_total(config):,} of them for one token" if config.sparse else ""
    return (
        f"A language model of {params_total(config):,} parameters{active}: {config.layers} layers of width "
        f"{config.width}, {config.context} tokens of context."
    )


def _named(params: dict[str, Array], config: ModelConfig) -> dict[str, Any]:
    """The parameters by their names in the program, every gain as the factor that it is."""
    table, offset = parameter_table(config), float(config.norm == "rmsnorm-offset")
    return {RENAMED.get(name, name): params[name] + np.float32(offset * name.endswith("norm")) for name in table}


def model_options(config: ModelConfig) -> dict[str, bool]:
    """The options of the template that are about the model."""
    rotary = config.positions == "rotary"
    return {
        "layernorm": config.norm == "layernorm",
        "norm_biases": config.norm == "layernorm" and config.biases,
        "rotary": rotary,
        "rotary_part": rotary and config.rotary_features < config.head_width,
        "rope_scaling": config.rope_scaling is not None,
        "learned": config.positions == "learned",
        "alibi": config.positions == "alibi",
        "documents": config.document_end is not None,
        "parallel": config.parallel_block,
        "biases": config.biases,
        "qkv_biases": config.biases or config.qkv_biases,
        "qk_norm": config.qk_norm,
        "gated": config.gated,
        "silu": config.mlp == "swiglu",
        "gelu_tanh": config.mlp in ("geglu", "gelu"),
        "gelu_erf": config.mlp == "gelu-erf",
        "relu2": config.mlp == "relu2",
        "tied": config.tied_embeddings,
        "softcap": config.logit_softcap is not None,
        "experts": config.sparse,
        "shared": config.shared_experts > 0,
        "sigmoid": config.router.gate == "sigmoid",
        "router_bias": config.router.bias_rate > 0,
        "normalized": config.normalized_gates,
        "scaled_gates": config.router.scale != 1,
    }


def tokenizer_options(tokenizer: TokenizerPart) -> dict[str, bool]:
    """The options of the template that are about the tokenizer."""
    return {name: name in tokenizer.options for name in TOKENIZER_OPTIONS}


def model_constants(config: ModelConfig) -> list[Constant]:
    """The numbers at the top of the program that are about the model."""
    half = max(1, config.context // 2)
    constants = [
        Constant("CONTEXT", config.context, "tokens that a prediction can see"),
        Constant("HALF", half, "of them are read anew when the context is full"),
        Constant(
            "BLOCK", min(STEPS_PER_CALL, config.context + 1 - half), "tokens between two looks whether it is full"
        ),
        Constant("WIDTH", config.width, "features of the residual stream"),
        Constant("LAYERS", config.layers),
        Constant("HEADS", config.heads, "of queries"),
        Constant("KV_HEADS", config.num_kv_heads, "of keys and values, each shared by HEADS / KV_HEADS of queries"),
        Constant("HEAD_FEATURES", config.head_width),
        *_mlp_constants(config),
        Constant("NORM_EPSILON", config.norm_epsilon),
    ]
    if config.positions == "rotary":
        constants += [
            Constant("ROTARY_FEATURES", config.rotary_features, "of a head that turn with the position"),
            Constant("ROPE_BASE", config.rope_base),
        ]
    if (scaling := config.rope_scaling) is not None:
        constants += [
            Constant("ROPE_FACTOR", scaling.factor, "slow rotations are slower by it"),
            Constant("ROPE_FIRST_CONTEXT", scaling.original_context, "tokens that the rotations were made for"),
            Constant("ROPE_LOW_FREQUENCY", scaling.low_frequency, "turns in it, below which a rotation is slow"),
            Constant("ROPE_HIGH_FREQUENCY", scaling.high_frequency, "and above which it stays as it is"),
        ]
    if config.positions == "alibi":
        slopes = f"np.array({list(alibi_slopes(config.heads))}, np.float32).reshape(KV_HEADS, -1)"
        constants.append(Constant("SLOPES", slopes, "of each head's score over the distance (ALiBi, Press 2022)", True))
    if config.document_end is not None:
        constants.append(Constant("DOCUMENT_END", config.document_end, "the token that no later one looks back across"))
    if config.logit_softcap is not None:
        constants.append(Constant("SOFTCAP", config.logit_softcap, "largest logit (Gemma 2, 2024)"))
    assert all(math.isfinite(constant.value) for constant in constants if isinstance(constant.value, float))
    return constants


def _mlp_constants(config: ModelConfig) -> list[Constant]:
    if not config.sparse:
        return [Constant("MLP_WIDTH", config.hidden, "hidden units of an MLP")]
    constants = [Constant("EXPERTS_PER_TOKEN", config.experts_per_token, f"of {config.experts} in each layer")]
    if config.router.scale != 1:
        constants.append(Constant("GATE_SCALE", config.router.scale, "factor of the gates"))
    return constants
