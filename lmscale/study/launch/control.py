"""Act on runs at work, from any machine that sees their folder: find them, follow their logs, stop them, retry them."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from lmscale.core.errors import UserError, nearest
from lmscale.core.files import open_regular, write_text
from lmscale.core.plans import read_plan
from lmscale.core.run_folder import CONFIG_FILE, LOG_FILE, OUTCOME_FILE, STOP_FILE, failure_reason, no_run
from lmscale.study.launch import failures, lease

POLL_SECONDS = 0.5
NAMED = 5
"""Runs that an ambiguous name's error lists."""


def find_run(run: str, runs: Path) -> Path:
    """The folder of a run given as a path, or by the first letters of its run_id below `runs`.

    Raises `UserError` where there is no such run or several.
    """
    if "/" in run or Path(run).is_dir():
        if (Path(run) / CONFIG_FILE).exists():
            return Path(run)
        raise UserError(no_run(Path(run)))
    folders = {path.parent.name: path.parent for path in runs.glob(f"*/*/{CONFIG_FILE}")}
    matches = sorted(folder for name, folder in folders.items() if name.startswith(run))
    if len(matches) == 1:
        return matches[0]
    if matches:
        names = ", ".join(folder.name for folder in matches[:NAMED])
        raise UserError(f"{len(matches)} runs begin with {run!r}: {names}; add letters")
    raise UserError(f"no run below {runs} begins with {run!r}" + (nearest(run, folders) if folders else ""))


def follow(folder: Path) -> Iterator[str]:
    """What is added to the log of the run in `folder` from now on, until the run is at an end."""
    log = folder / LOG_FILE
    shown = log.stat().st_size if log.exists() else 0
    while not (folder / OUTCOME_FILE).exists() and failure_reason(folder) is None:
        time.sleep(POLL_SECONDS)
        if log.exists() and log.stat().st_size > shown:
            with open_regular(log) as file:
                file.seek(shown)
                text = file.read()
            shown += len(text)
            yield text.decode("utf-8", errors="replace")


def retry(folder: Path, runs: Sequence[str] = ()) -> list[Path]:
    """Allow the given runs of a sweep, or all that failed, new attempts; the folders of those that had failed.

    Raises `UserError` for a given run that has not failed, and, once the others may be tried again, for one whose
    folder cannot be written.
    """
    chosen = _chosen(folder, runs)
    failed = [run for run in chosen if failure_reason(run) is not None]
    if runs and (others := [run for run in chosen if run not in failed]):
        state = "has an outcome" if (others[0] / OUTCOME_FILE).exists() else "has not failed"
        raise UserError(f"run {others[0].name} {state}; only failed runs can be tried again")
    problems = []
    for run in failed:
        try:
            failures.forgive(run)
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError(f"{len(problems)} of {len(failed)} failed runs cannot be tried again: {problems[0]}")
    return failed


def stop(folder: Path, runs: Sequence[str] = (), wait_seconds: float = 120.0) -> tuple[list[Path], list[Path]]:
    """Ask the launchers and runs of a sweep, or some of its runs, to stop, and wait until they have.

    Returns the folders of the runs that were at work, and of those that still are. A stopped run stays so until
    `lmscale run` is called again: only that removes the stop files.
    """
    chosen = _chosen(folder, runs)
    observers = [lease.Observer(run) for run in chosen if lease.newest(run) is not None]
    before = [observer.folder for observer in observers if observer.at_work()]
    for target in chosen if runs else [folder]:
        write_text(target / STOP_FILE, "")
    limit = time.monotonic() + wait_seconds
    time.sleep(2 * lease.WATCH_SECONDS)  # a run may be just about to start
    while at_work := [observer.folder for observer in observers if observer.at_work()]:
        if time.monotonic() > limit:
            return before, at_work
        time.sleep(POLL_SECONDS)
    return before, []


def _chosen(folder: Path, runs: Sequence[str]) -> list[Path]:
    """The folders of the planned runs that begin with one of `runs`, or of all planned runs."""
    _, planned = read_plan(folder)
    names = [run.config.run_id for run in planned]
    for given in runs:
        if not any(name.startswith(given) for name in names):
            raise UserError(f"{folder} plans no run {given!r}{nearest(given, names)}")
    return [folder / name for name in names if not runs or any(name.startswith(given) for given in runs)]
