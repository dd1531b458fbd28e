"""Two processes decide, wait, share numbers and build arrays together; one process answers itself."""

import json
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
from helpers.xla_flags import simulated_devices

from lmscale.core.config import MeshConfig
from lmscale.lm.devices import collectives
from lmscale.lm.devices.sharding import batch_sharding, make_mesh, replicated

TOGETHER = """
import json, sys, time
import numpy as np
from lmscale.core.config import MeshConfig
from lmscale.lm.devices import collectives, distributed
from lmscale.lm.devices.sharding import batch_sharding, make_mesh, replicated

address, process = sys.argv[1], int(sys.argv[2])
distributed.start(address, 2, process)
mesh, asked = make_mesh(MeshConfig(data=4)), []

def rows(start, stop):
    asked.append([start, stop])
    return np.arange(start, stop, dtype=np.int32)[:, None] * np.ones((1, 3), np.int32)

said = {
    "main": distributed.is_main(),
    "any": collectives.any_process(process == 1, process == 0, False),
    "first's": collectives.broadcast([7, 5, 3] if process == 0 else [1], 2),
    "fewer": collectives.broadcast([] if process == 0 else [1, 2], 2),
}
poll = collectives.AnyProcessPoll(0)
said["poll"] = [poll(0, process == 1), poll(1, True) if poll.next_step > 1 else (False,)]
array = collectives.make_global_array(rows, (8, 3), batch_sharding(mesh))
said["rows"] = sorted(asked)
said["shards"] = sorted(int(shard.data[0, 0]) for shard in array.addressable_shards)
tree = collectives.replicate({"a": np.arange(3.0)}, replicated(mesh))
said["copies"] = [np.asarray(shard.data).tolist() for shard in tree["a"].addressable_shards]
if process == 1:
    time.sleep(1.0)
    said["came"] = time.time()
collectives.barrier()
said["left"] = time.time()
print(json.dumps(said))
"""


@pytest.mark.long
def test_two_processes_decide_wait_and_share() -> None:
    with socket.create_server(("localhost", 0)) as free:
        address = f"localhost:{free.getsockname()[1]}"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TOGETHER, address, str(number)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=simulated_devices(2),
        )
        for number in range(2)
    ]  # fmt: skip
    try:
        outputs = [process.communicate(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], outputs
    one, two = (json.loads(output.splitlines()[-1]) for output, _ in outputs)
    assert (one["main"], two["main"]) == (True, False)
    for result in (one, two):
        assert result["any"] == [True, True, False] and result["poll"] == [[True], [False]]
        assert result["first's"] == [7, 5] and result["fewer"] == []
        assert result["copies"] == [[0.0, 1.0, 2.0]] * 2
    assert one["rows"] == [[0, 2], [2, 4]] and two["rows"] == [[4, 6], [6, 8]]  # each asks for its devices' rows only
    assert one["shards"] == [0, 2] and two["shards"] == [4, 6]
    assert one["left"] >= two["came"]


def test_one_process_answers_itself() -> None:
    assert collectives.any_process(True, False) == (True, False)
    assert collectives.broadcast([5, 3, 1], 2) == [5, 3]
    collectives.barrier()
    poll = collectives.AnyProcessPoll(0)
    assert [poll(step, step == 1) for step in range(3)] == [(False,), (True,), (False,)]
    mesh = make_mesh(MeshConfig())
    array = collectives.make_global_array(
        lambda start, stop: np.full((stop - start, 2), start), (4, 2), batch_sharding(mesh)
    )
    assert array.shape == (4, 2) and not np.asarray(array).any()
    assert jax.tree.map(np.asarray, collectives.replicate({"a": 1.0}, replicated(mesh))) == {"a": 1.0}


def test_processes_ask_each_other_about_once_a_second_however_far_ahead_they_dispatch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A step is dispatched in a millisecond and done half a second later: the clock alone would see the first."""
    now, queued, asked = 0.0, 0.0, []

    def allgather(values: tuple[float, ...]) -> np.ndarray:
        nonlocal now, queued
        now, queued = now + queued, 0.0
        asked.append(now)
        return np.array([values, values], np.float32)

    monkeypatch.setattr(collectives.jax, "process_count", lambda: 2)
    monkeypatch.setattr(collectives, "_allgather", allgather)
    monkeypatch.setattr(collectives.time, "perf_counter", lambda: now)
    poll = collectives.AnyProcessPoll(0)
    for step in range(100):
        assert poll(step, step > 50, False) == (step > 50 and asked[-1] == now, False)
        now, queued = now + 0.001, queued + 0.5
    assert len(asked) > 40 and np.diff(asked).max() < 2 * collectives.POLL_SECONDS
