"""A hand on runs at work, from any machine that sees their folder: read their logs, stop them, let them try again."""

import time
from collections.abc import Sequence
from pathlib import Path

from lmscale.core.errors import UserError, nearest
from lmscale.core.exit_status import EXIT_CTRL_C
from lmscale.core.files import write_text
from lmscale.core.plans import read_plan
from lmscale.core.run_folder import CONFIG_FILE, LOG_FILE, OUTCOME_FILE, STOP_FILE, failure_reason
from lmscale.study.launch import failures, lease

POLL_SECONDS = 0.5


def logs(run: str, runs: Path, lines: int = 40, follow: bool = False) -> None:
    """Print how the attempts at a run ended and the last lines of its log; with `follow`, go on until it is at an end.

    `run` is its folder or the start of its run_id below `runs`. Raises `UserError` where there is none or several.
    """
    folder = find(run, runs)
    for attempt in lease.history(folder):
        end = attempt.end or {"status": "", "reason": "killed" if attempt.dead() else "at work"}
        print(f"attempt {attempt.number}, {attempt.value.get('began', '?')} {attempt.where}: {end['reason'] or 'done'}")
    path, shown = folder / LOG_FILE, 0
    if (reason := failure_reason(folder)) is not None:
        print(f"failed: {reason}")
    for line in failures.last_lines(folder, lines):
        print(line)
    shown = path.stat().st_size if path.exists() else 0
    while follow and not (folder / OUTCOME_FILE).exists() and failure_reason(folder) is None:
        time.sleep(POLL_SECONDS)
        if path.exists() and path.stat().st_size > shown:
            with path.open("rb") as file:
                file.seek(shown)
                text = file.read()
            shown += len(text)
            print(text.decode("utf-8", errors="replace"), end="", flush=True)


def find(run: str, runs: Path) -> Path:
    """The folder of a run given as a path or by the first letters of its run_id."""
    if "/" in run or Path(run).is_dir():
        if (Path(run) / CONFIG_FILE).exists():
            return Path(run)
        raise UserError(f"{run} is no run's folder: give runs/<sweep>/<run>, or the first letters of the run")
    every = {path.parent.name: path.parent for path in runs.glob(f"*/*/{CONFIG_FILE}")}
    found = sorted(path for name, path in every.items() if name.startswith(run))
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(
            f"{len(found)} runs begin with {run!r}: {', '.join(path.name for path in found[:5])}; add letters"
        )
    raise UserError(f"no run below {runs} begins with {run!r}" + (nearest(run, every) if every else ""))


def retry(folder: Path, runs: Sequence[str] = ()) -> None:
    """Let the given runs of a sweep, or all that failed, be tried anew. Raises `UserError` for one that has not."""
    chosen = _chosen(folder, runs)
    if runs:
        for place in chosen:
            if failure_reason(place) is None:
                state = "has an outcome" if (place / OUTCOME_FILE).exists() else "has not failed"
                raise UserError(f"run {place.name} {state}; only what has failed is tried again")
    failed = [place for place in chosen if failure_reason(place) is not None]
    for place in failed:
        failures.forgive(place)
    print(f"{len(failed)} runs of {folder} may be tried again: `lmscale run` starts them")


def stop(folder: Path, runs: Sequence[str] = (), wait_seconds: float = 120.0) -> int:
    """Ask the launchers and runs of a sweep, or some runs alone, to stop; wait until they have; the exit status.

    What is stopped stays so until `lmscale run` is called again: only that removes the stop files.
    """
    chosen = _chosen(folder, runs)
    observers = [lease.Observer(place) for place in chosen if lease.newest(place) is not None]
    before = sum(observer.held() for observer in observers)
    for place in chosen if runs else [folder]:
        write_text(place / STOP_FILE, "")
    limit = time.monotonic() + wait_seconds
    time.sleep(2 * lease.WATCH_SECONDS)  # for what was just about to start
    while held := [observer.folder.name for observer in observers if observer.held()]:
        if time.monotonic() > limit:
            print(f"still at work after {wait_seconds:.0f} s: {', '.join(held)}; they are asked and will stop")
            return EXIT_CTRL_C
        time.sleep(POLL_SECONDS)
    print(f"stopped {before} runs of {folder}; `lmscale run` goes on with them")
    return 0


def _chosen(folder: Path, runs: Sequence[str]) -> list[Path]:
    """The folders of the planned runs that begin with one of `runs`, all where none is given."""
    _, planned = read_plan(folder)
    names = [run.config.run_id for run in planned]
    for given in runs:
        if not any(name.startswith(given) for name in names):
            raise UserError(f"{folder} plans no run {given!r}{nearest(given, names)}")
    return [folder / name for name in names if not runs or any(name.startswith(given) for given in runs)]
