"""One run in several processes: how they find each other, what they decide together, how they end."""

import ctypes
import os
import re
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding
from numpy.typing import NDArray

from lmscale.core.config import check
from lmscale.core.errors import UserError
from lmscale.core.exit_status import EXIT_INTERRUPTED, exit_status
from lmscale.lm.devices import cluster

AGREE_SECONDS = 1.0
"""About how often several processes ask each other whether to stop or to save."""
LEAVE_SECONDS = 2.0
"""How long the first process, which the others are connected to, lets them say their own last sentence."""
ALONE = "--processes 1 trains in this process alone"
LOST = re.compile(r"gloo|nccl|connection (reset|closed)|socket closed|by peer|coordination service|heartbeat", re.I)
"""What JAX says when another process is gone."""


def start(
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    wait_seconds: int = 300,
) -> None:
    """Join the other processes of this run, before anything asks JAX for its devices.

    `coordinator` is the HOST:PORT at which process 0 can be reached; what is not given is taken from the launcher
    (`clusters.find`), and without one this process is alone. Waits for the others at most `wait_seconds`. Raises
    `UserError` for what is given in part or impossible, and for a coordinator that does not answer; ends the process
    with `EXIT_INTERRUPTED` where JAX gives up waiting for the others.
    """
    if processes == 1 and not process:
        return
    place = cluster.find(os.environ)
    if place is None and (coordinator, processes, process) == (None, None, None):
        return
    if coordinator is None and processes is None and process is None:
        assert place is not None
        check(
            place.method is not None,
            f"{place.launcher} has started {place.processes} processes but does not say where the first is; add "
            f"--coordinator HOST:PORT, or {ALONE}",
        )
        _join(place.processes, place.process, wait_seconds, place.devices, cluster_detection_method=place.method)
        return
    processes = place.processes if place and processes is None else processes
    process = place.process if place and process is None else process
    _check_given(coordinator, processes, process)
    assert coordinator is not None and processes is not None and process is not None
    _check_reachable(coordinator, process, wait_seconds)
    devices = place.devices if place else None
    _join(
        processes,
        process,
        wait_seconds,
        devices,
        coordinator_address=coordinator,
        cluster_detection_method="deactivate",
    )


def _check_given(coordinator: str | None, processes: int | None, process: int | None) -> None:
    given = {"--coordinator HOST:PORT": coordinator, "--processes N": processes, "--process I": process}
    missing = [flag for flag, value in given.items() if value is None]
    check(not missing, f"{', '.join(given)} belong together; add {' and '.join(missing)}, or {ALONE}")
    assert coordinator is not None and processes is not None and process is not None
    check(processes >= 1, f"--processes {processes}: must be at least 1")
    check(
        0 <= process < processes,
        f"--process {process} of --processes {processes}: they are numbered from 0, so the last is {processes - 1}",
    )
    host, _, port = coordinator.rpartition(":")
    check(
        bool(host) and port.isdigit() and 0 < int(port) < 2**16,
        f"--coordinator {coordinator}: must be the address and a free port of process 0, as in node01:45001",
    )


def _check_reachable(coordinator: str, process: int, wait_seconds: int) -> None:
    """JAX would end the process with a stack trace. Process 0 is the one that is reached: its port must be free."""
    host, port = coordinator.rpartition(":")[0].strip("[]"), int(coordinator.rpartition(":")[2])
    if process == 0:
        try:
            socket.create_server(("", port)).close()
        except OSError as error:
            raise UserError(
                f"--coordinator {coordinator}: port {port} cannot be used here ({error.strerror}); take another"
            ) from None
        return
    problem, end = "", time.monotonic() + wait_seconds
    while time.monotonic() < end:
        try:
            socket.create_connection((host, port), timeout=5).close()
            return
        except OSError as error:
            problem = error.strerror or str(error)
            time.sleep(0.2)
    raise UserError(
        f"no process 0 answered at {coordinator} within {wait_seconds} s ({problem}); start it with the same "
        f"--coordinator, or correct the address"
    )


def _join(processes: int | None, process: int | None, wait_seconds: int, devices: list[int] | None, **how: Any) -> None:
    # A run has its own handler of SIGTERM and asks its processes; JAX's would take the signal.
    jax.config.update("jax_enable_preemption_service", False)
    which = "this process" if processes is None else f"process {process} of {processes}"
    _say_at_abort(f"not all processes came within {wait_seconds} s, so {which} ends; start all of them again")
    try:
        jax.distributed.initialize(
            num_processes=processes,
            process_id=process,
            local_device_ids=devices,
            initialization_timeout=wait_seconds,
            **how,
        )
    except (RuntimeError, ValueError, OSError) as error:
        summary = str(error).splitlines()[0][:200]
        raise UserError(
            f"{which} could not join the others ({summary}); say where process 0 is with --coordinator HOST:PORT "
            f"--processes N --process I, or {ALONE}"
        ) from error
    _say_at_abort(_lost(which))


def _lost(which: str) -> str:
    return f"another process of this run is gone, so {which} ends too; start all of them again, and they go on"


_at_abort: list[Any] = []


def _say_at_abort(sentence: str) -> None:
    """Say a sentence and leave with `EXIT_INTERRUPTED` where JAX would abort.

    JAX does so, from a thread of its own, when it has lost the first process or waited too long; Python's own signal
    handlers never run then.
    """

    def leave(number: int) -> None:
        os.write(2, f"lmscale: {sentence}\n".encode())
        os._exit(EXIT_INTERRUPTED)

    handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(leave)
    ctypes.CDLL(None).signal(signal.SIGABRT, handler)
    _at_abort[:] = [handler]  # ctypes does not keep it alive


def is_main() -> bool:
    """Whether this process writes the run's files: the first one does."""
    return jax.process_index() == 0


def agreed(*flags: bool) -> tuple[bool, ...]:
    """For each flag, whether any process has raised it. All processes must call it at the same point."""
    if jax.process_count() == 1:
        return flags
    return _any(_gathered(flags))


def _any(gathered: NDArray[np.float32]) -> tuple[bool, ...]:
    return tuple(bool(raised) for raised in np.max(gathered, axis=0))


def _gathered(values: tuple[float, ...]) -> NDArray[np.float32]:
    """The numbers of all processes [processes, values]."""
    from jax.experimental import multihost_utils

    return np.reshape(multihost_utils.process_allgather(np.array(values, np.float32)), (-1, len(values)))


class Votes:
    """What the processes of a run decide together while it goes on.

    To ask costs a wait for the device, so several processes ask about once a second; when next, they agree too. A
    single process answers itself at every step.
    """

    def __init__(self, step: int) -> None:
        self.next = self._step = step
        self._clock = time.perf_counter()

    def __call__(self, step: int, *flags: bool) -> tuple[bool, ...]:
        """For each flag, whether any process has raised it by `step`; all False until they ask each other again."""
        if jax.process_count() == 1:
            return flags
        if step < self.next:
            return (False,) * len(flags)
        raised = _any(_gathered(flags))  # waits for the steps that are dispatched: only then is the clock theirs
        pace = (time.perf_counter() - self._clock) / max(1, step - self._step)
        slowest = float(_gathered((pace,)).max()) if step > self._step else AGREE_SECONDS
        self._step, self._clock = step, time.perf_counter()
        self.next = step + max(1, int(AGREE_SECONDS / max(slowest, 1e-9)))
        return raised


def from_first(values: Sequence[int], most: int) -> list[int]:
    """The first `most` of the numbers, none below 0, that the first process has; all processes call it together."""
    if jax.process_count() == 1:
        return list(values[:most])
    from jax.experimental import multihost_utils

    row = np.full(most, -1, np.int32)
    row[: len(values)] = values[:most]
    return [int(value) for value in multihost_utils.broadcast_one_to_all(row) if value >= 0]


def place(rows: Callable[[int, int], Any], shape: tuple[int, int], sharding: NamedSharding) -> jax.Array:
    """The global array [rows, ...] of which `rows(start, stop)` gives a part; a process asks for its own parts only."""
    if jax.process_count() == 1:
        return jax.device_put(rows(0, shape[0]), sharding)

    def part(index: Any) -> NDArray[np.int32]:
        start, stop, _ = index[0].indices(shape[0])
        return np.asarray(rows(start, stop))

    return jax.make_array_from_callback(shape, sharding, part)


def put(values: Any, sharding: NamedSharding) -> Any:
    """A tree of arrays that every process has alike, placed on the devices of all."""
    if jax.process_count() == 1:
        return jax.device_put(values, sharding)
    return jax.jit(lambda values: values, out_shardings=sharding)(values)


@contextmanager
def ending_together(orderly: type[Exception]) -> Iterator[None]:
    """In several processes, an error in the block ends this one at once, and thereby the others.

    Nothing is tidied up: what would wait for the other processes (a save, the end of JAX) may wait for ever. An error
    of the type `orderly` is one that all processes raise together.
    """
    try:
        yield
    except orderly:
        raise
    except Exception as error:
        if jax.process_count() == 1:
            raise
        status = _last_words(error)
        sys.stdout.flush()
        sys.stderr.flush()
        time.sleep(LEAVE_SECONDS if is_main() else 0)
        os._exit(status)


def _last_words(error: Exception) -> int:
    """Say why this process ends; returns its exit status."""
    if isinstance(error, UserError):
        print(f"lmscale: {error}", file=sys.stderr)
        return exit_status(error)
    if LOST.search(str(error)):
        print(f"lmscale: {_lost(f'process {jax.process_index()} of {jax.process_count()}')}", file=sys.stderr)
        return EXIT_INTERRUPTED
    traceback.print_exception(error)
    return 1
