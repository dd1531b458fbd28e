"""A model as a published class has it: its tensors and its config.json, and back."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lmscale.core.config import ModelConfig, check
from lmscale.core.errors import UserError
from lmscale.lm.model.parameters import parameter_table
from lmscale.lm.use.hf.architecture import Architecture
from lmscale.lm.use.hf.architectures import choose, of_folder
from lmscale.lm.use.hf.entries import Entry, from_tensors, names, to_tensors
from lmscale.lm.use.hf.fields import Fields
from lmscale.lm.use.hf.fold import fold

Array = NDArray[Any]


class Published(NamedTuple):
    """What the two files of a published model say."""

    architecture: Architecture
    tensors: dict[str, Array]
    json: dict[str, Any]
    """config.json, without what the tokenizer says."""


def publish(params: Mapping[str, Array], config: ModelConfig, name: str | None = None) -> Published:
    """The model as the class `name`, by default the first that computes what it computes.

    Raises `UserError` for an option that has no counterpart.
    """
    architecture = choose(config, name)
    folded, plain = fold(params, config, architecture.embedding_scale(config))
    if architecture.unit_gains:
        _check_unit_gains(folded, architecture)
    json = {
        "architectures": [architecture.name],
        "model_type": architecture.model_type,
        "tie_word_embeddings": config.tied_embeddings,
        "dtype": str(params["embedding"].dtype),
        "torch_dtype": str(params["embedding"].dtype),
        **architecture.to_json(plain),
    }
    tensors = to_tensors(folded, architecture.entries(plain), config.layers, config.experts)
    return Published(architecture, tensors, json)


def _check_unit_gains(params: Mapping[str, Array], architecture: Architecture) -> None:
    for name in ("attention_norm", "mlp_norm", "final_norm"):
        check(bool((params[name] == 1).all()), f"{architecture.name} has no gains, but those of {name} are not 1")


def model_config(values: dict[str, Any]) -> tuple[Architecture, ModelConfig]:
    """The class and the configuration that a config.json describes. Raises `UserError` for what has no counterpart."""
    architecture, fields = of_folder(values), Fields(values)
    options = {
        "embedding_scale": 1.0,
        "tied_embeddings": fields.get("tie_word_embeddings", bool, architecture.tied),
        **architecture.from_json(fields),
    }
    try:
        config = ModelConfig(**options)
    except UserError as error:
        raise UserError(f"config.json describes no model that lmscale has: {error}") from None
    if problems := list(architecture.mismatches(config)):
        raise UserError(f"config.json describes no {architecture.name}: {'; '.join(problems)}")
    return architecture, config


def parameters(tensors: Mapping[str, Array], architecture: Architecture, config: ModelConfig) -> dict[str, Array]:
    """Our parameters, from the tensors of a published model.

    Tensors are read by the names of the class, with or without the name of its inner model in front. A head beside tied
    embeddings must equal them. Raises `UserError` for a tensor that is missing, of another shape, or not read.
    """
    entries = architecture.entries(config)
    known = {name for entry in entries for name in names(entry, config.layers, config.experts)}
    prefix = next(iter(sorted(known, key=len, reverse=True))).split(".")[0] + "."
    named = {
        name if name in known or f"{prefix}{name}" not in known else f"{prefix}{name}": value
        for name, value in tensors.items()
        if not name.endswith(architecture.ignored)
    }
    heads = [name for name in named if name in architecture.heads and name not in known]
    for name in heads:
        table = next(entry for entry in entries if isinstance(entry, Entry) and entry.param == "embedding")
        check(
            table.tensor in named and np.array_equal(named.pop(name), named[table.tensor]),
            f"config.json says that embeddings are tied, but {name} differs from {table.tensor}",
        )
    shapes = {name: row.shape for name, row in parameter_table(config).items()}
    given = {name: shape for name, shape in shapes.items() if not architecture.unit_gains or "norm" not in name}
    params = from_tensors(named, entries, given, config.layers, np.dtype(config.param_dtype), config.experts)
    ones = {name: np.ones(shape, config.param_dtype) for name, shape in shapes.items() if name not in given}
    return params | ones
