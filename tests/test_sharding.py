import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from jax.sharding import PartitionSpec

from lmscale.config import MeshConfig, ModelConfig, OptimizerConfig, RunConfig
from lmscale.errors import UserError
from lmscale.parameters import parameter_table
from lmscale.sharding import make_mesh, shardings, spec

MODEL = ModelConfig(width=16, layers=1, heads=8, vocab=32, context=8, mlp_width=24)
ONE = (1, 1, 1, 1)
SOME = [(8, 1, 1, 1), (2, 2, 2, 1), (1, 2, 2, 2)]
MORE = [
    *SOME, (1, 8, 1, 1), (1, 1, 8, 1), (1, 1, 1, 8), (4, 1, 2, 1), (4, 2, 1, 1), (2, 1, 4, 1), (1, 4, 2, 1),
    (4, 1, 1, 2), (1, 2, 1, 4), (2, 1, 2, 2),
]  # fmt: skip
STEPS = 20
Shape = tuple[int, int, int, int]


def run(mesh: MeshConfig | None = None, batch: int = 8) -> RunConfig:
    optimizer = OptimizerConfig(peak_lr=0.01, batch_sequences=batch)
    return RunConfig(model=MODEL, optimizer=optimizer, tokens=STEPS * batch * 8, mesh=mesh or MeshConfig())


def train_on(shape: Shape) -> dict[str, Any]:
    """Twenty steps on one mesh: losses, the shape of every parameter's part on a device, a fingerprint of the start."""
    import hashlib

    import jax
    import numpy as np

    from lmscale.optimizer import Hyperparameters
    from lmscale.sharding import batch_sharding
    from lmscale.step import make_step

    config = run(MeshConfig(data=shape[0], fsdp=shape[1], tensor=shape[2], sequence=shape[3]))
    mesh = make_mesh(config.mesh)
    jax.set_mesh(mesh)
    start, step, _ = make_step(config, mesh)
    state = start(jax.random.key(0))
    first = hashlib.sha256(b"".join(np.asarray(value).tobytes() for value in state.params.values())).hexdigest()
    losses = []
    for number in range(STEPS):
        tokens = np.random.default_rng(number).integers(0, 32, (8, 9), np.int32)
        state, metrics = step(state, jax.device_put(tokens, batch_sharding(mesh)), Hyperparameters.of(config))
        losses.append(float(metrics.loss_nats))
    moments = state.opt_state[1].mu
    parts = {name: value.addressable_shards[0].data.shape for name, value in state.params.items()}
    assert parts == {name: value.addressable_shards[0].data.shape for name, value in moments.items()}
    return {"losses": losses, "parts": parts, "first": first, "devices": len(mesh.devices.ravel())}


def simulate(shapes: list[Shape], flags: str = "") -> dict[str, dict[str, Any]]:
    """Mesh shape -> what came of it, on eight simulated devices in a process of their own."""
    code = f"import json, test_sharding as t; print(json.dumps({{str(s): t.train_on(s) for s in {[ONE, *shapes]}}}))"
    environment = {
        **os.environ,
        "XLA_FLAGS": f"--xla_force_host_platform_device_count=8 {flags}",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(Path(__file__).parent),
    }
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def assert_same(many: dict[str, Any], one: dict[str, Any]) -> None:
    assert many["devices"] == 8 and one["devices"] == 1
    assert many["first"] == one["first"]
    assert many["losses"] == pytest.approx(one["losses"], rel=2e-5)
    assert one["losses"][-1] < one["losses"][0]


@pytest.fixture(scope="module")
def trained() -> dict[str, dict[str, Any]]:
    """Compiled in haste: most of this test's time is LLVM's."""
    return simulate(SOME, "--xla_backend_optimization_level=0")


@pytest.mark.parametrize("shape", SOME, ids=str)
def test_eight_devices_learn_what_one_learns(shape: Shape, trained: dict[str, dict[str, Any]]) -> None:
    assert_same(trained[str(shape)], trained[str(ONE)])


@pytest.mark.slow
def test_eight_devices_learn_what_one_learns_in_every_shape() -> None:
    trained = simulate(MORE)
    for shape in MORE:
        assert_same(trained[str(shape)], trained[str(ONE)])


@pytest.mark.parametrize("shape", [ONE, *SOME], ids=str)
def test_every_device_holds_its_part(shape: Shape, trained: dict[str, dict[str, Any]]) -> None:
    _, fsdp, tensor, _ = shape
    assert trained[str(shape)]["parts"] == {
        "embedding": [32 // tensor, 16 // fsdp],
        "attention_norm": [1, 16],
        "attention_qkv": [1, 16 // fsdp, 8 // tensor, 3, 2],
        "attention_out": [1, 8 // tensor, 2, 16 // fsdp],
        "mlp_norm": [1, 16],
        "mlp_in": [1, 16 // fsdp, 2, 24 // tensor],
        "mlp_out": [1, 24 // tensor, 16 // fsdp],
        "final_norm": [16],
    }


def test_axes_follow_the_rules() -> None:
    assert spec(("batch",)) == PartitionSpec(("data", "fsdp"))
    assert spec(("layers", "embed", None, "heads")) == PartitionSpec(None, "fsdp", None, "tensor")


def test_a_mesh_of_more_devices_than_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    import jax

    monkeypatch.setattr(jax, "device_count", lambda: 4)
    with pytest.raises(UserError, match=r"tensor=2 x sequence=1 takes 16 devices, but there are 4; take data=2$"):
        make_mesh(MeshConfig(data=8, tensor=2))
    with pytest.raises(UserError, match=r"there are 4; take fsdp x tensor x sequence of at most 4$"):
        make_mesh(MeshConfig(fsdp=8))


@pytest.mark.parametrize(
    ("axis", "problem"),
    [
        ("tensor", "attention_qkv: heads = 8 does not divide over tensor = 16 devices; take tensor = 8"),
        ("fsdp", "embedding: embed = 16 does not divide over fsdp = 3 devices; take fsdp = 2"),
    ],
)
def test_a_dimension_that_does_not_divide(axis: str, problem: str) -> None:
    mesh = SimpleNamespace(shape={"data": 1, "fsdp": 1, "tensor": 1, axis: 16 if axis == "tensor" else 3})
    arrays = {name: (row.shape, row.axes) for name, row in parameter_table(MODEL).items()}
    with pytest.raises(UserError, match=problem):
        shardings(arrays, mesh)  # type: ignore[arg-type]


def test_a_batch_that_does_not_divide() -> None:
    with pytest.raises(UserError, match=r"batch_sequences = 10 does not divide over data x fsdp = 8 devices; .* is 8"):
        run(MeshConfig(data=4, fsdp=2), batch=10)
