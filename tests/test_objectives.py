"""What a step minimises is an argument: tokens that are read and not scored, references, reported sums."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.tiny_runs import MODEL, assert_same, final_parameters, outcome, rows, run, train_interrupted, write_corpus

from lmscale.core.config import Completion, DataConfig, ModelConfig, NextToken, OptimizerConfig, RunConfig
from lmscale.core.errors import UserError
from lmscale.core.results import Outcome
from lmscale.lm.model.parameters import init
from lmscale.lm.model.transformer import logits, token_losses
from lmscale.lm.objectives import Objective, Terms, make_objective
from lmscale.lm.train.loop import train
from lmscale.lm.train.step import means_and_gradient

SMALL = ModelConfig(width=8, layers=1, heads=1, vocab=16, context=8)
QUESTIONS = DataConfig(source="questions.jsonl", prompt_field="question")


def config(objective: Any, **changed: Any) -> RunConfig:
    optimizer = OptimizerConfig(**{"peak_lr": 0.01, "batch_sequences": 8, **changed})
    return RunConfig(model=SMALL, optimizer=optimizer, tokens=64, data=QUESTIONS, objective=objective)


def examples(seed: int = 0) -> dict[str, np.ndarray]:
    """Eight rows; the answers of the first four are long, those of the others short."""
    tokens = np.random.default_rng(seed).integers(0, 16, (8, 9), np.int32)
    scored = np.arange(8)[None] >= np.array([2] * 4 + [6] * 4)[:, None]
    return {"tokens": tokens, "scored": scored}


def means(config: RunConfig, batch: Any) -> tuple[Any, dict[str, jax.Array]]:
    params = init(SMALL, jax.random.key(0))
    return jax.jit(partial(means_and_gradient, config, make_objective(config)))(params, (), batch, jax.random.key(1))


@pytest.mark.long
def test_a_completion_reads_its_prompt_and_scores_its_answer() -> None:
    batch, params = examples(), init(SMALL, jax.random.key(0))
    every_token = np.asarray(jax.jit(partial(token_losses, config=SMALL))(params, batch["tokens"])[0])
    answer, _ = means(config(Completion()), batch)
    assert float(answer.loss) == pytest.approx(every_token[batch["scored"]].mean(), rel=1e-6)
    prompt_changed = {**batch, "tokens": batch["tokens"].copy()}
    prompt_changed["tokens"][:, 0] = (prompt_changed["tokens"][:, 0] + 1) % 16
    assert float(means(config(Completion()), prompt_changed)[0].loss) != pytest.approx(float(answer.loss), rel=1e-4)


@pytest.mark.long
def test_the_gradient_of_a_completion_is_that_of_its_answers_alone() -> None:
    batch, params = examples(), init(SMALL, jax.random.key(0))

    @jax.jit
    @jax.grad
    def by_hand(params: Any) -> jax.Array:
        losses = token_losses(params, batch["tokens"], SMALL)[0]
        return (losses * batch["scored"]).sum() / batch["scored"].sum()

    _, grads = means(config(Completion()), batch)
    for name, grad in by_hand(params).items():
        np.testing.assert_allclose(grads[name], grad, rtol=1e-5, atol=1e-7, err_msg=name)


@pytest.mark.long
@pytest.mark.parametrize("objective", [Completion(), NextToken()], ids=lambda objective: objective.kind)
@pytest.mark.parametrize("loss_chunk", [None, 3], ids=["at once", "in chunks"])
def test_z_loss_is_of_scored_tokens_alone(objective: Any, loss_chunk: int | None) -> None:
    """Prompts of a completion, padding of a text: read, and without a share in the penalty."""
    batch, params = examples(), init(SMALL, jax.random.key(0))
    tokens, scored = batch["tokens"], batch["scored"]
    if objective == NextToken():
        scored = scored[:, ::-1]
        tokens = np.where(np.pad(scored, ((0, 0), (1, 0)), constant_values=True), tokens, -1)
    log_z = np.log(np.exp(jax.jit(partial(logits, config=SMALL))(params, np.maximum(tokens[:, :-1], 0))).sum(-1))

    def terms(z_loss: float) -> Terms:
        chosen = config(objective, z_loss=z_loss)
        chosen = replace(chosen, model=replace(SMALL, loss_chunk=loss_chunk))
        given = batch if objective == Completion() else tokens
        return jax.jit(make_objective(chosen))(params, (), given, jax.random.key(0))

    plain, penalised = terms(0.0), terms(0.5)
    assert float(plain.weight) == float(penalised.weight) == scored.sum() < scored.size
    assert float(penalised.loss) == float(plain.loss) == float(plain.objective)
    assert float(penalised.objective - plain.objective) == pytest.approx(0.5 * (log_z**2)[scored].sum(), rel=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("dropout", ["residual_dropout", "attention_dropout"])
def test_either_dropout_of_a_model_is_drawn_from_the_key(dropout: str) -> None:
    chosen = config(NextToken())
    chosen = replace(chosen, model=replace(SMALL, **{dropout: 0.5}))
    terms = jax.jit(make_objective(chosen))
    batch, params = examples()["tokens"], init(SMALL, jax.random.key(0))
    losses = [float(terms(params, (), batch, jax.random.key(seed)).loss) for seed in (0, 0, 1)]
    assert losses[0] == losses[1] != pytest.approx(losses[2], rel=1e-4)


@pytest.mark.long
@pytest.mark.parametrize("micro_batches", [2, 4, 8])
def test_micro_batches_with_answers_of_unequal_lengths_give_the_whole(micro_batches: int) -> None:
    whole, grads = means(config(Completion()), examples())
    part_means, part_grads = means(config(Completion(), micro_batches=micro_batches), examples())
    assert float(part_means.loss) == pytest.approx(float(whole.loss), rel=1e-6)
    for name, grad in grads.items():
        np.testing.assert_allclose(part_grads[name], grad, rtol=1e-4, atol=1e-7, err_msg=name)


def test_the_default_objective_leaves_no_trace_in_a_runs_name_and_another_does() -> None:
    default, explicit, other = config(NextToken()), config(NextToken(kind="next-token")), config(Completion())
    assert default.run_id == explicit.run_id != other.run_id
    assert RunConfig.from_json(other.to_json()) == other and RunConfig.from_json(default.to_json()) == default
    old = default.to_json()
    del old["objective"], old["init_from"], old["continue_from"]
    assert RunConfig.from_json(old) == default
    with pytest.raises(UserError, match=r"objective\.kind = 'completions'.* did you mean 'completion'\?"):
        RunConfig.from_json({**old, "objective": {"kind": "completions"}})


# From here on a whole run with an objective of its own: cross-entropy and the distance from a reference.


def near_reference(config: RunConfig) -> Objective:
    next_token = make_objective(config)

    def terms(params: Any, reference: Any, batch: Any, key: jax.Array) -> Terms:
        of_text = next_token(params, reference, batch, key)
        distance = sum(jnp.sum((params[name] - reference[name]) ** 2) for name in params) * of_text.weight
        longest = (batch[:, 1:] == 32).sum()
        return of_text._replace(
            objective=of_text.objective + 0.1 * distance, reported={"distance": distance, "spaces": longest}
        )

    return terms


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def reference() -> Any:
    from lmscale.core.config import MeshConfig
    from lmscale.lm.devices.sharding import make_mesh, replicated

    return jax.device_put(init(MODEL, jax.random.key(7)), replicated(make_mesh(MeshConfig())))


@pytest.mark.long
@pytest.mark.usefixtures("known_peak", "compiled_programs")
def test_an_objective_with_a_reference_trains_reports_and_resumes(
    corpus: str, reference: Any, tmp_path: Path, stop_after: Any
) -> None:
    one = run(corpus, 12)
    options = {"objective": near_reference(one), "reference": reference}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lmscale.lm.train.loop.LOG_ROWS", 4)
        result = train(one, tmp_path / "whole", **options)
        train_interrupted(one, tmp_path / "stopped", stop_after, 7, **options)
    assert_same(one, tmp_path / "stopped", tmp_path / "whole")
    assert result.reported is not None and set(result.reported) == {"distance", "spaces"}
    assert rows(tmp_path / "whole")[-1]["distance"] == result.reported["distance"] > 0
    assert Outcome.read(tmp_path / "whole") == result
    last = final_parameters(one, tmp_path / "whole")
    distance = sum(float(((last[name] - np.asarray(reference[name])) ** 2).sum()) for name in last)
    assert result.reported["distance"] == pytest.approx(distance, rel=0.1), "a mean per unit of weight, as the loss is"
    pulled = [row["distance"] for row in rows(tmp_path / "whole")]
    assert pulled == sorted(pulled, reverse=True), "the pull towards the reference is part of what is minimised"


@pytest.mark.long
@pytest.mark.usefixtures("known_peak", "compiled_programs")
def test_a_run_without_reports_says_none(corpus: str, tmp_path: Path) -> None:
    train(run(corpus, 2), tmp_path)
    assert outcome(tmp_path)["reported"] is None
