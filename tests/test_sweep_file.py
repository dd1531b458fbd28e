"""A sweep file is read with its neighbours; a wrong one is one sentence with its line."""

import sys
import types
from pathlib import Path

import pytest

from lmscale.core.counting import count
from lmscale.core.errors import UserError
from lmscale.study.sweep import load, plan

FILES = {
    "no_sweep": ("POINTS = []", "defines no SWEEP; write SWEEP = "),
    "other_name": (
        "from lmscale.study.sweep import Sweep\nSTUDY = Sweep('a', [{}], print)",
        "defines a Sweep as STUDY: call that SWEEP",
    ),
    "wrong_type": ("SWEEP = [1, 2]", "SWEEP is of type list; write SWEEP = "),
    "syntax": ("value = 1\ndef f(:\n", "syntax.py, line 2: SyntaxError"),
    "raises": ("value = 1\n\nvalue / 0\n", "raises.py, line 3: ZeroDivisionError"),
    "deeper": ("import json\njson.loads('{}\\n\\n\\n1')", "deeper.py, line 2: JSONDecodeError"),
    "imports": ("import absent_module", "imports.py, line 1: ModuleNotFoundError: .*absent_module"),
    "refused": (
        "from lmscale.study.sweep import isoflop\nisoflop([1], centre=abs, sizes=1)",
        "refused.py, line 2: isoflop.*at least 3 sizes",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_sweep_file_that_is_wrong_is_named_with_its_line(tmp_path: Path, name: str) -> None:
    text, sentence = FILES[name]
    (tmp_path / f"{name}.py").write_text(text)
    with pytest.raises(UserError, match=sentence):
        load(tmp_path / f"{name}.py")


def test_an_absent_sweep_file_names_the_nearest_by_a_path_that_can_be_given(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(path: Path | str) -> str:
        with pytest.raises(UserError) as refused:
            load(path)
        return str(refused.value)

    assert said(root / "sweeps" / "smok.py").endswith(f"smok.py; did you mean {root / 'sweeps' / 'smoke.py'}?")
    monkeypatch.chdir(tmp_path)
    assert said("x.py") == "there is no sweep file x.py; `lmscale init NAME` writes one"
    assert said(".") == ". is a folder, not a sweep file; `lmscale init NAME` writes one"
    Path("sweeps").mkdir()
    for name in ("mine", "other"):
        Path(f"sweeps/{name}.py").write_text("")
    for given in ("mine", "sweeps/mine", "runs/mine", "mien.py"):
        assert said(given) == f"there is no sweep file {given}; did you mean sweeps/mine.py?"
    assert said("sweeps") == "sweeps is a folder, not a sweep file; known: sweeps/mine.py, sweeps/other.py"
    assert said("x.py") == "there is no sweep file x.py; known: sweeps/mine.py, sweeps/other.py"
    Path("runs/mine").mkdir(parents=True)
    Path("runs/mine/plan.json").write_text("{}")
    assert said("runs/mine") == "runs/mine is a folder, not a sweep file; its plan is runs/mine/plan.json"


def test_the_sweeps_that_ship_hold_their_largest_budget_out(root: Path) -> None:
    for name in ("smoke", "isoflop_cpu", "isoflop_gpu"):
        sweep_plan = plan(load(root / "sweeps" / f"{name}.py"))
        budgets = sorted({run.flops_budget for run in sweep_plan.runs if run.flops_budget})
        assert len(budgets) >= 3
        assert {run.flops_budget for run in sweep_plan.runs if run.held_out} == {budgets[-1]}
        for run in sweep_plan.runs:
            assert count(run.config).flops == pytest.approx(run.flops_budget, rel=0.02)


def write(folder: Path, **files: str) -> None:
    """Python files by name in a folder; `HEAD` stands before the text of each that names it."""
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text.replace("HEAD", "from lmscale import Sweep, isoflop, recipes\n"))


def test_sweep_files_import_their_neighbours_and_nothing_stays(tmp_path: Path) -> None:
    """Two folders with a module of one name each read their own; a stdlib name is never replaced."""
    for folder, width in (("a", 16), ("b", 24)):
        shared = "import base\nimport random\nPOINTS = [dict(width=base.WIDTH, tokens=1e5)]\nassert random.random\n"
        write(
            tmp_path / folder,
            base=f"WIDTH = {width}\n",
            shared=shared,
            random="raise RuntimeError('in place of the standard one')\n",
            first="HEADfrom shared import POINTS\nprint('first')\nSWEEP = Sweep('first', POINTS, recipes.cpu)\n",
            second="HEADfrom first import SWEEP\n",
        )
    modules, places, finders = set(sys.modules), list(sys.path), list(sys.meta_path)
    for folder, width in (("a", 16), ("b", 24), ("a", 16)):
        for name in ("first", "second"):
            (run,) = plan(load(tmp_path / folder / f"{name}.py")).runs
            assert run.config.model.width == width
    assert not {"shared", "base", "first"} & (set(sys.modules) - modules)
    assert (sys.path, sys.meta_path) == (places, finders) and not list(tmp_path.rglob("__pycache__"))


def test_a_module_of_the_caller_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, theirs="WIDTH = 16\n", one="HEADfrom theirs import WIDTH\nSWEEP = Sweep('x', [{}], str)\n")
    mine = types.ModuleType("theirs")
    monkeypatch.setitem(sys.modules, "theirs", mine)
    load(tmp_path / "one.py")
    assert sys.modules["theirs"] is mine


POINT = "[{'width': 16, 'tokens': 1e5}]"
WRONG_FILES = {
    "raises": ("HEAD1 / 0", "x.py, line 2: ZeroDivisionError: division by zero"),
    "ends": ("import sys\nsys.exit(0)", "x.py, line 2: it ends Python (0)"),
    "base": ("raise BaseException('no')", "x.py, line 1: BaseException: no"),
    "syntax": ("HEADSWEEP = Sweep(", "x.py, line 2: SyntaxError: '(' was never closed"),
    "null": ("a\0b", "x.py: SyntaxError: source code string cannot contain null bytes"),
    "unprintable": ("class E(Exception):\n  def __str__(self): raise ValueError\nraise E", "x.py, line 3: E"),
    "lines": ("raise ValueError('a\\n\\x1b[2Jb')", "x.py, line 1: ValueError: a [2Jb"),
    "long": ("raise ValueError('a' * 10**6)", "aaa ..."),
    "recursion": ("def f(): f()\nf()", "x.py, line 1: RecursionError"),
    "neighbour": ("import broken", "broken.py, line 2: ZeroDivisionError"),
    "none": ("", "x.py defines no SWEEP; write SWEEP = Sweep(...)"),
    "two": (
        f"HEADA = Sweep('a', {POINT}, recipes.cpu)\nB = Sweep('b', {POINT}, recipes.cpu)",
        "defines no SWEEP but 2 sweeps, A, B: a file is one sweep",
    ),
    "list": (f"HEADSWEEP = [Sweep('a', {POINT}, recipes.cpu)]", "SWEEP is of type list; write SWEEP = Sweep(...), one"),
    "class": ("HEADSWEEP = Sweep", "SWEEP is of type type"),
    "recipe": ("HEADSWEEP = recipes.cpuu", "x.py, line 2: AttributeError: module 'lmscale.study.recipes' has no "
        "attribute 'cpuu'; did you mean 'cpu'?"),
    "import": ("from lmscale import isoflp", "; did you mean 'isoflop'?"),
    "attribute": ("import lmscale\nlmscale.isoflp", "; did you mean 'isoflop'?"),
    "argument": (f"HEADSWEEP = Sweep(nam='a', points={POINT}, recipe=recipes.cpu)", "'nam'; did you mean 'name'?"),
    "preset": ("from lmscale import presets\npresets.preset('lama-7b')", "line 2: there is no preset 'lama-7b'; did "
        "you mean 'llama"),
    "name": (f"HEADSWEEP = Sweep('a' * 500, {POINT}, recipes.cpu)", "x.py, line 2: Sweep.name has 500 letters"),
    "device": (f"HEADSWEEP = Sweep('a', {POINT}, recipes.cpu, device='h1000')", "did you mean 'h100'?"),
    "ratio": (f"HEADSWEEP = Sweep('a', {POINT}, recipes.cpu, tokens_per_param=(1,))", "the lowest and the highest D/N"),
    "points": ("HEADSWEEP = Sweep('a', [3], recipes.cpu)", "x.py, line 2: point 1 of sweep 'a' is 3: a point maps"),
    "text": ("HEADSWEEP = Sweep('a', [{'width': '16', 'tokens': 1e5}], recipes.cpu)", "width = '16': must be a pos"),
    "nan": ("HEADSWEEP = Sweep('a', [{'params': float('nan')}], recipes.cpu)", "params = nan: must be a positive"),
    "huge": ("HEADSWEEP = Sweep('a', [{'tokens': 10**400}], recipes.cpu)", "must be a positive number"),
    "seed": ("HEADSWEEP = Sweep('a', [{'seed': None}], recipes.cpu)", "seed = None: must be a whole number"),
    "wide": ("HEADSWEEP = Sweep('a', [{'width': 1e9, 'tokens': 1e5}], recipes.cpu)", "has widths up to 16,384"),
    "uncalled": (f"HEADSWEEP = Sweep('a', {POINT}, recipes.step_law)", "call it with its settings first"),
    "held out": (f"HEADSWEEP = Sweep('a', {POINT}, recipes.cpu, held_out=lambda point: point['x'])", ", line 2: KeyE"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_FILES)
def test_a_wrong_sweep_file_is_one_sentence_with_its_line(name: str, tmp_path: Path) -> None:
    text, sentence = WRONG_FILES[name]
    write(tmp_path, x=text, broken="\n1 / 0\n")
    with pytest.raises(UserError) as refused:
        plan(load(tmp_path / "x.py"))
    message = str(refused.value)
    assert sentence in message and message.isprintable() and len(message) < 600, message


def test_what_a_sweep_file_prints_does_not_mix_with_our_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, x=f"HEADprint('theirs')\nSWEEP = Sweep('x', {POINT}, recipes.cpu)\n")
    load(tmp_path / "x.py")
    assert capsys.readouterr() == ("", "theirs\n")
