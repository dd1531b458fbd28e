"""Eight devices learn what one learns, and every device holds its part."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.xla_flags import HASTE, simulated_devices
from jax.sharding import PartitionSpec

from lmscale.core.config import MeshConfig, ModelConfig, OptimizerConfig, RunConfig
from lmscale.core.errors import UserError
from lmscale.lm.devices.sharding import batch_devices, make_mesh, shardings, spec
from lmscale.lm.model.parameters import parameter_table

Shape = tuple[int, int, int, int]
ONE = (1, 1, 1, 1)
SOME = [(2, 2, 2, 1), (1, 2, 2, 2)]
MORE = [(8, 1, 1, 1), (1, 8, 1, 1), (1, 1, 8, 1), (1, 1, 1, 8), (1, 4, 2, 1), (4, 1, 2, 1), (2, 1, 4, 1), (2, 1, 1, 4)]
STEPS, BATCH, VOCAB, CONTEXT = 20, 8, 32, 8
MODELS: dict[str, dict[str, Any]] = {
    "plain": {},
    "everything": {
        "kv_heads": 4, "tied_embeddings": False, "biases": True, "norm": "layernorm", "positions": "learned",
        "mlp": "gelu", "document_end": 3, "residual_dropout": 0.1, "logit_softcap": 20.0, "loss_chunk": 4,
    },
    "scanned": {
        "scan_layers": True, "qk_norm": True, "remat": "full", "positions": "alibi", "kv_heads": 2, "loss_chunk": 4,
    },
}  # fmt: skip
EIGHT_HEADS = {"kv_heads": 8}
"""More than two parts of the tensor axis need as many heads of keys and values."""
REMATERIALIZED = "Involuntary full rematerialization"


def run(shape: Shape = ONE, batch: int = BATCH, optimizer: str = "adamw", **model: Any) -> RunConfig:
    decay = {"weight_decay": 0.0} if optimizer == "adam" else {}
    return RunConfig(
        model=ModelConfig(
            **{"width": 16, "layers": 2, "heads": 8, "vocab": VOCAB, "context": CONTEXT, "mlp_width": 24, **model}
        ),
        optimizer=OptimizerConfig(
            peak_lr=0.01,
            batch_sequences=batch,
            kind=optimizer,
            micro_batches=1 + (optimizer != "adamw"),
            **decay,  # type: ignore[arg-type]
        ),
        tokens=STEPS * batch * CONTEXT,
        mesh=MeshConfig(**dict(zip(("data", "fsdp", "tensor", "sequence"), shape))),
    )


def train_on(shape: Shape, optimizer: str, model: dict[str, Any]) -> dict[str, Any]:
    """Twenty steps on one mesh: losses, the shape of every parameter's part on a device, a fingerprint of the start."""
    import hashlib

    import jax
    import numpy as np

    from lmscale.lm.devices.sharding import batch_sharding, replicated
    from lmscale.lm.train.optimizer import Hyperparameters
    from lmscale.lm.train.step import make_step

    config = run(shape, optimizer=optimizer, **model)
    mesh = make_mesh(config.mesh)
    programs = make_step(config, mesh)
    hyper = jax.device_put(Hyperparameters.of(config), replicated(mesh))
    with jax.set_mesh(mesh):
        state = programs.start(jax.random.key(0))
        first = hashlib.sha256(b"".join(np.asarray(value).tobytes() for value in state.params.values())).hexdigest()
        losses = []
        for number in range(STEPS):
            tokens = np.random.default_rng(number).integers(0, VOCAB, (BATCH, CONTEXT + 1), np.int32)
            state, metrics = programs.step(state, jax.device_put(tokens, batch_sharding(mesh)), hyper, ())
            losses.append(float(metrics.loss_nats))
    parts = {name: value.addressable_shards[0].data.shape for name, value in state.params.items()}
    moments = [x.addressable_shards[0].data.shape for x in jax.tree.leaves(state.opt_state)]
    return {"losses": losses, "parts": parts, "moments": moments, "first": first, "devices": mesh.size}


def bytes_sent(shape: Shape, optimizer: str, model: dict[str, Any]) -> dict[str, int]:
    """Kind of collective -> bytes that a device sends in a step."""
    import jax

    from lmscale.lm.aot import hlo, hlo_costs
    from lmscale.lm.aot.programs import training_step

    config = run(shape, optimizer=optimizer, **model)
    mesh = make_mesh(config.mesh)
    program = training_step(config, mesh, None)
    with jax.set_mesh(mesh):
        text = program.trace().lower().compile().as_text()
    sent = hlo_costs.collectives(hlo.parse(text), mesh.size, mesh.size)
    return {kind: total["bytes"] for kind, total in sent.items()}


def simulate(
    cases: list[tuple[Shape, str, dict[str, Any]]], function: str = "train_on"
) -> tuple[list[dict[str, Any]], str]:
    """What came of every case, on eight simulated devices in a process of their own; what XLA complained about.

    Compiled in haste: most of the time of these tests is LLVM's.
    """
    code = f"import json, test_sharding as t; print(json.dumps([t.{function}(*case) for case in {cases!r}]))"
    environment = {**simulated_devices(8, HASTE), "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def assert_same(many: dict[str, Any], one: dict[str, Any]) -> None:
    assert many["devices"] == 8 and one["devices"] == 1
    assert many["first"] == one["first"]
    assert many["losses"] == pytest.approx(one["losses"], rel=2e-5)
    assert one["losses"][-1] < one["losses"][0]


@pytest.fixture(scope="module")
def trained() -> tuple[dict[Shape, dict[str, Any]], str]:
    """The outcome of the model with everything, by mesh shape; the text on stderr."""
    outcomes, log = simulate([(shape, "adamw", MODELS["everything"]) for shape in (ONE, *SOME)])
    return dict(zip((ONE, *SOME), outcomes)), log


@pytest.mark.long
@pytest.mark.parametrize("shape", SOME, ids=str)
def test_eight_devices_learn_what_one_learns(shape: Shape, trained: Any) -> None:
    assert_same(trained[0][shape], trained[0][ONE])


@pytest.mark.long
def test_no_array_is_gathered_whole_where_a_part_would_do(trained: Any) -> None:
    assert REMATERIALIZED not in trained[1], trained[1]


@pytest.mark.long
def test_more_chunks_of_the_loss_send_no_more() -> None:
    """The head is gathered once for all of them, and its gradient sent once."""
    (two, four), _ = simulate([((1, 2, 2, 2), "adamw", {"loss_chunk": chunk}) for chunk in (4, 2)], "bytes_sent")
    assert sum(four.values()) <= 1.02 * sum(two.values()), (two, four)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_eight_devices_learn_what_one_learns_in_every_shape(name: str) -> None:
    shapes = [ONE, *SOME, *MORE]
    models = [{**MODELS[name], **(EIGHT_HEADS if shape[2] > 2 else {})} for shape in shapes]
    eight = [(ONE, "adamw", {**MODELS[name], **EIGHT_HEADS})]
    (*outcomes, whole), log = simulate([(shape, "adamw", model) for shape, model in zip(shapes, models)] + eight)
    for shape, outcome in zip(shapes[1:], outcomes[1:]):
        assert_same(outcome, whole if shape[2] > 2 else outcomes[0])
    if name == "plain":  # with every option XLA still gathers a small array on some of these meshes
        assert REMATERIALIZED not in log, log


@pytest.mark.slow
def test_every_optimizer_moves_eight_devices_as_one() -> None:
    """In two micro-batches."""
    kinds = ["adam", "sgd", "rmsprop", "adafactor", "lion", "muon"]
    outcomes, log = simulate([(shape, kind, MODELS["everything"]) for kind in kinds for shape in (ONE, (2, 2, 2, 1))])
    for one, many in zip(outcomes[::2], outcomes[1::2]):
        assert_same(many, one)
    assert REMATERIALIZED not in log, log


@pytest.mark.parametrize("shape", [ONE, *SOME], ids=str)
def test_every_device_holds_its_part(shape: Shape, trained: Any) -> None:
    _, fsdp, tensor, _ = shape
    parts = trained[0][shape]["parts"]
    assert {name: part for name, part in parts.items() if not name.endswith("_bias")} == {
        "embedding": [VOCAB // tensor, 16 // fsdp],
        "positions": [CONTEXT, 16 // fsdp],
        "attention_norm": [2, 16],
        "attention_qkv": [2, 16 // fsdp, 4 // tensor, 4, 2],
        "attention_out": [2, 8 // tensor, 2, 16 // fsdp],
        "mlp_norm": [2, 16],
        "mlp_in": [2, 16 // fsdp, 1, 24 // tensor],
        "mlp_out": [2, 24 // tensor, 16 // fsdp],
        "final_norm": [16],
        "head": [16 // fsdp, VOCAB // tensor],
    }
    assert parts["attention_qkv_bias"] == [2, 4 // tensor, 4, 2] and parts["mlp_in_bias"] == [2, 1, 24 // tensor]
    moments = [[], *parts.values(), *parts.values()]  # a step count, Adam's two
    assert sorted(trained[0][shape]["moments"]) == sorted(moments)


def test_axes_follow_the_rules() -> None:
    assert spec(("batch", "time")) == PartitionSpec(("data", "fsdp"), "sequence")
    assert spec(("layers", "embed", None, "heads")) == PartitionSpec(None, "fsdp", None, "tensor")
    assert spec(("layers", "experts", "embed")) == PartitionSpec(None, None, "fsdp"), "without an axis of experts"


def test_an_axis_of_experts_divides_experts_and_batch() -> None:
    mesh: Any = SimpleNamespace(shape={"data": 1, "fsdp": 2, "expert": 4, "tensor": 1, "sequence": 1})
    assert spec(("batch", "time"), mesh) == PartitionSpec(("data", "fsdp", "expert"), "sequence")
    assert spec(("layers", "experts", "embed"), mesh) == PartitionSpec(None, "expert", "fsdp")
    assert batch_devices(mesh) == 8 == MeshConfig(fsdp=2, expert=4).batch_devices
    assert MeshConfig(fsdp=2, expert=4, tensor=3).devices == 24
    with pytest.raises(UserError, match="experts = 6 does not divide over expert = 4 devices; take expert = 3"):
        shardings({"experts_in": ((2, 6, 8), ("layers", "experts", "embed"))}, mesh)


def test_a_mesh_of_more_devices_than_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    import jax

    monkeypatch.setattr(jax, "device_count", lambda: 4)
    sentence = r"data=8 x fsdp=1 x tensor=2 x sequence=1 takes 16 devices, but there are 4; take data=2$"
    with pytest.raises(UserError, match=sentence):
        make_mesh(MeshConfig(data=8, tensor=2))
    with pytest.raises(UserError, match=r"there are 4; take fsdp x tensor x sequence of at most 4$"):
        make_mesh(MeshConfig(fsdp=8))
    with pytest.raises(UserError, match=r"expert=8 x .* there are 4; take fsdp x expert x tensor x sequence of at m"):
        make_mesh(MeshConfig(expert=8))


def test_every_device_of_several_processes_must_have_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    import jax

    monkeypatch.setattr(jax, "device_count", lambda: 8)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(UserError, match=r"takes 4 of the 8 devices of 2 processes; .* take data=4$"):
        make_mesh(MeshConfig(data=2, tensor=2))


@pytest.mark.parametrize(
    ("axis", "devices", "problem"),
    [
        ("tensor", 16, "attention_qkv: heads = 8 does not divide over tensor = 16 devices; take tensor = 8"),
        ("fsdp", 3, "embedding: embed = 16 does not divide over fsdp = 3 devices; take fsdp = 2"),
    ],
)
def test_a_dimension_that_does_not_divide(axis: str, devices: int, problem: str) -> None:
    mesh = SimpleNamespace(shape={"data": 1, "fsdp": 1, "tensor": 1, "sequence": 1, axis: devices})
    table = {name: (row.shape, row.axes) for name, row in parameter_table(run().model).items()}
    with pytest.raises(UserError, match=problem):
        shardings(table, mesh)  # type: ignore[arg-type]


def test_a_batch_or_a_context_that_does_not_divide() -> None:
    with pytest.raises(UserError, match=r"batch_sequences = 10 does not divide over data x fsdp = 8 devices; .* is 8"):
        run((4, 2, 1, 1), batch=10)
    with pytest.raises(UserError, match=r"context = 8 does not divide over sequence = 3 devices; the nearest .* is 9"):
        run((1, 1, 1, 3))


def test_an_axis_of_experts_needs_experts_that_it_divides() -> None:
    dense = run()
    with pytest.raises(
        UserError, match=r"expert = 4 divides experts, of which a dense model has none; take mesh\.data = 8"
    ):
        replace(dense, mesh=MeshConfig(data=2, expert=4))
    sparse = run(experts=6, experts_per_token=2)
    with pytest.raises(UserError, match="experts = 6 does not divide over expert = 4 devices; take expert = 3"):
        replace(sparse, mesh=MeshConfig(expert=4))
    with pytest.raises(
        UserError, match="does not divide over data x fsdp x expert = 6 devices; the nearest batch is 6"
    ):
        replace(sparse, mesh=MeshConfig(data=2, expert=3))
