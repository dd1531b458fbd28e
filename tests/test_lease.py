"""One process at a time holds the lease on a run; a dead holder's is taken over, whatever the clocks say."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lmscale.core.errors import Busy
from lmscale.core.files import write_json
from lmscale.study.launch import lease
from lmscale.study.launch.lease import Observer, history, hold, newest, record_end
from lmscale.study.launch.process import Process


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "WATCH_SECONDS", 0.01)
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.02)
    monkeypatch.setattr(lease, "STALE_SECONDS", 0.2)


def leave(folder: Path, number: int = 1, **changes: Any) -> Path:
    """An attempt of this process, or of one that differs from it by `changes`, that nobody has ended."""
    path = folder / "attempts" / f"{number:04}.json"
    write_json(path, {"holder": vars(replace(Process.this(), **changes))})
    return path


HOLD = """
import sys
from pathlib import Path
from lmscale.study.launch.lease import hold
from lmscale.core.errors import Busy
print("ready", flush=True)
sys.stdin.readline()
try:
    with hold([Path(sys.argv[1])], {}):
        print("held", flush=True)
        sys.stdin.readline()
except Busy as busy: print(busy, flush=True)
"""


def holders(folder: Path, number: int) -> list["subprocess.Popen[str]"]:
    """So many processes that will take the lease as soon as they read a line, and hold it until the next."""
    command = [sys.executable, "-c", HOLD, str(folder)]
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(number)
    ]
    for process in started:
        assert process.stdout and process.stdout.readline() == "ready\n"
    return started


def tell(process: "subprocess.Popen[str]") -> None:
    assert process.stdin
    process.stdin.write("\n")
    process.stdin.flush()


@pytest.mark.long
def test_of_many_at_once_one_gets_it_and_of_a_dead_one_the_next(tmp_path: Path) -> None:
    many = holders(tmp_path, 6)
    for process in many:
        tell(process)
    lines = [process.stdout.readline() for process in many if process.stdout]
    (winner,) = (process for process, words in zip(many, lines) if words == "held\n")
    assert sum("is being trained by process" in words for words in lines) == 5
    attempt = newest(tmp_path)
    assert attempt and attempt.number == 1 and attempt.holder and attempt.holder.pid == winner.pid
    with (
        pytest.raises(Busy, match=f"is being trained by process {winner.pid} on .*`lmscale stop` ends that"),
        hold([tmp_path], {}),
    ):
        pass
    winner.kill()
    winner.wait()
    with hold([tmp_path], {"remat": "full"}):
        assert [attempt.number for attempt in history(tmp_path)] == [1, 2]
        assert history(tmp_path)[1].value["remat"] == "full"
    for process in many:
        process.kill()
        process.communicate()


def test_a_killed_process_that_nobody_has_asked_after_is_dead(tmp_path: Path) -> None:
    (process,) = holders(tmp_path, 1)
    tell(process)
    assert process.stdout and process.stdout.readline() == "held\n" and Observer(tmp_path).at_work()
    process.kill()
    while Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z":
        time.sleep(0.001)
    assert not Observer(tmp_path).at_work()
    process.communicate()


def test_a_number_that_another_process_got_later_is_not_its_holder(tmp_path: Path) -> None:
    leave(tmp_path, started="1")
    with hold([tmp_path], {}) as (path,):
        assert path.name == "0002.json"


ELSEWHERE = {"host": "far", "machine": "another boot", "pid": 1}


@pytest.mark.parametrize("jump", [-1e9, 0.0, 1e9], ids=["back", "right", "ahead"])
def test_a_lease_on_another_machine_lives_as_long_as_its_heart_beats(
    tmp_path: Path, jump: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither clock matters: that of the holder, which sets the times of its file, may jump, and so may ours."""
    path, now = leave(tmp_path, **ELSEWHERE), time.time()
    observer, end = Observer(tmp_path), time.monotonic() + 3 * lease.STALE_SECONDS
    monkeypatch.setattr(time, "time", lambda: now + jump)
    while time.monotonic() < end:
        os.utime(path, (now + jump + time.monotonic(), now + jump + time.monotonic()))
        assert observer.at_work()
        time.sleep(0.01)
    os.utime(path, (now - jump, now - jump))
    assert observer.at_work()
    wait_until(lambda: not observer.at_work())


def wait_until(true: Callable[[], bool]) -> None:
    limit = time.monotonic() + 20
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.005)


def test_who_comes_waits_for_the_heart_of_a_far_holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = leave(tmp_path, **ELSEWHERE)
    begun = time.monotonic()
    with hold([tmp_path], {}):
        assert time.monotonic() - begun >= lease.STALE_SECONDS
    (tmp_path / "b").mkdir()
    path = leave(tmp_path / "b", **ELSEWHERE)
    monkeypatch.setattr(time, "sleep", lambda seconds: os.utime(path, (1, 1)))
    with pytest.raises(Busy, match="on far"), hold([tmp_path / "b"], {}):
        pass
    monkeypatch.setenv(lease.SEEN_DEAD_VARIABLE, "1")
    begun = time.monotonic()
    with hold([tmp_path / "b"], {}):
        assert time.monotonic() - begun < lease.STALE_SECONDS, "the launcher has waited already"


def test_the_heart_beats_and_stops_with_the_end(tmp_path: Path) -> None:
    with hold([tmp_path], {}) as (path,):
        first = path.stat().st_mtime_ns
        wait_until(lambda: path.stat().st_mtime_ns > first)
        record_end(path, 75, "stopped")
    last = path.stat().st_mtime_ns
    time.sleep(0.1)
    attempt = newest(tmp_path)
    assert path.stat().st_mtime_ns == last and attempt and attempt.end
    assert (attempt.end["status"], attempt.end["reason"], attempt.dead()) == (75, "stopped", True)


def test_the_first_word_on_an_end_stays(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), hold([tmp_path], {}) as (path,):
        _ = 1 / 0
    record_end(path, 0, "all is well")
    assert json.loads(path.read_text())["end"]["reason"] == "ended without a word"


def test_a_stop_file_asks_the_holder_to_stop(tmp_path: Path) -> None:
    asked: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    try:
        for place in (tmp_path / "sweep" / "run", tmp_path / "sweep"):
            with hold([tmp_path / "sweep" / "run"], {}):
                (place / "stop").touch()
                wait_until(lambda: bool(asked))
            (place / "stop").unlink()
            assert asked == [signal.SIGTERM]
            asked.clear()
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_holder_that_was_thought_dead_ends_at_once(tmp_path: Path) -> None:
    program = HOLD.replace(
        "from lmscale.core.err",
        "from lmscale.study.launch import lease\nlease.WATCH_SECONDS = 0.01\nfrom lmscale.core.err",
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    tell(process)
    assert process.stdout and process.stdout.readline() == "ready\n" and process.stdout.readline() == "held\n"
    leave(tmp_path, number=2)
    assert process.wait(20) == 69
    assert "was taken over by another process" in process.communicate()[1]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"holder": {"pid": 1}}'])
def test_a_lease_that_cannot_be_read_counts_as_far_away(tmp_path: Path, content: str) -> None:
    (tmp_path / "attempts").mkdir()
    (tmp_path / "attempts" / "0001.json").write_text(content)
    observer = Observer(tmp_path)
    assert observer.at_work()
    wait_until(lambda: not observer.at_work())


def test_a_file_system_without_links_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(source: Path, target: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    with hold([tmp_path], {}) as (path,):
        assert not lease._create(path, "another")
    assert [item.name for item in path.parent.iterdir()] == ["0001.json"]


def test_a_link_whose_confirmation_was_lost_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def lost(source: Path, target: Path) -> None:
        link(source, target)
        raise FileExistsError(17, "File exists")

    monkeypatch.setattr(os, "link", lost)
    assert lease._create(tmp_path / "x", "ours") and (tmp_path / "x").read_text() == "ours"
    monkeypatch.setattr(os, "link", link)
    assert not lease._create(tmp_path / "x", "theirs") and (tmp_path / "x").read_text() == "ours"
