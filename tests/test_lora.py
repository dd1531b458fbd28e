"""Low-rank adapters: rows of the parameter table, trained alone, merged on export, counted."""

import json
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.tiny_runs import MODEL, assert_same, final_parameters, run, train_interrupted, write_corpus
from helpers.xla_flags import simulated_devices

from lmscale.core import counting
from lmscale.core.config import LoraConfig, MeshConfig, ModelConfig, RouterConfig, RunConfig
from lmscale.core.errors import UserError
from lmscale.lm.devices.sharding import batch_sharding, make_mesh, shardings
from lmscale.lm.model import lora
from lmscale.lm.model.nnx import Transformer
from lmscale.lm.model.parameters import init, parameter_table
from lmscale.lm.model.transformer import logits, token_losses
from lmscale.lm.objectives import make_objective
from lmscale.lm.train.loop import train
from lmscale.lm.train.step import make_step, means_and_gradient
from lmscale.lm.use.export import export
from lmscale.lm.use.load import load, without_adapters
from lmscale.study import recipes
from lmscale.study.sweep import Sweep, chain, fine_tune, plan

ADAPTED = replace(MODEL, kv_heads=1, lora=LoraConfig(rank=3, alpha=6.0))
ONE = LoraConfig(rank=2, matrices=("mlp_in",))
PARENT = "0123456789ab"


def params_of(config: ModelConfig, seed: int = 0) -> dict[str, jax.Array]:
    """Random parameters whose second factors are not zero."""
    rng = np.random.default_rng(seed)
    return {
        name: jnp.asarray(row.mean + (row.std or 0.2) * rng.standard_normal(row.shape), jnp.float32)
        for name, row in parameter_table(config).items()
    }


def tokens_of(config: ModelConfig, rows: int = 4) -> np.ndarray:
    return np.random.default_rng(1).integers(0, config.vocab, (rows, config.context + 1)).astype(np.int32)


@pytest.mark.long
@pytest.mark.parametrize("adapters", [ADAPTED.lora, ONE], ids=["every matrix", "one matrix"])
@pytest.mark.parametrize("options", [{}, {"mlp": "gelu", "biases": True, "heads": 4, "kv_heads": 2}], ids=str)
def test_adapters_add_a_product_of_low_rank_and_merging_draws_it_in(adapters: LoraConfig, options: Any) -> None:
    config = replace(ADAPTED, **options, lora=adapters)
    params, inputs = params_of(config), tokens_of(config)[:, :-1]
    whole, plain = lora.merged(params, config)
    assert plain == replace(config, lora=None) and whole.keys() == parameter_table(plain).keys()
    for name in adapters.matrices:
        change = np.asarray(whole[name] - params[name]).reshape(config.layers, -1)
        row = parameter_table(plain)[name]
        inner = int(np.prod([row.shape[axis] for axis in row.inputs]))
        for layer in change:
            assert np.linalg.matrix_rank(layer.reshape(inner, -1), tol=1e-5) == adapters.rank
    run_ = jax.jit(logits, static_argnames="config")
    np.testing.assert_allclose(run_(params, inputs, config=config), run_(whole, inputs, config=plain), atol=2e-4)
    untouched = {**params, **{name: 0 * value for name, value in params.items() if name.endswith(lora.B)}}
    base = lora.frozen(params, config)
    np.testing.assert_array_equal(run_(untouched, inputs, config=config), run_(base, inputs, config=plain))


def adapted_run(model: ModelConfig = ADAPTED, corpus: str = "stdlib", steps: int = 4, **changed: Any) -> RunConfig:
    return run(corpus, steps, model=model, **{"init_from": PARENT, **changed})


@pytest.mark.long
def test_the_gradient_is_that_of_the_adapters_alone() -> None:
    config = adapted_run()
    params, batch = params_of(ADAPTED), tokens_of(ADAPTED)
    _, grads = jax.jit(partial(means_and_gradient, config, make_objective(config)))(
        params, (), batch, jax.random.key(0)
    )
    assert grads.keys() == lora.trained(params, ADAPTED).keys() and all(name.endswith(("_a", "_b")) for name in grads)

    @jax.jit
    @jax.grad
    def by_hand(adapters: Any) -> jax.Array:
        whole, plain = lora.merged({**params, **adapters}, ADAPTED)
        return token_losses(whole, batch, plain)[0].mean()

    for name, grad in by_hand(lora.trained(params, ADAPTED)).items():
        np.testing.assert_allclose(grads[name], grad, rtol=2e-4, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("kind", ["adamw", "sgd", "muon", "adafactor", "lion"])
def test_the_optimizer_keeps_nothing_of_what_stays_and_its_bytes_are_counted(kind: str) -> None:
    config = adapted_run(optimizer={"kind": kind, "ema_decay": 0.9})
    state = make_step(config, make_mesh(config.mesh)).state
    opt_leaves = jax.tree_util.tree_flatten_with_path(state.opt_state)[0]
    names = {getattr(path[-1], "key", None) for path, leaf in opt_leaves if leaf.ndim}
    assert names - {None} <= {name for name in parameter_table(ADAPTED) if lora.is_adapter(name)}
    trees = (state.params, state.ema, state.opt_state)
    numbers = sum(leaf.size for leaf in jax.tree.leaves(trees) if leaf.ndim)
    if kind != "adafactor":  # whose small matrices have placeholders of one number
        coefficients = 3 * (kind == "muon")
        assert counting.state_bytes(config) == 4 * (numbers - coefficients)
    trained = sum(int(np.prod(row.shape)) for name, row in parameter_table(ADAPTED).items() if lora.is_adapter(name))
    assert counting.trained_params(ADAPTED) == trained == counting.params_adapters(ADAPTED)
    assert counting.trained_params(MODEL) == counting.params_total(MODEL)
    assert counting.params_total(ADAPTED) == counting.params_total(replace(ADAPTED, lora=None))


@pytest.mark.long
def test_flops_are_those_of_the_compiler() -> None:
    """Frozen matrices cost two passes; the compiler also drops what the input of the first layer's projection costs."""
    model = ModelConfig(width=64, layers=3, heads=4, context=32, vocab=128, lora=LoraConfig(rank=4), scan_layers=False)
    config = adapted_run(model)
    counted = {}
    for one in (config, replace(config, model=replace(model, lora=None))):
        step = jax.jit(partial(means_and_gradient, one, make_objective(one)))
        args = jax.eval_shape(partial(init, one.model), jax.random.key(0)), (), tokens_of(model), jax.random.key(0)
        compiled = step.lower(*args).cost_analysis()["flops"] / (4 * model.context)
        counted[one.model.lora is None] = (compiled, counting.flops_per_token(one.model))
    saved = counted[True][0] - counted[False][0]
    unneeded = 2 * 64 * 3 * 64
    assert saved - unneeded == pytest.approx(counted[True][1] - counted[False][1], rel=0.05)
    forward = counting.flops_per_token_forward(model) - counting.flops_per_token_forward(replace(model, lora=None))
    assert forward == 2 * counting.params_adapters(model)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.mark.long
@pytest.mark.usefixtures("known_peak", "compiled_programs")
def test_a_run_trains_adapters_of_its_parent_resumes_and_is_exported_whole(
    corpus: str, tmp_path: Path, stop_after: Any
) -> None:
    base = replace(ADAPTED, lora=None)
    parent, runs = run(corpus, 4, model=base), tmp_path / "runs" / "life"
    train(parent, runs / parent.run_id)
    child = adapted_run(corpus=corpus, steps=6, init_from=parent.run_id, optimizer={"ema_decay": 0.7})
    train(child, runs / child.run_id)
    before, after = final_parameters(parent, runs / parent.run_id), final_parameters(child, runs / child.run_id)
    assert all(np.array_equal(after[name], value) for name, value in before.items()), "what is frozen keeps its bits"
    assert all(np.any(after[name]) for name in after if lora.is_adapter(name))

    again = tmp_path / "other" / "life" / child.run_id
    (again.parent).mkdir(parents=True)
    (again.parent / parent.run_id).symlink_to(runs / parent.run_id)
    train_interrupted(child, again, stop_after, 3)
    assert_same(child, again, runs / child.run_id)

    trained = load(runs / child.run_id)
    assert all(np.array_equal(trained.params[name], value) for name, value in before.items()), "averages are theirs too"
    whole, inputs = without_adapters(trained), tokens_of(base)[:, :-1]
    assert whole.config.model == base
    expected = logits(trained.params, inputs, trained.config.model)
    np.testing.assert_allclose(logits(whole.params, inputs, base), expected, atol=1e-4)
    export(runs / child.run_id, tmp_path / "out", "two-file")
    with np.load(tmp_path / "out" / "parameters.npz") as stored:
        assert not [name for name in stored if "lora" in name]

    more = run(corpus, 2, model=base, init_from=child.run_id)  # from adapters that are merged
    first = train(more, runs / more.run_id)
    assert first.loss_nats is not None


def test_adapters_are_axes_of_a_sweep() -> None:
    family = recipes.Family(width_multiple=4, aspect_ratio=None, head_width=8, base=replace(MODEL, width=8, heads=1))
    recipe = recipes.Recipe(
        name="tests", source="these tests", family=family, lr=recipes.constant(0.01, "these tests"),
        batch_sequences=recipes.constant(4, "these tests"), run={"keep_checkpoint": True},
    )  # fmt: skip
    parent = {"params": 8_000, "tokens": 20_480}
    tuned = fine_tune(
        [parent], tokens=640, lora_rank=[None, 2, 8], lora_matrices=["attention_qkv", ("mlp_in", "mlp_out")]
    )
    more = fine_tune(tuned[-1:], tokens=1280)
    planned = plan(Sweep(name="lora", points=chain([parent], tuned, more), recipe=recipe, law="")).runs
    ranks = [run.config.model.lora and (run.config.model.lora.rank, run.config.model.lora.matrices) for run in planned]
    qkv, mlp = ("attention_qkv",), ("mlp_in", "mlp_out")
    assert ranks == [None, None, (2, qkv), (2, mlp), (8, qkv), (8, mlp), None], "full fine-tuning is one run"
    assert planned[-1].config.init_from == planned[-2].config.run_id
    with pytest.raises(UserError, match="gives lora_alpha of adapters that it does not have; give lora_rank too"):
        recipe({**parent, "lora_alpha": 3.0})


def test_bad_settings_are_one_sentence() -> None:
    with pytest.raises(UserError, match=r"rank = 0: must be positive"):
        LoraConfig(rank=0)
    with pytest.raises(UserError, match=r"LoraConfig.matrices = .*mlp_on"):
        LoraConfig(rank=1, matrices=("mlp_on",))  # type: ignore[arg-type]
    for matrices in ((), ("mlp_in", "mlp_in")):
        with pytest.raises(UserError, match=r"name at least one matrix, and each once: attention_qkv, "):
            LoraConfig(rank=1, matrices=matrices)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"give RunConfig\(init_from=\.\.\.\) the run that it starts from"):
        run("stdlib", 4, model=ADAPTED)
    with pytest.raises(UserError, match="names mlp_in and mlp_out, which a model of 4 experts does not have"):
        replace(ADAPTED, experts=4, router=RouterConfig())
    with pytest.raises(UserError, match="the nnx tree has no adapters"):
        Transformer(ADAPTED, params_of(ADAPTED))
    config = adapted_run()
    assert RunConfig.from_json(config.to_json()) == config
    assert len({config.run_id, replace(config, model=replace(ADAPTED, lora=ONE)).run_id}) == 2


SPREAD = """
import json, sys
sys.path.insert(0, sys.argv[1])
from test_lora import MeshConfig, spread
print(json.dumps([spread(mesh) for mesh in (MeshConfig(data=8), MeshConfig(data=2, fsdp=2, tensor=2))]))
"""


def spread(mesh: MeshConfig) -> list[float]:
    """The loss of a batch and the norms of its gradients by row, on a mesh."""
    model = replace(ADAPTED, heads=4, kv_heads=2)
    config, devices = adapted_run(model), make_mesh(mesh)
    table = parameter_table(model)
    placed = shardings({name: (row.shape, row.axes) for name, row in table.items()}, devices)
    batch = jax.device_put(tokens_of(model, rows=8), batch_sharding(devices))
    with jax.set_mesh(devices):
        gradient = jax.jit(partial(means_and_gradient, config, make_objective(config)))
        means, grads = gradient(jax.device_put(params_of(model), placed), (), batch, jax.random.key(0))
    return [float(means.loss), *(float(jnp.linalg.norm(grads[name])) for name in sorted(grads))]


@pytest.mark.long
def test_eight_devices_give_the_gradients_of_one() -> None:
    command = [sys.executable, "-c", SPREAD, str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, env=simulated_devices(8))
    assert done.returncode == 0, done.stderr[-2000:]
    for numbers in json.loads(done.stdout):
        assert numbers == pytest.approx(spread(MeshConfig()), rel=1e-5)
