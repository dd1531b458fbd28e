"""A plan of two runs, and what the terminal shows of it."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from helpers.outcomes import RUN
from lmscale.commands.plan.hardware import hardware_of
from lmscale.commands.plan.rows import price_plan
from lmscale.commands.plan.show import show
from lmscale.study import sweep
from lmscale.study.sweep import Plan, Sweep


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No figures of another test."""
    monkeypatch.setenv("LMSCALE_CACHE", str(tmp_path_factory.mktemp("cache")))


def screen(width: int = 160) -> Console:
    return Console(file=io.StringIO(), width=width, highlight=False, color_system=None)


def output_of(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def planned(**changes: Any) -> Plan:
    points = [{"seed": 0, "flops": 1e9}, {"seed": 1, "flops": 3e9}]
    declared = Sweep("two", points, lambda p: replace(RUN, seed=p["seed"]), lambda p: p["flops"] > 1e9, **changes)
    return sweep.plan(declared)


def shown(plan: Plan, folder: Path, width: int = 160, **place: Any) -> str:
    console = screen(width)
    show(price_plan(plan, hardware_of(plan.runs, folder, **place), None), console)
    return output_of(console)
