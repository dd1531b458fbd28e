"""The documentation agrees with the code: commands parse, numbers are in their source, links lead to a file.

MkDocs itself checks links and anchors too (`mkdocs build --strict`); these tests need no MkDocs. The Python of the
pages is run by `test_documentation_examples.py`.
"""

import ast
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from helpers.architecture import ROOT
from helpers.pages import COLUMNS, DOCS, FENCE, FEW, PAGES, commands, generated, numbers, traced

from lmscale.cli import VERBS, parse
from lmscale.study.laws import FORMS, PUBLISHED

PLACEHOLDERS = {"VERB", "|"}
"""Words that stand for a verb."""
NOT_MEASURED = re.compile(r"Outcome: not measured yet|Planned,\s+not\s+yet\s+trained")


@pytest.mark.long
@pytest.mark.parametrize("name", PAGES)
def test_every_command_parses(name: str) -> None:
    """Verbs, flags and their values as the command line reads them; scripts and their flags as they are written."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for words in commands(PAGES[name]):
        line = " ".join(words)
        program, *rest = words
        if program == "lmscale" and rest[0] in VERBS:
            try:
                parse(rest[0], rest[1:])
            except SystemExit as end:
                pytest.fail(f"{line}: exit status {end.code}")
        elif program == "python":
            text = (ROOT / rest[0]).read_text(encoding="utf-8")
            assert not [flag for flag in rest[1:] if flag.startswith("--") and flag not in text], line
        elif program == "make":
            assert re.search(rf"^{rest[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), line
        elif program == "pip":
            (extra,) = re.findall(r"\[([\w-]+)\]", line)
            assert extra in extras, line
        elif program.startswith("SHARED="):
            assert rest[0] == "pytest" and (ROOT / rest[1]).is_file(), line
        else:
            known = program == "lmscale" and (rest[0] == "--version" or set(rest) & PLACEHOLDERS)
            assert known or program in ("source", "kubectl"), line


@pytest.mark.parametrize("name", [name for name, page in PAGES.items() if "<!-- from:" in page])
def test_every_traced_number_is_in_its_source(name: str) -> None:
    sources = list(traced(PAGES[name]))
    assert len(sources) == PAGES[name].count("<!-- from:"), "a source stands alone on its line, above a block"
    for path, block in sources:
        measured = numbers((ROOT / path).read_text(encoding="utf-8"))
        stated = {value for value in numbers(block) if value > FEW or value != int(value)}
        assert stated, f"{name}: no number is from {path}"
        assert not stated - measured, f"{name}: {stated - measured} not in {path}"


def test_code_fits_its_column() -> None:
    for name, page in PAGES.items():
        wide = [line for match in FENCE.finditer(page) for line in match[3].splitlines() if len(line) > COLUMNS]
        # What a program prints is as wide as it is.
        assert not [line for line in wide if not line.startswith("L = ")], name


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_to_a_file(name: str) -> None:
    figures = {f"figures/{path.name}" for path in (ROOT / "experiments/outcomes").glob("*.svg")}
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", PAGES[name]):
        path = (DOCS / name).parent / target
        inside = path.resolve().relative_to(DOCS).as_posix()
        notebook = path.suffix == ".ipynb" and path.is_file()
        assert inside in PAGES or inside in figures or notebook, f"{name} links to {target}"


def test_every_page_is_in_the_navigation() -> None:
    def leaves(value: object) -> list[str]:
        if isinstance(value, str):
            return [value]
        items = value.values() if isinstance(value, dict) else value
        return [leaf for item in items for leaf in leaves(item)]  # type: ignore[attr-defined]

    listed = leaves(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])
    assert sorted(listed) == sorted(PAGES)


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name, page in PAGES.items() if "<!-- generated:" in page])
def test_generated_parts_are_made(name: str) -> None:
    page = generated().expanded(PAGES[name])
    assert "<!-- generated:" not in page and len(page) > len(PAGES[name]) + 200


@pytest.mark.long
def test_the_reference_is_complete() -> None:
    make = generated()
    laws = make.expanded(PAGES["explained/laws.md"])
    assert {name: laws.count(f"### {name}\n") for name in FORMS} == dict.fromkeys(FORMS, 1)
    assert all(f"`{name}`, a `{law.NAME}`" in laws for name, law in PUBLISHED.items())
    verbs = make.expanded(PAGES["reference/verbs.md"])
    assert all(f"## {name}\n" in verbs and f"usage: lmscale {name} " in verbs for name in VERBS)
    api = re.findall(r"^::: (\S+)$", make.expanded(PAGES["reference/api.md"]), re.MULTILINE)
    assert len(api) == len(set(api)) > 100
    for path in api:
        module, _, name = path.rpartition(".")
        source = "" if make.file_of(path) else make.file_of(module).read_text(encoding="utf-8")
        assert make.file_of(path) or re.search(rf"^(?:def |class )?{name}\b", source, re.MULTILINE), path


def test_every_experiment_is_a_finding_or_waits_for_one() -> None:
    measured, waiting = PAGES["findings.md"].split("## Not measured yet")
    lists = [re.findall(r"generated: finding (\S+)", part) for part in (measured, waiting)]
    assert len(set(lists[0] + lists[1])) == len(lists[0]) + len(lists[1])
    experiments = {path.relative_to(ROOT).as_posix() for path in (ROOT / "experiments").glob("*.py")}
    assert experiments <= set(lists[0] + lists[1])
    for paths, open_question in zip(lists, (False, True)):
        for path in paths:
            docstring = ast.get_docstring(ast.parse((ROOT / path).read_text(encoding="utf-8"))) or ""
            assert bool(NOT_MEASURED.search(docstring)) == open_question, path


def test_paths_in_pages_exist() -> None:
    for name, page in PAGES.items():
        spans = [word for code in re.findall(r"`([^`\n]+)`", page) for word in code.split()]
        paths = {
            word.strip("(),;:") for word in spans if re.match(r"(?:lmscale|sweeps|experiments|tests)/\S+\.\w+", word)
        }
        missing = sorted(path for path in paths - {"sweeps/mine.py"} if not any(ROOT.glob(path)))
        assert not missing, f"{name}: {missing}"


def test_the_citation_states_this_version() -> None:
    import lmscale

    citation = yaml.safe_load(Path(ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == lmscale.__version__ and citation["license"] == "Apache-2.0"
