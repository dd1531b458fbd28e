"""Exported functions compute what the model computes, in a process that has JAX and not lmscale."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.published import COMPLETEP, random_params, random_tokens, tiny
from helpers.tiny_runs import run

from lmscale.lm.data.tokenizer import SymbolTokenizer
from lmscale.lm.model import transformer
from lmscale.lm.use.load import TrainedRun
from lmscale.lm.use.stablehlo import DESCRIPTION_FILE, write_stablehlo

pytestmark = pytest.mark.long

READER = """
import json, sys
sys.modules["lmscale"] = None
import jax, numpy as np

read = lambda name: jax.export.deserialize(bytearray(open(name, "rb").read()))
logits, extend = read("logits.stablehlo"), read("extend.stablehlo")
with np.load("parameters.npz") as file:
    parameters, tokens = dict(file), np.load("tokens.npy")
description = json.load(open("description.json"))
results = {"whole": logits.call(parameters, tokens), "part": logits.call(parameters, tokens[:1, :5])}
rows, sizes = len(tokens), [description[name] for name in ("layers", "context", "kv_heads", "head_features")]
past = np.zeros((sizes[0], rows, sizes[2], sizes[1], sizes[3]), jax.numpy.dtype(description["compute_dtype"]))
cache = {"keys": past, "values": past, "segments_BS": np.zeros((rows, sizes[1]), np.int32),
         "lengths_B": np.zeros(rows, np.int32), "documents_B": np.zeros(rows, np.int32)}
pieces = []
for start, end in ((0, 9), (9, 10), (10, 11), (11, 64)):
    counts = np.full(rows, end - start, np.int32)
    piece, cache = extend.call(parameters, cache, tokens[:, start:end], counts)
    pieces.append(piece)
np.savez("results.npz", **results, pieces=np.concatenate(pieces, axis=1))
try:
    logits.call(parameters, np.zeros((1, 65), np.int32))
except ValueError:
    print("refused", [name for name, module in sys.modules.items() if name.startswith("lmscale") and module])
"""
MODELS: dict[str, dict[str, Any]] = {
    "rotary, grouped, padded": {"kv_heads": 2, "vocab": 64},
    "ALiBi, CompleteP, documents, cap": {**COMPLETEP, "positions": "alibi", "document_end": 60, "logit_softcap": 4.0},
    "experts": {"experts": 4, "experts_per_token": 2, "shared_experts": 1, "expert_width": 24},
    "bfloat16, learned": {"positions": "learned", "compute_dtype": "bfloat16", "param_dtype": "bfloat16"},
}


@pytest.mark.parametrize("name", MODELS)
def test_functions_run_without_lmscale(name: str, tmp_path: Path) -> None:
    """Any number of rows and of tokens up to the context, whole and with a cache; bfloat16 within its rounding."""
    config = tiny(**MODELS[name])
    model = TrainedRun(replace(run("stdlib", 4), model=config), random_params(config), SymbolTokenizer(61))  # type: ignore[arg-type]
    write_stablehlo(tmp_path, model, {"run_id": "a"})
    tokens = random_tokens(replace(config, vocab=61)).astype(np.int32)
    np.save(tmp_path / "tokens.npy", tokens)
    done = subprocess.run([sys.executable, "-I", "-c", READER], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "refused []\n", "65 tokens exceed the context, and lmscale was never imported"
    with np.load(tmp_path / "results.npz") as file:
        results = dict(file)
    expected = np.asarray(transformer.logits(model.params, tokens, config))[..., :61]
    bound = 0.05 if config.compute_dtype == "bfloat16" else 1e-5
    np.testing.assert_allclose(results["whole"], expected, atol=bound)
    np.testing.assert_allclose(results["part"], expected[:1, :5], atol=bound)
    np.testing.assert_allclose(results["pieces"], expected, atol=bound)


def test_the_description_says_what_the_folder_holds(tmp_path: Path) -> None:
    config = tiny(layers=1)
    model = TrainedRun(replace(run("stdlib", 4), model=config), random_params(config), SymbolTokenizer(61))  # type: ignore[arg-type]
    write_stablehlo(tmp_path, model, {"run_id": "a"})
    description = json.loads((tmp_path / DESCRIPTION_FILE).read_text())
    assert description["platforms"] == ["cpu", "cuda", "tpu"] and description["lmscale"] == {"run_id": "a"}
    assert description["end_of_document"] == 60 and description["vocab"] == 61 and description["context"] == 64
    assert description["calling_convention_version"] > 0 and "six months newer" in description["compatibility"]
    with np.load(tmp_path / "parameters.npz") as parameters:
        assert {name: list(parameters[name].shape) for name in parameters} == description["parameters"]
    assert {*description["functions"], DESCRIPTION_FILE, "parameters.npz", "tokenizer.json"} == {
        path.name for path in tmp_path.iterdir()
    }
