"""The page's scripts are valid, and write numbers, ticks and CSV as the package does."""

import json
import shutil
import subprocess
from importlib.resources import as_file, files

import numpy as np
import pandas as pd
import pytest

from lmscale.study import plots
from lmscale.study.plots.axes import round_ticks
from lmscale.study.report import assets
from lmscale.study.tables.writing import csv_text

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="needs node")


def evaluated(scripts, expression):
    """The value of an expression after some of the page's scripts, in node."""
    source = "\n".join(assets.asset(name) for name in scripts) + f"\nconsole.log(JSON.stringify({expression}));"
    done = subprocess.run([NODE, "-"], input=source, capture_output=True, text=True, timeout=60, check=True)
    return json.loads(done.stdout)


@pytest.mark.long
@pytest.mark.parametrize("name", [*assets.SCRIPTS, "uplot/uPlot.iife.min.js"])
def test_a_script_is_valid(name):
    with as_file(files("lmscale.study.report") / "web" / name) as path:
        subprocess.run([NODE, "--check", path], check=True, timeout=60)


def test_the_whole_script_is_valid_and_ends_no_element():
    subprocess.run([NODE, "--check", "-"], input=assets.script(), text=True, check=True, timeout=60)
    for text in (assets.script(), assets.library()):
        assert "</script" not in text.lower() and "<!--" not in text


def test_every_script_of_the_folder_is_on_the_page():
    own = {one.name for one in (files("lmscale.study.report") / "web").iterdir() if one.name.endswith(".js")}
    assert own == set(assets.SCRIPTS)


def numbers():
    rng = np.random.default_rng(0)
    random = 10 ** rng.uniform(-6, 26, 300)
    ties = [0.5, 1.125, 1.125e6, 2.5e11, 12.5, 1234.5, 1235.5, 999.5, 999.7e3, 1e15, 5.76e23, 100.0, 0.00012345]
    return [float(value) for value in [*random, *ties]]


@pytest.mark.parametrize("write", ["compact", "power", "number"])
def test_numbers_are_written_as_in_python(write):
    values = numbers()
    assert evaluated(["numerals.js"], f"{json.dumps(values)}.map((one) => {write}(one))") == [
        getattr(plots, write)(value) for value in values
    ]


def test_decimals_are_written_as_in_python():
    values = [value for value in numbers() if value < 1e15]
    shown = evaluated(["numerals.js"], f"{json.dumps(values)}.map((one) => [fixed(one, 4), general(one, 3)])")
    assert shown == [[f"{value:.4f}", f"{value:.3g}"] for value in values]


@pytest.mark.long
@pytest.mark.parametrize(("low", "high"), [(1e11, 1e15), (2.9, 3.4), (1.2e4, 9e4), (0.02, 45.0), (3e22, 8e22)])
@pytest.mark.parametrize("most", [4, 7, 9])
def test_ticks_are_those_of_the_drawings(low, high, most):
    shown = evaluated(["ticks.js"], f"logTicks({low}, {high}, {most})")
    assert shown == pytest.approx(round_ticks(low, high, most), rel=1e-12)


def test_linear_ticks_are_round_and_inside():
    shown = evaluated(["ticks.js"], "[linearTicks(-1.3, 2.2, 6), linearTicks(0.0123, 0.0191, 5)]")
    assert shown == [[-1, 0, 1, 2], [0.014, 0.016, 0.018]]


def test_csv_of_the_page_is_that_of_the_package():
    cells = ["plain", "a,b", 'say "x"', "=1+1", "+5", "-1.5e3", "-name", "'=2", " spaced", "line\nbreak", "@home", ""]
    table = pd.DataFrame({"head, one": cells, "two": [""] * len(cells)})
    rows = [["head, one", "two"], *([cell, ""] for cell in cells)]
    assert evaluated(["csv.js"], f"csvText({json.dumps(rows)})") == csv_text(table)
