"""Mixtures of experts against the plain definition: every expert reads every token, and a mask keeps its choice."""

import dataclasses
from dataclasses import replace
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmscale.core.config import ModelConfig, OptimizerConfig, RouterConfig, RunConfig
from lmscale.core.errors import UserError
from lmscale.lm.model import kv_cache, transformer
from lmscale.lm.model.experts import Occupancy, expert_mlp, grouped
from lmscale.lm.model.experts.capacity import places
from lmscale.lm.model.experts.routing import Routing, balance_loss, route, z_loss
from lmscale.lm.model.layers import activate, mlp
from lmscale.lm.model.parameters import Params, parameter_table
from lmscale.lm.model.tap import EXPERT_TAPS, Tap, record
from lmscale.lm.objectives import make_objective
from lmscale.lm.train.health import REASONS, SETTLING_STEPS, healthy, trouble, watch_routing
from lmscale.lm.train.logs.expert_load import LoadTotals
from lmscale.lm.train.optimizer import make_optimizer
from lmscale.lm.train.step import balanced, means_and_gradient

B, T = 3, 20
SMALL = ModelConfig(
    width=16, layers=2, heads=2, vocab=32, context=T, experts=5, experts_per_token=2, expert_width=12, shared_experts=1
)
DENSE: dict[str, Any] = {"experts": 1, "experts_per_token": 1, "expert_width": None, "shared_experts": 0}
ROUTERS = {
    "softmax": RouterConfig(z_loss=0.01),
    "sigmoid with a bias": RouterConfig(gate="sigmoid", bias_rate=0.01, scale=2.5),
    "gates that do not sum to 1": RouterConfig(normalized=False),
    "capacity": RouterConfig(capacity=0.75),
}


def model(name: str = "softmax", **changed: Any) -> ModelConfig:
    return replace(SMALL, router=ROUTERS[name], **changed)


@cache
def params(config: ModelConfig, seed: int = 0) -> Params:
    """Random parameters, biases of the routers too."""
    rng = np.random.default_rng(seed)
    return {
        name: jnp.asarray(row.mean + (row.std or 0.1) * rng.standard_normal(row.shape), jnp.float32)
        for name, row in parameter_table(config).items()
    }


def layer_params(config: ModelConfig) -> Params:
    names = ("router", "router_bias", "experts_in", "experts_out", "shared_in", "shared_out")
    return {name: params(config)[name][0] for name in names if name in params(config)}


def tokens(seed: int = 0, rows: int = B) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).integers(0, 32, (rows, T + 1)), jnp.int32)


def inputs(seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal((B, T, 16)), jnp.float32)


def by_definition(arrays: Params, x_BTD: jax.Array, config: ModelConfig) -> jax.Array:
    """Loops over all experts, none of which skips a token; the first tokens of a row that chose an expert find room."""
    logits_BTE = x_BTD @ arrays["router"]
    scores_BTE = jax.nn.softmax(logits_BTE) if config.router.gate == "softmax" else jax.nn.sigmoid(logits_BTE)
    biased_BTE = scores_BTE + arrays.get("router_bias", jnp.zeros(config.experts))[None, None]
    least_BT1 = jnp.sort(biased_BTE, axis=-1)[..., -config.experts_per_token, None]
    chosen_BTE = biased_BTE >= least_BT1
    gates_BTE = jnp.where(chosen_BTE, scores_BTE, 0)
    if config.router.normalized is not False:
        gates_BTE = gates_BTE / gates_BTE.sum(axis=-1, keepdims=True)
    if config.expert_capacity is not None:
        gates_BTE = jnp.where(jnp.cumsum(chosen_BTE, axis=1) <= config.expert_capacity, gates_BTE, 0)
    y_BTD = mlp(arrays, x_BTD, config, name="shared")
    for expert in range(config.experts):
        hidden_BTF = activate(jnp.einsum("btd,dcf->btcf", x_BTD, arrays["experts_in"][expert]), config)
        gate_BT1 = config.router.scale * gates_BTE[..., expert, None]
        y_BTD = y_BTD + gate_BT1 * (hidden_BTF @ arrays["experts_out"][expert])
    return y_BTD


@pytest.mark.long
@pytest.mark.parametrize("name", ROUTERS)
def test_values_and_gradients_are_those_of_a_loop_over_all_experts(name: str) -> None:
    config = model(name)
    target_BTD = inputs(1)

    def loss(function: Any, arrays: Params, x_BTD: jax.Array) -> tuple[jax.Array, jax.Array]:
        y_BTD = function(arrays, x_BTD)
        return (y_BTD * target_BTD).sum(), y_BTD

    ours, plain = (
        jax.jit(jax.value_and_grad(partial(loss, function), argnums=(0, 1), has_aux=True))(
            layer_params(config), inputs()
        )
        for function in (lambda p, x: expert_mlp(p, x, config)[0], partial(by_definition, config=config))
    )
    np.testing.assert_allclose(ours[0][1], plain[0][1], rtol=1e-6, atol=1e-6)
    for one, other in zip(jax.tree.leaves(ours[1]), jax.tree.leaves(plain[1])):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=2e-6 * float(jnp.abs(other).max() + 1))


def test_groups_of_rows_are_multiplied_alike_by_either_method(monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups without rows among them, whose matrix has a gradient of zero."""
    rng = np.random.default_rng(0)
    sizes_E, rows = jnp.asarray([0, 7, 16, 0, 1, 24, 0], jnp.int32), 16
    x_MD = jnp.asarray(rng.standard_normal((48 + rows, 6)), jnp.float32)
    w_EDF = jnp.asarray(rng.standard_normal((7, 6, 5)), jnp.float32)
    weight_MF = jnp.asarray(rng.standard_normal((48, 5)), jnp.float32)
    results = {}
    for method in ("blocks", "ragged"):
        monkeypatch.setattr(grouped, "default_method", lambda method=method: method)

        def loss(x_MD: jax.Array, w_EDF: jax.Array) -> jax.Array:
            return (grouped.grouped_matmul(x_MD, w_EDF, sizes_E, rows)[:48] * weight_MF).sum()

        results[method] = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(x_MD, w_EDF)
    for one, other in zip(jax.tree.leaves(results["blocks"]), jax.tree.leaves(results["ragged"])):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
    assert not np.asarray(results["blocks"][1][1])[[0, 3, 6]].any()


@pytest.mark.long
def test_one_token_and_experts_without_any() -> None:
    """A single token, as in sampling: its experts alone have a gradient, and no number is NaN."""
    config = model()

    def loss(arrays: Params, x_BTD: jax.Array) -> jax.Array:
        return (expert_mlp(arrays, x_BTD, config)[0] ** 2).sum()

    x_BTD = inputs()[:1, :1]
    grads = jax.jit(jax.grad(loss))(layer_params(config), x_BTD)
    chosen = set(np.asarray(route(layer_params(config), x_BTD, config).experts_BTJ).reshape(-1).tolist())
    moved = {expert for expert in range(config.experts) if np.asarray(grads["experts_in"])[expert].any()}
    assert moved == chosen and all(np.isfinite(grad).all() for grad in grads.values())


def routing(logits_BTE: Any, config: ModelConfig) -> Routing:
    """The routing of given logits: the router is the identity."""
    return route({"router": jnp.eye(config.experts)}, jnp.asarray(logits_BTE, jnp.float32), config)


@pytest.mark.long
def test_the_balance_loss_is_that_of_the_paper_in_numbers() -> None:
    """DeepSeek-V3, 2024, eq. 17 to 20, with sigmoid affinities, by loops; padding is no token."""
    config = replace(SMALL, experts=4, router=RouterConfig(gate="sigmoid"))
    logits_BTE = np.random.default_rng(0).standard_normal((2, 6, 4))
    read_BT = np.asarray([[True] * 6, [True] * 4 + [False] * 2])
    expected = []
    for logits_TE, read_T in zip(logits_BTE, read_BT):
        s_TE = 1 / (1 + np.exp(-logits_TE[read_T]))
        count, affinity = np.zeros(4), np.zeros(4)
        for s_E in s_TE:
            count[np.argsort(s_E)[-2:]] += 1
            affinity += s_E / s_E.sum()
        expected.append(sum(4 / (2 * len(s_TE)) * count * affinity / len(s_TE)))
    losses_B = balance_loss(routing(logits_BTE, config), jnp.asarray(read_BT), config)
    np.testing.assert_allclose(losses_B, expected, rtol=1e-5)
    even = routing(np.zeros((1, 6, 4)), config)
    assert float(balance_loss(even, jnp.ones((1, 6), bool), config)[0]) == pytest.approx(1)
    log_z_BT = np.log(np.exp(logits_BTE).sum(axis=-1))
    z_B = z_loss(routing(logits_BTE, config), jnp.asarray(read_BT))
    np.testing.assert_allclose(z_B, [(z[read] ** 2).mean() for z, read in zip(log_z_BT, read_BT)], rtol=1e-5)


@pytest.mark.long
def test_the_bias_moves_the_choice_and_neither_gates_nor_gradients() -> None:
    config = model("sigmoid with a bias")
    arrays = layer_params(config)
    pushed = {**arrays, "router_bias": jnp.asarray([10.0, 0, 0, 0, 9.0])}
    chosen = route(pushed, inputs(), config)
    assert (np.asarray(chosen.experts_BTJ) == [0, 4]).all()
    scores_BTE = np.asarray(jax.nn.sigmoid(chosen.logits_BTE))[..., [0, 4]]
    np.testing.assert_allclose(chosen.gates_BTJ, 2.5 * scores_BTE / scores_BTE.sum(-1, keepdims=True), rtol=1e-6)
    grads = jax.grad(lambda arrays: (expert_mlp(arrays, inputs(), config)[0] ** 2).sum())(arrays)
    assert not np.asarray(grads["router_bias"]).any() and np.asarray(grads["router"]).any()


def test_the_bias_follows_the_sign_of_what_an_expert_lacks() -> None:
    """Wang 2024, algorithm 1: a mean load of 4 tokens here."""
    config = replace(SMALL, layers=1, experts=3, router=RouterConfig(bias_rate=0.001))
    bias_LE = balanced(jnp.zeros((1, 3)), jnp.asarray([[9, 3, 0]], jnp.int32), config)
    np.testing.assert_allclose(bias_LE, [[-0.001, 0.001, 0.001]], rtol=1e-6)
    even_LE = balanced(jnp.ones((1, 3)), jnp.asarray([[4, 4, 4]], jnp.int32), config)
    np.testing.assert_array_equal(even_LE, np.ones((1, 3)))


@pytest.mark.long
def test_places_go_to_the_first_tokens_and_a_sequence_can_be_read_in_parts() -> None:
    """As many as the capacity says, whatever was read before; padding takes none."""
    config = replace(SMALL, experts=3, experts_per_token=1, context=9, router=RouterConfig(capacity=2 / 3))
    assert config.expert_capacity == 2
    experts_BTJ = jnp.asarray([[[0], [0], [1], [0], [2], [1], [1], [0], [2]]])
    has_room_T = places(experts_BTJ, config, Occupancy()).has_room_BTJ[0, :, 0]
    assert has_room_T.tolist() == [True, True, True, False, True, True, False, False, True]
    later = places(experts_BTJ[:, 3:], config, Occupancy(occupied_BE=jnp.asarray([[2, 1, 0]])))
    assert later.has_room_BTJ[0, :, 0].tolist() == has_room_T[3:].tolist()
    read_BT = jnp.asarray([[False, True, True, True, True, True, True, True, True]])
    padded = places(experts_BTJ, config, Occupancy(read_BT=read_BT)).has_room_BTJ[0, :, 0]
    assert padded.tolist() == [False, True, True, True, True, True, False, False, True]


@pytest.mark.long
@pytest.mark.parametrize("name", ["softmax", "capacity"])
@pytest.mark.parametrize("scan", [False, True])
def test_tokens_read_in_parts_have_the_logits_of_the_whole(name: str, scan: bool) -> None:
    """The cache remembers how full the experts of a row are; rows of different lengths, the rest padding."""
    config = model(name, scan_layers=scan)
    whole_BTV = jax.jit(partial(transformer.logits, config=config))(params(config), tokens()[:, :T])
    extend = jax.jit(kv_cache.extend, static_argnames="config")
    cache = kv_cache.init_cache(config, B, T + 8)
    counts_B = jnp.asarray([8, 5, 3], jnp.int32)
    logits_BTV, cache = extend(params(config), cache, tokens()[:, :8], counts_B, config)
    rest_BT = jnp.take_along_axis(tokens(), counts_B[:, None] + jnp.arange(8)[None], axis=1)
    later_BTV, _ = extend(params(config), cache, rest_BT, jnp.full(B, 8), config)
    for row, count in enumerate(counts_B.tolist()):
        np.testing.assert_allclose(logits_BTV[row, :count], whole_BTV[row, :count], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(later_BTV[row], whole_BTV[row, count : count + 8], rtol=1e-4, atol=1e-5)


def run(config: ModelConfig, micro_batches: int = 1, **optimizer: Any) -> RunConfig:
    settings = OptimizerConfig(peak_lr=0.01, batch_sequences=4, micro_batches=micro_batches, **optimizer)
    return RunConfig(model=config, optimizer=settings, tokens=4 * T * 10)


@pytest.mark.long
@pytest.mark.parametrize("name", ["softmax", "capacity"])
def test_micro_batches_change_neither_loss_nor_gradient_nor_load(name: str) -> None:
    """Rows that are padded to different lengths among them: losses over sequences weigh by their scored tokens."""
    batch = tokens(0, 4).at[1, 9:].set(-1).at[2, 3:].set(-1)
    results = []
    for micro_batches in (1, 2):
        config = run(model(name), micro_batches)
        step = jax.jit(partial(means_and_gradient, config, make_objective(config)))
        results.append(step(params(config.model), (), batch, jax.random.key(0)))
    (one, grads), (two, others) = results
    np.testing.assert_array_equal(one.load.counts_LE, two.load.counts_LE)
    np.testing.assert_array_equal(one.load.dropped_L, two.load.dropped_L)
    assert int(one.load.counts_LE.sum()) == 2 * 2 * (2 * T + 9 + 3)  # layers, experts per token, tokens read
    for term, mean in one.reported.items():
        assert float(mean) == pytest.approx(float(two.reported[term]), rel=1e-5)
    for row, grad in grads.items():
        np.testing.assert_allclose(grad, others[row], rtol=1e-4, atol=1e-6, err_msg=row)


@pytest.mark.long
def test_the_objective_adds_the_losses_of_the_routers_with_their_weights() -> None:
    config = run(model("softmax"))
    terms = jax.jit(make_objective(config))(params(config.model), (), tokens(0, 4), jax.random.key(0))
    layers, router = config.model.layers, config.model.router
    added = router.balance_loss * terms.reported["balance_loss"] + router.z_loss * terms.reported["router_z_loss"]
    assert float(terms.objective) == pytest.approx(float(terms.loss + layers * added), rel=1e-6)
    assert float(terms.reported["balance_loss"] / terms.weight) > 1  # 1 is even


@pytest.mark.long
def test_muon_moves_every_expert_as_a_matrix_of_its_own() -> None:
    """Orthogonal, whatever the others' gradients are; the router is a matrix too, its bias has no gradient."""
    config = run(model("sigmoid with a bias"), kind="muon", clip_norm=None)
    optimizer = make_optimizer(config)
    update = jax.jit(lambda grads: optimizer.update(grads, optimizer.init(params(config.model)), params(config.model)))
    grads = {name: value.at[...].set(value**3) for name, value in params(config.model, 1).items()}
    grads["router_bias"] = jnp.zeros_like(grads["router_bias"])
    first = update(grads)[0]
    grads["experts_in"] = grads["experts_in"].at[:, 0].multiply(-7.0)
    second = update(grads)[0]
    np.testing.assert_allclose(first["experts_in"][:, 1:], second["experts_in"][:, 1:], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(first["experts_in"][:, 0], -second["experts_in"][:, 0], rtol=1e-4, atol=1e-5)
    for name in ("experts_in", "experts_out", "router"):
        values = np.asarray(first[name])
        values = values.swapaxes(-2, -3) if name == "experts_in" else values  # [L, E, C, D, F]
        singular = np.linalg.svd(values, compute_uv=False)
        assert (singular.max(axis=-1) < 3 * singular.min(axis=-1)).all(), name
    assert not np.asarray(first["router_bias"]).any()


@pytest.mark.long
def test_a_document_does_not_read_the_experts_of_another() -> None:
    """With `document_end`, what follows an end is what it is by itself; the row stays the sequence of the losses."""
    config = model(document_end=31, positions="alibi")
    row = tokens()[:1, :T].at[0, 7].set(31)
    logits = jax.jit(partial(transformer.logits, config=config))
    np.testing.assert_allclose(
        logits(params(config), row)[0, 8:], logits(params(config), row[:, 8:])[0], rtol=1e-4, atol=1e-5
    )


@pytest.mark.long
def test_experts_have_sites_of_their_own() -> None:
    config = model()
    names = (*EXPERT_TAPS, "mlp_input", "mlp_output")
    _, values = jax.jit(lambda p, t: transformer.forward(p, t, config, record(*names)))(params(config), tokens()[:, :T])
    assert values["router_logits"].shape == (2, B, T, 5) and values["gates"].shape == (2, B, T, 2)
    assert values["expert_hidden"].shape == (2, B, T, 2, 12) and values["shared_hidden"].shape == (2, B, T, 12)
    expected = by_definition(layer_params(config), values["mlp_input"][0], config)
    np.testing.assert_allclose(values["mlp_output"][0], expected, rtol=1e-5, atol=1e-5)

    def silence(name: str, hidden: jax.Array, layer: jax.Array | None) -> tuple[jax.Array, None]:
        return jnp.zeros_like(hidden), None

    for router in ("softmax", "capacity"):
        config = model(router)
        tap = Tap(("expert_hidden",), silence)
        forward = jax.jit(partial(transformer.forward, config=config, tap=tap))
        patched, _ = forward(params(config), tokens()[:, :T])
        without = {**params(config), "experts_out": jnp.zeros_like(params(config)["experts_out"])}
        expected = jax.jit(partial(transformer.logits, config=config))(without, tokens()[:, :T])
        np.testing.assert_allclose(patched, expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(UserError, match="has no site 'mlp_hidden'; it has embedding, "):
        transformer.forward(params(config), tokens()[:, :T], config, record("mlp_hidden"))
    dense = ModelConfig(width=16, layers=1, heads=2, vocab=32, context=T)
    with pytest.raises(UserError, match="has no site 'gates'"):
        transformer.forward(params(dense), tokens()[:, :T], dense, record("gates"))


@pytest.mark.long
def test_a_collapse_of_the_routing_is_trouble_and_an_uneven_load_is_not() -> None:
    def health_after(counts_LE: list[list[int]], steps: int) -> Any:
        health = healthy(replace(SMALL, experts=4, experts_per_token=1))
        for step in range(steps):
            health = watch_routing(health, jnp.int32(step), jnp.asarray(counts_LE, jnp.int32), 1)
        return trouble(health, 2.0)

    collapsed = [[5, 5, 5, 5], [20, 0, 0, 0]]
    problem = health_after(collapsed, SETTLING_STEPS + 1)
    assert problem is not None and problem == (REASONS[4], SETTLING_STEPS + 1)
    assert health_after(collapsed, SETTLING_STEPS) is None
    assert health_after([[5, 5, 5, 5], [18, 2, 0, 0]], SETTLING_STEPS + 5) is None


def test_a_checkpoint_of_a_dense_model_has_no_array_of_experts() -> None:
    """Orbax refuses a checkpoint that lacks a field, even one that is None; older versions have these alone."""
    fields = {"smoothed", "variance", "lowest", "spikes", "code", "step"}
    assert {field.name for field in dataclasses.fields(healthy(replace(SMALL, **DENSE)))} == fields
    assert {field.name for field in dataclasses.fields(healthy(SMALL))} == fields | {"load_LE"}


def test_what_a_row_of_metrics_says_of_experts() -> None:
    config = replace(SMALL, layers=2, experts=4, experts_per_token=2, router=RouterConfig(capacity=1.0))
    counts_LE = np.asarray([[10, 10, 10, 10], [20, 20, 0, 0]])
    totals = LoadTotals(counts_LE, np.asarray([0, 8]), 20 * np.log([4, 2]))
    rows = LoadTotals.from_json((totals + None).to_json()).by_layer(config)
    assert rows["load"] == [[0.25] * 4, [0.5, 0.5, 0, 0]]
    assert rows["load_entropy_nats"] == rows["router_entropy_nats"] == [1.386, 0.6931]
    assert (rows["dropped_share"], rows["dead"]) == ([0, 0.2], [0, 2])
    assert totals.summary(config) == {"busiest_expert": 2, "dead_experts": 2, "dropped_share": 0.2}
    np.testing.assert_array_equal((totals + totals).counts_LE, 2 * counts_LE)
