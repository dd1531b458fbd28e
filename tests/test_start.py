"""A run starts from random numbers, from another run's parameters, or from its own samples, and resumes alike."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from helpers.tiny_runs import MODEL, assert_same, final_parameters, outcome, run, train_interrupted, write_corpus

import lmscale
from lmscale.core.config import RunConfig
from lmscale.core.errors import UserError
from lmscale.core.run_folder import CHECKPOINT_FOLDER, DATA_FILE, OUTCOME_FILE
from lmscale.lm import data
from lmscale.lm.devices.sharding import make_mesh
from lmscale.lm.model.transformer import logits
from lmscale.lm.train.batch_source import TextBatches
from lmscale.lm.train.checkpoint_content import Identity, OtherData
from lmscale.lm.train.loop import Interrupted, train, train_packed
from lmscale.lm.train.start import first_state
from lmscale.lm.train.step import make_step
from lmscale.lm.train.training_data import check_noted

pytestmark = pytest.mark.usefixtures("known_peak", "compiled_programs")
AVERAGED = {"optimizer": {"ema_decay": 0.8}}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def parent(corpus: str, tmp_path: Path) -> RunConfig:
    """A run trained in `runs/first/<run_id>`, its step 4 kept."""
    config = run(corpus, 8, kept_steps=(4,))
    train(config, tmp_path / "runs" / "first" / config.run_id)
    return config


def first_params(config: RunConfig, folder: Path) -> dict[str, np.ndarray]:
    mesh = make_mesh(config.mesh)
    with jax.set_mesh(mesh):
        state, facts, _ = first_state(config, folder, make_step(config, mesh), Identity(config.run_id))
    assert int(state.step) == 0 and facts["losses"] == []
    return {name: np.asarray(value) for name, value in state.params.items()}


@pytest.mark.long
def test_a_run_starts_from_the_parameters_of_another(parent: RunConfig, corpus: str, tmp_path: Path) -> None:
    """The parent is in another sweep; its last step or one that it kept; another seed and rate make no difference."""
    runs = tmp_path / "runs"
    child = run(corpus, 3, init_from=parent.run_id, seed=3, peak_lr=0.5)
    last = final_parameters(parent, runs / "first" / parent.run_id)
    initial = first_params(child, runs / "second" / child.run_id)
    assert all(np.array_equal(initial[name], value) for name, value in last.items())
    middle = first_params(replace(child, init_from=f"{parent.run_id}@4"), runs / "second" / child.run_id)
    assert any(not np.array_equal(middle[name], value) for name, value in last.items())
    plain = replace(child, init_from=None)
    assert len({child.run_id, plain.run_id, replace(child, init_from=f"{parent.run_id}@4").run_id}) == 3
    assert train(child, runs / "second" / child.run_id).loss_nats != train(plain, tmp_path / "plain").loss_nats


@pytest.mark.long
def test_averaged_weights_are_what_another_run_starts_from(corpus: str, tmp_path: Path) -> None:
    config = run(corpus, 6, **AVERAGED)
    train(config, tmp_path / "sweep" / config.run_id)
    child = run(corpus, 3, init_from=config.run_id)
    initial = first_params(child, tmp_path / "sweep" / child.run_id)
    loaded = lmscale.load(tmp_path / "sweep" / config.run_id)
    assert all(np.array_equal(initial[name], value) for name, value in loaded.params.items())
    last = final_parameters(config, tmp_path / "sweep" / config.run_id)
    assert any(not np.array_equal(initial[name], value) for name, value in last.items())


@pytest.mark.long
def test_a_start_that_cannot_be_had_is_one_sentence(parent: RunConfig, corpus: str, tmp_path: Path) -> None:
    folder, child = tmp_path / "runs" / "first" / "child", run(corpus, 3, init_from=parent.run_id)
    with pytest.raises(UserError, match=r"there is no run 0123456789ab in .*first"):
        train(replace(child, init_from="0123456789ab"), folder)
    with pytest.raises(UserError, match=r"no checkpoint of step 5 .* there are those of 4, 8"):
        train(replace(child, init_from=f"{parent.run_id}@5"), folder)
    with pytest.raises(UserError, match=r"parameter \w+ is \(.*\) there and \(.*\) here; give both runs one model"):
        train(replace(child, model=replace(MODEL, width=32)), folder)
    with pytest.raises(UserError, match=r"init_from = 'runs/first': write the id of a run"):
        run(corpus, 3, init_from="runs/first")
    for step in (0, 3, 9):
        with pytest.raises(UserError, match=r"continue_from = .*name a step after the first and before the last"):
            run(corpus, 3, continue_from=f"{parent.run_id}@{step}")


@pytest.mark.long
def test_a_start_with_another_tokenizer_is_refused(corpus: str, tmp_path: Path) -> None:
    """`bpe:300` is trained on each text; the file of the first is the same tokenizer by another name."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other/text.txt").write_text("\n".join(f"line {n} of lorem ipsum dolor sit amet" for n in range(400)))
    first = run(corpus, 2, model=replace(MODEL, vocab=300))
    first = replace(first, data=replace(first.data, tokenizer="bpe:300"))
    train(first, tmp_path / "runs" / "first" / first.run_id)
    file = data.prepare(first.data).manifest.tokenizer_file
    assert file is not None
    child = replace(first, data=replace(first.data, source=str(tmp_path / "other")), init_from=first.run_id)
    with pytest.raises(UserError, match=r"the init_from, run \w+, was trained with another tokenizer than that of"):
        train(child, tmp_path / "runs" / "second" / child.run_id)
    same = replace(child, data=replace(child.data, tokenizer=file))
    assert train(same, tmp_path / "runs" / "second" / same.run_id).state == "finished"


@pytest.mark.long
def test_load_gives_configuration_parameters_and_tokenizer(parent: RunConfig, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "first" / parent.run_id
    config, params, tokenizer = lmscale.load(folder)
    assert config.run_id == parent.run_id and tokenizer.vocab == config.model.vocab
    for name, value in final_parameters(parent, folder).items():
        assert np.array_equal(params[name], value), name
    earlier = lmscale.load(folder, step=4).params
    assert any(not np.array_equal(earlier[name], value) for name, value in params.items())
    with pytest.raises(UserError, match=r"no checkpoint of step 3 "):
        lmscale.load(folder, step=3)
    with pytest.raises(UserError, match=r"is no run folder: it has no config\.json"):
        lmscale.load(tmp_path)


class OwnContinuations(TextBatches):
    """Batches whose second half the model writes: the likeliest next token of each position."""

    reads_params = True
    flops_per_batch = 1000

    def __call__(self, t: int, params: Any) -> Any:
        text = super().__call__(t, params)
        return _continued(params, text)


@jax.jit
def _continued(params: Any, text: jax.Array) -> jax.Array:
    half = text.shape[1] // 2
    likeliest = logits(params, text[:, :-1], MODEL).argmax(axis=-1).astype(text.dtype)
    return jax.numpy.concatenate([text[:, :half], likeliest[:, half - 1 :]], axis=1)


@pytest.mark.long
def test_a_run_on_its_own_samples_resumes_to_the_last_bit(corpus: str, tmp_path: Path, stop_after: Any) -> None:
    config = run(corpus, 10)
    result = train(config, tmp_path / "whole", batches=OwnContinuations)
    train_interrupted(config, tmp_path / "stopped", stop_after, 6, batches=OwnContinuations)
    assert_same(config, tmp_path / "stopped", tmp_path / "whole")
    assert result.batch_flops == 10 * 1000
    assert outcome(tmp_path / "whole")["loss_nats"] != train(config, tmp_path / "text").loss_nats


@pytest.fixture
def stopped(tmp_path: Path, stop_after: Any) -> RunConfig:
    """A run on a corpus of its own in `stopped/<run_id>`, stopped after step 6 of 10; the corpus then has grown."""
    (corpus := tmp_path / "text").mkdir()
    config = run(write_corpus(corpus), 10, kept_steps=(4,), seed=5)
    stop_after(6)
    with pytest.raises(Interrupted):
        train(config, tmp_path / "stopped" / config.run_id)
    stop_after(10**6)
    (corpus / "more.txt").write_text("a text that was not there before " * 40)
    return config


@pytest.mark.long
def test_a_run_that_was_killed_before_its_first_checkpoint_knows_its_corpus(tmp_path: Path, stop_after: Any) -> None:
    (corpus := tmp_path / "text").mkdir()
    config, folder = run(write_corpus(corpus), 10), tmp_path / "killed"
    stop_after(0)
    with pytest.raises(Interrupted, match="stopped before the first step"):
        train(config, folder)
    (corpus / "more.txt").write_text("a text that was not there before " * 40)
    stop_after(3)  # nothing was trained on the first corpus, so the second is the run's own
    with pytest.raises(Interrupted):
        train(config, folder)
    shutil.rmtree(folder / CHECKPOINT_FOLDER)
    (corpus / "more.txt").unlink()
    stop_after(10**6)
    with pytest.raises(OtherData, match=r"was begun on other data: fingerprint .*restore the corpus .*delete .*data"):
        train(config, folder)
    assert not (folder / OUTCOME_FILE).exists()
    (folder / DATA_FILE).unlink()
    train(config, folder)
    train(config, tmp_path / "whole")
    assert_same(config, folder, tmp_path / "whole")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "is corrupt"),
        ("[]", "states no fingerprint; delete it"),
        ('{"data_fingerprint": 5}', "states no fingerprint"),
        ('{"data_fingerprint": "5f", "data_source": {}}', "states no fingerprint"),
        ('{"data_fingerprint": "5f", "run_id": "000000000000"}', "it was copied from another run"),
    ],
)
def test_a_damaged_note_of_a_runs_data_is_one_sentence(content: str, sentence: str, tmp_path: Path) -> None:
    folder = tmp_path / "0123456789ab"
    folder.mkdir()
    (folder / DATA_FILE).write_text(content)
    with pytest.raises(UserError, match=sentence):
        check_noted(Identity("0123456789ab", "5f"), folder)


@pytest.mark.long
def test_a_run_does_not_go_on_over_a_changed_corpus(stopped: RunConfig, tmp_path: Path) -> None:
    folder = tmp_path / "stopped" / stopped.run_id
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    refused = r"the checkpoint of step 6 in .* was trained on other data: .*restore the corpus .*`lmscale retry`"
    with pytest.raises(OtherData, match=refused):
        train(stopped, folder)
    other = replace(stopped, seed=6)
    with pytest.raises(OtherData, match=refused):  # in a pack as alone
        train_packed([other, stopped], [tmp_path / "stopped" / other.run_id, folder])
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    (tmp_path / "text" / "more.txt").unlink()
    train(stopped, folder)
    train(stopped, tmp_path / "whole")
    assert_same(stopped, folder, tmp_path / "whole")


@pytest.mark.long
def test_a_branch_of_other_data_is_refused_and_a_start_from_parameters_is_not(
    stopped: RunConfig, tmp_path: Path
) -> None:
    branch = replace(stopped, tokens=2 * stopped.tokens, continue_from=f"{stopped.run_id}@4")
    with pytest.raises(OtherData, match=r"the checkpoint of step 4 in .* was trained on other data"):
        train(branch, tmp_path / "stopped" / branch.run_id)
    child = replace(stopped, init_from=f"{stopped.run_id}@4", seed=7)
    assert train(child, tmp_path / "stopped" / child.run_id).state == "finished"
