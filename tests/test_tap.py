"""Taps: what is recorded is what the model computes with, and a patch has exactly the effect of its value."""

from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmscale.core.config import ModelConfig
from lmscale.core.errors import UserError
from lmscale.lm.model import layers, transformer
from lmscale.lm.model.parameters import Params, parameter_table
from lmscale.lm.model.tap import TAPS, Tap, record

GROUPED: dict[str, Any] = {"heads": 4, "kv_heads": 2, "positions": "alibi", "document_end": 3, "mlp": "gelu"}
SIZES = {"B": 2, "T": 10, "S": 10, "D": 16, "H": 4, "G": 2, "K": 4, "F": 24, "V": 32}
LAYERS = 3
Activations = dict[str, jax.Array]


def tiny(**changed: Any) -> ModelConfig:
    return ModelConfig(
        **{"width": 16, "layers": LAYERS, "heads": 2, "vocab": 32, "context": 12, "mlp_width": 24, **changed}
    )


PLAIN = tiny()


@cache
def params(config: ModelConfig) -> Params:
    rng = np.random.default_rng(0)
    return {
        name: jnp.asarray(row.mean + (row.std or 0.1) * rng.standard_normal(row.shape), config.param_dtype)
        for name, row in parameter_table(config).items()
    }


def tokens(seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).integers(0, 32, (SIZES["B"], SIZES["T"]), np.int32))


FORWARD = jax.jit(transformer.forward, static_argnames=("config", "tap"))


@cache
def recorded(config: ModelConfig, seed: int = 0, tap: Tap = record(*TAPS)) -> tuple[jax.Array, Activations]:  # noqa: B008
    """Logits of some tokens, and the values of every site."""
    return FORWARD(params(config), tokens(seed), config, tap)


def patched(config: ModelConfig, values: Activations, seed: int = 0) -> jax.Array:
    """Logits of some tokens with these values, [L, ...] inside the layers, in place of the model's own."""

    def run(params: Params, tokens_BT: jax.Array, values: Activations) -> jax.Array:
        def replace(name: str, _: jax.Array, layer: jax.Array | None) -> tuple[jax.Array, None]:
            return values[name] if layer is None else values[name][layer], None

        return transformer.forward(params, tokens_BT, config, Tap(tuple(values), replace))[0]

    return jax.jit(run)(params(config), tokens(seed), values)


@pytest.mark.long
@pytest.mark.parametrize("name", TAPS)
def test_a_site_has_the_shape_that_the_list_says(name: str) -> None:
    shape = tuple(SIZES[letter] for letter in TAPS[name].shape.split())
    assert recorded(tiny(**GROUPED))[1][name].shape == ((LAYERS,) if TAPS[name].in_layer else ()) + shape


@pytest.mark.long
def test_the_recorded_residual_stream_gives_the_logits() -> None:
    logits, activations = recorded(PLAIN)

    @jax.jit
    def read_out(residual_BTD: jax.Array) -> jax.Array:
        final_BTD = layers.norm(residual_BTD, "final_norm", params(PLAIN), PLAIN)
        return transformer.unembed(final_BTD, transformer.head(params(PLAIN), PLAIN), PLAIN)

    # To rounding: two programs are compiled, whose sums some processors do in another order.
    np.testing.assert_allclose(read_out(activations["residual_post"][-1]), logits, rtol=1e-5, atol=2e-6)
    np.testing.assert_array_equal(activations["logits"], logits)
    np.testing.assert_array_equal(activations["residual_pre"][0], activations["embedding"])
    np.testing.assert_array_equal(activations["residual_pre"][1:], activations["residual_post"][:-1])
    np.testing.assert_allclose(
        activations["residual_mid"], activations["residual_pre"] + activations["attention_output"], rtol=1e-6, atol=1e-6
    )
    np.testing.assert_allclose(
        activations["residual_post"], activations["residual_mid"] + activations["mlp_output"], rtol=1e-6, atol=1e-6
    )


@pytest.mark.long
def test_recording_leaves_the_logits_alone() -> None:
    """Attention by its formula instead of in chunks rounds otherwise."""
    without, _ = FORWARD(params(PLAIN), tokens(), PLAIN)
    names = [name for name in TAPS if name not in ("attention_scores", "attention_weights")]
    np.testing.assert_array_equal(FORWARD(params(PLAIN), tokens(), PLAIN, record(*names))[0], without)
    np.testing.assert_allclose(recorded(PLAIN)[0], without, rtol=1e-5, atol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("name", TAPS)
def test_patching_with_the_recorded_value_changes_no_bit(name: str) -> None:
    """An optimising compiler may fuse softmax and scores, so that patched scores alone may differ by a rounding."""
    logits, activations = recorded(PLAIN, 0, record(name))
    tolerance = 1e-6 if name == "attention_scores" else 0
    np.testing.assert_allclose(patched(PLAIN, activations), logits, rtol=tolerance, atol=tolerance)


@pytest.mark.long
@pytest.mark.parametrize(
    "names",
    [("embedding",), ("residual_pre",), ("residual_post",), ("embedding", "attention_output", "mlp_output")],
    ids=str,
)
def test_values_of_another_run_everywhere_restore_that_run(names: tuple[str, ...]) -> None:
    other_logits, other = recorded(PLAIN, 1)
    restored = patched(PLAIN, {name: other[name] for name in names})
    np.testing.assert_allclose(restored, other_logits, rtol=1e-5, atol=1e-5)
    assert not np.allclose(recorded(PLAIN)[0], other_logits, atol=0.1)


@pytest.mark.long
def test_a_patch_of_one_layer_and_position_leaves_what_comes_before_alone() -> None:
    """The values of position 6 in layer 1 change no logit of an earlier position, and those of position 6."""
    other, position = recorded(PLAIN, 1)[1]["mlp_hidden"], 6

    def run(params: Params, tokens_BT: jax.Array) -> jax.Array:
        def patch(_: str, hidden_BTF: jax.Array, layer: jax.Array | None) -> tuple[jax.Array, None]:
            at_position = hidden_BTF.at[:, position].set(other[1, :, position])
            return jnp.where(layer == 1, at_position, hidden_BTF), None

        return transformer.forward(params, tokens_BT, PLAIN, Tap(("mlp_hidden",), patch))[0]

    logits, change = recorded(PLAIN)[0], jax.jit(run)(params(PLAIN), tokens())
    np.testing.assert_allclose(change[:, :position], logits[:, :position], rtol=1e-5, atol=1e-5)
    assert (np.abs(change - logits)[:, position:].max(axis=-1) > 1e-3).all()


@pytest.mark.long
def test_zeroing_a_head_is_zeroing_its_rows_of_the_output_projection() -> None:
    head, at = 1, 2

    def ablate(_: str, heads_BTHK: jax.Array, layer: jax.Array | None) -> tuple[jax.Array, None]:
        return jnp.where(layer == at, heads_BTHK.at[:, :, head].set(0), heads_BTHK), None

    for config in (PLAIN, tiny(scan_layers=True)):
        ablated, activations = FORWARD(params(PLAIN), tokens(), config, Tap(("head_outputs",), ablate))
        without = {**params(PLAIN), "attention_out": params(PLAIN)["attention_out"].at[at, head].set(0)}
        expected, _ = FORWARD(without, tokens(), config)
        np.testing.assert_allclose(ablated, expected, rtol=1e-5, atol=1e-5)
        assert not activations and not np.allclose(ablated, recorded(PLAIN)[0], atol=1e-2)


@pytest.mark.long
@pytest.mark.parametrize(
    "changed", [{"scan_layers": True}, {"remat": "full"}, {"remat": "dots", "scan_layers": True}], ids=str
)
def test_how_layers_are_run_changes_nothing(changed: dict[str, Any]) -> None:
    _, expected = recorded(tiny(**GROUPED))
    _, activations = recorded(tiny(**GROUPED, **changed))
    assert activations.keys() == expected.keys() == TAPS.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(activations[name], value, rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.long
def test_attention_weights_are_shares_of_what_is_visible_and_give_the_head_outputs() -> None:
    config = tiny(**GROUPED)
    activations = {name: np.asarray(value) for name, value in recorded(config)[1].items()}
    weights_LBHTS, sharing = activations["attention_weights"], config.heads // config.num_kv_heads
    np.testing.assert_allclose(weights_LBHTS.sum(axis=-1), 1, rtol=1e-5)
    np.testing.assert_allclose(weights_LBHTS, jax.nn.softmax(activations["attention_scores"]), rtol=1e-5, atol=1e-6)
    documents_BT = np.asarray(transformer.segments(tokens(), 3))
    visible_BTS = np.tril(documents_BT[:, :, None] == documents_BT[:, None, :])
    assert np.array_equal(weights_LBHTS > 0, np.broadcast_to(visible_BTS[None, :, None], weights_LBHTS.shape))
    values_LBSHK = np.repeat(activations["values"], sharing, axis=3)
    expected = np.einsum("lbhts,lbshk->lbthk", weights_LBHTS, values_LBSHK)
    np.testing.assert_allclose(activations["head_outputs"], expected, rtol=1e-5, atol=1e-5)
    chunked = recorded(config, 0, record("head_outputs"))[1]["head_outputs"]
    np.testing.assert_allclose(chunked, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("changed", [{}, {"scan_layers": True, "remat": "full"}], ids=str)
def test_gradients_flow_through_a_patch(changed: dict[str, Any]) -> None:
    """The derivative of a later logit after a vector added to the residual stream is the quotient of differences."""
    config = tiny(**changed)

    @jax.jit
    def steered(vector_D: jax.Array) -> jax.Array:
        def steer(_: str, residual_BTD: jax.Array, layer: jax.Array | None) -> tuple[jax.Array, None]:
            return residual_BTD + jnp.where(layer == 1, vector_D, 0)[None, None], None

        tap = Tap(("residual_post",), steer)
        return transformer.forward(params(config), tokens(), config, tap)[0][0, 7, 5]

    zero, step = jnp.zeros(config.width), 1e-2 * jnp.cos(jnp.arange(config.width))
    difference = float(steered(step) - steered(-step)) / 2
    assert float(jax.grad(steered)(zero) @ step) == pytest.approx(difference, rel=1e-2) and abs(difference) > 1e-4


def test_a_tap_keeps_what_it_likes() -> None:
    """Only the norm of the last position, in every layer."""

    def last_norm(_: str, residual_BTD: jax.Array, layer: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        return residual_BTD, jnp.linalg.norm(residual_BTD[:, -1], axis=-1)

    _, activations = FORWARD(params(PLAIN), tokens(), PLAIN, Tap(("residual_mid",), last_norm))
    expected = np.linalg.norm(recorded(PLAIN)[1]["residual_mid"][:, :, -1], axis=-1)
    np.testing.assert_allclose(activations["residual_mid"], expected, rtol=1e-5)


def test_what_a_tap_must_not_do_is_a_sentence() -> None:
    with pytest.raises(
        UserError, match="'residual_past' names no site of the forward pass; did you mean 'residual_post'"
    ):
        record("residual_past")

    def halve(_: str, value: jax.Array, layer: jax.Array | None) -> tuple[jax.Array, None]:
        return value.astype(jnp.bfloat16), None

    with pytest.raises(UserError, match=r"the tap at 'queries' turns float32\[2, 10, 2, 8\] into bfloat16"):
        jax.eval_shape(
            partial(transformer.forward, config=PLAIN, tap=Tap(("queries",), halve)), params(PLAIN), tokens()
        )
