"""A file is there whole or not at all: on a full disk, after a kill, after an error."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lmscale.core import files
from lmscale.core.errors import UserError
from lmscale.lm.data.corpora.cache import locked
from lmscale.lm.eval.score_files import write_results
from lmscale.lm.train.logs.tensorboard import write_events
from lmscale.study.launch import lease


def test_json_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "value.json"
    value = {"loss_nats": 1.25, "missing": None, "name": "café"}
    files.write_json(path, value)
    assert files.read_json(path) == value
    assert [path] == list(path.parent.iterdir())


def test_nan_is_refused_and_the_old_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    files.write_json(path, 1)
    with pytest.raises(ValueError, match="Out of range"):
        files.write_json(path, float("nan"))
    assert files.read_json(path) == 1


@pytest.mark.parametrize("content", ["", "{", '{"a": 1', "\xff"])
def test_a_corrupt_file_is_reported_in_one_sentence(tmp_path: Path, content: str) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match=r"the plan .*plan\.json is corrupt .*; delete it"):
        files.read_json(path, "plan")


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no outcome at"):
        files.read_json(tmp_path / "outcome.json", "outcome")


def test_an_error_while_writing_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "text"
    files.write_text(path, "old")
    with pytest.raises(ZeroDivisionError), files.atomic_write(path) as file:
        file.write("new")
        _ = 1 / 0
    assert path.read_text() == "old" and [path] == list(tmp_path.iterdir())


def test_permissions_are_those_of_an_ordinary_file(tmp_path: Path) -> None:
    files.write_text(tmp_path / "ours", "")
    (tmp_path / "plain").touch()
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_refused_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def full(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="is full; nothing was written"):
        files.write_text(tmp_path / "new", "text")
    assert not list(tmp_path.iterdir())


def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    """64 KiB of memory as a disk, in a mount namespace of its own that ends with the process."""
    program = """
import os, sys
from lmscale.core import files
from lmscale.core.errors import UserError
os.chdir(sys.argv[1])
files.write_text("small", "old")
for name in ("small", "large"):
    try: files.write_text(name, "x" * 200_000)
    except UserError as error: assert "is full" in str(error), error
    else: sys.exit("nothing was raised")
assert os.listdir() == ["small"] and open("small").read() == "old", os.listdir()
"""
    mount = f'mount -t tmpfs -o size=64k tmpfs "{tmp_path}" || exit 77; exec "$@"'
    line = ["unshare", "--mount", "sh", "-c", mount, "sh", sys.executable, "-c", program, str(tmp_path)]
    try:
        done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        pytest.skip("there is no unshare here")
    if done.returncode == 77 or "unshare failed" in done.stderr:
        pytest.skip("mounting is not permitted here")
    assert done.returncode == 0, done.stderr


def test_a_killed_writer_leaves_nothing_believed(tmp_path: Path) -> None:
    path = tmp_path / "outcome.json"
    files.write_json(path, "old")
    program = """
import sys, time
from lmscale.core import files
with files.atomic_write(sys.argv[1]) as file:
    file.write('"new"')
    file.flush()
    print("written", flush=True)
    time.sleep(60)
"""
    line = [sys.executable, "-c", program, str(path)]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout and writer.stdout.readline() == "written\n"
        writer.send_signal(signal.SIGKILL)
    assert files.read_json(path) == "old"
    assert [path] == list(tmp_path.glob("*.json"))
    files.write_json(path, "newer")
    assert files.read_json(path) == "newer"


@pytest.mark.long
def test_a_reader_sees_whole_files_only(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    files.write_json(path, [0] * 2000)
    done = threading.Event()

    def write() -> None:
        for number in range(40):
            files.write_json(path, [number] * 2000)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        value = json.loads(path.read_text())
        assert len(value) == 2000 and len(set(value)) == 1
    writer.join()


def test_cache_dir_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LMSCALE_CACHE", str(tmp_path / "mine"))
    assert files.cache_dir() == tmp_path / "mine"
    monkeypatch.delenv("LMSCALE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert files.cache_dir() == tmp_path / "lmscale"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert files.cache_dir() == Path.home() / ".cache" / "lmscale"


def plant(path: Path, kind: str, victim: Path) -> None:
    """A link, a pipe or a folder where a file of ours belongs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    match kind:
        case "link":
            path.symlink_to(victim)
        case "dangling":
            path.symlink_to(victim.with_name("new"))
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/null")
        case "folder":
            path.mkdir()


KINDS = ("link", "dangling", "pipe", "device", "folder")
RUN_FOLDER = Path("runs") / "s" / "5f0c5f0c5f0c"


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Path]:
    (victim := tmp_path / "victim").write_text("theirs")
    yield victim
    assert victim.read_text() == "theirs" and not (tmp_path / "new").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_is_never_opened_to_append_through_what_was_planted(kind: str, tmp_path: Path, victim: Path) -> None:
    plant(tmp_path / "log.txt", kind, victim)
    with pytest.raises(UserError, match=r"log\.txt(: Is a directory| is a link, a pipe or a device)"):
        files.open_append(tmp_path / "log.txt")


def test_a_pipe_with_a_reader_is_no_log_either(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log.txt")
    reader = os.open(tmp_path / "log.txt", os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(UserError, match="is a link, a pipe or a device"):
        files.open_append(tmp_path / "log.txt")
    os.close(reader)


def test_a_log_is_made_and_grows(tmp_path: Path) -> None:
    for text in (b"one\n", b"two\n"):
        with files.open_append(tmp_path / "new" / "log.txt") as file:
            file.write(text)
            assert os.get_blocking(file.fileno()) and not os.get_inheritable(file.fileno())
    assert (tmp_path / "new" / "log.txt").read_bytes() == b"one\ntwo\n"


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_whole_takes_the_place_of_a_link(kind: str, tmp_path: Path, victim: Path) -> None:
    plant(tmp_path / "outcome.json", kind, victim)
    if kind == "folder":
        with pytest.raises(UserError, match="cannot write"):
            files.write_json(tmp_path / "outcome.json", 1)
        return
    files.write_json(tmp_path / "outcome.json", 1)
    assert (tmp_path / "outcome.json").is_file() and not (tmp_path / "outcome.json").is_symlink()


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_no_reader_waits_for_a_pipe(kind: str, tmp_path: Path) -> None:
    from lmscale.core.run_folder import failure_reason, last_metrics
    from lmscale.study.launch import failures

    folder = tmp_path / RUN_FOLDER
    for name in ("metrics.jsonl", "failed.json", "log.txt", "outcome.json", "attempts/0001.json"):
        plant(folder / name, kind, tmp_path)
    with pytest.raises(UserError, match=r"the outcome .* cannot be read: (a pipe or a device|Is a dir)"):
        files.read_json(folder / "outcome.json", "outcome")
    assert last_metrics(folder) is None and failure_reason(folder) and failures.last_lines(folder) == []
    assert lease.history(folder)[0].holder is None


def _lock(path: Path) -> None:
    with locked(path, lambda what, share: None):
        pass


def _hold(place: Path) -> None:
    with lease.hold([place], {}):
        pass


def _respond(place: Path) -> None:
    write_results(place, [{"task": "words", "step": 1, "metric": "accuracy", "shots": 0, "run_id": "a"}], [])


WRITERS = {
    "the lock of a cache": ("lock", lambda place: _lock(place / "lock")),
    "attempts": ("attempts", _hold),
    "responses": ("responses", _respond),
    "events of TensorBoard": ("tensorboard", lambda place: write_events(place.parent)),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_every_writer_leaves_what_a_link_leads_to_alone(writer: str, tmp_path: Path) -> None:
    place = tmp_path / RUN_FOLDER
    place.mkdir(parents=True)
    (place / "metrics.jsonl").write_text('{"step": 1, "loss_nats": 2.0}\n')
    name, write = WRITERS[writer]
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "file").write_text("theirs")
    (place / name).symlink_to(tmp_path / "victim")
    with pytest.raises(UserError, match=rf"{name} is a link"):
        write(place)
    assert [path.name for path in (tmp_path / "victim").iterdir()] == ["file"]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files have no names here")
def test_an_open_file_is_written_into_and_not_replaced() -> None:
    reader, writer = os.pipe()
    files.write_json(f"/proc/self/fd/{writer}", {"a": 1})
    files.write_text(f"/proc/self/fd/{writer}", "more\n")
    os.close(writer)
    with os.fdopen(reader) as pipe:
        assert pipe.read() == '{\n "a": 1\n}\nmore\n'
    with pytest.raises(UserError, match="cannot write /proc/self/fd/99999"):
        files.write_text("/proc/self/fd/99999", "")


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LMSCALE_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda uid: (_ for _ in ()).throw(KeyError(uid)))
    with pytest.raises(UserError, match="HOME is not set, and the system knows no such user; set HOME, or LMSCALE_CA"):
        files.cache_dir()
    with pytest.raises(UserError, match="~nobody-of-this-name/x begins with a home folder that is not known"):
        files.expanded("~nobody-of-this-name/x")
