"""A damaged run, or a damaged file beside one, stops no other run."""

from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.outcomes import OTHER, RUN, outcome_of
from helpers.stand_in import LONG, REAL_PYTHON, Watcher, a_trainer, begun, go, journal, named, none_left_behind  # noqa: F401

from lmscale.study.launch.states import read_states

pytestmark = pytest.mark.long

DAMAGES: dict[str, Callable[[Path], object]] = {
    "outcome cut short": lambda run: (run / "outcome.json").write_text("{"),
    "outcome empty": lambda run: (run / "outcome.json").write_bytes(b""),
    "outcome of zeros": lambda run: (run / "outcome.json").write_bytes(bytes(99)),
    "outcome is a folder": lambda run: (run / "outcome.json").mkdir(),
    "outcome of another run": lambda run: outcome_of(LONG).write(run),
    "configuration is a folder": lambda run: (run / "config.json").mkdir(),
    "log is a folder": lambda run: (run / "log.txt").mkdir(),
    "run is a file": lambda run: (run.rmdir(), run.touch()),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_run_fails_alone(trainer: Path, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "runs" / OTHER.run_id
    folder.mkdir(parents=True)
    DAMAGES[damage](folder)
    watcher = Watcher()
    summary = go(tmp_path / "runs", RUN, OTHER, watcher=watcher)
    assert summary.finished == 1 and not summary.interrupted
    (reason,) = summary.failed.values()
    assert str(folder) in reason and "\n" not in reason, reason
    assert [words[0] for words in journal(trainer)] == [RUN.run_id]
    state = {run.run_id: run for run in read_states(tmp_path / "runs")[1]}
    assert state[RUN.run_id].state == "finished" and state[OTHER.run_id].state in ("corrupt", "failed")


DEEP = b"[" * 100_000
BESIDE: dict[str, tuple[str, bytes | None]] = {
    "metrics of a number": ("metrics.jsonl", b"1\n"),
    "metrics without columns": ("metrics.jsonl", b'{"step": 1}\n'),
    "metrics of other types": ("metrics.jsonl", b'{"step": 1, "flops": "x", "loss_nats": null}\n'),
    "metrics of 400 digits": ("metrics.jsonl", b'{"step": ' + b"9" * 400 + b"}\n"),
    "metrics without end": ("metrics.jsonl", DEEP + b"\n"),
    "failed.json is a folder": ("failed.json", None),
    "an end of text": ("attempts/0001.json", b'{"end": "x"}'),
    "an end of other types": ("attempts/0001.json", b'{"end": {"status": "x", "reason": 3}, "together": "x"}'),
    "a holder of other types": ("attempts/0001.json", b'{"end": 1, "holder": {"pid": "x"}, "launch": []}'),
    "a number of other digits": ("attempts/\xb2.json", b"{}"),
    "a number beyond all attempts": ("attempts/999999999999999.json", b"{}"),
    "retried of other types": ("retried.json", b'{"attempts": []}'),
    "retried without end": ("retried.json", DEEP),
    "retried infinitely often": ("retried.json", b'{"attempts": 1e999}'),
    "stop is a folder": ("stop", None),
}


@pytest.mark.parametrize("damage", BESIDE)
def test_a_damaged_file_beside_a_run_stops_nobody(trainer: Path, tmp_path: Path, damage: str) -> None:
    file, content = BESIDE[damage]
    path = tmp_path / "runs" / OTHER.run_id / file
    path.parent.mkdir(parents=True)
    _ = path.mkdir() if content is None else path.write_bytes(content)
    summary = go(tmp_path / "runs", RUN, OTHER)
    assert summary.finished + len(summary.failed) == 2 and RUN.run_id not in summary.failed
    assert len(read_states(tmp_path / "runs")[1]) == 2
