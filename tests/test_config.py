"""A run is frozen, complete, checked at birth, written as JSON and named by what it learns."""

import dataclasses
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from lmscale.core.config import (
    DataConfig,
    ExamConfig,
    MeshConfig,
    ModelConfig,
    OptimizerConfig,
    RopeScaling,
    RouterConfig,
    RunConfig,
    from_json,
)
from lmscale.core.errors import UserError

RUN = RunConfig(
    model=ModelConfig(width=64, layers=2, heads=4),
    optimizer=OptimizerConfig(peak_lr=0.01, batch_sequences=8),
    tokens=1024 * 100,
)


def model(**fields: Any) -> RunConfig:
    return replace(RUN, model=replace(RUN.model, **fields))


def optimizer(**fields: Any) -> RunConfig:
    return replace(RUN, optimizer=replace(RUN.optimizer, **fields))


def test_json_round_trip() -> None:
    scaled = replace(RUN.model, rope_scaling=RopeScaling(factor=8.0, original_context=64))
    run = replace(
        RUN, model=scaled, tags=("a", "b"), name="first", mesh=MeshConfig(data=2), data=DataConfig(max_epochs=2)
    )
    again = RunConfig.from_json(json.loads(json.dumps(run.to_json())))
    assert again == run and again.run_id == run.run_id


def test_a_run_id_is_the_same_on_every_machine_and_day() -> None:
    assert RUN.run_id == "e8aadbb0ff6d"


def test_name_tags_and_machine_are_not_part_of_the_identity() -> None:
    same = replace(RUN, name="another", tags=("x",), mesh=MeshConfig(data=2, fsdp=4, tensor=2), checkpoint_seconds=1)
    assert same.run_id == RUN.run_id
    assert model(remat="full", scan_layers=True, loss_chunk=64).run_id == RUN.run_id
    assert optimizer(micro_batches=4).run_id == RUN.run_id


def test_every_other_change_is_another_run() -> None:
    others = [
        replace(RUN, seed=1),
        replace(RUN, tokens=RUN.tokens * 2),
        replace(RUN, data=DataConfig(validation_fraction=0.1)),
        model(layers=3),
        model(tied_embeddings=False),
        optimizer(peak_lr=0.02),
        optimizer(clip_norm=None),
    ]
    assert len({run.run_id for run in (RUN, *others)}) == len(others) + 1


def test_a_default_written_out_is_the_same_run() -> None:
    assert model(vocab=256, mlp="swiglu").run_id == RUN.run_id
    assert optimizer(clip_norm=1, weight_decay=0.1).run_id == RUN.run_id


def test_a_whole_number_is_the_same_run_as_its_float() -> None:
    assert optimizer(clip_norm=2).run_id == optimizer(clip_norm=2.0).run_id
    assert optimizer(peak_lr=1).run_id == optimizer(peak_lr=1.0).run_id


def test_a_new_field_that_keeps_its_default_leaves_old_ids_valid() -> None:
    @dataclass(frozen=True, kw_only=True)
    class NewOptimizer(OptimizerConfig):
        nesterov: bool = False

    fields = dataclasses.asdict(RUN.optimizer)
    assert replace(RUN, optimizer=NewOptimizer(**fields)).run_id == RUN.run_id
    assert replace(RUN, optimizer=NewOptimizer(**fields, nesterov=True)).run_id != RUN.run_id


def test_a_run_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        RUN.seed = 1  # type: ignore[misc]


def test_steps_follow_from_tokens() -> None:
    assert (RUN.batch_tokens, RUN.steps, RUN.warmup_steps) == (1024, 100, 10)


@pytest.mark.parametrize(("mlp", "width", "hidden"), [("gelu", 64, 256), ("swiglu", 64, 176), ("swiglu", 96, 256)])
def test_the_default_mlp_width(mlp: Any, width: int, hidden: int) -> None:
    assert ModelConfig(width=width, layers=1, heads=1, mlp=mlp).hidden == hidden


INVALID: list[tuple[Callable[[], object], str]] = [
    (lambda: model(width=0), "ModelConfig.width = 0: must be positive"),
    (lambda: model(layers=-1), "ModelConfig.layers = -1: must be positive"),
    (lambda: model(layers=2.0), "ModelConfig.layers = 2.0: must be of type int"),
    (lambda: model(layers=True), "ModelConfig.layers = True: must be of type int"),
    (
        lambda: model(mlp="swiglo"),
        "must be one of 'swiglu', 'geglu', 'gelu', 'gelu-erf', 'relu2'; did you mean 'swiglu'?",
    ),
    (lambda: model(mlp_width=0), "ModelConfig.mlp_width = 0: must be positive"),
    (lambda: model(compute_dtype="bf16"), "must be one of 'float32', 'bfloat16'; did you mean 'bfloat16'?"),
    (lambda: model(heads=5), "heads = 5 must cut width = 64 into equal parts of an even size (rotary positions turn"),
    (lambda: model(heads=5), "the nearest is 4"),
    (lambda: model(heads=60, positions="alibi"), "must cut width = 64 into equal parts; the nearest is 64"),
    (lambda: model(width=15, heads=3), "width = 15: rotary positions turn pairs, so take 16"),
    (lambda: model(head_features=0), "ModelConfig.head_features = 0: must be positive"),
    (lambda: model(head_features=7), "rope_fraction = 1 of 7 features is 7: rotary positions turn pairs of features"),
    (lambda: model(head_features=1), "head_features = 1: rotary positions turn pairs, so take 2"),
    (lambda: model(rope_fraction=0.2), "rope_fraction = 0.2 of 16 features is 3: rotary positions turn pairs"),
    (lambda: model(rope_fraction=0.2), "the nearest is 0.25"),
    (lambda: model(rope_fraction=0.0), "rope_fraction = 0.0: must be above 0 and at most 1"),
    (lambda: model(rope_fraction=0.5, positions="alibi"), "rope_fraction = 0.5 has no meaning under positions ="),
    (lambda: model(embedding_scale=0.0), "ModelConfig.embedding_scale = 0.0: must be positive"),
    (lambda: RopeScaling(factor=0.0, original_context=8), "RopeScaling.factor = 0.0: must be positive"),
    (lambda: RopeScaling(factor=8.0, original_context=8, low_frequency=4.0), "low_frequency = 4 must be below"),
    (lambda: model(kv_heads=3), "kv_heads = 3 must divide heads = 4; the nearest is 2"),
    (lambda: model(kv_heads=8), "kv_heads = 8 must divide heads = 4; the nearest is 4"),
    (lambda: model(document_end=256), "document_end = 256: must be a token, 0 to 255"),
    (lambda: model(residual_dropout=1), "residual_dropout = 1.0: must be at least 0 and below 1"),
    (lambda: model(parametrization="mup"), "needs base_width, the one at which the learning rate was tuned; for a"),
    (lambda: model(parametrization="completep", base_width=64), "needs base_layers"),
    (lambda: model(parametrization="completep", base_width=64), "give its own: base_layers = 2"),
    (lambda: model(base_width=32), "base_width = 32 has no meaning under parametrization = 'standard'"),
    (lambda: model(rope_base=float("nan")), "ModelConfig.rope_base = nan: must be positive"),
    (lambda: model(experts=0), "ModelConfig.experts = 0: must be positive"),
    (lambda: model(experts=4, experts_per_token=5), "experts_per_token = 5 is more than experts = 4; take at most 4"),
    (lambda: model(experts_per_token=2), "experts_per_token = 2 is more than experts = 1; take at most 1"),
    (lambda: model(experts=4, shared_experts=-1), "ModelConfig.shared_experts = -1: must not be negative"),
    (lambda: model(experts=4, expert_width=0), "ModelConfig.expert_width = 0: must be positive"),
    (lambda: model(expert_width=8), "expert_width = 8 has no meaning with experts = 1, a dense model; leave it out"),
    (lambda: model(router=RouterConfig(z_loss=0.001)), "has no meaning with experts = 1, a dense model"),
    (lambda: model(experts=4, biases=True), "experts have no biases; take biases = False"),
    (lambda: model(experts=4, router=RouterConfig(normalized=True)), "makes every gate 1"),
    (
        lambda: model(experts=4, router=RouterConfig(bias_rate=0.001), param_dtype="bfloat16"),
        "router.bias_rate = 0.001 is lost in the rounding of param_dtype = 'bfloat16'; take param_dtype = 'float32'",
    ),
    (
        lambda: model(experts=64, context=16, router=RouterConfig(capacity=2.0)),
        "router.capacity = 2 times the even share of an expert, 1 x 16 / 64 = 0.25 tokens of a sequence, is below one "
        "token; take at least 4, or None",
    ),
    (lambda: RouterConfig(capacity=0.0), "RouterConfig.capacity = 0.0: must be positive"),
    (lambda: RouterConfig(scale=0.0), "RouterConfig.scale = 0.0: must be positive"),
    (lambda: RouterConfig(balance_loss=-0.1), "RouterConfig.balance_loss = -0.1: must not be negative"),
    (lambda: RouterConfig(bias_rate=float("inf")), "RouterConfig.bias_rate = inf: must not be negative or infinite"),
    (lambda: RouterConfig(gate="tanh"), "RouterConfig.gate = 'tanh': must be one of 'softmax', 'sigmoid'"),  # type: ignore[arg-type]
    (lambda: DataConfig(source=" "), "DataConfig.source is empty; try 'stdlib'"),
    (lambda: DataConfig(validation_fraction=1), "must lie strictly between 0 and 1"),
    (lambda: DataConfig(max_epochs=0), "DataConfig.max_epochs = 0.0: must be positive"),
    (lambda: optimizer(peak_lr=-0.1), "OptimizerConfig.peak_lr = -0.1: must be positive"),
    (lambda: optimizer(peak_lr="0.1"), "OptimizerConfig.peak_lr = '0.1': must be of type float"),
    (lambda: optimizer(warmup_fraction=1.5), "warmup_fraction = 1.5: must lie between 0 and 1"),
    (lambda: optimizer(beta2=1), "OptimizerConfig.beta2 = 1.0: must"),
    (lambda: optimizer(weight_decay=-1), "OptimizerConfig.weight_decay = -1.0: must"),
    (lambda: optimizer(weight_decay=float("inf")), "OptimizerConfig.weight_decay = inf: must"),
    (lambda: optimizer(clip_norm=0), "must be positive"),
    (lambda: ExamConfig(tasks=("mmlu",)), "ExamConfig.tasks names 'mmlu'; write FORMAT:PATH or synthetic:tasks(...)"),
    (lambda: ExamConfig(shots=(-1,)), "ExamConfig.shots = [-1]: numbers of examples, 0 or more"),
    (lambda: ExamConfig(at=(0.5, 1.5)), "ExamConfig.at = [0.5, 1.5]: shares of the run above 0 and at most 1"),
    (lambda: ExamConfig(items=0), "ExamConfig.items = 0: must be positive"),
    (lambda: replace(RUN, seed=-1), "RunConfig.seed = -1: must not be negative"),
    (
        lambda: replace(RUN, tokens=1500),
        "of 8 x 128 = 1,024 tokens; the nearest is 1,024",
    ),
    (
        lambda: replace(RUN, mesh=MeshConfig(data=3)),
        "over data x fsdp = 3 devices; the nearest batch is 9",
    ),
    (
        lambda: replace(optimizer(micro_batches=4), mesh=MeshConfig(data=4)),
        "does not divide over data x fsdp = 4 devices and 4 micro-batches; the nearest batch is 16",
    ),
    (
        lambda: replace(RUN, mesh=MeshConfig(sequence=3)),
        "context = 128 does not divide over sequence = 3 devices; the nearest context is 129",
    ),
    (lambda: replace(RUN, tags=["a"]), "RunConfig.tags = ['a']: must be"),
    (lambda: MeshConfig(data=0), "MeshConfig.data = 0: must be positive"),
]


@pytest.mark.parametrize(("make", "sentence"), INVALID, ids=[sentence for _, sentence in INVALID])
def test_the_impossible_is_refused_at_birth(make: Callable[[], object], sentence: str) -> None:
    with pytest.raises(UserError) as refusal:
        make()
    assert sentence in str(refusal.value) and "\n" not in str(refusal.value)


def test_the_least_capacity_that_is_advised_is_accepted() -> None:
    for experts, context in ((64, 16), (7, 3), (100, 33)):
        with pytest.raises(UserError, match=r"take at least ([0-9.]+), or None") as refusal:
            ModelConfig(
                width=64, layers=1, heads=1, experts=experts, context=context, router=RouterConfig(capacity=0.02)
            )
        least = re.search("take at least ([0-9.]+), or None", str(refusal.value))
        assert least is not None
        router = RouterConfig(capacity=float(least[1]))
        model = ModelConfig(width=64, layers=1, heads=1, experts=experts, context=context, router=router)
        assert model.expert_capacity == 1


def test_the_defaults_of_experts() -> None:
    """Switch with one expert per token, Mixtral with two; an expert has the width of the MLP unless it is given one."""
    one, two = (ModelConfig(width=64, layers=1, heads=1, experts=8, experts_per_token=k) for k in (1, 2))
    assert (one.normalized_gates, two.normalized_gates) == (False, True)
    assert (two.expert_hidden, two.granularity, two.expert_capacity) == (two.hidden, 1, None)
    assert replace(two, mlp_width=128, expert_width=32).granularity == 4
    assert replace(two, router=RouterConfig(capacity=1.25)).expert_capacity == 40  # of 128 tokens x 2 over 8 experts
    assert replace(two, router=RouterConfig(capacity=100.0)).expert_capacity == 128
    assert RouterConfig() == ModelConfig(width=64, layers=1, heads=1).router  # so that no dense run changes its name


@pytest.mark.parametrize(("width", "heads"), [(64, 5), (12, 4), (12, 5), (20, 4), (36, 8), (96, 64)])
def test_the_number_of_heads_that_is_advised_is_accepted(width: int, heads: int) -> None:
    with pytest.raises(UserError) as refusal:
        ModelConfig(width=width, layers=1, heads=heads)
    advised = [int(word.strip(";,.")) for word in str(refusal.value).split() if word.strip(";,.").isdigit()][-1]
    assert ModelConfig(width=width, layers=1, heads=advised).heads == advised


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda value: value.update(sead=1), "RunConfig has no field 'sead'; did you mean 'seed'?"),
        (lambda value: value["model"].update(widht=1), "RunConfig.model has no field 'widht'; did you mean 'width'?"),
        (lambda value: value.pop("tokens"), "RunConfig lacks the field 'tokens'"),
        (lambda value: value["model"].pop("width"), "RunConfig.model lacks the field 'width'"),
        (lambda value: value.update(model=3), "RunConfig.model must be a mapping of fields, not int"),
        (lambda value: value.update(tokens=None), "RunConfig.tokens = None: must be of type int"),
        (lambda value: value.update(tags="ab"), "RunConfig.tags = 'ab': must be"),
    ],
)
def test_wrong_json_names_its_field(change: Callable[[dict[str, Any]], object], sentence: str) -> None:
    value = RUN.to_json()
    change(value)
    with pytest.raises(UserError) as refusal:
        RunConfig.from_json(value)
    assert sentence in str(refusal.value)


def test_json_that_is_no_mapping_is_refused() -> None:
    with pytest.raises(UserError, match="ModelConfig must be a mapping of fields, not list"):
        from_json(ModelConfig, [])
