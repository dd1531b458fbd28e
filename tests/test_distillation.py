"""Distillation and completions against plain PyTorch, in parts, on many devices; teachers and what they cost."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import optax
import pytest
from helpers import objective_cases as cases
from helpers.golden_objectives import assert_golden, assert_golden_on_eight_devices, placed
from helpers.tiny_runs import MODEL, assert_same, rows, run, train_interrupted, write_corpus

from lmscale.core import counting
from lmscale.core.config import DataConfig, Distillation, MeshConfig, RunConfig
from lmscale.core.counting import flops_per_token_forward
from lmscale.core.errors import MemoryShortage, UserError
from lmscale.lm.devices import machine
from lmscale.lm.devices.sharding import batch_sharding, make_mesh
from lmscale.lm.model.parameters import parameter_table
from lmscale.lm.objectives import make_objective
from lmscale.lm.train.loop import train
from lmscale.lm.train.step import means_and_gradient
from lmscale.lm.use.load import load


def objective_and_norm(name: str, mesh: MeshConfig | None = None, **changed: Any) -> tuple[float, float]:
    """The mean objective of the batch of `objective_cases` and the norm of its gradient."""
    model = replace(cases.STUDENT, **changed.pop("model", {}))
    config = cases.config(name, model, **changed)
    objective = make_objective(config, cases.TEACHER)
    devices = make_mesh(mesh or MeshConfig())
    params = placed(cases.students_params(), model, devices), placed(cases.teachers_params(), cases.TEACHER, devices)
    batch = jax.device_put(cases.batch(), batch_sharding(devices))

    def both(params: Any, teacher: Any, batch: Any) -> tuple[jax.Array, jax.Array]:
        terms = objective(params, teacher, batch, jax.random.key(0))
        _, grads = means_and_gradient(config, objective, params, teacher, batch, jax.random.key(0))
        return terms.objective / terms.weight, optax.tree.norm(grads)

    with jax.set_mesh(devices):
        value, norm = jax.jit(both)(*params, batch)
    return float(value), float(norm)


@pytest.mark.long
@pytest.mark.parametrize("name", cases.CASES)
def test_loss_and_gradient_are_those_of_plain_pytorch(name: str) -> None:
    assert_golden(name, objective_and_norm(name))


@pytest.mark.long
@pytest.mark.parametrize("name", ["distillation, mixed", "distillation, top 5"])
@pytest.mark.parametrize("changed", [{"micro_batches": 4}, {"model": {"loss_chunk": 7}}], ids=str)
def test_parts_of_a_batch_and_of_time_add_up(name: str, changed: dict[str, Any]) -> None:
    assert_golden(name, objective_and_norm(name, **changed))


@pytest.mark.long
def test_eight_devices_give_the_numbers_of_one() -> None:
    meshes = {"data": 8}, {"data": 2, "fsdp": 2, "tensor": 2}, {"fsdp": 4, "sequence": 2}
    assert_golden_on_eight_devices(__file__, ("distillation, top 5", "completion"), *meshes)


@pytest.mark.long
def test_a_student_that_is_its_teacher_has_nothing_to_learn() -> None:
    config = replace(cases.config("distillation"), model=cases.TEACHER, tokens=8 * cases.TEACHER.context)
    params, batch = cases.teachers_params(), cases.batch()
    objective = make_objective(config, cases.TEACHER)
    gradient = jax.jit(partial(means_and_gradient, config, objective))
    means, grads = gradient(params, params, batch, jax.random.key(0))
    assert float(means.reported["teacher_kl"]) == pytest.approx(0, abs=1e-6)
    assert float(means.reported["teacher_loss_nats"]) == pytest.approx(float(means.loss), rel=1e-6)
    assert float(optax.tree.norm(grads)) < 1e-5


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def teacher(corpus: str, tmp_path: Path) -> RunConfig:
    """A wider and deeper run with averaged weights, trained in `runs/first`."""
    model = replace(MODEL, width=24, layers=2, heads=3, context=32)
    config = run(corpus, 6, model=model, optimizer={"ema_decay": 0.5})
    train(config, tmp_path / "runs" / "first" / config.run_id)
    return config


def pupil(corpus: str, teacher: RunConfig, **changed: Any) -> RunConfig:
    return run(corpus, 4, objective=Distillation(teacher=teacher.run_id, temperature=2.0), **changed)


@pytest.mark.long
@pytest.mark.usefixtures("known_peak", "compiled_programs")
def test_a_run_reads_its_teacher_books_it_and_resumes_bit_for_bit(
    corpus: str, teacher: RunConfig, tmp_path: Path, stop_after: Any
) -> None:
    config, folder = pupil(corpus, teacher), tmp_path / "runs" / "second"
    result = train(config, folder / config.run_id)
    forward = flops_per_token_forward(replace(teacher.model, context=MODEL.context))
    assert result.reference_flops == forward * config.tokens > 0
    assert result.reported is not None and result.reported.keys() == {"teacher_kl", "teacher_loss_nats"}
    first = rows(folder / config.run_id)[0]
    work = result.flops + result.reference_flops
    assert result.mfu == pytest.approx(work / result.seconds / 1e11), "reading the teacher is work of the machine"
    assert [row["mfu"] for row in rows(folder / config.run_id)] == pytest.approx(
        [row["tokens_per_second"] * work / config.tokens / 1e11 for row in rows(folder / config.run_id)]
    )
    assert first["teacher_kl"] > 0 and first["loss_nats"] > first["teacher_loss_nats"] > 0
    assert set(load(folder / config.run_id).params) == set(parameter_table(MODEL)), "the teacher is not in it"

    again = tmp_path / "runs" / "third" / config.run_id
    train_interrupted(config, again, stop_after, 2)
    assert_same(config, again, folder / config.run_id)


def test_memory_is_asked_for_the_teacher_too(monkeypatch: pytest.MonkeyPatch) -> None:
    config, large = cases.config("distillation"), replace(cases.TEACHER, width=480, layers=30)
    monkeypatch.setattr(machine, "free_memory_bytes", lambda devices: 2 * machine.step_bytes(config))
    machine.check_memory(config)
    parameters = 4 * counting.params_total(large)
    assert parameters < counting.reference_bytes(large, config) < 1.2 * parameters
    with pytest.raises(MemoryShortage, match=r"needs about .* GiB, .*, 0\.3 for the teacher, but"):
        machine.check_memory(config, reference=large)


@pytest.mark.long
@pytest.mark.usefixtures("known_peak", "compiled_programs")
def test_a_teacher_that_cannot_be_read_is_one_sentence(corpus: str, teacher: RunConfig, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "second" / "student"
    with pytest.raises(UserError, match=r"there is no run 0123456789ab in .*second"):
        train(replace(pupil(corpus, teacher), objective=Distillation(teacher="0123456789ab")), folder)
    with pytest.raises(UserError, match=r"no checkpoint of step 5 .* there are those of 6"):
        train(replace(pupil(corpus, teacher), objective=Distillation(teacher=f"{teacher.run_id}@5")), folder)
    long = pupil(corpus, teacher, model=replace(MODEL, context=64))
    with pytest.raises(UserError, match=r"the teacher of run \w+ is run \w+, which reads at most 32 tokens, .* is 64"):
        train(long, folder)
    words = DataConfig(source=corpus, tokenizer="bpe:300", validation_fraction=0.2, max_epochs=1000)
    other = replace(pupil(corpus, teacher), data=words, model=replace(MODEL, vocab=300))
    with pytest.raises(UserError, match="which has 256 ids, and its own are 300; give both one tokenizer"):
        train(other, folder)
    with pytest.raises(UserError, match="nothing is learned from the teacher"):
        Distillation(teacher=teacher.run_id, text_weight=1.0)
    with pytest.raises(UserError, match="teacher = 'runs/first': write the id of a run"):
        Distillation(teacher="runs/first")
