"""Strict by default: warnings are errors (pyproject.toml), rank promotion raises, seeds are fixed, the cache is fresh.

The environment is set here, before anything imports JAX, and child processes inherit it.
"""

import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]

os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
os.environ["MPLBACKEND"] = "Agg"
os.environ["PYTHONHASHSEED"] = "0"  # of child processes
os.environ["WANDB_MODE"] = "disabled"


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
def smoke(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder in which `lmscale run sweeps/smoke.py` was called once: runs/smoke; what it said is in said.txt.

    Shared by the tests of the study half: copy it before changing anything in it.
    """
    folder = tmp_path_factory.mktemp("smoke")
    command = [sys.executable, "-m", "lmscale", "run", str(ROOT / "sweeps" / "smoke.py")]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    (folder / "said.txt").write_text(done.stdout, encoding="utf-8")
    return folder
