"""From an empty folder to a page: run, status, table, fit, report on `sweeps/smoke.py`, as a new user types them.

A run costs six seconds of a core, so by default four of the sweep's twelve are trained, and what only reads a sweep's
folder reads one that is made in a moment; the whole sweep is among the slow tests.
"""

import contextlib
import io
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
from helpers.command_line import call

from lmscale.core.counting import count
from lmscale.core.plans import read_plan
from lmscale.core.results import collect
from lmscale.study.sweep import load, plan

SOME = """
import runpy
from dataclasses import replace
smoke = runpy.run_path({smoke!r})["SWEEP"]
SWEEP = replace(smoke, name={name!r}, points=[smoke.points[place] for place in {places}])
"""
FOUR, LONGEST = (1, 2, 5, 8), 8
"""Points of `sweeps/smoke.py`: of each budget one at least, and the run of the most steps, which can be caught at work.
The last is held out."""


def lmscale(folder: Path, *words: str) -> str:
    """What the command says in `folder`; it must end well and write no word of trouble."""
    done = subprocess.run(
        [sys.executable, "-m", "lmscale", *words], cwd=folder, capture_output=True, text=True, timeout=600
    )
    trouble = [line for line in done.stderr.splitlines() if not line.startswith("next: ")]
    assert (done.returncode, trouble) == (0, []), done.stdout + done.stderr
    return done.stdout


def write_sweep(root: Path, folder: Path, name: str, *places: int) -> str:
    """The name of a sweep file in `folder` with some points of the smoke sweep."""
    (folder / f"{name}.py").write_text(SOME.format(smoke=str(root / "sweeps" / "smoke.py"), name=name, places=places))
    return f"{name}.py"


@pytest.fixture(scope="module")
def trained(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `lmscale run four.py` was called once: runs/four; its output is in output.txt."""
    folder = tmp_path_factory.mktemp("trained")
    output = lmscale(folder, "run", write_sweep(root, folder, "four", *FOUR))
    (folder / "output.txt").write_text(output, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def studied(workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the smoke sweep, as if trained, with its report."""
    folder = tmp_path_factory.mktemp("studied")
    shutil.copytree(workspace / "runs", folder / "runs")
    assert "the report is runs/smoke/report/report.html; open it" in report(folder, "runs/smoke")
    return folder


def report(folder: Path, runs: str) -> str:
    """What `lmscale report RUNS`, called in `folder`, says."""
    output = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(output):
        patch.chdir(folder)
        assert call("report", runs, "--resamples", "100") == 0
    return output.getvalue()


@pytest.mark.long
def test_running_trains_every_run_and_says_each(trained: Path) -> None:
    output = (trained / "output.txt").read_text(encoding="utf-8")
    assert "4 of 4 runs to train in runs/four" in output
    assert output.count("a line per run: N, D, peak rate, seed; final loss ± standard error") == 1
    assert len(re.findall(r"^N .* D .* lr .* s\d+  loss \d\.\d{4} ± .* nats/token .* MFU \d\.\d\d", output, re.M)) == 4
    assert output.count("held out") == 1
    name, runs = read_plan(trained / "runs" / "four")
    planned = plan(load(trained / "four.py")).runs
    assert name == "four" and [replace(run, data_fingerprint="") for run in runs] == planned
    assert len({run.data_fingerprint for run in runs} - {""}) == 1


@pytest.mark.long
def test_every_run_learns_and_counts_what_was_planned(trained: Path) -> None:
    _, planned = read_plan(trained / "runs" / "four")
    table = collect(trained / "runs" / "four").set_index("run")
    assert set(table["state"]) == {"finished"}
    assert table["loss_nats"].between(1.5, 4.0).all(), "byte models start at ln 256 = 5.5"
    for run in planned:
        counts, row = count(run.config), table.loc[run.config.run_id]
        assert (row["flops"], row["tokens"], row["params"]) == (counts.flops, counts.tokens, counts.params)
        assert sorted(path.name for path in (trained / "runs" / "four" / run.config.run_id).iterdir()) == [
            "attempts", "config.json", "data.json", "log.txt", "metrics.jsonl", "outcome.json",
        ]  # fmt: skip


def test_more_compute_gives_a_lower_loss(trained: Path) -> None:
    best = collect(trained / "runs" / "four").groupby("flops_budget")["loss_nats"].min()
    assert len(best) == 3 and list(best) == sorted(best, reverse=True)


@pytest.mark.long
def test_a_second_run_trains_nothing(trained: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("outcome.json")}
    output = lmscale(trained, "run", "four.py")
    assert "all 4 runs of four are there" in output and "to train" not in output
    assert output.splitlines()[-1] == "next: lmscale report runs/four"
    assert {path: path.stat().st_mtime_ns for path in trained.rglob("outcome.json")} == before


@pytest.mark.long
def test_the_report_is_one_page_that_needs_nothing_else(studied: Path) -> None:
    check_page(studied / "runs" / "smoke")


def check_page(folder: Path) -> None:
    """The page of a sweep loads nothing, and names every run."""
    whole = (folder / "report" / "report.html").read_text(encoding="utf-8")
    assert "default-src 'none'; script-src 'sha256-" in whole, "what is not inlined may not run or be loaded"
    page = re.sub(r"<script.*?</script>", "", whole, flags=re.DOTALL)
    assert not re.findall(r"""(?:src|href)\s*=\s*["']?(?!#|data:)[^"'>\s]""", page)
    assert not re.findall(r"@import|url\((?!#|['\"]?data:)", page)
    _, planned = read_plan(folder)
    assert all(run.config.run_id in page for run in planned), "every run is in the page"


@pytest.mark.slow
def test_the_whole_sweep_from_an_empty_folder_to_the_page(root: Path, tmp_path: Path) -> None:
    output = lmscale(tmp_path, "run", str(root / "sweeps" / "smoke.py"))
    assert "12 of 12 runs to train in runs/smoke" in output and output.count("held out") == 4
    lmscale(tmp_path, "report", "runs/smoke", "--resamples", "100")
    check_page(tmp_path / "runs" / "smoke")
    best = collect(tmp_path / "runs" / "smoke").groupby("flops_budget")["loss_nats"].min()
    assert len(best) == 3 and list(best) == sorted(best, reverse=True)


@pytest.mark.long
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
    report(studied, "other/smoke")
    after = json.loads((folder / "report" / "fits.json").read_text())
    assert before["fits"] and after["fits"] == before["fits"]
    assert before["held_out"] and after["held_out"] != before["held_out"]


@pytest.mark.long
def test_no_study_verb_imports_jax(workspace: Path, tmp_path: Path, root: Path) -> None:
    """With a JAX that cannot be imported, plan, status, table, fit and report work all the same."""
    (tmp_path / "jax.py").write_text("raise AssertionError('a study verb imports JAX')\n")
    shutil.copytree(workspace / "runs", tmp_path / "runs")
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


@pytest.mark.long
def test_ctrl_c_stops_a_sweep_and_the_same_command_ends_it(trained: Path, root: Path, tmp_path: Path) -> None:
    """Training that was interrupted ends with the outcome of training that was not."""
    command = [sys.executable, "-m", "lmscale", "run", write_sweep(root, tmp_path, "one", LONGEST)]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    guard = threading.Timer(120, process.kill)
    guard.start()
    while process.poll() is None and not any(path.stat().st_size for path in tmp_path.rglob("metrics.jsonl")):
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate()
    guard.cancel()
    assert (process.returncode, errors) == (130, ""), output + errors
    assert "\nstopped; checkpoints are kept, and the same command continues from them\n" in output
    (run,) = (path for path in (tmp_path / "runs" / "one").iterdir() if path.is_dir())
    assert not (run / "outcome.json").exists() and "a checkpoint is saved" in (run / "log.txt").read_text()
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    assert str(tmp_path) not in listed and f"runs/one/{run.name}" not in listed, "a run is still at work"
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert "going on from step" in (run / "log.txt").read_text()
    ours, whole = (
        json.loads((folder / run.name / "outcome.json").read_text()) for folder in (run.parent, trained / "runs/four")
    )
    same = ("loss_nats", "loss_stderr", "bits_per_byte", "tokens", "flops", "unique_tokens", "state")
    assert {name: ours[name] for name in same} == {name: whole[name] for name in same}
