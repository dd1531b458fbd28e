"""A sweep that is not finished: what its page says of the runs that are missing, and when it loads itself again."""

from collections import Counter
from pathlib import Path

from lmscale.core.errors import UserError
from lmscale.study.launch.states import ENDED, RunState, read_states

REFRESH_SECONDS = 60
"""How often the page of a sweep at work loads itself again."""
AT_WORK = ("running", "scoring", "silent")


def states_of(runs_folder: str | Path | None) -> list[RunState]:
    """The states of the sweep's runs; none of a table, or where no plan can be read."""
    if runs_folder is None:
        return []
    try:
        return read_states(Path(runs_folder))[1]
    except UserError:
        return []


def note(states_of_runs: list[RunState]) -> str:
    """What is missing, for the page of what is there; "" if nothing is."""
    missing = unfinished(states_of_runs)
    return missing and f"{missing}. This page is of the others; its numbers may change."


def unfinished(states_of_runs: list[RunState]) -> str:
    """What is missing: "12 of 28 planned runs are not finished: 9 missing, 3 running"; "" if nothing is."""
    planned, runs = len(states_of_runs), [run for run in states_of_runs if run.state not in ENDED]
    if not runs:
        return ""
    states = ", ".join(f"{count} {state}" for state, count in Counter(run.state for run in runs).most_common())
    done = sum(run.flops_done for run in runs)
    share = f"; of their compute {100 * done / sum(run.flops for run in runs):.0f} % is done" if done else ""
    verb = "is" if len(runs) == 1 else "are"
    return f"{len(runs)} of {planned} planned runs {verb} not finished: {states}{share}"


def refresh_seconds(runs: list[RunState]) -> int | None:
    """When the page loads itself again: only while a run is at work."""
    return REFRESH_SECONDS if any(run.state in AT_WORK for run in runs) else None
