"""Imports point one way, and heavy ones come late."""

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]

# A module imports only what stands to its left in its own line, and the waist; the verbs import both halves, but late.
WAIST = "errors files process attempts config counting devices figures results".split()
RUN = (
    "machine tokenizer languages corpora data sharding attention cross_entropy parameters model decode nnx_model "
    "optimizer health step pack clusters distributed checkpoint tasks respond evaluate examine harness track metrics "
    "ledger train worker bench sample export"
).split()
STUDY = "laws presets sweep recipes design prices tables fits emergence plots report launch progress".split()
VERBS = "planning terminal status control events exchange look demo cli __main__".split()

LATE_IN_RUN = {"pandas", "pyarrow", "matplotlib", "wandb", "tyro", "scipy"}
HEAVY = ("jax", "flax", "pandas", "matplotlib", "scipy", "pyarrow", "tensorflow_datasets", "wandb")


def modules() -> dict[str, list[Path]]:
    """Module of `lmscale` -> its files; a folder is one module."""
    found: dict[str, list[Path]] = {}
    for path in sorted((ROOT / "lmscale").rglob("*.py")):
        found.setdefault(path.relative_to(ROOT / "lmscale").parts[0].removesuffix(".py"), []).append(path)
    return found


def imports(path: Path, everywhere: bool = True) -> Iterator[str]:
    """Dotted names that a file imports, late ones included; `from a import b` gives a.b. Relative imports fail."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree) if everywhere else tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def inside(path: Path, everywhere: bool = True) -> set[str]:
    """Modules of `lmscale` that a file imports."""
    parts = [name.split(".") for name in imports(path, everywhere)]
    return {name[1] for name in parts if name[0] == "lmscale" and len(name) > 1} & set(modules())


def test_every_module_has_its_place() -> None:
    strangers = set(modules()) - {"__init__", *WAIST, *RUN, *STUDY, *VERBS}
    assert not strangers, "give the new module a place in a line above"


@pytest.mark.parametrize("chain", [WAIST, RUN, STUDY, VERBS], ids=["waist", "run", "study", "verbs"])
def test_order(chain: list[str]) -> None:
    below = {id(WAIST): [], id(VERBS): [*WAIST, *RUN, *STUDY]}.get(id(chain), WAIST)
    for position, module in enumerate(chain):
        allowed = {*below, *chain[: position + 1]}
        for path in modules().get(module, []):
            assert inside(path) <= allowed, f"{path.relative_to(ROOT)} imports {sorted(inside(path) - allowed)}"


def test_the_command_line_imports_the_run_half_late() -> None:
    assert not inside(ROOT / "lmscale" / "cli.py", everywhere=False) & set(RUN)


def test_the_package_imports_no_folder_of_scripts() -> None:
    roots = {name.split(".")[0] for paths in modules().values() for path in paths for name in imports(path)}
    assert not roots & {"sweeps", "experiments", "analysis", "tests"}


def test_the_run_half_imports_the_study_halfs_libraries_late() -> None:
    for module in set(RUN) & set(modules()):
        for path in modules()[module]:
            early = {name.split(".")[0] for name in imports(path, everywhere=False)}
            assert not early & LATE_IN_RUN, f"{path.relative_to(ROOT)} imports {early & LATE_IN_RUN} at top level"


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


def test_waist_and_study_half_never_import_jax() -> None:
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__").removesuffix(".__main__")
        for module in (*WAIST, *STUDY, *VERBS)
        for path in modules().get(module, [])
    ]
    program = (
        "import importlib, sys\n"
        f"for name in {names}:\n"
        "    importlib.import_module(name)\n"
        "    if 'jax' in sys.modules: sys.exit(print(name))\n"
    )
    assert python("-c", program) == "", "the first module that brought JAX"


def test_what_is_imported_is_declared() -> None:
    owners = packages_distributions()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    declared = {canonicalize_name(Requirement(line).name) for line in [*project["dependencies"], *extras]}
    for path in (path for paths in modules().values() for path in paths):
        roots = {name.split(".")[0] for name in imports(path)} - set(sys.stdlib_module_names) - {"lmscale"}
        for name in roots:
            known = {canonicalize_name(owner) for owner in owners.get(name, [name])}
            assert known & declared, f"{path.relative_to(ROOT)} imports {name}: declare it in pyproject.toml"


def test_the_lock_fulfils_the_declaration() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    assert "://" not in lock and "index-url" not in lock
    pins = [Requirement(line.removesuffix("\\").strip()) for line in lock.splitlines() if line[:1].isalnum()]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for line in [*project["dependencies"], *project["optional-dependencies"]["dev"]]:
        wanted = Requirement(line)
        found = [pin for pin in pins if canonicalize_name(pin.name) == canonicalize_name(wanted.name)]
        assert found, f"{wanted.name} is not locked: remake requirements.lock (CONTRIBUTING.md)"
        for pin in found:
            version = str(pin.specifier).removeprefix("==")
            assert wanted.specifier.contains(version, prereleases=True), f"{pin} does not fulfil {wanted}"
