"""A Python with torch and transformers, where there is one."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NAMED = "LMSCALE_PEERS"
"""Environment variable with the path of such a Python."""


def peers_python() -> str:
    """Its path: that in LMSCALE_PEERS, of `.venv-peers` (which CI makes), or this one. Skips the test without any."""
    candidates = [os.environ.get(NAMED, ""), str(ROOT / ".venv-peers/bin/python")]
    path = next((candidate for candidate in candidates if candidate and Path(candidate).exists()), None)
    if path is None and find_spec("torch") and find_spec("transformers"):
        path = sys.executable
    if path is None:
        pytest.skip(
            "needs torch and transformers: pip install 'lmscale[peers]', or name a Python that has them: " + NAMED
        )
    return path


def call_peer(script: str, *arguments: str | Path) -> str:
    """What the script in `tests/peers` prints."""
    command = [peers_python(), str(ROOT / "tests/peers" / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env={**os.environ, "PYTHONPATH": ""})
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
