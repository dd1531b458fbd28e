"""Published tensors are our parameters in another layout: written, read back, and as transformers computed them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from helpers.published import VARIANTS, checksum, random_params, random_tokens, tiny

from lmscale.core.config import ModelConfig, RouterConfig
from lmscale.core.errors import UserError
from lmscale.lm.model import transformer
from lmscale.lm.use.hf.published import model_config, parameters, publish
from lmscale.lm.use.hf.weights import INDEX_FILE, WEIGHTS_FILE, read_weights, write_weights

GOLDEN = json.loads((Path(__file__).parent / "golden/published.json").read_text(encoding="utf-8"))
"""Checksums of tensors whose logits transformers 5.24 and torch 2.13 computed, and some of those logits."""
LOGITS = jax.jit(transformer.logits, static_argnames="config")


def logits(params: Any, config: ModelConfig) -> np.ndarray:
    return np.asarray(LOGITS(params, random_tokens(config), config=config))


@pytest.fixture(params=VARIANTS, ids=str)
def variant(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.long
def test_tensors_are_those_that_transformers_read(variant: str) -> None:
    """Same bits as those whose logits transformers computed; its logits are ours, of the model before it was folded."""
    name, options = VARIANTS[variant]
    config = tiny(**options)
    published = publish(random_params(config), config)
    golden = GOLDEN[variant]
    assert published.architecture.name == name == golden["class"]
    assert checksum(published.tensors) == golden["tensors"]
    np.testing.assert_allclose(logits(random_params(config), config)[:, ::21, :5], golden["logits"], atol=1e-4)


@pytest.mark.long
def test_a_published_model_reads_back_as_the_same_function(variant: str) -> None:
    config = tiny(**VARIANTS[variant][1])
    params = random_params(config)
    published = publish(params, config)
    architecture, again = model_config(published.json)
    assert architecture is published.architecture
    read = parameters(published.tensors, architecture, again)
    np.testing.assert_allclose(logits(read, again), logits(params, config), rtol=1e-5, atol=2e-5)
    twice = publish(read, again, architecture.name)
    assert checksum(twice.tensors) == checksum(published.tensors), "the way back is exact"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"positions": "alibi"}, "'alibi' has no counterpart in LlamaForCausalLM; it has positions = 'rotary'"),
        ({"positions": "none"}, "positions = 'none' has no counterpart"),
        ({"logit_softcap": 5.0}, "5.0 has no counterpart in LlamaForCausalLM; it has logit_softcap = None"),
        ({"norm": "layernorm", "qk_norm": True}, "norm = 'layernorm' has no counterpart in Qwen3ForCausalLM"),
        ({"parallel_block": True}, "parallel_block = True has no counterpart in LlamaForCausalLM"),
        (
            {"norm": "layernorm", "positions": "learned", "mlp": "gelu", "kv_heads": 2},
            "kv_heads = 2 has no counterpart in GPT2LMHeadModel",
        ),
        ({"experts": 4}, "normalized_gates = False has no counterpart in MixtralForCausalLM"),
        (
            {"experts": 4, "experts_per_token": 2, "shared_experts": 1},
            "shared_experts = 1 has no counterpart in MixtralForCausalLM; it has shared_experts = 0",
        ),
        (
            {"experts": 4, "experts_per_token": 2, "router": RouterConfig(capacity=2.0)},
            "router.capacity = 2.0 has no counterpart in MixtralForCausalLM; it has router.capacity = None",
        ),
        (
            {"experts": 4, "experts_per_token": 2, "router": RouterConfig(bias_rate=1e-3)},
            "router.bias_rate = 0.001 has no counterpart in MixtralForCausalLM",
        ),
        ({"experts": 4, "experts_per_token": 2, "mlp": "relu2"}, "mlp = 'relu2' has no counterpart in Mixtral"),
    ],
)  # fmt: skip
def test_an_option_without_a_counterpart_is_named_with_the_nearest(options: dict[str, Any], sentence: str) -> None:
    config = tiny(**options)
    with pytest.raises(UserError) as refusal:
        publish(random_params(config), config)
    assert sentence in str(refusal.value)


def test_a_class_without_gains_takes_only_gains_of_one() -> None:
    config = tiny(norm="layernorm", norm_epsilon=1e-5, embedding_scale=1.0)
    params = random_params(config)
    with pytest.raises(UserError, match="OlmoForCausalLM has no gains, but those of attention_norm are not 1"):
        publish(params, config, "OlmoForCausalLM")
    ones = {name: np.ones_like(value) if "norm" in name else value for name, value in params.items()}
    published = publish(ones, config, "OlmoForCausalLM")
    architecture, again = model_config(published.json)
    read = parameters(published.tensors, architecture, again)
    np.testing.assert_allclose(logits(read, again), logits(ones, config), atol=1e-6)


def published_llama() -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    config = tiny(tied_embeddings=False)
    published = publish(random_params(config), config)
    return published.json, published.tensors


def read(values: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
    architecture, config = model_config(values)
    parameters(tensors, architecture, config)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"model_type": "mamba"}, "config.json names the model type 'mamba'"),
        ({"model_type": "lama"}, "did you mean 'llama'?"),
        ({"hidden_size": None}, "config.json lacks the field 'hidden_size'"),
        ({"hidden_size": "32"}, "hidden_size = '32': must be of type int"),
        ({"hidden_size": 10**400}, "ModelConfig.width is beyond 9.22e+18"),
        ({"num_key_value_heads": 3}, "describes no model that lmscale has: kv_heads = 3 must divide heads = 4"),
        ({"hidden_size": 33}, "but the configuration says"),
        ({"hidden_act": "mish"}, "hidden_act = mish, which lmscale has no option for; it reads 'silu'"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "scales rotary positions by 'yarn'"),
        ({"rope_scaling": [1]}, "rope_scaling"),
        ({"mlp_bias": True}, "mlp_bias = True, which lmscale has no option for"),
        ({"intermediate_size": 80}, "has the shape [88, 32], but the configuration says [80, 32]"),
        ({"num_hidden_layers": 3}, "the tensor model.layers.2.input_layernorm.weight is missing"),
        ({"num_hidden_layers": 1}, "belongs to no parameter that the configuration names"),
        ({"tie_word_embeddings": True}, "tied, but lm_head.weight differs from model.embed_tokens.weight"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings = '1': must be of type bool"),
    ],
)  # fmt: skip
def test_a_config_that_says_otherwise_is_refused(changed: dict[str, Any], sentence: str) -> None:
    values, tensors = published_llama()
    with pytest.raises(UserError) as refusal:
        read({**values, **changed}, tensors)
    assert sentence in str(refusal.value) and len(str(refusal.value)) < 600


@pytest.mark.parametrize(
    ("variant", "changed", "sentence"),
    [
        ("mixtral", {"num_experts_per_tok": 1}, "router.normalized = True with experts_per_token = 1"),
        ("mixtral", {"num_experts_per_tok": 9}, "experts_per_token = 9 is more than experts = 4"),
        ("mixtral", {"sliding_window": 8}, "sliding_window = 8, which lmscale has no option for"),
        ("mixtral", {"num_local_experts": 5}, "has the shape [4, 32], but the configuration says [5, 32]"),
        ("mixtral", {"num_local_experts": 3}, "has the shape [4, 32], but the configuration says [3, 32]"),
        ("qwen3-moe, CompleteP", {"mlp_only_layers": [0]}, "mlp_only_layers = [0], which lmscale has no option for"),
        ("qwen3-moe, CompleteP", {"decoder_sparse_step": 2}, "decoder_sparse_step = 2, which lmscale has no option"),
        ("glm4-moe", {"first_k_dense_replace": 1}, "first_k_dense_replace = 1, which lmscale has no option for"),
        ("glm4-moe", {"n_group": 2}, "n_group = 2, which lmscale has no option for"),
        ("glm4-moe", {"model_type": "deepseek_v3"}, "attention goes through latents (MLA)"),
    ],
)
def test_an_option_of_experts_without_a_counterpart_is_one_sentence(
    variant: str, changed: dict[str, Any], sentence: str
) -> None:
    config = tiny(**VARIANTS[variant][1])
    published = publish(random_params(config), config)
    with pytest.raises(UserError) as refusal:
        read({**published.json, **changed}, published.tensors)
    assert sentence in str(refusal.value) and len(str(refusal.value)) < 600


def test_a_tied_head_may_be_written_twice() -> None:
    config = tiny()
    published = publish(random_params(config), config)
    read(published.json, {**published.tensors, "lm_head.weight": published.tensors["model.embed_tokens.weight"]})


def test_numbers_that_are_not_finite_are_refused() -> None:
    values, tensors = published_llama()
    tensors["model.norm.weight"][3] = np.nan
    with pytest.raises(UserError, match=r"model\.norm\.weight holds numbers that are not finite"):
        read(values, tensors)


def test_large_models_are_cut_into_files(tmp_path: Path) -> None:
    _, tensors = published_llama()
    write_weights(tmp_path, tensors, shard_bytes=20_000)
    files = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert len(files) > 2 and files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    assert all((tmp_path / name).stat().st_size < 25_000 for name in files)
    assert checksum(read_weights(tmp_path)) == checksum(tensors)
    (tmp_path / files[1]).unlink()
    with pytest.raises(UserError, match="which the index names; copy the folder again"):
        read_weights(tmp_path)
    index = json.loads((tmp_path / INDEX_FILE).read_text())
    index["weight_map"]["model.norm.weight"] = "../elsewhere.safetensors"
    (tmp_path / INDEX_FILE).write_text(json.dumps(index))
    with pytest.raises(UserError, match="names a folder or file"):
        read_weights(tmp_path)


def test_a_file_that_is_cut_anywhere_is_one_sentence(tmp_path: Path) -> None:
    _, tensors = published_llama()
    write_weights(tmp_path, tensors)
    whole = (tmp_path / WEIGHTS_FILE).read_bytes()
    for size in (0, 4, 8, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / WEIGHTS_FILE).write_bytes(whole[:size])
        with pytest.raises(UserError, match="is cut or damaged"):
            read_weights(tmp_path)


def test_pickles_are_never_opened(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch opened'\ntR.")
    with pytest.raises(UserError, match=r"pytorch_model.bin, a pickle, which can run code and is never opened"):
        read_weights(tmp_path)


def test_half_precision_widens_and_integers_are_refused(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    half = np.linspace(-1, 1, 8, dtype=np.float16)
    save_file({"a": half}, tmp_path / WEIGHTS_FILE)
    assert np.array_equal(read_weights(tmp_path)["a"], half.astype(np.float32))
    save_file({"a": np.arange(3, dtype=np.int8)}, tmp_path / WEIGHTS_FILE)
    with pytest.raises(UserError, match=r"the tensor a in .* is of type I8"):
        read_weights(tmp_path)


def test_bfloat16_keeps_its_bits(tmp_path: Path) -> None:
    config = replace(tiny(), param_dtype="bfloat16", embedding_scale=1.0)
    params = random_params(config)
    published = publish(params, config)
    write_weights(tmp_path, published.tensors)
    architecture, again = model_config(published.json)
    again = replace(again, param_dtype="bfloat16")
    back = parameters(read_weights(tmp_path), architecture, again)
    assert all(np.array_equal(back[name], params[name]) and back[name].dtype == params[name].dtype for name in params)
