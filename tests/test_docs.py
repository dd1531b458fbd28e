"""README and CONTRIBUTING agree with the package: the tree, every path they name, and the Python that they show."""

import re
from pathlib import Path
from unittest.mock import create_autospec

import pytest
from helpers.architecture import FOLDERS, MODULES, PACKAGE, ROOT, tree

import lmscale

README, CONTRIBUTING = (ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING"))
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
FOLDERS_OF_FILES = ("lmscale", "sweeps", "experiments", "analysis", "tests", "docs", ".ci")
ENDINGS = r"\.(?:py|pyi|md|toml|lock|svg)"


def block(text: str) -> str:
    """The one Python block of the README that holds `text`."""
    (source,) = [code for code in BLOCKS if text in code]
    return source


def run(code: str) -> dict[str, object]:
    """What a block defines, as a module of its own; a class of a law needs no file."""
    names: dict[str, object] = {"__name__": "readme"}
    exec(compile(code, "README.md", "exec"), names)
    return names


def test_contributing_draws_the_list_of_modules() -> None:
    text = CONTRIBUTING.read_text(encoding="utf-8")
    drawn = text.split("```\nlmscale/\n")[1].split("```")[0].splitlines()
    count = len(MODULES) + len(FOLDERS)
    assert ["lmscale/", *drawn[:count]] == tree()
    beside = [line.split("/")[0] for line in drawn[count:]]
    assert beside == ["sweeps", "experiments", "analysis", "tests", "docs"]
    assert all((ROOT / name).is_dir() for name in beside)


def paths(text: str) -> set[str]:
    """Files and folders that a text names in backticks, in commands and in links, from the repository's root."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    spans = re.findall(r"`([^`]+)`", text) + re.findall(r"^ {4}(.+)$", text, re.MULTILINE)
    words = {word.strip("(),;:") for span in spans for word in span.split()}
    in_folders = {word for word in words if word.split("/")[0] in FOLDERS_OF_FILES and "/" in word}
    folders = {word for word in words if word.endswith("/")}
    files = {word for word in words if re.fullmatch(r"[\w-]+" + ENDINGS, word)}
    return in_folders | folders | files | set(re.findall(r"\]\(([^)#:]+)\)", text))


NO_FILES_OF_OURS = {"mine.py", "sweeps/mine.py", "model.py", "site/"}
"""Names of files that the reader, `lmscale export` or `make docs` is to write."""


@pytest.mark.parametrize("file", [README, CONTRIBUTING], ids=lambda file: file.stem)
def test_every_path_exists(file: Path) -> None:
    named = paths(file.read_text(encoding="utf-8")) - NO_FILES_OF_OURS
    assert len(named) > 8, "the pattern finds them"
    assert not [path for path in named if not any(ROOT.glob(path))]


@pytest.mark.parametrize("file", [README, CONTRIBUTING], ids=lambda file: file.stem)
def test_every_dotted_name_exists(file: Path) -> None:
    """`lmscale.presets`, `lmscale.lm.model.tap.TAPS`, ...: a public name, or a module and what it defines."""
    text = file.read_text(encoding="utf-8")
    for name in sorted(set(re.findall(r"\blmscale((?:\.[A-Za-z_]\w*)+)", text))):
        first, *rest = name[1:].split(".")
        if first in lmscale.__all__:
            assert not rest or hasattr(getattr(lmscale, first), rest[0]), name
            continue
        module = [PACKAGE.joinpath(first, *rest[:n]) for n in range(len(rest), -1, -1)]
        target = next((path for path in module if path.is_dir() or path.with_suffix(".py").is_file()), None)
        assert target, f"{name}: no public name, and no module"
        beyond = [first, *rest][len(target.relative_to(PACKAGE).parts) :]
        source = (target / "__init__.py" if target.is_dir() else target.with_suffix(".py")).read_text(encoding="utf-8")
        assert not beyond or re.search(rf"^(?:def |class )?{beyond[0]}\b", source, re.MULTILINE), name


def test_the_sweep_is_planned() -> None:
    sweep = run(block("from lmscale import Sweep, isoflop"))["SWEEP"]
    assert isinstance(sweep, lmscale.Sweep)
    planned = lmscale.plan(sweep)
    assert len(planned.runs) == 15 and sum(one.held_out for one in planned.runs) == 5


def test_the_verbs_are_called_as_they_are_defined(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`run` gives published runs in place of trained ones; `report` writes nothing. Their signatures are checked."""
    monkeypatch.chdir(tmp_path)
    Path("sweeps").mkdir()
    Path("sweeps/mine.py").write_text(block("from lmscale import Sweep, isoflop"), encoding="utf-8")
    monkeypatch.setattr(lmscale, "run", create_autospec(lmscale.run, return_value="chinchilla"))
    monkeypatch.setattr(lmscale, "report", create_autospec(lmscale.report))
    assert run(block("lmscale.run(").replace("resamples=1000", "resamples=10, check=False"))["law"]


def test_every_block_is_run_by_a_test() -> None:
    assert len(BLOCKS) == 2, "a new Python block in the README needs a test here"
