"""`lmscale bench` measures the step that is trained, and says what it says in the units that it names."""

import json
import subprocess
import sys
from dataclasses import asdict, fields, replace
from pathlib import Path

import jax
import numpy as np
import pytest

from lmscale.core.config import DataConfig, MeshConfig, ModelConfig, OptimizerConfig, RunConfig
from lmscale.core.counting import flops_per_token, params_total
from lmscale.core.errors import UserError
from lmscale.lm import data
from lmscale.lm.data import Batches
from lmscale.lm.devices import machine
from lmscale.lm.train import bench

PROMISED = {
    "tokens_per_second", "flops_per_second", "matmul_peak_flops_per_second", "mfu", "compile_seconds",
    "step_seconds_median", "step_seconds_min", "peak_memory_bytes", "data_tokens_per_second",
}  # fmt: skip
SHAPE = {"layers": 2, "width": 16, "heads": 2, "kv_heads": 1, "context": 32, "vocab": 300}


def unread(source: str = "no/such/text") -> RunConfig:
    config = bench.configuration(None, batch=4, **SHAPE)
    return replace(config, data=DataConfig(source=source))


@pytest.fixture
def known_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    peaks = iter([2e11, 1e11])
    monkeypatch.setattr(machine, "matmul_peak", lambda dtype: next(peaks))


@pytest.mark.long
@pytest.mark.usefixtures("known_peak")
def test_figures_fit_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    config = unread()
    speed = bench.measure(config, steps=5)
    assert set(asdict(speed)) >= PROMISED
    assert speed.tokens_per_second == pytest.approx(4 * 32 / speed.step_seconds_median)
    assert speed.flops_per_second == pytest.approx(speed.tokens_per_second * flops_per_token(config.model))
    assert speed.matmul_peak_flops_per_second == 2e11, "the better of the two measurements"
    assert speed.mfu == pytest.approx(speed.flops_per_second / 2e11) and speed.mfu_of_datasheet is None
    assert 0 < speed.step_seconds_min <= speed.step_seconds_median <= speed.step_seconds_max
    assert speed.compile_seconds > speed.step_seconds_median
    assert speed.params == params_total(config.model)
    assert speed.data == "random tokens" and speed.data_tokens_per_second > 0
    state = 3 * 4 * speed.params
    assert state < speed.peak_memory_bytes < 100 * state and speed.resident_bytes > speed.peak_memory_bytes
    values = dict(bench.lines(speed))
    assert values["tokens/s"] == f"{speed.tokens_per_second:,.0f}" and values["MFU"] == f"{speed.mfu:.3f}"
    assert values["input"].endswith(f"{speed.data_headroom:,.0f} x the step")


@pytest.mark.long
@pytest.mark.usefixtures("known_peak")
def test_the_data_sheet_stands_beside_the_measured_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "datasheet_peak", lambda dtype: {"bfloat16": 4e11}[dtype])
    config = replace(unread(), model=replace(unread().model, compute_dtype="bfloat16"))
    speed = bench.measure(config, steps=2)
    assert speed.mfu_of_datasheet == pytest.approx(speed.mfu / 2)
    assert "MFU of the data sheet" in dict(bench.lines(speed))


@pytest.mark.long
def test_the_programs_from_the_cache_do_not_hide_compilation(tmp_path: Path) -> None:
    """A process that has compiled the very step before, into a cache on disk."""
    before = jax.config.jax_compilation_cache_dir
    program = (
        "import sys; from lmscale.lm.devices import machine; machine.set_up(); from lmscale.lm.train import bench\n"
        "from lmscale.core.config import DataConfig; from dataclasses import replace\n"
        "machine.matmul_peak = lambda dtype: 1e11\n"
        f"config = bench.configuration(None, batch=4, **{SHAPE})\n"
        "for _ in range(2): print(bench.measure(config, steps=2).compile_seconds)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, second = map(float, done.stdout.split())
    assert second > first / 3
    assert jax.config.jax_compilation_cache_dir == before


def test_random_tokens_go_through_the_batches_of_training() -> None:
    config = unread()
    with bench._tokens(config, steps=4) as tokens:
        assert isinstance(tokens.train.base, np.memmap), "read from a file, as a corpus is"
        batches = Batches(tokens, 32, 4, seed=0)
        rows = np.stack([batches[t] for t in range(4 + bench.WARM_STEPS + 1)])
    assert rows.dtype == np.int32 and 256 < rows.max() < 300 and len(np.unique(rows)) > 256
    assert len(np.unique(rows[:, :, :-1].reshape(-1, 32), axis=0)) == rows.shape[0] * rows.shape[1], "no window twice"


@pytest.mark.long
def test_prepared_text_of_the_right_vocabulary_is_used(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one two three four " * 400, "utf-8")
    (tmp_path / "b.txt").write_text("five six seven eight " * 400, "utf-8")
    (tmp_path / "c.txt").write_text("nine ten eleven " * 400, "utf-8")
    config = unread(str(tmp_path))
    config = replace(config, data=replace(config.data, validation_fraction=0.4))
    with bench._tokens(config, steps=2) as tokens:
        assert tokens.manifest.source == "random tokens", "nothing is prepared yet, and bench reads no text"
    data.prepare(config.data)
    with bench._tokens(config, steps=2) as tokens:
        assert tokens.manifest.source == "random tokens", "a vocabulary of 300 is not that of bytes"
    with bench._tokens(replace(config, model=replace(config.model, vocab=256)), steps=2) as tokens:
        assert tokens.manifest.train_documents > 0 and tokens.manifest.vocab == 256


def test_a_shape_or_a_file_and_not_both(tmp_path: Path) -> None:
    config = RunConfig(
        model=ModelConfig(width=8, layers=1, heads=1, context=16),
        optimizer=OptimizerConfig(peak_lr=0.1, batch_sequences=2, kind="lion"),
        tokens=64,
        mesh=MeshConfig(data=2),
    )
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config.to_json()), "utf-8")
    assert bench.configuration(file, batch=None, width=None) == config
    with pytest.raises(
        UserError, match=r"--config .*config.json brings its own shape, so batch, width cannot be given"
    ):
        bench.configuration(file, batch=4, width=8)
    model = bench.configuration(None, batch=None, width=64, remat=None).model
    assert model == ModelConfig(width=64, layers=4, heads=4, context=256)
    with pytest.raises(UserError, match="--steps 1: a spread needs at least 2"):
        bench.measure(config, steps=1)


@pytest.mark.long
def test_the_verb_prints_and_writes(tmp_path: Path) -> None:
    figures, traces = tmp_path / "speed.json", tmp_path / "traces"
    words = "bench --layers 1 --width 16 --heads 1 --context 32 --batch 2 --steps 3".split()
    command = [sys.executable, "-m", "lmscale", *words, "--json", str(figures), "--profile", str(traces)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    speed = bench.TrainingSpeed(**json.loads(figures.read_text("utf-8")))
    assert {field.name for field in fields(speed)} >= PROMISED
    assert speed.steps == 3 and speed.mfu == pytest.approx(speed.flops_per_second / speed.matmul_peak_flops_per_second)
    assert f"{speed.tokens_per_second:,.0f}" in done.stdout
    assert done.stdout.count("\n") == len(list(bench.lines(speed))) + 1, "and the next command"
    assert list(traces.rglob("*.xplane.pb"))
