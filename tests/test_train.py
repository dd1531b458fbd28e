import dataclasses
import math
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import pytest
from helpers.tiny_runs import MODEL, assert_same, caching_programs, rows, run, start, strictly, wait_for, write_corpus

from lmscale.core.config import RunConfig
from lmscale.core.counting import flops_per_token
from lmscale.core.errors import UserError
from lmscale.core.exit_status import EXIT_INTERRUPTED
from lmscale.core.results import Outcome
from lmscale.core.run_folder import CHECKPOINT_FOLDER, CONFIG_FILE, DATA_FILE, METRICS_FILE, OUTCOME_FILE
from lmscale.lm import data
from lmscale.lm.devices import machine
from lmscale.lm.train import loop as training
from lmscale.lm.train.loop import Interrupted, train

pytestmark = pytest.mark.usefixtures("known_peak", "compiled_programs")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def config(corpus: str) -> RunConfig:
    return run(corpus, steps=20)


@pytest.fixture(scope="module")
def uninterrupted(corpus: str, tmp_path_factory: pytest.TempPathFactory, compiled_programs: Path) -> Path:
    """The folder of `config` trained in one go, rows of metrics covering three steps each."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine, "matmul_peak", lambda dtype: 1e11)
        patch.setattr(training, "LOG_ROWS", 7)
        train(run(corpus, steps=20), folder)
    return folder


@pytest.fixture
def three_steps_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "LOG_ROWS", 7)


@pytest.mark.long
def test_a_run_says_what_it_did(config: RunConfig, uninterrupted: Path) -> None:
    outcome = Outcome.read(uninterrupted)
    assert outcome is not None and outcome.state == "finished" and outcome.reason == ""
    assert outcome.tokens == config.tokens and outcome.flops == flops_per_token(MODEL) * config.tokens
    assert outcome.tokens_by_source == {config.data.source: config.tokens} and outcome.unique_tokens <= config.tokens
    assert outcome.epochs == outcome.epochs_by_source[config.data.source] > 0  # type: ignore[index]
    assert outcome.loss_nats is not None and outcome.loss_nats < math.log(256)
    assert outcome.loss_stderr is not None and 0 < outcome.loss_stderr < 0.5
    table = rows(uninterrupted)
    assert [row["step"] for row in table] == [3, 6, 7, 9, 12, 13, 15, 18, 20]
    assert [row["step"] for row in table if "validation_loss_nats" in row] == [7, 13, 20]
    assert set(table[0]) == {
        "run_id", "step", "tokens", "flops", "loss_nats", "learning_rate", "grad_norm", "tokens_per_second", "mfu",
    }  # fmt: skip
    assert set(table[-1]) - set(table[0]) == {"validation_loss_nats", "validation_stderr"}
    assert table[-1]["validation_loss_nats"] == outcome.loss_nats
    assert table[-1]["loss_nats"] == outcome.train_loss_nats
    assert table[-1]["tokens"] == config.tokens and table[-1]["flops"] == outcome.flops


@pytest.mark.long
@pytest.mark.parametrize(("steps", "validations"), [(1, 1), (1, 8), (3, 8), (5, 2)])
def test_the_shortest_runs_end_with_a_validation(corpus: str, tmp_path: Path, steps: int, validations: int) -> None:
    outcome = train(run(corpus, steps, validations=validations, keep_checkpoint=False), tmp_path)
    table = rows(tmp_path)
    assert [row["step"] for row in table] == list(range(1, steps + 1))
    assert table[-1]["validation_loss_nats"] == outcome.loss_nats
    assert sum("validation_loss_nats" in row for row in table) == min(steps, validations)
    assert outcome.tokens_per_second is not None and outcome.tokens_per_second > 0


@pytest.mark.long
@pytest.mark.usefixtures("three_steps_a_row")
def test_stopped_again_and_again_it_ends_as_uninterrupted(
    config: RunConfig, tmp_path: Path, uninterrupted: Path, stop_after: Callable[[int], None]
) -> None:
    """Between two rows (1, 5), at a validation (7), one step before the end (19)."""
    stops = (1, 5, 7, 19)
    for before, stop in zip((0, *stops), stops):
        stop_after(stop - before)
        with pytest.raises(Interrupted, match=f"stopped after step {stop} of 20; a checkpoint is saved"):
            train(config, tmp_path)
    stop_after(10**6)
    train(config, tmp_path)
    assert_same(config, tmp_path, uninterrupted)


@pytest.mark.long
@pytest.mark.usefixtures("three_steps_a_row")
def test_killed_between_the_last_checkpoint_and_the_outcome(
    config: RunConfig, tmp_path: Path, uninterrupted: Path
) -> None:
    shutil.copytree(uninterrupted, tmp_path, dirs_exist_ok=True)
    before = Outcome.read(tmp_path)
    (tmp_path / OUTCOME_FILE).unlink()
    outcome = train(config, tmp_path)
    assert_same(config, tmp_path, uninterrupted)
    assert before is not None and outcome.seconds >= before.seconds


@pytest.mark.long
@pytest.mark.usefixtures("three_steps_a_row")
def test_torn_files_cost_steps_and_nothing_else(
    config: RunConfig,
    tmp_path: Path,
    uninterrupted: Path,
    stop_after: Callable[[int], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Half a line of metrics, a checkpoint with holes, one without its parts and one never renamed."""
    for steps in (8, 3):
        stop_after(steps)
        with pytest.raises(Interrupted):
            train(config, tmp_path)
    checkpoints = tmp_path / CHECKPOINT_FOLDER
    for path in (checkpoints / "11" / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:20])
    (checkpoints / "12").mkdir()
    (checkpoints / "13.orbax-checkpoint-tmp" / "state.orbax-checkpoint-tmp").mkdir(parents=True)
    with (tmp_path / METRICS_FILE).open("a") as file:
        file.write('{"step": 12, "loss_n')
    capsys.readouterr()
    stop_after(10**6)
    train(config, tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert sum("of step 11 in" in line and "cannot be read and is skipped" in line for line in lines) == 1
    assert lines[-1] == "going on from step 8 of 20"
    assert not (checkpoints / "13.orbax-checkpoint-tmp").exists()
    assert_same(config, tmp_path, uninterrupted)


@pytest.mark.long
def test_a_checkpoint_taken_while_training_goes_on_is_of_its_own_step(corpus: str, tmp_path: Path) -> None:
    """The state is donated to the next step while Orbax writes it: two folders, saved at every step and at one."""
    config = run(corpus, steps=6)
    folders = tmp_path / "often", tmp_path / "once"
    for folder, seconds in zip(folders, (1e-9, 1e6)):
        train(dataclasses.replace(config, checkpoint_seconds=seconds), folder)
    assert {path.name for path in (folders[0] / CHECKPOINT_FOLDER).iterdir()} == {"5", "6"}
    assert_same(config, *folders)


@pytest.mark.long
def test_a_finished_run_is_not_run_again(
    config: RunConfig, tmp_path: Path, uninterrupted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(uninterrupted / OUTCOME_FILE, tmp_path)
    monkeypatch.setattr(data, "prepare", lambda config: pytest.fail("the run began"))
    assert train(config, tmp_path) == Outcome.read(uninterrupted)
    assert [path.name for path in tmp_path.iterdir()] == [OUTCOME_FILE]


def test_an_outcome_of_another_run_or_none_is_said(config: RunConfig, tmp_path: Path, uninterrupted: Path) -> None:
    shutil.copy(uninterrupted / OUTCOME_FILE, tmp_path)
    other = dataclasses.replace(config, seed=1)
    with pytest.raises(
        UserError, match=f"outcome of run {config.run_id}, but this configuration is run {other.run_id}"
    ):
        train(other, tmp_path)
    (tmp_path / OUTCOME_FILE).write_text('{"run_id": ', "utf-8")
    with pytest.raises(UserError, match=r"is corrupt .*; delete it"):
        train(config, tmp_path)


@pytest.mark.long
def test_checkpoints_of_another_run_are_left_alone(
    config: RunConfig, tmp_path: Path, stop_after: Callable[[int], None]
) -> None:
    stop_after(2)
    with pytest.raises(Interrupted):
        train(config, tmp_path)
    with pytest.raises(UserError, match=f"holds checkpoints of run {config.run_id}, .* in a folder of its own"):
        train(dataclasses.replace(config, seed=1), tmp_path)
    assert (tmp_path / CHECKPOINT_FOLDER / "2").is_dir()


@pytest.mark.long
@pytest.mark.usefixtures("three_steps_a_row")
@pytest.mark.parametrize(
    ("steps", "reason", "done"),
    [
        (20, r"the (training loss|gradient norm) was not finite at step [23]", {2, 3}),
        (1, r"the validation loss was (nan|inf) at step 1", {1}),
    ],
)
def test_a_diverged_run_says_where_and_why(
    corpus: str, tmp_path: Path, steps: int, reason: str, done: set[int]
) -> None:
    config = run(corpus, steps, peak_lr=1e38, checkpoint_seconds=1e-9, keep_checkpoint=False)
    outcome = train(config, tmp_path)
    assert outcome.state == "diverged" and outcome.loss_nats is None and outcome.bits_per_byte is None
    assert re.fullmatch(reason, outcome.reason), outcome.reason
    assert outcome.tokens // config.batch_tokens in done
    assert strictly((tmp_path / OUTCOME_FILE).read_text("utf-8"))["state"] == "diverged"
    assert rows(tmp_path) == []
    assert not (tmp_path / CHECKPOINT_FOLDER).exists()
    assert train(config, tmp_path) == outcome


@pytest.mark.long
def test_a_diverged_state_is_not_kept(corpus: str, tmp_path: Path) -> None:
    """Its parameters are what the last checkpoint before would be overwritten by."""
    assert train(run(corpus, steps=1, peak_lr=1e38), tmp_path).state == "diverged"
    assert not (tmp_path / CHECKPOINT_FOLDER).exists()


@pytest.mark.long
def test_one_validation_window_has_no_standard_error(corpus: str, tmp_path: Path) -> None:
    config = run(corpus, steps=1, validation_tokens=MODEL.context, keep_checkpoint=False)
    assert train(config, tmp_path).loss_stderr is None
    assert rows(tmp_path)[-1]["validation_stderr"] is None


@pytest.mark.long
def test_without_keep_checkpoint_none_is_left(corpus: str, tmp_path: Path) -> None:
    train(run(corpus, steps=3, keep_checkpoint=False, checkpoint_seconds=1e-9), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {CONFIG_FILE, DATA_FILE, METRICS_FILE, OUTCOME_FILE}


def test_a_corpus_too_small_is_one_sentence(corpus: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"would be [\d.e+]+ epochs of the .* unique tokens"):
        train(run(corpus, steps=10**7), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {CONFIG_FILE}


@pytest.mark.long
def test_runs_of_one_shape_share_one_program(corpus: str, tmp_path: Path) -> None:
    def programs() -> set[str]:
        return {path.name for path in (tmp_path / "xla").iterdir() if path.name.endswith("-cache")}

    with caching_programs(tmp_path / "xla"):
        jax.clear_caches()
        train(run(corpus, 5, keep_checkpoint=False), tmp_path / "first")
        before = programs()
        assert any(name.startswith("jit_train_step") for name in before)
        jax.clear_caches()
        train(run(corpus, 9, peak_lr=0.003, seed=7, keep_checkpoint=False), tmp_path / "second")
        assert programs() == before


@pytest.mark.long
def test_a_process_that_is_told_to_stop_saves_and_says_so_by_its_status(corpus: str, tmp_path: Path) -> None:
    """SIGTERM, as launchers send it before they take a machine away. (SIGKILL, twenty times: test_resume.py.)"""
    config = run(corpus, steps=1000)
    folder, expected = tmp_path / "stopped", tmp_path / "expected"
    process = start(config, folder)
    wait_for(lambda: (folder / METRICS_FILE).exists() and (folder / METRICS_FILE).stat().st_size > 0, process)
    process.terminate()
    output, complaints = process.communicate()
    assert process.returncode == EXIT_INTERRUPTED == 75, complaints
    assert re.search(r"stopped after step [\d,]+ of 1,000; a checkpoint is saved", output) and not complaints
    train(config, folder)
    train(config, expected)
    assert_same(config, folder, expected)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MiB; skipped where it cannot be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount a file system")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.long
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can mount a file system")
def test_a_full_disk_is_one_sentence_and_the_run_goes_on_later(corpus: str, tmp_path: Path, small_disk: Path) -> None:
    config = run(corpus, steps=20, checkpoint_seconds=1e-9)
    folder, filler = small_disk / "run", small_disk / "filler"
    folder.mkdir()
    filler.write_bytes(bytes(shutil.disk_usage(small_disk).free - 1_400_000))  # room for one checkpoint or two
    process = start(config, folder)
    _, complaints = process.communicate()
    assert process.returncode == 74, complaints
    assert "is full" in complaints and "Traceback" not in complaints and complaints.count("\n") == 1
    assert not list(folder.rglob("*tmp*")) and not (folder / OUTCOME_FILE).exists()

    filler.unlink()
    whole = dataclasses.replace(config, checkpoint_seconds=1e6)
    train(whole, folder)
    train(whole, tmp_path / "expected")
    assert_same(whole, folder, tmp_path / "expected")
