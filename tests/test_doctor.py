"""`lmscale doctor`: what is missing and how to get it, within a time, and which processes of a job have come."""

import json
import socket
import sys
import threading
from pathlib import Path

import pytest
from helpers.command_line import call

from lmscale.commands.doctor import DoctorArgs, checks, hosts
from lmscale.commands.doctor.finding import Finding
from lmscale.commands.doctor.hosts import Place
from lmscale.core.extras import Package

FACTS = {"platform": "cpu", "kind": "cpu", "count": 1, "memory_bytes": None, "peaks": {}}


def probe_that(folder: Path, body: str) -> tuple[str, ...]:
    script = folder / "probe.py"
    script.write_text(f"import json, sys, time\n{body}\n", "utf-8")
    return sys.executable, "-I", str(script)


@pytest.fixture(autouse=True)
def a_machine_with_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever else runs on it."""
    monkeypatch.setattr(checks, "LEAST_MEMORY", 0)
    monkeypatch.setattr(checks, "LEAST_DISK", 0)


def free_port() -> int:
    with socket.create_server(("", 0)) as server:
        return int(server.getsockname()[1])


def test_a_machine_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reply = f"json.dump({FACTS!r}, open(sys.argv[1], 'w'))"
    monkeypatch.setattr(checks, "PROBE", probe_that(tmp_path, reply))
    monkeypatch.setattr(checks, "unseen_hardware", lambda: "")
    monkeypatch.chdir(tmp_path)
    assert call("doctor", "--json", "doctor.json") == 0
    printed = capsys.readouterr().out
    assert "Ready to train." in printed and "1 x cpu" in printed
    written = json.loads(Path("doctor.json").read_text("utf-8"))
    assert written["ok"] and not written["wrong"]
    names = [one["name"] for one in written["findings"]]
    assert names[:3] == ["software", "devices", "memory"] and "Slurm" in names and "disk of runs" in names


def test_devices_that_do_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(checks, "PROBE", probe_that(tmp_path, "time.sleep(60)"))
    monkeypatch.chdir(tmp_path)
    assert call("doctor", "--json", "doctor.json", "--wait-seconds", 1) == 1
    assert "did not answer within 1 s" in capsys.readouterr().out
    assert json.loads(Path("doctor.json").read_text("utf-8"))["wrong"] == ["devices"]


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("print('broken driver', file=sys.stderr); sys.exit(1)", "broken driver"),
        ("sys.exit(3)", "ended with status 3"),
        ("open(sys.argv[1], 'w').write('{')", "reply.json"),
    ],
)
def test_a_probe_that_fails(body: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "PROBE", probe_that(tmp_path, body))
    facts, text = checks.probe(DoctorArgs())
    assert not facts and problem in text
    assert checks.devices(facts, text).state == "wrong"


def test_a_gpu_that_jax_does_not_see(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "unseen_hardware", lambda: "8 NVIDIA GPUs are in this machine")
    monkeypatch.setattr(checks, "installed", lambda package: "")
    finding = checks.devices(FACTS, "")
    assert finding.state == "wrong" and finding.fix == "pip install 'lmscale[cuda]'"
    assert checks.devices({**FACTS, "platform": "gpu", "kind": "NVIDIA H100 80GB HBM3"}, "").state == "ok"


def test_the_speed_of_a_device_beside_its_data_sheet() -> None:
    h100 = {**FACTS, "platform": "gpu", "kind": "NVIDIA H100 80GB HBM3", "peaks": {"float32": 4e14, "bfloat16": 7e14}}
    assert checks.peak(h100).state == "ok" and "71% of the data sheet" in checks.peak(h100).text
    assert checks.peak({**h100, "peaks": {"float32": 4e14, "bfloat16": 2e14}}).state == "wrong"
    assert checks.peak({**FACTS, "peaks": {"float32": 1e11, "bfloat16": 1e11}}).state == "ok"


def test_room_on_a_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / "not" / "yet" / "there"
    assert checks.disk("disk of runs", deep).state == "ok" and not deep.exists()
    monkeypatch.setattr(checks, "LEAST_DISK", 2**62)
    assert checks.disk("disk of runs", deep).state == "wrong" and "--runs" in checks.disk("disk of runs", deep).fix
    assert "LMSCALE_CACHE" in checks.disk("disk of prepared data", deep).fix


def test_extras_that_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    offered = {
        "judge": [Package("httpx", ">=0.28", "0.28.1"), Package("nltk", ">=3.9", "")],
        "tensorboard": [Package("tensorboardX", ">=2", "2.6.4")],
        "tpu": [Package("jax", ">=0.10", "0.10.2")],
        "dev": [Package("ruff", ">=0.14", "")],
    }
    monkeypatch.setattr(checks, "extras", lambda: offered)
    monkeypatch.setattr(checks, "installed", lambda package: "")
    states = {one.name: (one.state, one.fix) for one in checks.optional_packages()}
    assert states == {
        "extra judge": ("missing", "pip install 'lmscale[judge]'"),
        "extra tensorboard": ("ok", ""),
        "extra tpu": ("missing", "pip install 'lmscale[tpu]'"),
    }


def meet(processes: int, coming: list[int], wait_seconds: float) -> dict[int, Finding]:
    """What each of the processes says, run as threads; process 0 always comes."""
    port, findings = free_port(), dict[int, Finding]()

    def one(process: int) -> None:
        place = Place(process, processes, "localhost", port)
        findings[process] = (hosts.listen if process == 0 else hosts.greet)(place, wait_seconds)

    threads = [threading.Thread(target=one, args=(process,)) for process in (0, *coming)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return findings


def test_all_processes_come() -> None:
    findings = meet(3, [1, 2], 20)
    assert {one.state for one in findings.values()} == {"ok"} and len(findings) == 3
    assert all(one.facts["seen"] == one.facts["expected"] == 3 for one in findings.values())


def test_who_does_not_come_is_named_within_the_time() -> None:
    findings = meet(4, [2], 2)
    assert findings[0].state == findings[2].state == "wrong"
    assert findings[0].facts["missing"] == findings[2].facts["missing"] == [1, 3]
    assert "process 1, 3 did not" in findings[0].text


def test_strangers_at_the_port_do_no_harm() -> None:
    port, findings = free_port(), list[Finding]()
    server = threading.Thread(target=lambda: findings.append(hosts.listen(Place(0, 2, "localhost", port), 3)))
    server.start()
    for noise in (
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff\n",
        b"[]\n",
        b'{"process": 9, "host": "x"}\n',
        b'{"process": "1"}\n',
    ):
        for _ in range(100):
            try:
                with socket.create_connection(("localhost", port), timeout=5) as connection:
                    connection.sendall(noise)
                break
            except ConnectionRefusedError:
                threading.Event().wait(0.02)
    server.join(30)
    assert findings[0].facts["seen"] == 1 and findings[0].state == "wrong"


def test_no_process_0() -> None:
    finding = hosts.greet(Place(1, 2, "localhost", free_port()), 0.5)
    assert finding.state == "wrong" and "did not reach process 0" in finding.text
    assert hosts.reachable("localhost", free_port(), 0.5).state == "wrong"


def test_the_coordinator_of_a_slurm_step() -> None:
    """As JAX chooses it: the first node, and one of the last 4096 ports by the number of the job."""
    port = 65535 - 4096 + 1 + 12345 % 4096
    for nodes, first in (("node[003-007]", "node003"), ("a1,b2", "a1"), ("gpu-7", "gpu-7"), ("n[3,5]", "n3")):
        environment = {"SLURM_STEP_NODELIST": nodes, "SLURM_JOB_ID": "12345"}
        assert hosts.slurm_coordinator(environment) == f"{first}:{port}"
    assert hosts.slurm_coordinator({"SLURM_JOB_ID": "1"}) is None


def test_a_process_alone_looks_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_STEP_NODELIST", "SLURM_JOB_ID", "TPU_WORKER_HOSTNAMES", "OMPI_COMM_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert list(hosts.hosts(DoctorArgs())) == []
    (finding,) = hosts.hosts(DoctorArgs(coordinator="nowhere"))
    assert finding.state == "wrong" and "HOST:PORT" in finding.fix
