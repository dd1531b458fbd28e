"""Experts on a mesh: whatever the router chooses, the result is that of a loop over all experts; and each device
multiplies its share of the rows only."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.xla_flags import HASTE, simulated_devices

from lmscale.core.config import MeshConfig, ModelConfig, OptimizerConfig, RouterConfig, RunConfig
from lmscale.lm.devices.sharding import batch_sharding, make_mesh, replicated, spec
from lmscale.lm.model.experts.grouped import block_rows
from lmscale.lm.model.experts.parallel import SLACK, divides, experts_on_each_device
from lmscale.lm.model.parameters import parameter_table
from lmscale.lm.train.optimizer import Hyperparameters
from lmscale.lm.train.step import make_step

BATCH, TIME, WIDTH, HIDDEN, EXPERTS, TAKEN = 8, 64, 4, 6, 16, 2
MODEL = ModelConfig(
    width=WIDTH, layers=1, heads=1, vocab=8, context=TIME, mlp_width=HIDDEN, experts=EXPERTS, experts_per_token=TAKEN
)
WEIGHTS = ("experts_in", "experts_out")
MESHES = {
    "expert": {"expert": 8},
    "fsdp x tensor x expert": {"fsdp": 2, "tensor": 2, "expert": 2},
}
MORE_MESHES = {
    "data": {"data": 8},
    "data x expert": {"data": 2, "expert": 4},
    "data x expert x sequence": {"data": 2, "expert": 2, "sequence": 2},
}
ROUTINGS = ["random", "one expert", "one device", "uneven"]


def routing(kind: str) -> np.ndarray:
    """The experts of every token [B, T, J]."""
    rng, shape = np.random.default_rng(1), (BATCH, TIME, TAKEN)
    chosen = {
        "random": rng.integers(0, EXPERTS, shape),
        "one expert": np.full(shape, 5),
        "one device": rng.integers(0, 2, shape),
        "uneven": np.minimum(rng.geometric(0.2, shape) - 1, EXPERTS - 1),
    }
    return chosen[kind].astype(np.int32)


def arrays() -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Parameters of one layer, activations and gates."""
    rng = np.random.default_rng(0)
    table = parameter_table(MODEL)
    weights = {name: rng.normal(size=table[name].shape[1:]).astype(np.float32) for name in WEIGHTS}
    x_BTD = rng.normal(size=(BATCH, TIME, WIDTH)).astype(np.float32)
    return weights, x_BTD, rng.random((BATCH, TIME, TAKEN)).astype(np.float32)


def loop(weights: dict[str, Any], x_BTD: Any, expert_BTJ: Any, gate_BTJ: Any) -> Any:
    """Every token through every expert, weighted by its gates."""
    total = jnp.zeros_like(x_BTD)
    for expert in range(EXPERTS):
        hidden_BTCF = jnp.einsum("btd,dcf->btcf", x_BTD, weights["experts_in"][expert])
        y_BTD = jax.nn.silu(hidden_BTCF[:, :, 0]) * hidden_BTCF[:, :, 1] @ weights["experts_out"][expert]
        total += y_BTD * jnp.where(expert_BTJ == expert, gate_BTJ, 0).sum(axis=-1)[:, :, None]
    return total


def parallel(weights: dict[str, Any], x_BTD: Any, expert_BTJ: Any, gate_BTJ: Any) -> Any:
    assert divides(BATCH, TIME, EXPERTS)
    return experts_on_each_device(weights, x_BTD, expert_BTJ, gate_BTJ, MODEL)


def objective(compute: Any) -> Any:
    """A scalar that every output and every gradient has its own share of."""
    probe_BTD = np.random.default_rng(2).normal(size=(BATCH, TIME, WIDTH)).astype(np.float32)

    def total(weights: Any, x_BTD: Any, gate_BTJ: Any, expert_BTJ: Any) -> Any:
        y_BTD = compute(weights, x_BTD, expert_BTJ, gate_BTJ)
        return (y_BTD * probe_BTD).sum(), y_BTD

    return jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True))


def results(compute: Any) -> dict[str, dict[str, np.ndarray]]:
    """The output and every gradient, for every routing."""
    both, of_routings = objective(compute), {}
    for kind in ROUTINGS:
        (_, y_BTD), grads = both(*arrays(), routing(kind))
        leaves = jax.tree.leaves_with_path({"output": y_BTD, "gradient": grads})
        of_routings[kind] = {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}
    return of_routings


def _relative(value: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(value - expected).max() / np.abs(expected).max())


def worst_errors(meshes: dict[str, dict[str, int]]) -> dict[str, dict[str, dict[str, float]]]:
    """Mesh -> routing -> array -> its largest distance from that of the loop over experts, over its largest number."""
    expected, errors = results(loop), {}
    for name, axes in meshes.items():
        with jax.set_mesh(make_mesh(MeshConfig(**axes))):
            computed = results(parallel)
        errors[name] = {
            kind: {key: _relative(value, expected[kind][key]) for key, value in computed[kind].items()}
            for kind in ROUTINGS
        }
    return errors


def compiled_step(axes: dict[str, int]) -> str:
    """The program of one of eight devices, with its gradient, after partition."""
    weights, x_BTD, gate_BTJ = arrays()
    mesh = make_mesh(MeshConfig(**axes))

    def placed(value: np.ndarray, *logical: str | None) -> jax.ShapeDtypeStruct:
        sharding = jax.sharding.NamedSharding(mesh, spec(logical, mesh))
        return jax.ShapeDtypeStruct(value.shape, value.dtype, sharding=sharding)

    shapes = {name: placed(value, *parameter_table(MODEL)[name].axes[1:]) for name, value in weights.items()}
    tokens = [placed(value, "batch", "time", None) for value in (x_BTD, routing("random"), gate_BTJ)]

    def total(weights: Any, x_BTD: Any, expert_BTJ: Any, gate_BTJ: Any) -> Any:
        return (parallel(weights, x_BTD, expert_BTJ, gate_BTJ) ** 2).sum()

    with jax.set_mesh(mesh):
        return jax.jit(jax.grad(total, argnums=(0, 1, 3))).lower(shapes, *tokens).compile().as_text()


def simulate(call: str) -> Any:
    """The JSON of an expression of this module, on eight simulated devices in a process of their own."""
    code = f"import json, test_experts_parallel as t; print(json.dumps({call}))"
    environment = {**simulated_devices(8, HASTE), "PYTHONPATH": ":".join([str(Path(__file__).parent), *sys.path])}
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def errors() -> dict[str, dict[str, dict[str, float]]]:
    return simulate("t.worst_errors(t.MESHES)")  # type: ignore[no-any-return]


def assert_small(errors: dict[str, float]) -> None:
    assert set(errors) == {
        "['gradient'][0]['experts_in']", "['gradient'][0]['experts_out']", "['gradient'][1]", "['gradient'][2]",
        "['output']",
    }  # fmt: skip
    assert max(errors.values()) < 2e-6


@pytest.mark.long
@pytest.mark.parametrize("kind", ROUTINGS)
@pytest.mark.parametrize("mesh", MESHES)
def test_every_routing_gives_what_a_loop_over_experts_gives(errors: Any, mesh: str, kind: str) -> None:
    assert_small(errors[mesh][kind])


@pytest.mark.slow
def test_every_routing_gives_what_a_loop_over_experts_gives_on_more_meshes() -> None:
    for of_routings in simulate("t.worst_errors(t.MORE_MESHES)").values():
        for errors in of_routings.values():
            assert_small(errors)


@pytest.mark.long
def test_each_device_multiplies_its_share_of_the_rows() -> None:
    """Read from the program of one device, forward and backward: no array in it has as many rows as all tokens."""
    program = simulate("t.compiled_step({'expert': 8})")
    choices = BATCH * TIME * TAKEN
    room = math.ceil(SLACK * choices / 8 / 8)  # for each of eight devices
    rows = 8 * room + block_rows(8 * room, EXPERTS // 8)
    assert rows < 0.4 * choices, "the bound is no bound"
    assert _longest_axis(program) == rows
    assert "while(" in program and " dot(" in program, (
        "blocks of rows are multiplied in a loop over those that are there"
    )
    assert program.count(" all-to-all(") >= 4, "there and back, forward and backward"
    assert "all-gather" not in program


@pytest.mark.long
def test_a_mesh_without_an_axis_of_experts_keeps_tokens_where_they_are() -> None:
    program = simulate("t.compiled_step({'data': 8})")
    choices = BATCH * TIME * TAKEN
    assert _longest_axis(program) == choices // 8 + block_rows(choices // 8, EXPERTS)
    assert "all-to-all" not in program and "all-gather" not in program


def _longest_axis(program: str) -> int:
    """The longest axis of all arrays of floats in a compiled program."""
    return max(int(size) for shape in re.findall(r"f32\[([\d,]+)\]", program) for size in shape.split(","))


RUNS: dict[str, dict[str, Any]] = {
    "dropless": {"scan_layers": True, "shared_experts": 1, "router": RouterConfig(bias_rate=0.01, z_loss=1e-3)},
    "capacity": {"router": RouterConfig(capacity=1.25, gate="sigmoid")},
    "full remat, documents": {"scan_layers": True, "remat": "full", "document_end": 3, "expert_width": 8},
}
SHAPES = {
    "one": {},
    "fsdp x tensor x expert": {"fsdp": 2, "tensor": 2, "expert": 2},
    "data": {"data": 8},
    "data x expert": {"data": 2, "expert": 4},
    "expert x sequence": {"expert": 4, "sequence": 2},
}
STEPS = 8


def config_of(name: str, shape: str) -> RunConfig:
    """A run of three layers; over one device and over micro-batches alike."""
    model = ModelConfig(
        width=16, layers=2, heads=4, vocab=32, context=16, mlp_width=24, experts=8, experts_per_token=2, **RUNS[name]
    )
    optimizer = OptimizerConfig(peak_lr=0.01, batch_sequences=16, micro_batches=2)
    return RunConfig(model=model, optimizer=optimizer, tokens=STEPS * 256, mesh=MeshConfig(**SHAPES[shape]))


def train_on(name: str, shape: str) -> dict[str, Any]:
    """A few steps on one mesh: losses, loads of the experts, what a device holds of each parameter."""
    config = config_of(name, shape)
    mesh = make_mesh(config.mesh)
    programs = make_step(config, mesh)
    hyper = jax.device_put(Hyperparameters.of(config), replicated(mesh))
    tokens, losses, loads = np.random.default_rng(0).integers(0, 32, (16, 17), np.int32), [], []
    with jax.set_mesh(mesh):
        state = programs.start(jax.random.key(0))
        for _ in range(STEPS):
            state, metrics = programs.step(state, jax.device_put(tokens, batch_sharding(mesh)), hyper, ())
            losses.append(float(metrics.loss_nats))
            loads.append(np.asarray(metrics.load.counts_LE).tolist())
    parts = {name: value.addressable_shards[0].data.shape for name, value in state.params.items()}
    return {"losses": losses, "loads": loads, "parts": parts}


def assert_same(many: dict[str, Any], one: dict[str, Any]) -> None:
    assert many["losses"] == pytest.approx(one["losses"], rel=2e-5)
    assert many["loads"] == one["loads"], "every device counts the whole batch"
    assert one["losses"][-1] < one["losses"][0]


@pytest.mark.long
def test_eight_devices_learn_what_one_learns() -> None:
    one, many = simulate("[t.train_on('dropless', shape) for shape in ('one', 'fsdp x tensor x expert')]")
    assert_same(many, one)
    assert many["parts"]["experts_in"] == [2, 4, 8, 2, 12] and many["parts"]["experts_out"] == [2, 4, 12, 8]


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_eight_devices_learn_what_one_learns_in_every_shape(name: str) -> None:
    outcomes = simulate(f"{{shape: t.train_on({name!r}, shape) for shape in t.SHAPES}}")
    for shape in list(SHAPES)[1:]:
        assert_same(outcomes[shape], outcomes["one"])
    hidden = 24 if name != "full remat, documents" else 8
    assert outcomes["data x expert"]["parts"]["experts_in"] == [2, 2, 16, 2, hidden]
    assert outcomes["data"]["parts"]["experts_in"] == [2, 8, 16, 2, hidden]
