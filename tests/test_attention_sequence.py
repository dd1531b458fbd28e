"""Kernels of attention on a mesh that divides time: the devices exchange time for heads, and all else is the same."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.xla_flags import HASTE, simulated_devices

MESHES = ({"sequence": 2}, {"data": 2, "sequence": 4}, {"tensor": 2, "sequence": 4})


def compare(mesh: dict[str, int], kv_heads: int, kernel: str, biased: bool) -> dict[str, Any]:
    """Largest differences of output and gradients to the formula on one device, and collectives of the program."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.sharding import NamedSharding

    from lmscale.core.config import MeshConfig
    from lmscale.lm.devices.sharding import make_mesh, spec
    from lmscale.lm.model.attention import alibi_slopes, cudnn, plain, splash
    from lmscale.lm.model.attention.per_device import divides

    draw = np.random.default_rng(0)
    time, heads = 128, 8
    arrays = [draw.normal(size=(2, time, number, 16)).astype(np.float32) for number in (heads, kv_heads, kv_heads)]
    segments = np.arange(2 * time, dtype=np.int32).reshape(2, time) // 50
    slopes = alibi_slopes(heads) if biased else None
    option = {"implementation": "xla"} if kernel == "cudnn" else {"interpret": True}
    attend = {"cudnn": cudnn, "splash": splash}[kernel].attend

    def loss(function: Any, options: dict[str, Any]) -> Any:
        def of(q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array]:
            output = function(q, k, v, 0.25, slopes, jnp.asarray(segments), **options)
            return jnp.sum(jnp.sin(output)), output

        return jax.jit(jax.grad(of, argnums=(0, 1, 2), has_aux=True))

    expected, whole = loss(plain.attend, {})(*arrays)
    device_mesh = make_mesh(MeshConfig(**mesh))
    with jax.set_mesh(device_mesh):
        assert divides(2, heads, kv_heads)
        sharding = NamedSharding(device_mesh, spec(("batch", "time", None, None)))
        placed = [jax.device_put(x, sharding) for x in arrays]
        program = loss(attend, option)
        text = program.lower(*placed).compile().as_text()
        gradients, output = program(*placed)
    differences = [float(abs(a - b).max()) for a, b in zip((whole, *expected), (output, *gradients))]
    return {"differences": differences, "exchanged": "all-to-all" in text, "shard": output.sharding.spec[1]}


@pytest.fixture(scope="module")
def outcomes() -> list[dict[str, Any]]:
    """What every mesh gives by the formula that stands for cuDNN, and one by the kernel of a TPU, interpreted."""
    cases = [
        (mesh, kv_heads, "cudnn", biased) for mesh, kv_heads, biased in zip(MESHES, (2, 4, 2), (False, True, False))
    ]
    code = f"import json, test_attention_sequence as t; print(json.dumps([t.compare(*case) for case in {cases!r}]))"
    environment = {**simulated_devices(8, HASTE), "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.long
@pytest.mark.parametrize("number", range(len(MESHES)), ids=[str(mesh) for mesh in MESHES])
def test_a_kernel_sees_all_of_time(number: int, outcomes: list[dict[str, Any]]) -> None:
    outcome = outcomes[number]
    assert max(outcome["differences"]) < 2e-5, outcome
    assert outcome["exchanged"] and outcome["shard"] == "sequence"
