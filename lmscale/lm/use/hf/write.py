"""A trained run as a folder that transformers loads."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from lmscale.core.config import ModelConfig, check
from lmscale.core.files import write_json
from lmscale.lm.use.hf.fields import MODEL_FILE
from lmscale.lm.use.hf.published import Array, publish
from lmscale.lm.use.hf.tokenizer_files import write_tokenizer
from lmscale.lm.use.hf.weights import SHARD_BYTES, write_weights
from lmscale.lm.use.load import TrainedRun

RECORD = "lmscale"
"""The field of config.json with what only lmscale reads: `import-model` gives the run its identity back."""


def write_hf(
    folder: Path, run: TrainedRun, record: dict[str, Any], name: str | None = None, shard_bytes: int = SHARD_BYTES
) -> str:
    """Write config.json, the weights, the tokenizer and generation_config.json into `folder`; the class that loads it.

    `name` asks for a class. `record` goes into config.json. Raises `UserError` for an option without a counterpart.
    """
    config = cropped_config(run)
    params = cropped({name: np.asarray(jax.device_get(value)) for name, value in run.params.items()}, config.vocab)
    published = publish(params, config, name)
    special = write_tokenizer(folder, run.tokenizer, config.context)
    write_json(folder / MODEL_FILE, {**published.json, **special, "use_cache": True, RECORD: record})
    write_json(folder / "generation_config.json", {**special, "do_sample": True, "temperature": 1.0, "top_k": 0})
    write_weights(folder, published.tensors, shard_bytes)
    return published.architecture.name


def cropped_config(run: TrainedRun) -> ModelConfig:
    """The configuration with one row of the table for each id of the tokenizer.

    Raises `UserError` for a tokenizer with more ids than the model has.
    """
    from dataclasses import replace

    vocab = run.tokenizer.vocab
    check(
        vocab <= run.config.model.vocab,
        f"the tokenizer {run.tokenizer.name} has {vocab:,} ids, but the model only {run.config.model.vocab:,}: they do "
        f"not belong together",
    )
    return replace(run.config.model, vocab=vocab)


def cropped(params: dict[str, Array], vocab: int) -> dict[str, Array]:
    """Parameters without the rows that pad the vocabulary."""
    tables = {"embedding": params["embedding"][:vocab]}
    if "head" in params:
        tables["head"] = params["head"][:, :vocab]
    return params | tables
