import json
import socket
import sys
import urllib.request
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lmscale.core.config import ModelConfig, OptimizerConfig, RunConfig
from lmscale.core.plans import PlannedRun
from lmscale.lm.train.logs.wandb import Tracker
from lmscale.study.launch.slot import Slot
from lmscale.study.launch.watchers import LogLines, WandbWatcher

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


def sweep(tmp_path: Path) -> Path:
    (tmp_path / "sweep" / "one").mkdir(parents=True)
    (tmp_path / "sweep" / "other").mkdir()
    (tmp_path / "sweep" / "plan.json").write_text("{}")
    return tmp_path / "sweep"


@pytest.mark.parametrize("broken", ["init", "log 3", "finish"])
def test_trouble_of_one_run_spares_the_rest_of_the_sweep_and_is_reported_once(
    broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, sentences = sweep(tmp_path), []
    (folder / "wandb-off.txt").write_text("of an earlier launch")
    watcher = WandbWatcher(LogLines(), folder, sentences.append)
    through(Recorder(broken), monkeypatch, folder / "one", mode="online")
    later = Recorder()
    through(later, monkeypatch, folder / "other", mode="online")
    assert later.calls == []
    for _ in range(3):
        watcher.advanced(Slot("here"), PlannedRun(CONFIG), ROW)
    assert sentences == [
        f"Weights & Biases is switched off for the rest of this sweep: RuntimeError: {broken} does not answer; every "
        "run keeps its rows in metrics.jsonl"
    ]
    WandbWatcher(LogLines(), folder, sentences.append)  # a new launch tries again
    through(later, monkeypatch, folder / "other", mode="online")
    assert later.calls == ["init", "log 3", "summary", "finish"]


def test_a_server_that_does_not_answer_costs_no_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    recorder = Recorder()
    recorder.setup = lambda: SimpleNamespace(settings=SimpleNamespace(base_url=f"http://127.0.0.1:{port}"))
    monkeypatch.setattr(urllib.request, "getproxies", dict)
    through(recorder, monkeypatch, tmp_path, mode="online")
    assert recorder.calls == []
    assert f"127.0.0.1:{port} does not answer (Connection refused); without a network" in capsys.readouterr().out
    with socket.create_server(("127.0.0.1", port)):
        through(recorder, monkeypatch, tmp_path, mode="online")
    assert recorder.calls == ["init", "log 3", "summary", "finish"]
    assert recorder.settings["settings"]["init_timeout"] < 20


def test_without_wandb_a_run_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    Tracker("offline", CONFIG, tmp_path)
    assert "pip install wandb" in capsys.readouterr().out


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
