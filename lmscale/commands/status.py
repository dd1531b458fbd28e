"""`lmscale status`: a table of how far every run of a sweep is, and what was spent."""

import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

from lmscale.commands.answer import write_answer
from lmscale.commands.next_step import print_next, run_again
from lmscale.commands.sparkline import sparkline
from lmscale.core.config import REINFORCE, loss_unit
from lmscale.core.quantities import duration, quantity, rough_duration
from lmscale.core.text import one_line

if TYPE_CHECKING:
    from rich.console import Console, Group

    from lmscale.study.launch.states import RunState

SHOWN = 200
"""Most rows that are shown without --all; a larger sweep shows only runs at work or in trouble."""
WATCH_SECONDS = 2.0
HEADINGS = (
    "run", "stage", "N", "active", "D", "C", "state", "done", "loss", "curve", "MFU", "left", "tokens/s", "rate",
    "seed", "",
)  # fmt: skip
SHARED = ("stage", "rate", "seed")
"""Columns that are left out where all runs have the same."""
LEFT_BOUND = ("run", "stage", "state", "curve", "")
CURVE_WIDTH = 12
BAR_WIDTH = 30


@dataclass(frozen=True)
class StatusArgs:
    """Show how far every run of a sweep is: state, loss, speed, time left, why it failed, and what was spent."""

    folder: Positional[Path]
    """The folder of a sweep, runs/<sweep>."""
    watch: bool = False
    """Refresh every two seconds until all runs are at an end."""
    json: Path | None = None
    """Write the state of every run here (- or no file: to standard output, alone)."""
    all: bool = False
    """Show every run of a sweep of more than 200; by default only runs at work or in trouble."""


def main(args: StatusArgs, console: "Console") -> None:
    """Print the state of every planned run; with --watch, refreshed until all are at an end.

    Raises `UserError` where the folder holds no plan.
    """
    from lmscale.core.config import check
    from lmscale.study.launch.states import ENDED, read_states

    check(not args.watch or args.json is None, "--json is written once; leave --watch out")

    if not args.watch:
        name, runs = read_states(args.folder)
        if args.json is not None:
            write_answer(args.json, states_value(name, runs))
        console.print(_shown(name, runs, args.all), crop=False)
        print_next(*_following(args.folder, {run.state: run.run_id for run in runs}))
        return
    from rich.live import Live

    with Live(console=console, auto_refresh=False) as live, suppress(KeyboardInterrupt):
        while True:
            name, runs = read_states(args.folder)
            live.update(_shown(name, runs, args.all, _curves(args.folder, runs)), refresh=True)
            if all(run.state in ENDED for run in runs):
                break
            time.sleep(WATCH_SECONDS)
    print_next(*_following(args.folder, {run.state: run.run_id for run in runs}))


def states_value(name: str, runs: "list[RunState]") -> dict[str, Any]:
    """The name of a sweep, how many of its runs are in which state, and every run."""
    states = Counter(run.state for run in runs)
    return {"sweep": name, "states": dict(states), "runs": [asdict(run) for run in runs]}


def _curves(folder: Path, runs: "list[RunState]") -> dict[str, str]:
    """run_id -> the training loss over the last half of the steps so far, for runs at work."""
    from lmscale.core.run_folder import read_metrics

    curves = {}
    for run in [run for run in runs if run.state == "running"][:SHOWN]:
        losses = [row["loss_nats"] for row in read_metrics(folder / run.run_id)[0] if "loss_nats" in row]
        curves[run.run_id] = sparkline(losses[len(losses) // 2 :], CURVE_WIDTH)
    return curves


def _following(folder: Path, run_by_state: dict[str, str]) -> tuple[object, ...]:
    """The words of the command that a sweep in this state needs next."""
    if "running" in run_by_state:
        return "status", folder, "--watch"
    if "failed" in run_by_state:
        return "logs", folder / run_by_state["failed"]
    return ("report", folder) if set(run_by_state) <= {"finished", "diverged"} else run_again(folder)


def _shown(name: str, runs: "list[RunState]", everything: bool, curves: Mapping[str, str] | None = None) -> "Group":
    """The table at its own width, so that a narrow terminal loses no digit, and wrapped sentences below it."""
    from rich.console import Group
    from rich.text import Text

    shown = runs
    if len(runs) > SHOWN and not everything:
        shown = [run for run in runs if run.state not in ("finished", "missing")][:SHOWN]
    table = Text("\n".join([name, *_table(shown, curves or {})]), no_wrap=True, overflow="ignore")
    return Group(table, Text("\n".join(_sentences(runs, len(runs) - len(shown), curves))))


def _sentences(runs: "list[RunState]", hidden: int, curves: Mapping[str, str] | None) -> list[str]:
    """What stands below the table: how many runs are in each state, what was spent, and what its columns mean."""
    from lmscale.core.results import corpora_sentence

    states = Counter(run.state for run in runs)
    sentences = [", ".join(f"{number:,} {state}" for state, number in states.items()), _spend(runs)]
    if curves is not None:
        sentences.insert(0, _bar(runs))
    if any((curves or {}).values()):
        sentences.append("curve: the training loss over the last half of a run's steps so far.")
    if hidden:
        sentences.insert(0, f"... {hidden:,} more: --all shows every run")
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
    return sentences


def _table(runs: "list[RunState]", curves: Mapping[str, str]) -> list[str]:
    """Lines of columns as wide as their widest cell, without columns that are empty, and a rate, seed or stage that all
    share."""
    columns = [
        (heading, column)
        for heading, column in zip(HEADINGS, zip(*(_cells(run, curves.get(run.run_id, "")) for run in runs)))
        if any(column) and not (heading in SHARED and len(set(column)) == 1)
    ]
    texts = []
    for heading, column in columns:
        width = max(map(len, (heading, *column)))
        texts.append([cell.ljust(width) if heading in LEFT_BOUND else cell.rjust(width) for cell in (heading, *column)])
    return ["  ".join(cells).rstrip() for cells in zip(*texts)]


def _cells(run: "RunState", curve: str) -> tuple[str, ...]:
    return (
        run.run_id,
        run.stage,
        quantity(run.params),
        quantity(run.active_params) if run.active_params != run.params else "",
        quantity(run.tokens),
        f"{run.flops:.2e}",
        run.state,
        f"{run.flops_done / run.flops:.0%}",
        _number(run.loss_nats, ".4f"),
        curve,
        _number(run.mfu, ".2f"),
        "" if run.seconds_left is None else duration(run.seconds_left),
        "" if run.tokens_per_second is None or run.flops_done >= run.flops else quantity(run.tokens_per_second),
        "" if run.peak_lr is None else f"{run.peak_lr:.2g}",
        str(run.seed),
        ", ".join(
            [*(f"{name} {value:.3g}" for name, value in run.reported.items()), *filter(None, [one_line(run.remark)])]
        ),
    )


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _bar(runs: "list[RunState]") -> str:
    """A bar of the FLOPs done, and the time left at the speed of the runs at work."""
    done, planned = sum(run.flops_done for run in runs), sum(run.flops for run in runs)
    cells = round(BAR_WIDTH * done / planned)
    speed = sum((run.flops - run.flops_done) / run.seconds_left for run in runs if run.seconds_left)
    left = f", about {rough_duration((planned - done) / speed)} left at the speed of the runs at work" if speed else ""
    return f"{'█' * cells}{'░' * (BAR_WIDTH - cells)} {done / planned:.0%} of the FLOPs{left}"


def _spend(runs: "list[RunState]") -> str:
    spent, budget = sum(run.flops_done for run in runs), sum(run.flops for run in runs)
    return (
        f"spent {spent:.3g} of {budget:.3g} training FLOPs planned ({spent / budget:.0%}); finished runs took "
        f"{duration(sum(run.seconds for run in runs))}"
    )
