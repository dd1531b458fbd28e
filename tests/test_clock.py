"""Rows, trackers and the outcome have one clock: it stands still while a run is not trained."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import pytest
from helpers.tiny_runs import BATCH, MODEL, rows, run, write_corpus

from lmscale.lm.devices import machine
from lmscale.lm.train import checkpoint, clock, loop
from lmscale.lm.train.loop import Interrupted, train, train_packed

pytestmark = pytest.mark.usefixtures("known_peak", "compiled_programs")

VALIDATION, SCORING, SAVING, PEAK = 100.0, 1000.0, 10_000.0, 1e6
"""Seconds that each takes; a step takes 2."""
RATE = BATCH * MODEL.context / 2


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


class FakeTime:
    """Stands for the module `time`: it moves only while something of known length is done."""

    def __init__(self) -> None:
        self.now = 50.0

    def perf_counter(self) -> float:
        return self.now

    def passing(self, seconds: float, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **named: Any) -> Any:
            result = jax.block_until_ready(function(*args, **named))
            self.now += seconds
            return result

        return timed


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    fake = FakeTime()
    monkeypatch.setattr(clock, "time", fake)
    make_validation, packed_step = loop.make_validation, loop.pack.packed_step

    class TimedStep:
        def __init__(self, step: Any) -> None:
            self.step = step

        def lower(self, *args: Any) -> "TimedStep":
            return TimedStep(self.step.lower(*args))

        def compile(self) -> Callable[..., Any]:
            fake.now += 1e9
            return fake.passing(2.0, self.step.compile())

    def validation(*args: Any) -> Callable[..., Any]:
        return fake.passing(VALIDATION, make_validation(*args))

    monkeypatch.setattr(loop, "make_validation", validation)
    monkeypatch.setattr(loop.pack, "packed_step", lambda *args: TimedStep(packed_step(*args)))
    monkeypatch.setattr(machine, "matmul_peak", fake.passing(PEAK, lambda dtype: 1e11))
    monkeypatch.setattr(checkpoint.Checkpoints, "save", fake.passing(SAVING, checkpoint.Checkpoints.save))
    monkeypatch.setattr(loop.TaskEvaluator, "evaluate", fake.passing(SCORING, lambda *args: None))
    return fake


def assert_one_clock(folder: Path, outcome: Any, steps: int) -> None:
    assert [row["tokens_per_second"] for row in rows(folder)] == pytest.approx([RATE] * len(rows(folder)))
    assert outcome.seconds == pytest.approx(2.0 * steps) and outcome.tokens_per_second == pytest.approx(RATE)
    assert [row["mfu"] for row in rows(folder)] == pytest.approx([outcome.mfu] * len(rows(folder)))


@pytest.mark.long
@pytest.mark.parametrize("rows_per_run", [7, 200])
def test_pauses_are_in_no_rate(
    corpus: str, tmp_path: Path, time: FakeTime, monkeypatch: pytest.MonkeyPatch, rows_per_run: int
) -> None:
    monkeypatch.setattr(loop, "LOG_ROWS", rows_per_run)
    config = run(corpus, 20, validations=3, kept_steps=(5, 11))
    outcome = train(config, tmp_path)
    assert_one_clock(tmp_path, outcome, 20)
    assert outcome.paused_seconds == pytest.approx(3 * VALIDATION + 3 * SAVING + PEAK)
    assert outcome.wall_seconds == pytest.approx(outcome.startup_seconds + 40 + outcome.paused_seconds)


@pytest.mark.long
def test_a_resumed_run_goes_on_with_its_clock(
    corpus: str, tmp_path: Path, time: FakeTime, monkeypatch: pytest.MonkeyPatch, stop_after: Callable[[int], None]
) -> None:
    """Also in the middle of a row, whose time is what it took in both processes."""
    monkeypatch.setattr(loop, "LOG_ROWS", 4)
    config = run(corpus, 20, validations=3)
    for steps in (6, 5):  # of each process
        stop_after(steps)
        with pytest.raises(Interrupted):
            train(config, tmp_path)
        time.now += 1e7
    stop_after(20)
    outcome = train(config, tmp_path)
    assert [row["step"] for row in rows(tmp_path)] == [5, 7, 10, 13, 15, 20]
    assert_one_clock(tmp_path, outcome, 20)


@pytest.mark.long
def test_a_checkpoint_without_the_time_of_its_row_is_read(
    corpus: str, tmp_path: Path, time: FakeTime, monkeypatch: pytest.MonkeyPatch, stop_after: Callable[[int], None]
) -> None:
    """As older versions wrote it: the first row counts the steps since."""
    restore = checkpoint.Checkpoints.restore

    def older(self: Any, like: Any) -> tuple[Any, dict[str, Any], list[str]]:
        state, facts, problems = restore(self, like)
        return state, {name: facts[name] for name in facts if name not in ("row_seconds", "paused_seconds")}, problems

    monkeypatch.setattr(checkpoint.Checkpoints, "restore", older)
    monkeypatch.setattr(loop, "LOG_ROWS", 4)
    config = run(corpus, 20, validations=1)
    stop_after(7)
    with pytest.raises(Interrupted):
        train(config, tmp_path)
    stop_after(20)
    assert_one_clock(tmp_path, train(config, tmp_path), 20)


@pytest.mark.long
def test_runs_in_one_program_pause_together(corpus: str, tmp_path: Path, time: FakeTime) -> None:
    """One diverges and is closed while the other goes on: that is a pause of the other too."""
    good = run(corpus, 20, validations=2, optimizer={"clip_norm": None})
    bad = run(corpus, 20, validations=2, peak_lr=1e6, optimizer={"clip_norm": None})
    outcomes = train_packed([good, bad], [tmp_path / "good", tmp_path / "bad"])
    assert [outcome.state for outcome in outcomes] == ["finished", "diverged"]
    assert_one_clock(tmp_path / "good", outcomes[0], 20)
    assert all(math.isclose(row["tokens_per_second"], RATE) for row in rows(tmp_path / "bad"))
