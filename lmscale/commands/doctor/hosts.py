"""Whether all processes of a job reach the first one: expected against seen, within a time.

Before JAX joins them: it ends a process that waits too long, and says nothing of which others have come. Process 0
listens at the coordinator's port; the others connect and say their number and host; it answers with all that came.
"""

import json
import os
import re
import select
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import NamedTuple

from lmscale.commands.doctor.arguments import DoctorArgs
from lmscale.commands.doctor.finding import Finding
from lmscale.lm.devices import cluster

RETRY_SECONDS = 0.2
ANSWER_SECONDS = 5.0
"""Beyond the time that process 0 waits for others: it may begin to answer only then, and be busy."""
SLURM_PORTS, LAST_PORT = 2**12, 2**16 - 1
"""JAX takes one of the last ports by the number of the job (`SlurmCluster` in jax/_src/clusters/slurm_cluster.py)."""
LONGEST_LINE = 1024
"""Bytes of a greeting; longer ones are of another program."""


class Place(NamedTuple):
    """Where a process stands among those of its job."""

    process: int
    processes: int
    host: str
    port: int


def hosts(args: DoctorArgs) -> Iterator[Finding]:
    """What is said of the other processes; nothing where this one is alone and no coordinator is named."""
    launched = cluster.detect(os.environ)
    processes = args.processes or (launched.processes if launched else None)
    process = args.process if args.process is not None else (launched.process if launched else None)
    address = args.coordinator or slurm_coordinator(os.environ)
    if address is None and (processes or 1) <= 1:
        return
    if address is None:
        launcher = launched.launcher if launched else "--processes"
        yield Finding(
            "hosts", "missing", f"{processes} processes by {launcher}, and no coordinator is named",
            "add --coordinator HOST:PORT, the address of process 0, to check that all of them reach it",
        )  # fmt: skip
        return
    host, _, port = address.rpartition(":")
    if not (host and port.isdigit() and 0 < int(port) <= LAST_PORT):
        yield Finding("coordinator", "wrong", address, "give HOST:PORT of process 0, as in node01:45001")
        return
    if process is None or not processes:
        yield reachable(host.strip("[]"), int(port), args.wait_seconds)
        return
    place = Place(process, processes, host.strip("[]"), int(port))
    yield (listen if process == 0 else greet)(place, args.wait_seconds)


def slurm_coordinator(environment: Mapping[str, str]) -> str | None:
    """HOST:PORT that JAX takes inside a Slurm step; None elsewhere."""
    nodes, job = environment.get("SLURM_STEP_NODELIST"), environment.get("SLURM_JOB_ID", "")
    if not nodes or not job.isdigit():
        return None
    first = re.match(r"([^,\[]+)(?:\[(\d+))?", nodes)
    if first is None:
        return None
    return f"{first[1]}{first[2] or ''}:{LAST_PORT - SLURM_PORTS + 1 + int(job) % SLURM_PORTS}"


def reachable(host: str, port: int, wait_seconds: float) -> Finding:
    """Whether somebody answers at the coordinator's address."""
    problem, end = "", time.monotonic() + wait_seconds
    while time.monotonic() < end:
        try:
            socket.create_connection((host, port), timeout=wait_seconds).close()
            return Finding("coordinator", "ok", f"{host}:{port} answers")
        except OSError as error:
            problem = error.strerror or str(error)
        time.sleep(RETRY_SECONDS)
    return Finding(
        "coordinator", "wrong", f"{host}:{port} did not answer within {wait_seconds:g} s ({problem})",
        f"start process 0 there, or open port {port} between the hosts",
    )  # fmt: skip


def listen(place: Place, wait_seconds: float) -> Finding:
    """Process 0: who comes within the time."""
    seen = {0: socket.gethostname()}
    open_connections: list[socket.socket] = []
    try:
        server = socket.create_server(("", place.port))
    except OSError as error:
        return Finding(
            "hosts", "wrong", f"port {place.port} cannot be listened at ({error.strerror})",
            "end the program that holds it, or take another port with --coordinator",
        )  # fmt: skip
    with server:
        end = time.monotonic() + wait_seconds
        while len(seen) < place.processes and (left := end - time.monotonic()) > 0:
            if not select.select([server], [], [], left)[0]:
                break
            connection, _ = server.accept()
            connection.settimeout(max(RETRY_SECONDS, min(left, 5.0)))
            with suppress(OSError, ValueError, KeyError, TypeError):
                greeting = json.loads(_line(connection))
                if 0 < int(greeting["process"]) < place.processes:
                    seen[int(greeting["process"])] = str(greeting["host"])[:LONGEST_LINE]
                    open_connections.append(connection)
                    continue
            connection.close()
        for connection in open_connections:
            with suppress(OSError):
                connection.sendall(json.dumps({str(number): host for number, host in seen.items()}).encode() + b"\n")
            connection.close()
    return _judged(place, seen, wait_seconds)


def greet(place: Place, wait_seconds: float) -> Finding:
    """Another process: tell the first one that this is here, and hear who else is."""
    problem, end = "nobody listened", time.monotonic() + wait_seconds
    while time.monotonic() < end:
        try:
            with socket.create_connection((place.host, place.port), timeout=5) as connection:
                connection.settimeout(wait_seconds + ANSWER_SECONDS)
                connection.sendall(
                    json.dumps({"process": place.process, "host": socket.gethostname()}).encode() + b"\n"
                )
                seen = {int(number): str(host) for number, host in json.loads(_line(connection)).items()}
                return _judged(place, seen, wait_seconds)
        except (OSError, ValueError, AttributeError) as error:
            problem = getattr(error, "strerror", None) or str(error) or "no answer"
        time.sleep(RETRY_SECONDS)
    return Finding(
        "hosts", "wrong",
        f"process {place.process} did not reach process 0 at {place.host}:{place.port} within {wait_seconds:g} s "
        f"({problem})",
        f"open port {place.port} between the hosts, and see that process 0 runs `lmscale doctor` too",
    )  # fmt: skip


def _line(connection: socket.socket) -> bytes:
    """One line of a connection. Raises `ValueError` for what is none."""
    read = b""
    while not read.endswith(b"\n"):
        part = connection.recv(LONGEST_LINE)
        if not part or len(read) > 2**20:
            raise ValueError("the connection ended")
        read += part
    return read


def _judged(place: Place, seen: dict[int, str], wait_seconds: float) -> Finding:
    absent = sorted(set(range(place.processes)) - set(seen))
    names = sorted(set(seen.values()))
    facts = {
        "expected": place.processes,
        "seen": len(seen),
        "missing": absent,
        "hosts": names,
        "coordinator": f"{place.host}:{place.port}",
    }
    text = f"{len(seen)} of {place.processes} processes on {len(names)} host{'s' * (len(names) != 1)}"
    if not absent:
        return Finding("hosts", "ok", text, facts=facts)
    numbers = ", ".join(map(str, absent[:8])) + ", ..." * (len(absent) > 8)
    return Finding(
        "hosts", "wrong", f"{text} came within {wait_seconds:g} s; process {numbers} did not",
        f"see that it was started and may reach {place.host}:{place.port}", facts,
    )  # fmt: skip
