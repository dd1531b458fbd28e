"""`lmscale status`: a table of how far every run of a sweep is, and what was spent."""

import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

from lmscale.commands.next_step import print_next, run_again
from lmscale.core.config import REINFORCE, loss_unit
from lmscale.core.quantities import duration, quantity
from lmscale.core.text import one_line

if TYPE_CHECKING:
    from rich.console import Console, Group

    from lmscale.study.launch.states import RunState

SHOWN = 200
"""Most rows that are shown without --all; a larger sweep shows only runs at work or in trouble."""
WATCH_SECONDS = 2.0
HEADINGS = ("run", "stage", "N", "active", "C", "state", "done", "loss", "MFU", "left", "tokens/s", "seed", "")
LEFT_BOUND = ("run", "stage", "state", "")


@dataclass(frozen=True)
class StatusArgs:
    """Show how far every run of a sweep is: state, loss, speed, time left, why it failed, and what was spent."""

    folder: Positional[Path]
    """The folder of a sweep, runs/<sweep>."""
    watch: bool = False
    """Refresh every two seconds until all runs are at an end."""
    all: bool = False
    """Show every run of a sweep of more than 200; by default only runs at work or in trouble."""


def main(args: StatusArgs, console: "Console") -> None:
    """Print the state of every planned run; with --watch, refreshed until all are at an end.

    Raises `UserError` where the folder holds no plan.
    """
    from lmscale.study.launch.states import ENDED, read_states

    if not args.watch:
        name, runs = read_states(args.folder)
        console.print(_shown(name, runs, args.all), crop=False)
        print_next(*_following(args.folder, {run.state: run.run_id for run in runs}))
        return
    from rich.live import Live

    with Live(console=console, auto_refresh=False) as live, suppress(KeyboardInterrupt):
        while True:
            name, runs = read_states(args.folder)
            live.update(_shown(name, runs, args.all), refresh=True)
            if all(run.state in ENDED for run in runs):
                break
            time.sleep(WATCH_SECONDS)
    print_next(*_following(args.folder, {run.state: run.run_id for run in runs}))


def _following(folder: Path, run_by_state: dict[str, str]) -> tuple[object, ...]:
    """The words of the command that a sweep in this state needs next."""
    if "running" in run_by_state:
        return "status", folder, "--watch"
    if "failed" in run_by_state:
        return "logs", folder / run_by_state["failed"]
    return ("report", folder) if set(run_by_state) <= {"finished", "diverged"} else run_again(folder)


def _shown(name: str, runs: "list[RunState]", everything: bool) -> "Group":
    """The table at its own width, so that a narrow terminal loses no digit, and wrapped sentences below it."""
    from rich.console import Group
    from rich.text import Text

    from lmscale.core.results import corpora_sentence

    states = Counter(run.state for run in runs)
    shown = runs
    if len(runs) > SHOWN and not everything:
        shown = [run for run in runs if run.state not in ("finished", "missing")][:SHOWN]
    sentences = [", ".join(f"{number:,} {state}" for state, number in states.items()), _spend(runs)]
    if len(shown) < len(runs):
        sentences.insert(0, f"... {len(runs) - len(shown):,} more: --all shows every run")
    if states["running"] or states["scoring"]:
        unit = loss_unit(run.stage for run in runs)
        sentences.append(f"loss: the training loss of a run at work, otherwise the validation loss, {unit}.")
        if any(run.stage == REINFORCE and run.state == "running" for run in runs):
            sentences.append("Of a run of reinforcement at work it is what a step minimises, and no loss of text.")
    if mixed := corpora_sentence((run.data_fingerprint for run in runs), (run.stage for run in runs)):
        sentences.append(f"note: {mixed}")
    if states["failed"]:
        sentences.append(
            "`lmscale logs RUN` shows the end of a log; `lmscale retry` allows failed runs another attempt."
        )
    table = Text("\n".join([name, *_table(shown)]), no_wrap=True, overflow="ignore")
    return Group(table, Text("\n".join(sentences)))


def _table(runs: "list[RunState]") -> list[str]:
    """Lines of columns as wide as their widest cell, without columns that are empty, and a seed or a stage that all
    share."""
    columns = [
        (heading, column)
        for heading, column in zip(HEADINGS, zip(*(_cells(run) for run in runs)))
        if any(column) and not (heading in ("stage", "seed") and len(set(column)) == 1)
    ]
    texts = []
    for heading, column in columns:
        width = max(map(len, (heading, *column)))
        texts.append([cell.ljust(width) if heading in LEFT_BOUND else cell.rjust(width) for cell in (heading, *column)])
    return ["  ".join(cells).rstrip() for cells in zip(*texts)]


def _cells(run: "RunState") -> tuple[str, ...]:
    return (
        run.run_id,
        run.stage,
        quantity(run.params),
        quantity(run.active_params) if run.active_params != run.params else "",
        f"{run.flops:.2e}",
        run.state,
        f"{run.flops_done / run.flops:.0%}",
        _number(run.loss_nats, ".4f"),
        _number(run.mfu, ".2f"),
        "" if run.seconds_left is None else duration(run.seconds_left),
        "" if run.tokens_per_second is None else quantity(run.tokens_per_second),
        str(run.seed),
        ", ".join(
            [*(f"{name} {value:.3g}" for name, value in run.reported.items()), *filter(None, [one_line(run.remark)])]
        ),
    )


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _spend(runs: "list[RunState]") -> str:
    spent, budget = sum(run.flops_done for run in runs), sum(run.flops for run in runs)
    return (
        f"spent {spent:.3g} of {budget:.3g} training FLOPs planned ({spent / budget:.0%}); finished runs took "
        f"{duration(sum(run.seconds for run in runs))}"
    )
