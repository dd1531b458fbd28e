"""The demo refits the published runs, trains what is missing, writes the page, and costs seconds once it is done."""

import shutil
from pathlib import Path

import pytest
from helpers.command_line import call

from lmscale.commands import demo
from lmscale.core.errors import UserError
from lmscale.core.plans import read_plan
from lmscale.study import sweep
from lmscale.study.fits import options


@pytest.fixture
def begun(workspace: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which the demo, with the smoke sweep for its own, was stopped before its last run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "DEMO_SWEEP", "sweeps/smoke.py")
    shutil.copytree(workspace / "runs", tmp_path / "runs")
    _, planned = read_plan(Path("runs/smoke"))
    shutil.rmtree(Path("runs/smoke") / planned[-1].config.run_id)
    return Path("runs/smoke")


@pytest.mark.long
def test_the_demo_goes_on_and_then_trains_nothing(
    begun: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "published", lambda console: console.print("N* and D*"))
    monkeypatch.setattr(options, "RESAMPLES", dict.fromkeys(options.APPROACHES, 50))
    assert call("demo") == 0
    first = capsys.readouterr().out
    parts = [
        first.index(part) for part in ("1  The published", "N* and D*", "2  An IsoFLOP sweep", "3  Fit, held-out check")
    ]
    assert parts == sorted(parts) and "1 of 12 runs to train" in first
    page = begun / "report" / "report.html"
    assert f"the report is {page}" in first and "lmscale demo" in page.read_text(encoding="utf-8")
    assert call("demo") == 0
    second = capsys.readouterr().out
    assert "all 12 runs of smoke are there" in second and f"the report is {page}" in second


def test_the_published_table_has_every_budget_with_both_intervals(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from rich.console import Console

    monkeypatch.setattr(options, "RESAMPLES", dict.fromkeys(options.APPROACHES, 200))
    demo.published(Console(width=80))
    output = capsys.readouterr().out
    lines = output.splitlines()
    for exponent in range(18, 27):
        (row,) = (number for number, line in enumerate(lines) if line.split()[:1] == [f"1e+{exponent}"])
        assert len(lines[row].split()[1:4]) == 3
        for interval in lines[row + 1 : row + 3]:
            assert [cell.count("-") for cell in interval.split()] == [1, 1, 1]
    assert "240 runs of Hoffmann 2022" in output and "…" not in output
    assert "20 tokens per parameter lies within the 95 % interval for C = " in output


def test_the_verdict_on_the_rule_in_words() -> None:
    some, outside = demo.PUBLISHED_BUDGETS[2:], "1e+18, 1e+19"
    assert f"for C = 1e+20 to 1e+26 and outside it at {outside}." in demo._verdict(list(some))
    assert "outside the 95 % interval at every one" in demo._verdict([])
    assert "outside" not in demo._verdict(list(demo.PUBLISHED_BUDGETS))


def test_the_demo_finds_its_sweeps_in_the_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wheel holds them below the package, where there is no clone around it."""
    for name in (demo.DEMO_SWEEP, demo.SHORT_SWEEP):
        assert demo.sweep_file(name).is_file()
    package = tmp_path / "site" / "lmscale"
    monkeypatch.setattr(demo, "__file__", str(package / "commands" / "demo.py"))
    with pytest.raises(UserError, match=r"lacks sweeps/isoflop_short\.py; install it again"):
        demo.sweep_file(demo.SHORT_SWEEP)
    (package / "sweeps").mkdir(parents=True)
    (package / "sweeps" / "isoflop_short.py").touch()
    assert demo.sweep_file(demo.SHORT_SWEEP) == package / "sweeps" / "isoflop_short.py"


def test_the_short_sweep_is_a_small_part_of_the_demo(root: Path) -> None:
    long, short = (sweep.read(root / name) for name in (demo.DEMO_SWEEP, demo.SHORT_SWEEP))
    assert short.flops < long.flops / 20 and len({run.flops_budget for run in short.runs}) == 3
    assert {run.flops_budget for run in short.runs if run.held_out} == {max(run.flops_budget for run in short.runs)}
