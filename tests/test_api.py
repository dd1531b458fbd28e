"""The public API: every name of the stub is there, and one call does what each main verb does."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.architecture import PACKAGE, ROOT

import lmscale
from lmscale.commands import run as run_verb
from lmscale.core.errors import UserError
from lmscale.core.files import write_json
from lmscale.core.plans import read_plan
from lmscale.core.run_folder import FAILED_FILE, OUTCOME_FILE
from lmscale.study.launch import Summary
from lmscale.study.sweep import Sweep


def stub_names() -> set[str]:
    """Names that `lmscale/__init__.pyi` imports as themselves."""
    tree = ast.parse((PACKAGE / "__init__.pyi").read_text())
    imported = [alias for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert all(alias.name == alias.asname for alias in imported)
    return {alias.name for alias in imported}


def test_the_stub_is_the_list_of_public_names() -> None:
    assert set(lmscale.__all__) == stub_names() <= set(dir(lmscale))
    assert all(getattr(lmscale, name) is not None for name in lmscale.__all__)
    assert all(callable(getattr(lmscale, name)) for name in ("plan", "run", "report", "load")), "not the folders"


def test_the_docstring_is_a_table_of_contents() -> None:
    words = set(re.findall(r"\w+", lmscale.__doc__ or ""))
    assert stub_names() <= words, f"not in the docstring: {stub_names() - words}"


@pytest.mark.long
def test_planning_and_fitting_never_import_jax() -> None:
    program = (
        "import sys, lmscale\n"
        "assert not {'numpy', 'pandas', 'jax'} & set(sys.modules), 'import lmscale is light'\n"
        "print(lmscale.plan('sweeps/smoke.py'))\n"
        "lmscale.fits.fit(lmscale.read_table('chinchilla'), ('3',), resamples=0)\n"
        "assert 'jax' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_type_checkers_see_every_name(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    calls = {
        "lmscale.plan(sweep)": "lmscale.study.sweep.runs.Plan",
        "lmscale.run(sweep, workers=2)": "pathlib.Path",
        "lmscale.report('runs/mine', seed=1)": "pathlib.Path",
        "lmscale.isoflop([1e11])": "tuple[typing.Mapping[str, Any], ...]",
        "lmscale.recipes.cpu": "lmscale.study.recipes.recipe.Recipe",
    }
    lines = ["import lmscale", "from lmscale import Sweep, recipes", "sweep = Sweep('mine', [], recipes.cpu)"]
    script.write_text("\n".join([*lines, *(f"reveal_type({call})" for call in calls), "lmscale.plam"]))
    command = [sys.executable, "-m", "mypy", "--cache-dir", os.devnull, "--follow-imports=silent", str(script)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    revealed = re.findall(r'Revealed type is "(.*)"', done.stdout.replace("builtins.", ""))
    assert revealed == list(calls.values()), done.stdout
    assert 'Module has no attribute "plam"' in done.stdout and "Found 1 error" in done.stdout


def test_a_plan_comes_from_a_sweep_a_file_or_a_plan(root: Path, tmp_path: Path) -> None:
    path = root / "sweeps" / "smoke.py"
    plan = lmscale.plan(path)
    assert lmscale.plan(plan) is plan and lmscale.plan(plan.sweep).runs == plan.runs
    write_json(tmp_path / "plan.json", {"sweep": "smoke", "runs": [run.to_json() for run in plan.runs]})
    assert lmscale.plan(str(tmp_path / "plan.json")).runs == plan.runs


def test_a_plan_prints_every_run(root: Path) -> None:
    plan = lmscale.plan(root / "sweeps" / "smoke.py")
    title, headings, *lines = str(plan).splitlines()
    assert title.startswith("smoke") and headings.split() == "run shape N D D/N C steps batch lr".split()
    assert [line.split()[0] for line in lines[:12]] == [run.config.run_id for run in plan.runs]
    assert [line.endswith("held out") for line in lines[:12]] == [run.held_out for run in plan.runs]
    assert lines[12] == f"12 runs, 4 held out; {plan.flops:.3g} training FLOPs"
    assert lines[13:] == [f"note: {sentence}" for sentence in plan.warnings] and repr(plan) == str(plan)


def test_of_a_long_plan_both_ends_are_printed(root: Path) -> None:
    smoke = lmscale.plan(root / "sweeps" / "smoke.py").sweep
    points = [{**smoke.points[0], "seed": seed} for seed in range(100)]
    plan = lmscale.plan(Sweep("many", points, smoke.recipe))
    lines = str(plan).splitlines()
    names = [run.config.run_id for run in plan.runs]
    assert [line.split()[0] for line in lines[2:63]] == [*names[:30], "...", *names[-30:]]
    assert lines[32] == "... 40 more runs" and lines[63].startswith("100 runs")


def test_branches_say_where_they_leave_their_trunk(root: Path) -> None:
    plan = lmscale.plan(root / "sweeps" / "trunk_cpu.py")
    branch = next(run for run in plan.runs if run.trunk)
    assert f"from {branch.trunk} at step {branch.branch_step:,}" in str(plan)
    assert f"({plan.flops_apart:.3g} with every branch trained from its first step)" in str(plan)


@pytest.fixture
def finished(workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the smoke sweep's runs, as if trained; the folder runs/smoke in it."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(workspace / "runs", tmp_path / "runs")
    return Path("runs/smoke")


def test_run_returns_the_sweeps_folder(finished: Path, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lmscale.run(root / "sweeps" / "smoke.py") == finished
    assert "all 12 runs of smoke are there" in capsys.readouterr().out


def test_run_raises_with_the_reason_of_every_failed_run(finished: Path, root: Path) -> None:
    run = finished / read_plan(finished)[1][0].config.run_id
    (run / OUTCOME_FILE).unlink()
    write_json(run / FAILED_FILE, {"reason": "exit status 3", "log": []})
    with pytest.raises(lmscale.RunsFailed, match=r"1 run in runs/smoke failed.*`lmscale retry runs/smoke`") as error:
        lmscale.run(root / "sweeps" / "smoke.py")
    assert error.value.failed == {run.name: "exit status 3"} and isinstance(error.value, UserError)


def test_run_that_was_interrupted_raises(finished: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script must not go on and fit half of its runs."""
    monkeypatch.setattr(run_verb, "run_sweep", lambda *_: Summary(3, 0, {}, interrupted=True))
    with pytest.raises(KeyboardInterrupt, match="runs/smoke was stopped; the same call continues"):
        lmscale.run(root / "sweeps" / "smoke.py")


def test_run_refuses_a_plan_that_cannot_identify_its_law(monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = Sweep("line", lmscale.ladder([2e4 * 1.5**step for step in range(6)], [20]), lmscale.recipes.cpu)
    monkeypatch.setattr(run_verb, "run_sweep", lambda *_: Summary(6, 0, {}, interrupted=False))
    with pytest.raises(UserError, match="cannot identify the law: all runs lie on the line"):
        lmscale.run(sweep)
    assert lmscale.run(sweep, "elsewhere", force=True) == Path("elsewhere/line")


@pytest.mark.long
def test_report_is_of_a_sweep_or_of_a_table(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    for function in ("of_sweep", "of_table"):
        monkeypatch.setattr(
            f"lmscale.study.report.{function}",
            lambda source, output, function=function, **options: calls.append((function, source, output, options)),
        )
    lmscale.report(finished, resamples=20, title="Mine")
    lmscale.report("mine.csv.gz", where="params > 1e5")
    lmscale.report("chinchilla", "here", question="Why?")
    assert [call[:3] for call in calls] == [
        ("of_sweep", finished, None),
        ("of_table", "mine.csv.gz", Path("reports/mine")),
        ("of_table", "chinchilla", "here"),
    ]
    of_sweep, of_file, of_published = (options for *_, options in calls)
    assert (of_sweep["resamples"], of_sweep["title"], of_sweep["question"]) == (20, "Mine", "")
    assert of_file["where"] == "params > 1e5" and of_published["question"] == "Why?"
    with pytest.raises(UserError, match="columns and where are for a table"):
        lmscale.report(finished, where="params > 1e5")
