"""The files in the folders of a run and of a sweep, and what a configuration says in a text of its own."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from helpers.finished_sweep import write_finished
from helpers.outcomes import RUN, outcome_of
from helpers.readers.reader import Reader
from helpers.readers.tables import argument, text_of
from lmscale.core import measured_speeds
from lmscale.core.config import mixture, synthetic
from lmscale.core.config.identity import identity
from lmscale.core.plans import PlannedRun, read_plan
from lmscale.core.results import Outcome, collect
from lmscale.core.run_folder import (
    ATTEMPTS_FOLDER,
    CONFIG_FILE,
    FAILED_FILE,
    METRICS_FILE,
    OUTCOME_FILE,
    PLAN_FILE,
    RETRIED_FILE,
    SCORES_FILE,
    SCORING_FILE,
    SLURM_FOLDER,
    being_scored,
    failure_reason,
    last_metrics,
    read_metrics,
)
from lmscale.core.run_identity import read_config
from lmscale.core.scores import at_last_step, best_measured, read_rows
from lmscale.study.emergence.folder import read_scores
from lmscale.study.launch import failures, lease, slurm
from lmscale.study.launch.changes import changes
from lmscale.study.launch.states import read_states
from lmscale.study.sweep import stored, sweep_file
from lmscale.study.sweep.runs import plan

SMOKE = Path(__file__).parents[3] / "sweeps" / "smoke.py"
SCORE = {
    "run_id": RUN.run_id, "step": 1000, "task": "sums", "metric": "accuracy", "kind": "hard", "shots": 0, "n": 100,
    "score": 0.25, "stderr": 0.04, "chance": 0.25, "params": 4000, "tokens": 64_000, "flops": 10**9, "loss": 2.5,
    "shots_seed": None, "draw": None, "task_hash": "5f0c", "higher_is_better": True,
}  # fmt: skip
METRICS = [
    {"step": step, "tokens": 64 * step, "flops": 10**6 * step, "loss_nats": 3.0 - step / 1000, "learning_rate": 0.01,
     "grad_norm": 1.0, "tokens_per_second": 1e5, "mfu": 0.25, "accuracy": 0.5, "run_id": RUN.run_id}
    for step in (100, 200, 300)
]  # fmt: skip


def _run(folder: Path) -> Path:
    """A finished run in `folder`."""
    home = folder / RUN.run_id
    outcome_of(RUN, reported={"accuracy": 0.5}).write(home)
    _dump(home / CONFIG_FILE, RUN.to_json())
    lines = [json.dumps(row) for row in METRICS]
    (home / METRICS_FILE).write_text("\n".join(lines) + "\n", "utf-8")
    scores = [json.dumps({**SCORE, "shots": shots, "step": step}) for shots in (0, 2) for step in (500, 1000)]
    (home / SCORES_FILE).write_text("\n".join(scores) + "\n", "utf-8")
    return home


def _dump(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1), "utf-8")
    return path


def _in_run(name: str) -> Callable[[Path], Path]:
    return lambda folder: _run(folder) / name


def _begun(name: str, value: Any) -> Callable[[Path], Path]:
    """A run without an outcome, with a file of that content."""

    def write(folder: Path) -> Path:
        (_run(folder) / OUTCOME_FILE).unlink()
        return _dump(folder / RUN.run_id / name, value)

    return write


def _attempt(folder: Path) -> Path:
    """The record of an attempt, as one leaves it that holds the lease."""
    home = _begun("stop", {})(folder)
    home.unlink()
    with lease.hold([home.parent], {"together": 2, "micro_batches": 4}) as paths:
        lease.record_end(paths[0], 75, "was asked to stop")
    return paths[0]


def _in_sweep(name: str) -> Callable[[Path], Path]:
    """A sweep of which one run has not finished; `name` is a file of its first run, or `PLAN_FILE`."""

    def write(folder: Path) -> Path:
        sweep = write_finished(SMOKE, folder)
        if name == PLAN_FILE:
            return sweep / name
        first = read_plan(sweep)[1][0].config.run_id
        if name in (METRICS_FILE, ATTEMPTS_FOLDER):
            (sweep / first / OUTCOME_FILE).unlink()
        if name == ATTEMPTS_FOLDER:
            with lease.hold([sweep / first], {"together": 1}) as paths:
                pass
            return paths[0]
        return sweep / first / name

    return write


def _sweep_of(path: Path) -> Path:
    return next(parent for parent in path.parents if (parent.name == "smoke"))


def _speeds(folder: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LMSCALE_CACHE", str(folder))
        return measured_speeds.record(RUN, 1e9, 2.0, "cpu", 10)


def _speeds_again(path: Path) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LMSCALE_CACHE", str(path.parent.parent))
        return list(measured_speeds.of_this_machine())


def _table(path: Path) -> Any:
    return collect(_sweep_of(path))


def _states(path: Path) -> Any:
    return read_states(_sweep_of(path))


def _changes(path: Path) -> list[str]:
    return changes("smoke", _smoke_runs(), path.parent)


@cache
def _smoke_runs() -> list[PlannedRun]:
    return plan(sweep_file.load(SMOKE)).runs


def _job(folder: Path) -> Path:
    return _dump(folder / SLURM_FOLDER / "job-5.json", {"job": "5", "runs": [RUN.run_id]})


def _to_submit(path: Path) -> Any:
    return [run.config.run_id for run in slurm.to_submit([PlannedRun(RUN)], path.parent.parent)]


def _tally(path: Path) -> Any:
    tally = failures.tally(path.parent if path.name == RETRIED_FILE else path.parent.parent)
    return sorted(tally.counts.items()), tally.max_pack_size


def _at_work(path: Path) -> Any:
    attempt = lease.newest(path.parent.parent)
    if attempt is None:
        return None
    return attempt.end, attempt.dead(), attempt.where, attempt.count_of("together")


def _used_scores(path: Path) -> Any:
    return best_measured(at_last_step(read_rows(path))[0])


def _sweep_file(folder: Path) -> Path:
    path = folder / "smoke.py"
    path.write_bytes(SMOKE.read_bytes())
    return path


def _planned(path: Path) -> Any:
    return [run.config.run_id for run in plan(sweep_file.load(path)).runs]


def _named(text: str, read: Callable[[str], Any]) -> tuple[Callable[[Path], Path], Callable[[Path], Any]]:
    return argument(text), lambda path: read(text_of(path))


FACTS = "zipf-facts(gamma=1.5, facts=4096)"
READERS = (
    Reader("configuration", _in_run(CONFIG_FILE), lambda path: read_config(path.parent), "json"),
    Reader("identity of a configuration", _in_run(CONFIG_FILE), lambda path: identity(read_config(path.parent)), "json",
           exact=True),
    Reader("outcome", _in_run(OUTCOME_FILE), lambda path: Outcome.read(path.parent), "json"),
    Reader("metrics", _in_run(METRICS_FILE), lambda path: read_metrics(path.parent), "lines"),
    Reader("last metrics", _in_run(METRICS_FILE), lambda path: last_metrics(path.parent), "lines"),
    Reader("scores", _in_run(SCORES_FILE), _used_scores, "lines"),
    Reader("scores of a sweep", _in_run(SCORES_FILE), lambda path: read_scores(path.parent.parent), "lines"),
    Reader("failure", _begun(FAILED_FILE, {"reason": "no", "log": ["a"]}), lambda path: failure_reason(path.parent),
           "json", may_hold=lambda value: value is None or isinstance(value, str)),
    Reader("scoring", _begun(SCORING_FILE, {"task": "sums", "number": 1, "of": 2}),
           lambda path: being_scored(path.parent), "json", may_hold=lambda value: isinstance(value, str)),
    Reader("retried", _begun(RETRIED_FILE, {"attempts": 1}), _tally, "json", finite=False),
    Reader("attempt", _attempt, _at_work, "json"),
    Reader("attempts tally", _attempt, _tally, "json", finite=False),
    Reader("plan", _in_sweep(PLAN_FILE), lambda path: read_plan(path.parent), "json"),
    Reader("plan of a sweep file", _in_sweep(PLAN_FILE), stored.read, "json"),
    Reader("plan states", _in_sweep(PLAN_FILE), _states, "json", slow=True),
    Reader("plan changes", _in_sweep(PLAN_FILE), _changes, "json"),
    Reader("table of an outcome", _in_sweep(OUTCOME_FILE), _table, "json", slow=True),
    Reader("state of an outcome", _in_sweep(OUTCOME_FILE), _states, "json"),
    Reader("state of a configuration", _in_sweep(CONFIG_FILE), _states, "json"),
    Reader("state of metrics", _in_sweep(METRICS_FILE), _states, "lines"),
    Reader("state of an attempt", _in_sweep(ATTEMPTS_FOLDER), _states, "json"),
    Reader("job of slurm", _job, _to_submit, "json"),
    Reader("measured speed", _speeds, _speeds_again, "json"),
    Reader("sweep file", _sweep_file, _planned, "text"),
    Reader("language", *_named("synthetic:" + FACTS, synthetic.parse), form="text", text=True),
    Reader("mixture", *_named("mix: 0.7 * stdlib + 0.3 * books/", mixture.components), form="text", text=True),
)  # fmt: skip
