"""A file is there whole or not at all: on a full disk, after a kill, after an error."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lmscale.core import files
from lmscale.core.errors import UserError


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
def test_a_corrupt_file_is_said_in_one_sentence(tmp_path: Path, content: str) -> None:
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
