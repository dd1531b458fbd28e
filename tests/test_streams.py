"""Output that is closed, full, left by its reader or of another encoding; and what stands in it."""

import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.command_line import call

from lmscale.cli import VERBS
from lmscale.commands.console import open_console
from lmscale.core.errors import StorageError, UserError
from lmscale.core.exit_status import EXIT_STORAGE
from lmscale.core.streams import guarded

LMSCALE = [sys.executable, "-m", "lmscale"]


def shell(line: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """`line` in bash, where $L is `lmscale`."""
    environment = {**os.environ, **variables, "L": " ".join(LMSCALE)}
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, env=environment)


@pytest.mark.long
@pytest.mark.parametrize("line", ["$L --version", "$L --help", "$L plan --help", "$L status {workspace}/runs/smoke"])
@pytest.mark.parametrize("way", [">/dev/full", ">&-"])
def test_output_that_cannot_be_written_is_one_sentence(line: str, way: str, workspace: Path) -> None:
    done = shell(f"{line.format(workspace=workspace)} {way}")
    assert done.returncode == EXIT_STORAGE
    assert done.stderr.startswith("lmscale: the standard output cannot be written (") and done.stderr.count("\n") == 1


@pytest.mark.long
@pytest.mark.parametrize("way", ["2>/dev/full", "2>&-", ">&- 2>&-", ">/dev/full 2>/dev/full"])
def test_a_sentence_that_cannot_be_written_shows_in_the_status(way: str) -> None:
    assert shell(f"$L status absent {way}").returncode == EXIT_STORAGE
    assert shell("$L --version 2>&-").stdout.startswith("lmscale ")


@pytest.mark.long
@pytest.mark.parametrize("line", ["$L --help", "$L table {workspace}/runs/smoke", "$L status {workspace}/runs/smoke"])
def test_a_reader_that_leaves_early_is_no_problem(line: str, workspace: Path) -> None:
    done = shell(f"{line.format(workspace=workspace)} | true; echo ${{PIPESTATUS[0]}}")
    assert (done.stdout, done.stderr) == ("0\n", "")


def test_a_closed_output_never_becomes_a_file_that_is_written(tmp_path: Path) -> None:
    program = """
import os, sys
from lmscale.core.streams import guarded
from lmscale.core.errors import StorageError
try:
    with guarded(): pass
except StorageError: pass
with open(sys.argv[1], "w") as file:
    assert file.fileno() > 2
    os.write(1, b"a library's remark")
    os.write(2, b"another")
    file.write("ours")
"""
    (tmp_path / "program.py").write_text(program)
    line = f"{sys.executable} {tmp_path / 'program.py'} {tmp_path / 'file'} <&- >&- 2>&-"
    assert shell(line).returncode == 0 and (tmp_path / "file").read_text() == "ours"


@pytest.mark.long
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "ascii:strict"])
def test_characters_that_the_output_lacks_are_replaced(encoding: str, workspace: Path) -> None:
    done = subprocess.run(
        [*LMSCALE, "status", str(workspace / "runs" / "smoke")], capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": encoding},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"") and b"finished" in done.stdout
    done = subprocess.run(
        [*LMSCALE, "status", "\N{GREEK SMALL LETTER ALPHA}±"], capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": encoding},
    )  # fmt: skip
    assert done.returncode == 2 and b"there is no folder \\u03b1" in done.stderr


def test_our_own_characters_have_a_spelling(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, "ascii"))
    with guarded():
        print("2.5 ± 0.1 … ≤ 3, α")
        open_console().print("2.5 ± 0.1")
    assert raw.getvalue() == b"2.5 +/- 0.1 ... <= 3, \\u03b1\n2.5 +/- 0.1\n"


@pytest.mark.parametrize("terminal", [False, True])
def test_a_console_and_a_print_show_escape_characters(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("TERM", "xterm-256color")
    table = Table("\x1b]0;head\x07")
    table.add_row("\x1b[2Jcell", style="red")
    with guarded():
        print("print \x1b[31m")
        console = open_console()
        console.print("[red]" + escape("name \x1b[32m \u202e") + "[/red]")
        console.print(table)
        console.print(Text("text \x9b2J"))
    shown = capsys.readouterr().out
    for text in ("print \\x1b[31m", "name \\x1b[32m \\u202e", "\\x1b]0;head", "\\x1b[2Jcell", "text \\x9b2J"):
        assert text in shown, shown
    assert ("\x1b[31m" in shown) == terminal, "colours of our own stay"
    assert "\x1b[2J" not in shown and "\x1b]0" not in shown and "\x9b" not in shown


def test_an_error_shows_escape_characters(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("status", "no\x1b[2Jsuch\udcff\u202e") == 2
    assert "there is no folder no\\x1b[2Jsuch\\xff\\u202e;" in capsys.readouterr().err


def test_streams_are_as_before_after_a_call() -> None:
    before = sys.stdout, sys.stderr
    assert call("status", "absent") == 2
    assert (sys.stdout, sys.stderr) == before


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_every_verb_meets_a_full_disk(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:  # noqa: PTH123
        monkeypatch.setattr(sys, "stdout", full)
        assert call(verb, "--help") == EXIT_STORAGE
    assert capsys.readouterr().err.count("\n") == 1


def test_a_folder_that_was_removed_is_said(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    done = shell(f"cd {tmp_path}/gone; rmdir ../gone; $L status runs/x", PYTHONPATH=str(Path(__file__).parents[1]))
    assert done.returncode == 2 and done.stderr.startswith("lmscale: the folder that this was called in cannot be used")


def test_what_the_system_refuses_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*arguments: object) -> None:
        raise PermissionError(13, "Permission denied", str(tmp_path / "secret"))

    monkeypatch.setattr("lmscale.commands.status.main", refuse)
    assert call("status", str(tmp_path)) == 2
    assert capsys.readouterr().err == (
        f"lmscale: {tmp_path}/secret cannot be used: Permission denied; allow it with chmod or chown, or take another\n"
    )
    assert issubclass(StorageError, UserError)


def test_a_page_shows_escape_characters() -> None:
    from lmscale.study.report import page

    html = page.document("a\u202eb\x1b", [page.heading("c\x9b<d>"), page.paragraphs(["e\u2066"])])
    assert "<title>a\\u202eb\\x1b</title>" in html and "c\\x9b&lt;d&gt;</h2>" in html and "e\\u2066" in html


SWEEP = Path(__file__).parents[1] / "sweeps" / "smoke.py"
CALLS = {
    "plan": ("plan", SWEEP),
    "status": ("status", "runs/smoke"),
    "table": ("table", "runs/smoke"),
    "retry": ("retry", "runs/smoke"),
    "export-jobs": ("export-jobs", SWEEP, "--runs", "other"),
    "submit": ("run", SWEEP, "--launcher", "slurm", "--dry-run", "--force", "--runs", "other"),
    "fit": ("fit", "chinchilla", "--approach", "3", "--resamples", "0", "--no-check"),
}


@pytest.mark.parametrize("verb", CALLS)
def test_every_verb_meets_a_full_disk_with_one_sentence(
    verb: str, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(workspace / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    with open("/dev/full", "w", encoding="utf-8") as full:  # noqa: PTH123
        monkeypatch.setattr(sys, "stdout", full)
        assert call(*CALLS[verb]) == EXIT_STORAGE
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("lmscale: the standard output cannot be written") and "Traceback" not in "".join(lines)


@pytest.mark.long
@pytest.mark.skipif(shutil.which("setpriv") is None or os.geteuid() != 0, reason="rights cannot be given up here")
@pytest.mark.parametrize("line", ["status {f}/runs/smoke", "table {f}/runs/smoke", "fit {f}/t.csv", "plan {f}/s.py"])
@pytest.mark.parametrize("closed", ["folder", "files"])
def test_files_that_may_not_be_read_are_one_sentence(line: str, closed: str, workspace: Path, tmp_path: Path) -> None:
    """Root without its capabilities has the rights of any owner."""
    (home := tmp_path / "home").mkdir()
    shutil.copytree(workspace / "runs", home / "runs")
    (home / "t.csv").write_text("params,tokens,loss_nats\n")
    shutil.copy(SWEEP, home / "s.py")
    for path in [home] if closed == "folder" else [*home.rglob("plan.json"), home / "t.csv", home / "s.py"]:
        path.chmod(0)
    done = shell(f"setpriv --bounding-set=-all --inh-caps=-all $L {line.format(f=home)}")
    home.chmod(0o700)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "ermission denied" in done.stderr
