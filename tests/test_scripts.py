"""Every runnable file opens with its command, and loading one does nothing."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.architecture import HEAVY, imports

ROOT = Path(__file__).resolve().parents[1]
SWEEPS, EXPERIMENTS, ANALYSIS = (sorted((ROOT / name).glob("*.py")) for name in ("sweeps", "experiments", "analysis"))
SCRIPTS = [*SWEEPS, *EXPERIMENTS, *ANALYSIS]


def name(path: Path) -> str:
    """The file as a user types it."""
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", SCRIPTS, ids=name)
def test_opens_with_its_command(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert docstring, f"{name(path)} has no docstring"
    starts = ("lmscale plan ", "lmscale run ") if path in SWEEPS else ("python ",)
    commands = [line.strip() for line in docstring.splitlines() if line.startswith("    ")]
    assert any(line.startswith(starts) and name(path) in line for line in commands), f"write {starts[0]}{name(path)}"


@pytest.mark.parametrize("path", SCRIPTS, ids=name)
def test_imports_what_its_folder_may(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "sys.path" not in text, "a helper that two scripts want moves into lmscale"
    used = [name for name in imports(path) if name.startswith("lmscale.")]
    if path in SWEEPS:
        assert all(name.count(".") == 1 for name in used), "a sweep file needs nothing but `from lmscale import ...`"
    if path in ANALYSIS:
        assert not [name for name in used if name.startswith("lmscale.lm")]


@pytest.mark.parametrize("folder", ["sweeps", "experiments", "analysis"])
def test_script_folders_are_no_packages(folder: str) -> None:
    assert not list((ROOT / folder).rglob("__init__.py"))


def run(program: str, *arguments: object, cwd: Path) -> None:
    """A Python program in a fresh process; whatever it prints fails the test."""
    line = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(line, cwd=cwd, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.long
def test_loading_a_script_does_nothing(tmp_path: Path) -> None:
    assert EXPERIMENTS and ANALYSIS
    program = """
import runpy, subprocess, sys
def refuse(*_, **__): raise AssertionError("a process was started")
subprocess.Popen.__init__ = refuse
for path in sys.argv[1:]:
    runpy.run_path(path, run_name="loaded")
"""
    run(program, *SCRIPTS, cwd=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_sweeps_plan_without_jax(tmp_path: Path) -> None:
    assert SWEEPS
    program = f"""
import sys
from lmscale.study import sweep
names = set()
for path in sys.argv[1:]:
    plan = sweep.plan(sweep.load(path))
    if not plan.sweep.question: print(path, "asks no question")
    if plan.sweep.name in names: print(path, "shares its folder of runs with another sweep")
    names.add(plan.sweep.name)
    if found := {set(HEAVY)} & set(sys.modules): print(path, "loads", found)
"""
    run(program, *SWEEPS, cwd=tmp_path)
    assert not list(tmp_path.iterdir())
