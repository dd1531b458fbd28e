"""From an empty folder to a page: run, status, table, fit, report on `sweeps/smoke.py`, as a new user types them."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from lmscale.core.counting import count
from lmscale.core.plans import read_plan
from lmscale.core.results import collect
from lmscale.study.sweep import load, plan


def lmscale(folder: Path, *words: str) -> str:
    """What the command says in `folder`; it must end well and write no word of trouble."""
    done = subprocess.run(
        [sys.executable, "-m", "lmscale", *words], cwd=folder, capture_output=True, text=True, timeout=300
    )
    trouble = [line for line in done.stderr.splitlines() if not line.startswith("next: ")]
    assert (done.returncode, trouble) == (0, []), done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def studied(smoke: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the trained sweep with its report."""
    folder = tmp_path_factory.mktemp("studied")
    shutil.copytree(smoke / "runs", folder / "runs")
    said = lmscale(folder, "report", "runs/smoke", "--resamples", "100")
    assert "the report is runs/smoke/report/report.html; open it" in said
    return folder


def test_running_trains_every_run_and_says_each(smoke: Path, root: Path) -> None:
    said = (smoke / "said.txt").read_text(encoding="utf-8")
    assert "12 of 12 runs to train in runs/smoke" in said
    assert len(re.findall(r"^N .* C .* loss \d\.\d{4} ± .* nats/token .* MFU \d\.\d\d", said, re.M)) == 12
    assert said.count("held out") == 4
    name, runs = read_plan(smoke / "runs" / "smoke")
    planned = plan(load(root / "sweeps" / "smoke.py")).runs
    assert name == "smoke" and [replace(run, data_fingerprint="") for run in runs] == planned
    assert len({run.data_fingerprint for run in runs} - {""}) == 1


def test_every_run_learns_and_counts_what_was_planned(smoke: Path) -> None:
    _, planned = read_plan(smoke / "runs" / "smoke")
    table = collect(smoke / "runs" / "smoke").set_index("run")
    assert set(table["state"]) == {"finished"}
    assert table["loss_nats"].between(1.5, 4.0).all(), "byte models start at ln 256 = 5.5"
    for run in planned:
        counts, row = count(run.config), table.loc[run.config.run_id]
        assert (row["flops"], row["tokens"], row["params"]) == (counts.flops, counts.tokens, counts.params)
        assert sorted(path.name for path in (smoke / "runs" / "smoke" / run.config.run_id).iterdir()) == [
            "attempts", "config.json", "data.json", "log.txt", "metrics.jsonl", "outcome.json",
        ]  # fmt: skip


def test_more_compute_gives_a_lower_loss(smoke: Path) -> None:
    best = collect(smoke / "runs" / "smoke").groupby("flops_budget")["loss_nats"].min()
    assert list(best) == sorted(best, reverse=True)


def test_a_second_run_trains_nothing(studied: Path, root: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in studied.rglob("outcome.json")}
    said = lmscale(studied, "run", str(root / "sweeps" / "smoke.py"))
    assert "all 12 runs of smoke are there" in said and "to train" not in said
    assert said.splitlines()[-1] == "next: lmscale report runs/smoke"
    assert {path: path.stat().st_mtime_ns for path in studied.rglob("outcome.json")} == before


def test_the_report_is_one_page_that_needs_nothing_else(studied: Path) -> None:
    page = (studied / "runs" / "smoke" / "report" / "report.html").read_text(encoding="utf-8")
    assert not re.findall(r"""(?:src|href)\s*=\s*["']?(?!#|data:)[^"'>\s]""", page)
    assert not re.findall(r"@import|url\((?!#|['\"]?data:)", page) and "<script" not in page
    _, planned = read_plan(studied / "runs" / "smoke")
    assert all(run.config.run_id in page for run in planned), "every run is in the page"


def test_held_out_runs_enter_no_fit(studied: Path) -> None:
    """Whatever the held-out losses are, the fits stay; and the verdict on them changes."""
    before = json.loads((studied / "runs" / "smoke" / "report" / "fits.json").read_text())
    folder = studied / "other" / "smoke"
    shutil.copytree(studied / "runs" / "smoke", folder)
    for run in read_plan(folder)[1]:
        if run.held_out:
            path = folder / run.config.run_id / "outcome.json"
            outcome = json.loads(path.read_text())
            path.write_text(json.dumps({**outcome, "loss_nats": outcome["loss_nats"] + 1.0}))
    lmscale(studied, "report", "other/smoke", "--resamples", "100")
    after = json.loads((folder / "report" / "fits.json").read_text())
    assert before["fits"] and after["fits"] == before["fits"]
    assert before["held_out"] and after["held_out"] != before["held_out"]


def test_no_study_verb_imports_jax(smoke: Path, tmp_path: Path, root: Path) -> None:
    """With a JAX that cannot be imported, plan, status, table, fit and report work all the same."""
    (tmp_path / "jax.py").write_text("raise AssertionError('a study verb imports JAX')\n")
    shutil.copytree(smoke / "runs", tmp_path / "runs")
    program = """
import sys
from lmscale import cli
for line in sys.stdin.read().splitlines():
    sys.argv = ["lmscale", *line.split()]
    try: cli.main()
    except SystemExit as end: assert not end.code, line
"""
    lines = [
        f"plan {root / 'sweeps' / 'smoke.py'}",
        "status runs/smoke",
        "table runs/smoke",
        "fit runs/smoke --approach 3 --resamples 10 --no-check",
        "report runs/smoke --resamples 10",
    ]
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{root}"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        input="\n".join(lines),
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "next: lmscale fit runs/smoke\n"), done.stderr


# The sweep's run of the most steps, alone: long enough to be caught at work.
ONE = """
import runpy
from dataclasses import replace
smoke = runpy.run_path({smoke!r})["SWEEP"]
SWEEP = replace(smoke, name="one", points=smoke.points[8:9])
"""


def test_ctrl_c_stops_a_sweep_and_the_same_command_ends_it(smoke: Path, root: Path, tmp_path: Path) -> None:
    """Training that was interrupted ends with the outcome of training that was not."""
    (tmp_path / "one.py").write_text(ONE.format(smoke=str(root / "sweeps" / "smoke.py")))
    command = [sys.executable, "-m", "lmscale", "run", "one.py"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    guard = threading.Timer(120, process.kill)
    guard.start()
    while process.poll() is None and not any(path.stat().st_size for path in tmp_path.rglob("metrics.jsonl")):
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    said, errors = process.communicate()
    guard.cancel()
    assert (process.returncode, errors) == (130, ""), said + errors
    assert "\nstopped; checkpoints are kept, and the same command continues from them\n" in said
    (run,) = (path for path in (tmp_path / "runs" / "one").iterdir() if path.is_dir())
    assert not (run / "outcome.json").exists() and "a checkpoint is saved" in (run / "log.txt").read_text()
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    assert str(tmp_path) not in listed and f"runs/one/{run.name}" not in listed, "a run is still at work"
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert "going on from step" in (run / "log.txt").read_text()
    ours, whole = (
        json.loads((folder / run.name / "outcome.json").read_text()) for folder in (run.parent, smoke / "runs/smoke")
    )
    same = ("loss_nats", "loss_stderr", "bits_per_byte", "tokens", "flops", "unique_tokens", "state")
    assert {name: ours[name] for name in same} == {name: whole[name] for name in same}
