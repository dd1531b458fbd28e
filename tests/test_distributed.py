"""Several processes train what one trains, end together, and go on in another number."""

import ipaddress
import json
import re
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.tiny_runs import assert_close, ends, rows, run, saved_steps, start, start_several, wait_for, write_corpus

from lmscale.core.config import ExamConfig, MeshConfig, ModelConfig
from lmscale.core.errors import MemoryShortage, UserError
from lmscale.core.exit_status import EXIT_INTERRUPTED, EXIT_MEMORY, EXIT_USER_ERROR
from lmscale.core.run_folder import CHECKPOINT_FOLDER
from lmscale.lm.devices import distributed
from lmscale.lm.train.loop import train

WIDE = ModelConfig(width=16, layers=2, heads=4, context=16, residual_dropout=0.1)
"""What eight devices can share; dropout shows whether they draw the same numbers."""
SLOW = ModelConfig(width=96, layers=2, heads=2, context=128)
STEPS = 300
"""Enough for four lives of some seconds; at a low rate two ways of rounding then stay together."""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def alone(corpus: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty steps of the wide model in this process, on one device."""
    folder = tmp_path_factory.mktemp("alone")
    train(run(corpus, 20, model=WIDE), folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("processes", "devices", "mesh"),
    [(2, 4, MeshConfig(data=2, fsdp=2, tensor=2)), (4, 2, MeshConfig(fsdp=4, sequence=2)), (4, 1, MeshConfig(data=4))],
    ids=["2 x 4 devices", "4 x 2 devices", "4 x 1 device"],
)
def test_several_processes_learn_what_one_learns(
    corpus: str, alone: Path, tmp_path: Path, processes: int, devices: int, mesh: MeshConfig
) -> None:
    config = run(corpus, 20, model=WIDE, mesh=mesh)
    for status, output, complaints in ends(start_several(config, tmp_path, processes, devices)):
        assert (status, complaints) == (0, "")
        assert "finished: validation loss" in output  # Gloo may have said something before
    assert [row["step"] for row in rows(tmp_path)] == list(range(1, 21))
    assert_close(tmp_path, alone)


@pytest.mark.slow
def test_experts_of_several_processes_learn_what_those_of_one_learn(corpus: str, tmp_path: Path) -> None:
    """Tokens go to experts in another process and back; validation and checkpoints, too, are as on one device."""
    config = run(corpus, 20, model=replace(WIDE, residual_dropout=0.0, experts=8, experts_per_token=2))
    train(config, tmp_path / "one")
    cut = replace(config, mesh=MeshConfig(data=2, expert=4))
    for status, output, complaints in ends(start_several(cut, tmp_path / "several", 4, 2)):
        assert (status, complaints) == (0, "")
        assert "finished: validation loss" in output
    assert_close(tmp_path / "several", tmp_path / "one")


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "devices"), [(1, 8), (2, 4)], ids=["8 devices", "2 x 4 devices"])
def test_tasks_are_scored_as_on_one_device(corpus: str, tmp_path: Path, processes: int, devices: int) -> None:
    folders = {name: tmp_path / name for name in ("one", "several")}
    items = [
        {"question": f"the {word}", "choices": ["fox", "lazy dog", "box é"], "gold": number % 3, "answers": ["fox"]}
        for number, word in enumerate(("quick", "brown", "lazy", "seven", "jumps"))
    ]
    task = {"name": "words", "metrics": ["accuracy", "gold_probability", "exact_match"], "items": items}
    (tmp_path / "words.json").write_text(json.dumps({**task, "longest_answer": 6}), "utf-8")
    exam = ExamConfig(tasks=(f"task:{tmp_path / 'words.json'}",), shots=(0, 1), at=(0.5, 1.0))
    config = run(corpus, 20, model=WIDE, exam=exam)
    train(config, folders["one"])
    cut = replace(config, mesh=MeshConfig(data=2, fsdp=2, tensor=2))
    for status, _, complaints in ends(start_several(cut, folders["several"], processes, devices)):
        assert (status, complaints) == (0, "")
    single, several = (
        [json.loads(line) for line in (folder / "scores.jsonl").read_text("utf-8").splitlines()]
        for folder in folders.values()
    )
    assert [(row["step"], row["metric"], row["shots"]) for row in single] == [
        (step, metric, shots) for step in (10, 20) for shots in (0, 1) for metric in task["metrics"]
    ]
    assert [row["score"] for row in single] == pytest.approx([row["score"] for row in several], abs=1e-4)


@pytest.mark.slow
def test_stopped_damaged_killed_and_continued_in_another_number(corpus: str, tmp_path: Path) -> None:
    """One process, stopped; two, one of them stopped; two after the newest checkpoint is damaged, one killed; one."""
    single, double = (
        run(corpus, STEPS, model=SLOW, peak_lr=0.001, mesh=MeshConfig(data=data), checkpoint_seconds=0.2)
        for data in (1, 2)
    )
    folder, expected = tmp_path / "several", tmp_path / "expected"

    process = start(single, folder)
    wait_for(lambda: bool(saved_steps(folder)), process)
    process.terminate()
    ((status, output, complaints),) = ends([process])
    assert (status, complaints) == (75, "")
    last = saved_steps(folder)[-1]
    assert f"stopped after step {last:,} of {STEPS:,}; a checkpoint is saved" in output

    several = start_several(double, folder, 2)
    wait_for(lambda: saved_steps(folder)[0] > last, several[1])
    several[1].terminate()
    both = ends(several)
    assert [(status, complaints) for status, _, complaints in both] == [(75, ""), (75, "")]
    assert f"going on from step {last:,} of" in both[0][1]
    before, last = saved_steps(folder)
    assert all(f"stopped after step {last:,} of {STEPS:,}; a checkpoint is saved" in output for _, output, _ in both)

    for path in (folder / CHECKPOINT_FOLDER / str(last)).rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:20])
    several = start_several(double, folder, 2)
    wait_for(lambda: saved_steps(folder)[0] > last, several[0])
    several[1].kill()
    (status, output, complaints), killed = ends(several)
    assert killed[0] == -signal.SIGKILL
    assert (status, complaints.count("\n")) == (75, 1), complaints
    assert "another process of this run is gone" in complaints and "they go on" in complaints
    assert f"the checkpoint of step {last} in" in output and f"going on from step {before:,} of" in output

    last = saved_steps(folder)[-1]
    ((status, output, complaints),) = ends([start(single, folder)])
    assert (status, complaints) == (0, "")
    assert f"going on from step {last:,} of" in output
    train(single, expected)
    assert_close(folder, expected)


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


@pytest.mark.long
def test_an_abort_ends_with_a_sentence_and_asks_to_be_started_again() -> None:
    program = "import os\nfrom lmscale.lm.devices import distributed\ndistributed._exit_at_abort('gone')\nos.abort()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (EXIT_INTERRUPTED, "lmscale: gone\n")


class Orderly(Exception):
    """What all processes raise together."""


@pytest.mark.parametrize(
    ("error", "status", "sentence"),
    [
        (UserError("no such thing; take another"), EXIT_USER_ERROR, "lmscale: no such thing; take another"),
        (MemoryShortage("too large"), EXIT_MEMORY, "lmscale: too large"),
        (
            OSError("Connection reset by peer"),
            EXIT_INTERRUPTED,
            "lmscale: another process of this run is gone",
        ),
        (ZeroDivisionError("a defect"), 1, "Traceback"),
    ],
    ids=["user", "memory", "connection", "defect"],
)
def test_an_error_in_one_of_several_processes_ends_it_at_once(
    error: Exception, status: int, sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(type(error)), distributed.abort_on_error(Orderly):  # alone: the caller's to handle
        raise error
    waited: list[float] = []
    monkeypatch.setattr(distributed.jax, "process_count", lambda: 2)
    monkeypatch.setattr(distributed.time, "sleep", waited.append)
    monkeypatch.setattr(distributed.os, "_exit", sys.exit)
    with pytest.raises(SystemExit) as end, distributed.abort_on_error(Orderly):
        raise error
    assert end.value.code == status and capsys.readouterr().err.startswith(sentence)
    assert waited == [distributed.LEAVE_SECONDS]  # the first process is the one that the others are connected to
    with pytest.raises(Orderly), distributed.abort_on_error(Orderly):
        raise Orderly


def test_a_port_that_is_taken_and_a_first_process_that_does_not_answer() -> None:
    with socket.create_server(("", 0)) as taken:
        address = f"localhost:{taken.getsockname()[1]}"
        with pytest.raises(
            UserError, match=rf"--coordinator {address}: port \d+ cannot be used here \(.*\); take another"
        ):
            distributed.start(address, 2, 0)
    with pytest.raises(UserError, match=rf"no process 0 answered at {address} within 0 s .*; start it with the same"):
        distributed.start(address, 2, 1, wait_seconds=0)


@pytest.mark.slow
def test_the_first_process_does_not_wait_for_ever(corpus: str, tmp_path: Path) -> None:
    with socket.create_server(("localhost", 0)) as free:
        address = f"localhost:{free.getsockname()[1]}"
    flags = "--coordinator", address, "--processes", 2, "--process", 0, "--wait-seconds", 2
    ((status, output, complaints),) = ends([start(run(corpus, 3, mesh=MeshConfig(data=2)), tmp_path, *flags)])
    assert (status, output) == (75, "")
    sentence = "not all processes came within 2 s, so process 0 of 2 ends; start all of them again"
    assert complaints.splitlines()[-1] == f"lmscale: {sentence}"


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
