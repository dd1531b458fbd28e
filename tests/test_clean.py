"""`lmscale clean` says what lies where, and deletes what it is asked to and nothing else."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.outcomes import OTHER, RUN, outcome_of

from lmscale.cli import parse
from lmscale.commands.clean import main
from lmscale.commands.console import open_console
from lmscale.core.errors import UserError
from lmscale.core.plans import PlannedRun, write_plan

CHILD = replace(OTHER, init_from=RUN.run_id)
SPARE = replace(RUN, seed=7)


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two finished runs, one of which a third starts from, that is not finished; each with a checkpoint and a log."""
    monkeypatch.setenv("LMSCALE_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "runs" / "mine"
    write_plan(folder, "mine", [PlannedRun(config) for config in (RUN, SPARE, CHILD)])
    for config in (RUN, SPARE):
        outcome_of(config).write(folder / config.run_id)
    for config in (RUN, SPARE, CHILD):
        write(folder / config.run_id / "checkpoints" / "100" / "arrays", 1000)
        write(folder / config.run_id / "log.txt", 10)
    write(tmp_path / "cache" / "tokens" / "a" / "train.bin", 5000)
    write(tmp_path / "cache" / "xla" / "program", 300)
    return folder.parent


def write(path: Path, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def clean(*words: object) -> None:
    main(parse("clean", [str(word) for word in words]), open_console())


def test_without_an_option_nothing_is_deleted(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(runs.parent)
    clean(runs)
    printed = capsys.readouterr().out
    assert re.search(r"^checkpoints of ended runs +1kB +--checkpoints frees it$", printed, re.MULTILINE)
    assert re.search(r"^checkpoints that are needed +2kB$", printed, re.MULTILINE)
    assert re.search(r"^corpora and tokens in the cache +5kB +--corpora frees it$", printed, re.MULTILINE)
    assert files(runs.parent) == before and "freed" not in printed


def test_checkpoints_that_a_run_starts_from_or_goes_on_from_stay(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(runs.parent)
    clean(runs / "mine", "--checkpoints", "--programs", "--json", runs.parent / "clean.json")
    gone = {f"runs/mine/{SPARE.run_id}/checkpoints/100/arrays", "cache/xla/program"}
    assert before - files(runs.parent) == gone
    assert "freed 1.3kB" in capsys.readouterr().out
    parts = json.loads((runs.parent / "clean.json").read_text())
    assert parts["checkpoints of ended runs"] == {"bytes": 1000, "deleted": True}
    assert parts["corpora and tokens in the cache"] == {"bytes": 5000, "deleted": False}


def test_logs_of_runs_at_work_stay_and_outcomes_always(runs: Path) -> None:
    before = files(runs.parent)
    clean(runs, "--logs", "--corpora")
    logs = {f"runs/mine/{config.run_id}/log.txt" for config in (RUN, SPARE)}
    assert before - files(runs.parent) == {*logs, "cache/tokens/a/train.bin"}


def test_a_link_is_removed_and_what_it_leads_to_stays(runs: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    write(elsewhere / "arrays", 50)
    place = runs / "mine" / SPARE.run_id / "checkpoints"
    for path in sorted(place.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    place.rmdir()
    place.symlink_to(elsewhere)
    clean(runs, "--checkpoints")
    assert not place.is_symlink() and (elsewhere / "arrays").is_file()


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no folder: give the one that holds a folder per sweep"):
        clean(tmp_path / "none")
