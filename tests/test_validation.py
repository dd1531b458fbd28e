import math
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmscale.core.config import MeshConfig, ModelConfig, OptimizerConfig, RunConfig
from lmscale.lm import data
from lmscale.lm.data import ValidationSet
from lmscale.lm.data.tokenizer import ByteTokenizer
from lmscale.lm.devices.sharding import make_mesh
from lmscale.lm.eval import validation
from lmscale.lm.model.parameters import parameter_table
from lmscale.lm.model.transformer import logits

CONTEXT = 6
TEXT = "né🙂 — ça va?"  # 12 characters in 19 bytes
CONFIG = RunConfig(
    model=ModelConfig(width=8, layers=1, heads=1, context=CONTEXT),
    optimizer=OptimizerConfig(peak_lr=0.01, batch_sequences=1),
    tokens=CONTEXT,
)


@pytest.fixture
def windows() -> ValidationSet:
    """Five windows over documents of 19 bytes, each closed by an end that is scored and counts no byte."""
    encoder = ByteTokenizer()
    split, lengths = encoder.encode_documents([TEXT.encode()] * 2)
    assert list(lengths) == [20, 20]
    split = split[: 5 * CONTEXT + 1]
    manifest = SimpleNamespace(
        fingerprint="hand", tokenizer="bytes", tokenizer_file=None, endless=False, weights=(), source="hand",
        unique_limit=None, train_tokens=len(split), own_splits=(), layout="stream", window_sequences=1,
    )  # fmt: skip
    tokens = SimpleNamespace(
        manifest=manifest, components=(), split=lambda name: (split, np.zeros(1)), scored=lambda name: None
    )
    tokens.source_of = lambda name: tokens
    return data.ValidationSet(tokens, CONTEXT, max_tokens=10**6)  # type: ignore[arg-type]


def validate(windows: ValidationSet, params: dict[str, jax.Array]) -> validation.Validation:
    return validation.make_validation(CONFIG, make_mesh(MeshConfig()), windows, params)(params)


@pytest.fixture(scope="module")
def params() -> dict[str, jax.Array]:
    rng = np.random.default_rng(0)
    return {
        name: jnp.asarray(0.5 * rng.standard_normal(row.shape), jnp.float32)
        for name, row in parameter_table(CONFIG.model).items()
    }


@pytest.mark.long
def test_mean_error_and_bits_are_those_computed_by_hand(
    windows: ValidationSet, params: dict[str, jax.Array], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validation, "TOKENS_PER_BATCH", 2 * CONTEXT)  # batches of 2, 2 and 1 windows
    result = validate(windows, params)

    assert windows.windows.shape == (5, CONTEXT + 1)
    scores = np.asarray(jax.jit(lambda tokens: logits(params, tokens, CONFIG.model))(windows.windows[:, :-1]), float)
    scores -= np.log(np.exp(scores).sum(axis=-1, keepdims=True))
    nats = -np.take_along_axis(scores, windows.windows[:, 1:, None], axis=-1)[..., 0]
    means = nats.mean(axis=1)
    assert result.loss_nats == pytest.approx(nats.mean(), rel=1e-5)
    assert result.stderr == pytest.approx(np.std(means, ddof=1) / math.sqrt(5), rel=1e-4)
    assert result.tokens == nats.size == 30
    ends = np.count_nonzero(windows.windows[:, 1:] == 255)
    assert ends == 1
    assert result.bits_per_byte == pytest.approx(nats.sum() / math.log(2) / (30 - ends), rel=1e-5)


@pytest.mark.long
def test_a_model_that_knows_nothing_pays_eight_bits_per_token(
    windows: ValidationSet, params: dict[str, jax.Array]
) -> None:
    result = validate(windows, jax.tree.map(jnp.zeros_like, params))
    assert result.loss_nats == pytest.approx(math.log(256), rel=1e-6)
    assert result.stderr == pytest.approx(0, abs=1e-6)
    assert result.bits_per_byte == pytest.approx(8 * 30 / 29, rel=1e-6)


@pytest.mark.long
def test_the_result_does_not_depend_on_the_batch(
    windows: ValidationSet, params: dict[str, jax.Array], monkeypatch: pytest.MonkeyPatch
) -> None:
    results = []
    for rows in (1, 3, 100):
        monkeypatch.setattr(validation, "TOKENS_PER_BATCH", rows * CONTEXT)
        results.append(validate(windows, params))
    for result in results[1:]:
        assert result.loss_nats == pytest.approx(results[0].loss_nats, rel=1e-6)
        assert result.stderr == pytest.approx(results[0].stderr, rel=1e-4)


def test_one_window_has_no_standard_error(windows: ValidationSet, params: dict[str, jax.Array]) -> None:
    windows.windows = windows.windows[:1]
    assert validate(windows, params).stderr is None
