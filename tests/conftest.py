"""Strict by default: warnings are errors (pyproject.toml), rank promotion raises, seeds are fixed, the cache is fresh.

The environment is set here, before anything imports JAX, and child processes inherit it. Programs are compiled in haste
(`xla_flags.py`); `XLA_FLAGS= make test` compiles them as a user's are.
"""

import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from helpers.xla_flags import set_in_environment

ROOT = Path(__file__).resolve().parents[1]

os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
os.environ["MPLBACKEND"] = "Agg"
os.environ["PYTHONHASHSEED"] = "0"  # of child processes
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # to compile the package at every start takes half a second
os.environ["WANDB_MODE"] = "disabled"
set_in_environment()

LONGEST = (
    "test_end_to_end", "test_train", "test_preferences", "test_reinforcement_runs", "test_experts", "test_transformer",
    "test_distillation", "test_stablehlo", "test_two_file", "test_launch", "test_retrieve_verbs", "test_reinforcement",
    "test_start", "test_inspect_verb", "test_pack", "test_inspect_patching", "test_experts_parallel", "test_task_eval",
    "test_inspect_exam", "test_generate", "test_step", "test_laws_any_inputs", "test_attention",
)  # fmt: skip
"""Files of more than twenty seconds, the longest first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Between several processes the longest files come first, so that none is left over at the end for one alone."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        rank = {name: number for number, name in enumerate(LONGEST)}
        items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The LMSCALE_CACHE of this session: no test reads or writes the user's own. Shared, since corpora cost seconds.

    Also by the processes of pytest-xdist, whose own folders stand side by side in that of the session.
    """
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = tmp_path_factory.getbasetemp().parent / "cache"
        folder.mkdir(exist_ok=True)
    else:
        folder = tmp_path_factory.mktemp("cache")
    os.environ["LMSCALE_CACHE"] = str(folder)
    return folder


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache that holds nothing of another test: LMSCALE_CACHE is the folder `cache` of `tmp_path`."""
    monkeypatch.setenv("LMSCALE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def sources(tmp_path: Path) -> list[str]:
    """Three folders of text, of the letters a, b and c: sources of data, each by its path."""
    from helpers.letters import folder

    return [folder(tmp_path / name, name, count) for name, count in (("a", 60), ("b", 30), ("c", 90))]


@pytest.fixture(autouse=True)
def seeds() -> None:
    """Every test starts from the same state of the global generators, whichever ran before it."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """Data and reference results that stand beside the clone; a test that wants them is skipped where they are not."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("no folder `shared` beside the repository")
    return folder


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs/smoke as if `sweeps/smoke.py` was run, with losses of a known law. To change it, copy it."""
    from helpers.finished_sweep import write_finished

    folder = tmp_path_factory.mktemp("made")
    write_finished(ROOT / "sweeps" / "smoke.py", folder / "runs")
    return folder


@pytest.fixture
def runs(workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a copy of the smoke sweep's runs, as if trained, and the folder `runs/smoke` in it."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(workspace / "runs", tmp_path / "runs")
    return Path("runs/smoke")


@pytest.fixture
def known_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    """A matmul peak that costs no time to measure."""
    monkeypatch.setattr("lmscale.lm.devices.machine.matmul_peak", lambda dtype: 1e11)


@pytest.fixture
def stop_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Ask the next runs in this process to stop once they have done so many steps."""

    def ask(steps: int) -> None:
        @contextmanager
        def asked() -> Iterator[Callable[[], bool]]:
            calls = iter(range(1, 10**9))
            yield lambda: next(calls) > steps

        monkeypatch.setattr("lmscale.lm.train.loop.stop_requested", asked)

    return ask


@pytest.fixture(scope="module")
def compiled_programs(cache: Path) -> Iterator[Path]:
    """The compilation cache that `machine.set_up` gives a run, here for a module's tests: they share their programs."""
    from helpers.tiny_runs import caching_programs

    with caching_programs(cache / "xla"):
        yield cache / "xla"
