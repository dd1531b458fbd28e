"""Processes of one run find each other by flags or a launcher, at an address here, or say why they cannot."""

import ipaddress
import re
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from helpers.tiny_runs import wait_for

from lmscale.core.errors import UserError
from lmscale.lm.devices import distributed


@pytest.mark.parametrize(
    ("flags", "pattern"),
    [
        (("localhost:1", None, None), r"belong together; add --processes N and --process I, or --processes 1 trains"),
        ((None, 2, 1), r"belong together; add --coordinator HOST:PORT"),
        (("localhost:1", 0, 0), r"--processes 0: must be at least 1"),
        (("localhost:1", 2, 2), r"--process 2 of --processes 2: they are numbered from 0, so the last is 1"),
        (("localhost", 2, 1), r"--coordinator localhost: must be the address and a free port of process 0"),
        (("localhost:99999", 2, 1), r"--coordinator localhost:99999: must be the address and a free port"),
    ],
)
def test_flags_that_do_not_say_which_process_this_is(flags: tuple[Any, Any, Any], pattern: str) -> None:
    with pytest.raises(UserError, match=pattern):
        distributed.start(*flags)


def test_one_process_and_no_launcher_are_alone() -> None:
    distributed.start(None, 1, None)
    distributed.start()
    assert distributed.is_main()


@pytest.mark.parametrize("flags", [(), ("localhost:45001", None, None)], ids=["launcher alone", "and an address"])
def test_a_launcher_says_which_process_this_is(monkeypatch: pytest.MonkeyPatch, flags: tuple[Any, ...]) -> None:
    joined, settings = {}, {}
    monkeypatch.setattr(distributed.jax.distributed, "initialize", lambda **options: joined.update(options))
    monkeypatch.setattr(distributed.jax.config, "update", settings.__setitem__)
    monkeypatch.setattr(distributed, "_check_reachable", lambda *_: None)
    monkeypatch.setattr(distributed, "_exit_at_abort", lambda sentence: None)
    for name, value in {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "2", "CUDA_VISIBLE_DEVICES": ""}.items():
        monkeypatch.setenv(name, value)
    distributed.start(*flags, wait_seconds=7)
    assert (joined["num_processes"], joined["process_id"], joined["initialization_timeout"]) == (4, 2, 7)
    cluster = joined["cluster_detection_method"], joined["coordinator_address"]
    assert cluster == (("deactivate", flags[0]) if flags else ("slurm", None))
    assert settings == {"jax_enable_preemption_service": False}  # a run handles SIGTERM itself


def test_a_process_that_cannot_join_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**options: Any) -> None:
        raise RuntimeError("the address is wrong\nand much more")

    monkeypatch.setattr(distributed.jax.distributed, "initialize", refuse)
    monkeypatch.setattr(distributed.jax.config, "update", lambda *_: None)
    monkeypatch.setattr(distributed, "_exit_at_abort", lambda sentence: None)
    monkeypatch.setattr(distributed, "_check_reachable", lambda *_: None)
    with pytest.raises(UserError, match=r"process 1 of 2 could not join the others \(the address is wrong\); say"):
        distributed.start("localhost:45001", 2, 1)


def test_a_port_that_is_taken_and_a_first_process_that_does_not_answer() -> None:
    with socket.create_server(("", 0)) as taken:
        address = f"localhost:{taken.getsockname()[1]}"
        with pytest.raises(
            UserError, match=rf"--coordinator {address}: port \d+ cannot be used here \(.*\); take another"
        ):
            distributed.start(address, 2, 0)
    with pytest.raises(UserError, match=rf"no process 0 answered at {address} within 0 s .*; start it with the same"):
        distributed.start(address, 2, 1, wait_seconds=0)


def listening(pid: int, port: int | None = None) -> set[tuple[str, int]]:
    """(address, port) of the TCP sockets on which process `pid` listens, all or at `port`."""
    sockets = set()
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            if match := re.fullmatch(r"socket:\[(\d+)\]", str(path.readlink())):
                sockets.add(match[1])
    addresses = set()
    for name, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]:
            local, state, inode = (line.split()[column] for column in (1, 3, 9))
            address, _, number = local.rpartition(":")
            if state == "0A" and inode in sockets and port in (None, int(number, 16)):
                words = [bytes.fromhex(address[at : at + 8])[::-1] for at in range(0, len(address), 8)]
                shown = socket.inet_ntop(family, b"".join(words)).removeprefix("::ffff:")  # IPv4 within IPv6
                addresses.add((shown, int(number, 16)))
    return addresses


JOIN = """
import sys
from lmscale.lm.devices import distributed
distributed.start(sys.argv[1], 2, 0, wait_seconds=60)
"""


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="there is no /proc/net/tcp here")
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.2"])
def test_the_first_process_listens_only_where_it_was_told(host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with subprocess.Popen([sys.executable, "-c", JOIN, f"{host}:{port}"], stderr=subprocess.DEVNULL) as process:
        try:
            wait_for(lambda: bool(listening(process.pid, port)), process)
            addresses = {address for address, _ in listening(process.pid)}
        finally:
            process.kill()
    assert addresses and all(ipaddress.ip_address(address).is_loopback for address in addresses), addresses
    assert host == "localhost" or addresses == {host}


@pytest.mark.parametrize(
    ("host", "resolved", "address"),
    [
        ("127.0.0.1", ["127.0.0.1"], "127.0.0.1:{port}"),
        ("node01", ["127.0.1.1"], "0.0.0.0:{port}"),  # Debian's list of hosts; the others know another address
        ("localhost", ["127.0.0.1"], "127.0.0.1:{port}"),
        ("node01", ["192.0.2.1", "127.0.0.1"], "127.0.0.1:{port}"),  # the first is none of this machine's
        ("0.0.0.0", ["0.0.0.0"], "0.0.0.0:{port}"),
    ],
)
def test_where_the_first_process_listens(
    host: str, resolved: list[str], address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    addresses = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in resolved]
    monkeypatch.setattr(distributed.socket, "getaddrinfo", lambda *_, **__: addresses)
    monkeypatch.delenv("JAX_COORDINATOR_BIND_ADDRESS", raising=False)
    listens = distributed._check_reachable(f"{host}:{port}", 0, 1)
    assert listens == address.format(port=port)
    monkeypatch.setenv("JAX_COORDINATOR_BIND_ADDRESS", "[::]:5")
    assert distributed._check_reachable(f"{host}:{port}", 0, 1) == "[::]:5"


@pytest.mark.parametrize("host", ["192.0.2.1", "[2001:db8::1]"])
def test_an_address_of_another_machine_is_refused_in_the_first_process(host: str) -> None:
    with pytest.raises(UserError, match=r"cannot be used here .*give process 0 an address of its own machine"):
        distributed.start(f"{host}:45001", 2, 0)


def test_an_unknown_host_is_reported() -> None:
    with pytest.raises(UserError, match=r"--coordinator no-such\.invalid:45001: no-such\.invalid is not known here"):
        distributed.start("no-such.invalid:45001", 2, 0)
