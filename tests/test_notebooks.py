"""The notebooks run from their first cell to their last, and show their values; a plan shows itself as a table.

The training of the study has a stand-in: a sweep's folder with losses of a known law. `-m slow` trains it.
"""

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest
from helpers.architecture import ROOT
from helpers.simulated import write_sweep

import lmscale
from lmscale import Sweep, ladder, recipes
from lmscale.study.emergence.result import Emergence
from lmscale.study.fits.predict.compare import Comparison
from lmscale.study.fits.results.notebook import Printed

NOTEBOOKS = sorted((ROOT / "docs/notebooks").glob("*.ipynb"))
STUDY, PUBLISHED = ROOT / "docs/notebooks/a_study_on_a_laptop.ipynb", ROOT / "docs/notebooks/a_published_table.ipynb"


def values(notebook: Path) -> list[Any]:
    """Run the code cells in order; the value of each that ends in an expression."""
    names: dict[str, Any] = {"__name__": "notebook"}
    shown = []
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] != "code":
            continue
        assert not cell["outputs"] and cell["execution_count"] is None, "saved without outputs"
        body = ast.parse("".join(cell["source"])).body
        last = body.pop() if isinstance(body[-1], ast.Expr) else None
        exec(compile(ast.Module(body, []), notebook.name, "exec"), names)
        if isinstance(last, ast.Expr):
            shown.append(eval(compile(ast.Expression(last.value), notebook.name, "eval"), names))
    return shown


@pytest.mark.long
def test_the_study_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(lmscale, "run", lambda sweep: write_sweep(tmp_path / "runs" / sweep.name))
    plan, table, valleys, law, _, held_out, page = values(STUDY)
    assert len(plan.runs) == 15 and len(table) == 28
    assert (valleys.approach, law.approach) == ("2", "3")
    assert all("<table>" in one._repr_html_() for one in (plan, valleys, law))
    assert ((held_out.low < held_out.predicted) & (held_out.predicted < held_out.high)).all() and len(held_out) == 7
    assert Path(page).is_file()


@pytest.mark.slow
def test_the_study_trains_and_fits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    _, table, _, law, _, held_out, _ = values(STUDY)
    assert table["loss_nats"].notna().all() and law.n_runs == 10 and len(held_out) == 5


@pytest.mark.long
def test_the_published_table_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    head, law, sentence, _, _, mine = values(PUBLISHED)
    assert len(head) == 5 and law.n_runs == 240
    ratio, low, high = map(float, re.findall(r"(?<!\d)\d+\.\d", sentence))
    assert low < ratio == 17.9 < high
    assert list(mine["params"]) == [1e7, 2e7, 4e7] and list(mine["tokens"]) == [1e9] * 3


def test_every_notebook_is_tested() -> None:
    assert {*NOTEBOOKS} == {STUDY, PUBLISHED}


def test_a_sweep_shows_its_points_as_a_table() -> None:
    other = {"params": 3e4, "tokens": 6e5, "held_out": True, "seed": 1, "lr": 0.01}
    points = (*ladder([1e4, 2e4], tokens_per_param=[20]), other)
    shown = Sweep(name="wide", points=points, recipe=recipes.cpu, question="a < b?", max_flops=1e15)._repr_html_()
    heads, *rows = re.findall(r"<tr>(.*?)</tr>", shown)
    names = re.findall("<th>(.*?)</th>", heads)
    cells = [dict(zip(names, re.findall("<td>(.*?)</td>", row), strict=True)) for row in rows]
    assert [row["params"] for row in cells] == ["10000", "20000", "30000"]
    assert [row["lr"] for row in cells] == ["", "", "0.01"] and [row[""] for row in cells] == ["", "", "held out"]
    assert "a &lt; b?" in shown and "3 points, 1 held out; recipe cpu" in shown and "max_flops" in shown


def test_a_long_sweep_shows_both_ends() -> None:
    points = ladder([1e4 + n for n in range(200)], tokens_per_param=[20])
    shown = Sweep(name="long", points=points, recipe=recipes.cpu)._repr_html_()
    assert "... 140 more points" in shown and "<td>10000</td>" in shown and "<td>10199</td>" in shown


def test_what_prints_in_columns_shows_them() -> None:
    shown = Printed._repr_html_("a < b\x1b[2J")
    assert shown.startswith("<pre>a &lt; b") and "\x1b" not in shown
    assert issubclass(Comparison, Printed) and issubclass(Emergence, Printed)


def test_a_plan_shows_its_runs_as_a_table() -> None:
    sweep = Sweep(name="wide", points=ladder([1e4, 2e4], tokens_per_param=[20]), recipe=recipes.cpu, question="a < b?")
    plan = lmscale.plan(sweep)
    shown = plan._repr_html_()
    rows = re.findall(r"<tr>(.*?)</tr>", shown)
    assert [re.findall("<td>(.*?)</td>", row)[0] for row in rows[1:]] == [run.config.run_id for run in plan.runs]
    assert "a &lt; b?" in shown and "2 runs, 0 held out" in shown
