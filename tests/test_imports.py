"""Imports point one way, and heavy ones come late."""

import graphlib
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from helpers.architecture import (
    ENTRY,
    FILES,
    HEAVY,
    LATE_IN_RUN,
    MODULES,
    PACKAGE,
    ROOT,
    imports,
    inside,
    may_import,
    owner,
)
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def inner() -> dict[str, Path]:
    """`FILES` without the doors and without empty folders' docstrings."""
    return {path: file for path, file in FILES.items() if path not in (*ENTRY, *(PACKAGES))}


PACKAGES = {"core", "lm", "study", "lm/data", "commands"} - set(MODULES)
"""Folders whose `__init__` says what is in them, and nothing more."""


def test_every_module_has_its_place() -> None:
    for path in inner():
        owner(path)
    for path in MODULES:
        assert path in FILES, f"{path} is in the list, but there is no such module"


def test_the_package_folder_fits_a_glance() -> None:
    assert len([path for path in PACKAGE.iterdir() if path.name != "__pycache__"]) <= 32


@pytest.mark.long
@pytest.mark.parametrize("path", inner())
def test_order(path: str) -> None:
    wrong = [other for other in inside(FILES[path]) if other in inner() and not may_import(owner(path), owner(other))]
    assert not wrong, f"{path} imports {wrong}: see tests/helpers/architecture.py"


@pytest.mark.long
def test_no_file_imports_in_a_circle() -> None:
    """Late imports count, those for a type checker too: who reads one file of a circle has to read them all."""
    graph = {path: inside(file) - {path} for path, file in inner().items()}
    order = graphlib.TopologicalSorter(graph)
    try:
        order.prepare()
    except graphlib.CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from None


def test_the_command_line_imports_the_run_half_late() -> None:
    early = {path: inside(FILES[path], everywhere=False) for path in inner() if path.split("/")[0] in ("cli", "api")}
    assert not [(path, other) for path, others in early.items() for other in others if other.startswith("lm/")]


@pytest.mark.long
def test_the_package_imports_no_folder_of_scripts() -> None:
    roots = {name.split(".")[0] for file in FILES.values() for name in imports(file)}
    assert not roots & {"sweeps", "experiments", "analysis", "tests"}


def test_the_run_half_imports_the_study_halfs_libraries_late() -> None:
    for path, file in FILES.items():
        if path.startswith("lm/"):
            early = {name.split(".")[0] for name in imports(file, everywhere=False)}
            assert not early & LATE_IN_RUN, f"{path} imports {early & LATE_IN_RUN} at top level"


@pytest.mark.long
def test_tests_import_no_test() -> None:
    for file in sorted((ROOT / "tests").rglob("*.py")):
        used = {name.split(".")[0] for name in imports(file)}
        assert not [name for name in used if name.startswith("test_") or name == "conftest"], file.name


def python(*arguments: str) -> str:
    """Standard output of a Python in the repository; its failure fails the test."""
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_help_loads_nothing_heavy() -> None:
    program = (
        "import runpy, sys\n"
        "sys.argv = ['lmscale', '--help']\n"
        "try: runpy.run_module('lmscale', run_name='__main__')\n"
        "except SystemExit as end: assert not end.code\n"
        f"print('LOADED', *sorted({set(HEAVY)} & set(sys.modules)))"
    )
    assert python("-c", program).splitlines()[-1] == "LOADED"


@pytest.mark.long
def test_core_study_and_commands_never_import_jax() -> None:
    names = [f"lmscale.{path.replace('/', '.')}" for path in FILES if not path.startswith("lm/") and path not in ENTRY]
    program = (
        "import importlib, sys\n"
        f"for name in {names}:\n"
        "    importlib.import_module(name)\n"
        "    if 'jax' in sys.modules: sys.exit(print(name))\n"
    )
    assert python("-c", program) == "", "the first module that brought JAX"


@pytest.mark.long
def test_what_is_imported_is_declared() -> None:
    owners = packages_distributions()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    declared = {canonicalize_name(Requirement(line).name) for line in [*project["dependencies"], *extras]}
    for path in FILES.values():
        roots = {name.split(".")[0] for name in imports(path)} - set(sys.stdlib_module_names) - {"lmscale"}
        for name in roots:
            known = {canonicalize_name(owner) for owner in owners.get(name, [name])}
            assert known & declared, f"{path.relative_to(ROOT)} imports {name}: declare it in pyproject.toml"


def test_the_lock_fulfils_the_declaration() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    assert "://" not in lock and "index-url" not in lock
    pins = [Requirement(line.removesuffix("\\").strip()) for line in lock.splitlines() if line[:1].isalnum()]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for line in [*project["dependencies"], *extras["dev"], *extras["docs"]]:
        requirement = Requirement(line)
        matches = [pin for pin in pins if canonicalize_name(pin.name) == canonicalize_name(requirement.name)]
        assert matches, f"{requirement.name} is not locked: remake requirements.lock (CONTRIBUTING.md)"
        for pin in matches:
            version = str(pin.specifier).removeprefix("==")
            assert requirement.specifier.contains(version, prereleases=True), f"{pin} does not fulfil {requirement}"
