"""One run in several processes: how they join each other, and how they end."""

import ctypes
import ipaddress
import os
import re
import signal
import socket
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import jax

from lmscale.core.config import check
from lmscale.core.errors import UserError
from lmscale.core.exit_status import EXIT_INTERRUPTED, exit_status
from lmscale.core.text import printable
from lmscale.lm.devices import cluster

LEAVE_SECONDS = 2.0
"""How long the first process, which the others are connected to, waits for them to print their own last sentence."""
SINGLE_PROCESS_FIX = "--processes 1 trains in this process alone"
CONNECTION_LOST = re.compile(
    r"gloo|nccl|connection (reset|closed)|socket closed|by peer|coordination service|heartbeat", re.I
)
"""How JAX reports that another process is gone."""


def start(
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    wait_seconds: int = 300,
) -> None:
    """Join the other processes of this run, before anything asks JAX for its devices.

    `coordinator` is the HOST:PORT at which process 0 can be reached; an argument that is None is taken from the
    launcher (`cluster.detect`), and without one this process is alone. Waits for the others at most `wait_seconds`.
    Raises `UserError` for arguments that are incomplete or impossible, and for a coordinator that does not answer;
    ends the process with `EXIT_INTERRUPTED` where JAX gives up waiting for the others.
    """
    if processes == 1 and not process:
        return
    launched = cluster.detect(os.environ)
    if launched is None and (coordinator, processes, process) == (None, None, None):
        return
    if coordinator is None and processes is None and process is None:
        assert launched is not None
        check(
            launched.method is not None,
            f"{launched.launcher} has started {launched.processes} processes but does not say where the first is; add "
            f"--coordinator HOST:PORT, or {SINGLE_PROCESS_FIX}",
        )
        _join(launched.processes, launched.process, wait_seconds, launched.devices, detection=launched.method)
        return
    processes = launched.processes if launched and processes is None else processes
    process = launched.process if launched and process is None else process
    _check_arguments(coordinator, processes, process)
    assert coordinator is not None and processes is not None and process is not None
    bind = _check_reachable(coordinator, process, wait_seconds)
    devices = launched.devices if launched else None
    _join(processes, process, wait_seconds, devices, detection="deactivate", coordinator=coordinator, bind=bind)


def _check_arguments(coordinator: str | None, processes: int | None, process: int | None) -> None:
    flags = {"--coordinator HOST:PORT": coordinator, "--processes N": processes, "--process I": process}
    missing = [flag for flag, value in flags.items() if value is None]
    check(not missing, f"{', '.join(flags)} belong together; add {' and '.join(missing)}, or {SINGLE_PROCESS_FIX}")
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


def _check_reachable(coordinator: str, process: int, wait_seconds: int) -> str | None:
    """The address at which process 0 is to listen; None in the others, which it has answered.

    Raises `UserError` unless process 0 answers, or, in process 0 itself, unless its port is free: JAX would end the
    process with a stack trace.
    """
    host, port = coordinator.rpartition(":")[0].strip("[]"), int(coordinator.rpartition(":")[2])
    if process == 0:
        return _listening_address(coordinator, host, port)
    problem, end = "", time.monotonic() + wait_seconds
    while time.monotonic() < end:
        try:
            socket.create_connection((host, port), timeout=5).close()
            return None
        except OSError as error:
            problem = error.strerror or str(error)
            time.sleep(0.2)
    raise UserError(
        f"no process 0 answered at {coordinator} within {wait_seconds} s ({problem}); start it with the same "
        f"--coordinator, or correct the address"
    )


def _listening_address(coordinator: str, host: str, port: int) -> str:
    """ADDRESS:PORT of process 0: the address that `host` is, and no other, so that nobody else can reach the run.

    A machine's own name may stand for 127.0.1.1 in its own list of hosts while the other machines know it by another
    address; only then are all addresses listened on. JAX_COORDINATOR_BIND_ADDRESS overrules all of this. Raises
    `UserError` where the address is none of this machine's or the port is taken.
    """
    if chosen := os.environ.get("JAX_COORDINATOR_BIND_ADDRESS"):
        return chosen
    problem = "it has no address"
    try:
        entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise UserError(
            f"--coordinator {coordinator}: {host} is not known here ({error.strerror}); give the address of process 0"
        ) from None
    addresses = list(dict.fromkeys((family, str(address[0])) for family, _, _, _, address in entries))
    if not _is_address(host) and host != "localhost" and all(_is_loopback(address) for _, address in addresses):
        addresses = [(socket.AF_INET, "0.0.0.0")]
    for family, address in addresses:
        try:
            socket.create_server((address, port), family=family).close()
        except OSError as error:
            problem = error.strerror or str(error)
            continue
        return f"[{address}]:{port}" if family == socket.AF_INET6 else f"{address}:{port}"
    raise UserError(
        f"--coordinator {coordinator}: port {port} cannot be used here ({problem}); take another, give process 0 an "
        f"address of its own machine, or set JAX_COORDINATOR_BIND_ADDRESS"
    )


def _is_address(host: str) -> bool:
    with suppress(ValueError):
        ipaddress.ip_address(host.partition("%")[0])
        return True
    return False


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def _join(
    processes: int | None,
    process: int | None,
    wait_seconds: int,
    devices: list[int] | None,
    *,
    detection: str | None,
    coordinator: str | None = None,
    bind: str | None = None,
) -> None:
    # A run handles SIGTERM itself, in all its processes together; JAX's handler would take the signal.
    jax.config.update("jax_enable_preemption_service", False)
    which = "this process" if processes is None else f"process {process} of {processes}"
    _exit_at_abort(f"not all processes came within {wait_seconds} s, so {which} ends; start all of them again")
    try:
        jax.distributed.initialize(
            num_processes=processes,
            process_id=process,
            local_device_ids=devices,
            initialization_timeout=wait_seconds,
            cluster_detection_method=detection,
            coordinator_address=coordinator,
            coordinator_bind_address=bind,
        )
    except (RuntimeError, ValueError, OSError) as error:
        summary = str(error).splitlines()[0][:200]
        raise UserError(
            f"{which} could not join the others ({summary}); say where process 0 is with --coordinator HOST:PORT "
            f"--processes N --process I, or {SINGLE_PROCESS_FIX}"
        ) from error
    _exit_at_abort(_process_lost(which))


def _process_lost(which: str) -> str:
    return f"another process of this run is gone, so {which} ends too; start all of them again, and they go on"


_abort_handler: list[Any] = []


def _exit_at_abort(sentence: str) -> None:
    """Print a sentence and exit with `EXIT_INTERRUPTED` where JAX would abort.

    JAX does so, from a thread of its own, when it has lost the first process or waited too long; Python's own signal
    handlers never run then.
    """

    def exit_now(number: int) -> None:
        os.write(2, f"lmscale: {sentence}\n".encode())
        os._exit(EXIT_INTERRUPTED)

    handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(exit_now)
    ctypes.CDLL(None).signal(signal.SIGABRT, handler)
    _abort_handler[:] = [handler]  # ctypes does not keep it alive


def is_main() -> bool:
    """Whether this process writes the run's files: the first one does."""
    return jax.process_index() == 0


@contextmanager
def abort_on_error(orderly: type[Exception]) -> Iterator[None]:
    """Where several processes share the run, let an error in the block end this one at once, and thereby the others.

    Nothing is tidied up: what would wait for the other processes (a save, the end of JAX) may wait for ever. An error
    of the type `orderly` is one that all processes raise together; it passes through.
    """
    try:
        yield
    except orderly:
        raise
    except Exception as error:
        if jax.process_count() == 1:
            raise
        status = _print_error(error)
        sys.stdout.flush()
        sys.stderr.flush()
        time.sleep(LEAVE_SECONDS if is_main() else 0)
        os._exit(status)


def _print_error(error: Exception) -> int:
    """Print why this process ends; returns its exit status."""
    if isinstance(error, UserError):
        print(f"lmscale: {printable(str(error))}", file=sys.stderr)
        return exit_status(error)
    if CONNECTION_LOST.search(str(error)):
        print(f"lmscale: {_process_lost(f'process {jax.process_index()} of {jax.process_count()}')}", file=sys.stderr)
        return EXIT_INTERRUPTED
    traceback.print_exception(error)
    return 1
