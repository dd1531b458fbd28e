"""The Python of the documentation runs as it stands: examples at a prompt print what the page says, others end.

The blocks of a page share their names and run in order, in an empty folder; a block with a title is saved under it.
Where a page opens a trained run, a model with its initial values stands for it.
"""

import doctest
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import jax
import pytest
from helpers.architecture import ROOT
from helpers.pages import PAGES, blocks

import lmscale
from lmscale.lm.data import tokenizer
from lmscale.lm.model.parameters import init

WITH_PYTHON = [name for name, page in PAGES.items() if any(blocks(page, "python"))]


@pytest.mark.long
@pytest.mark.parametrize("name", WITH_PYTHON)
def test_the_examples_of_a_page_run(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    monkeypatch.setattr(lmscale, "load", create_autospec(lmscale.load, side_effect=initialised))
    names: dict[str, Any] = {"__name__": "documentation"}
    for title, code in blocks(PAGES[name], "python"):
        if title:
            (tmp_path / title).parent.mkdir(exist_ok=True)
            (tmp_path / title).write_text(code, encoding="utf-8")
        if ">>> " in code:
            run_at_a_prompt(code, names, name)
        else:
            exec(compile(code, name, "exec"), names)


def initialised(folder: str, step: int | None = None) -> Any:
    """A small model as it begins, in the place of a trained run."""
    config = lmscale.recipes.cpu({"width": 16, "tokens": 50_000})
    return config, init(config.model, jax.random.key(0)), tokenizer.load("bytes")


def run_at_a_prompt(code: str, names: dict[str, Any], page: str) -> None:
    """Run examples with `names`, which they add to; what they print otherwise fails the test."""
    example = doctest.DocTestParser().get_doctest(code, names, page, page, 0)
    printed: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    runner.run(example, out=printed.append, clear_globs=False)
    names.update(example.globs)
    assert not runner.failures, "".join(printed)


def test_pages_have_examples() -> None:
    prompts = [code for name in WITH_PYTHON for _, code in blocks(PAGES[name], "python") if ">>> " in code]
    assert len(WITH_PYTHON) >= 7 and len(prompts) >= 6, "the pattern finds them"
