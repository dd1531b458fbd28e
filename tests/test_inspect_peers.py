"""Attention and residual streams are those of transformers: `golden/activations.json` keeps its numbers.

The numbers are of torch 2.13 and transformers 5 (`peers/read_activations.py`), for models of `helpers.published`; the
slow test computes them again and compares all of them.
"""

from functools import cache
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from helpers.peers import call_peer, peers_python
from helpers.published import VARIANTS, random_params, random_tokens, tiny
from helpers.tiny_runs import run

from lmscale.core.config import ModelConfig
from lmscale.core.files import read_json
from lmscale.lm.data.tokenizer import SymbolTokenizer
from lmscale.lm.inspect.reading import read
from lmscale.lm.model.layers import norm
from lmscale.lm.use.hf.write import write_hf
from lmscale.lm.use.load import TrainedRun

CLASSES = ("llama", "llama, untied, grouped, biases", "gpt2", "neox", "qwen2", "starcoder2")
"""Exported without a factor drawn into a matrix, so that the streams inside are the same and not only the logits."""
GOLDEN = Path(__file__).parent / "golden/activations.json"
TOLERANCE = 1e-5


@cache
def activations(name: str) -> dict[str, np.ndarray]:
    """What transformers calls attentions and hidden_states, of the first row of tokens."""
    config = config_of(name)
    params = {key: jnp.asarray(value) for key, value in random_params(config).items()}
    reading = read(params, random_tokens(config)[0], config, config.vocab)
    final_TD = norm(reading.residual_JTD[-1:], "final_norm", params, config)
    streams = np.concatenate([reading.residual_JTD[:-1], final_TD])
    return {"attentions": np.asarray(reading.attention_LHTS), "hidden_states": streams}


def config_of(name: str) -> ModelConfig:
    return tiny(**VARIANTS[name][1], init="gpt2") if "init" not in VARIANTS[name][1] else tiny(**VARIANTS[name][1])


@pytest.mark.long
@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("kind", ["attentions", "hidden_states"])
def test_activations_are_those_that_transformers_computed(name: str, kind: str) -> None:
    golden: Any = read_json(GOLDEN)[name][kind]
    own = activations(name)[kind]
    assert list(own.shape) == golden["shape"]
    np.testing.assert_allclose(own.ravel()[golden["at"]], golden["values"], atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.slow
def test_transformers_computes_the_same_activations(tmp_path: Path) -> None:
    peers_python()
    for name in CLASSES:
        config, folder = config_of(name), tmp_path / name
        folder.mkdir()
        params = {key: jnp.asarray(value) for key, value in random_params(config).items()}
        write_hf(folder, TrainedRun(run("stdlib", 8, model=config), params, SymbolTokenizer(61)), {})
        np.save(folder / "tokens.npy", random_tokens(config)[:1])
    call_peer("read_activations.py", tmp_path)
    for name in CLASSES:
        with np.load(tmp_path / name / "activations.npz") as file:
            theirs, golden = dict(file), read_json(GOLDEN)[name]
        for kind, own in activations(name).items():
            values = theirs[kind][:, 0]
            np.testing.assert_allclose(own, values, atol=TOLERANCE, rtol=TOLERANCE, err_msg=f"{name}, {kind}")
            np.testing.assert_allclose(golden[kind]["values"], values.ravel()[golden[kind]["at"]], atol=TOLERANCE)
