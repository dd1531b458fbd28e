import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lmscale.core.config import ModelConfig, OptimizerConfig, RunConfig
from lmscale.lm.train.logs.wandb import Tracker

CONFIG = RunConfig(
    model=ModelConfig(width=8, layers=1, heads=1, context=8),
    optimizer=OptimizerConfig(peak_lr=0.01, batch_sequences=1),
    tokens=8,
    tags=("a", "b"),
)
ROW = {"step": 3, "loss_nats": 2.5}


class Recorder:
    """Stands for the module `wandb`; `broken` names the call that raises."""

    def __init__(self, broken: str = "") -> None:
        self.broken, self.calls, self.summary = broken, [], SimpleNamespace(update=lambda values: self._call("summary"))

    def _call(self, name: str) -> None:
        if name == self.broken:
            raise RuntimeError(f"{name} does not answer")
        self.calls.append(name)

    def init(self, **settings: Any) -> "Recorder":
        self._call("init")
        self.settings = settings
        return self

    def log(self, row: dict[str, Any], step: int) -> None:
        self._call(f"log {step}")

    def finish(self) -> None:
        self._call("finish")


def through(recorder: Recorder, monkeypatch: pytest.MonkeyPatch, folder: Path, mode: str = "offline") -> None:
    monkeypatch.setitem(sys.modules, "wandb", recorder)
    tracker = Tracker(mode, CONFIG, folder)
    tracker.log(ROW)
    tracker.finish({"loss_nats": 2.5})
    tracker.close()


def test_rows_and_outcome_reach_the_run_of_this_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    through(recorder, monkeypatch, tmp_path / "isoflop" / "run")
    assert recorder.calls == ["init", "log 3", "summary", "finish"]
    assert recorder.settings["id"] == CONFIG.run_id and recorder.settings["group"] == "isoflop"
    assert recorder.settings["mode"] == "offline" and recorder.settings["tags"] == ["a", "b"]
    json.dumps(recorder.settings["config"])


def test_off_sends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    through(recorder, monkeypatch, tmp_path, mode="off")
    assert recorder.calls == []


@pytest.mark.parametrize("broken", ["init", "log 3", "summary", "finish"])
def test_trouble_is_said_once_and_the_run_goes_on(
    broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recorder = Recorder(broken)
    through(recorder, monkeypatch, tmp_path)
    order = ["init", "log 3", "summary", "finish"]
    assert recorder.calls == order[: order.index(broken)]
    assert capsys.readouterr().out.splitlines() == [
        f"Weights & Biases is switched off for the rest of this run: RuntimeError: {broken} does not answer"
    ]


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # wandb's own
def test_offline_needs_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    tracker = Tracker("offline", CONFIG, tmp_path)
    tracker.log(ROW)
    tracker.finish({"loss_nats": 2.5})
    tracker.close()
    assert list(tmp_path.glob(f"wandb/offline-run-*-{CONFIG.run_id}/run-{CONFIG.run_id}.wandb"))
