"""Mean objectives and the norms of their gradients, held against those of plain PyTorch, on one device and on eight."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import pytest
from jax.sharding import Mesh

from helpers.xla_flags import simulated_devices
from lmscale.core.config import ModelConfig
from lmscale.lm.devices.sharding import shardings
from lmscale.lm.model.parameters import parameter_table

TESTS = Path(__file__).parent.parent
GOLDEN = json.loads((TESTS / "golden/objectives.json").read_text(encoding="utf-8"))
"""Mean objectives and norms of their gradients as torch computed them (`peers/objectives.py`)."""
CLOSE: dict[str, Any] = {"rel": 1e-5}
ON_SEVERAL = """
import json, sys
sys.path.insert(0, {tests!r})
from {module} import objective_and_norm
from lmscale.core.config import MeshConfig
for name in {names}:
    print(json.dumps([objective_and_norm(name, MeshConfig(**mesh)) for mesh in {meshes}]))
"""


def placed(params: Any, model: ModelConfig, devices: Mesh) -> Any:
    """Parameters of a shape where a run on these devices has them."""
    axes = {name: (row.shape, row.axes) for name, row in parameter_table(model).items()}
    return jax.device_put(params, shardings(axes, devices))


def assert_golden(name: str, value_and_norm: Sequence[float], where: object = "") -> None:
    assert value_and_norm[0] == pytest.approx(GOLDEN[name]["objective"], **CLOSE), where
    assert value_and_norm[1] == pytest.approx(GOLDEN[name]["gradient_norm"], **CLOSE), where


def assert_golden_on_eight_devices(test: str, names: Sequence[str], *meshes: dict[str, int]) -> None:
    """Run `objective_and_norm` of the file `test` on each mesh of eight simulated devices."""
    program = ON_SEVERAL.format(tests=str(TESTS), module=Path(test).stem, names=list(names), meshes=list(meshes))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=simulated_devices(8))
    assert done.returncode == 0, done.stderr[-2000:]
    for name, line in zip(names, done.stdout.splitlines(), strict=True):
        for mesh, numbers in zip(meshes, json.loads(line), strict=True):
            assert_golden(name, numbers, mesh)
