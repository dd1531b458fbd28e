"""Progress of a sweep on a terminal: a bar for the whole and one for every run at work."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

from lmscale.commands.run_names import name_of
from lmscale.core.config import PRETRAIN, loss_unit
from lmscale.core.counting import count
from lmscale.core.plans import PlannedRun
from lmscale.core.quantities import quantity
from lmscale.core.results import Outcome
from lmscale.core.run_folder import SCORED_ON, reported
from lmscale.study.launch import Slot

FIGURES = (("mfu", "MFU", ".2f"), ("loss_nats", "loss", ".3f"))
"""Columns of a row of metrics that a bar shows, with title and format."""


def label(run: PlannedRun) -> str:
    """The name of a run, and its stage where that is not pretraining."""
    return ("" if run.stage == PRETRAIN else f"{run.stage} ") + name_of(run.config)


class _TimeLeft(TimeRemainingColumn):
    """The time left for training, nothing while a run is being scored: nobody can tell how long that takes."""

    def render(self, task: Task) -> Text:
        return Text() if task.fields.get("scored_on") else super().render(task).append(" left")


def _speed(row: dict[str, Any]) -> str:
    """What a row of metrics says of speed and loss, as far as it says it."""
    parts = [f"{quantity(row['tokens_per_second'])} tokens/s"] if "tokens_per_second" in row else []
    parts += [f"{title} {row[name]:{form}}" for name, title, form in FIGURES if name in row]
    return " ".join([*parts, *(f"{name} {value:.3g}" for name, value in reported(row).items())])


class Bars:
    """A `launch.Watcher` that draws bars on a terminal and prints a line for every run that ends."""

    def __init__(self, runs: list[PlannedRun], done_flops: int, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),  # shrinks so that all figures fit into 80 columns
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[speed]}"),
            _TimeLeft(compact=True, table_column=Column(no_wrap=True)),
            console=console,
            disable=not console.is_terminal,
            speed_estimate_period=120,
        )
        self._total = sum(count(run.config).flops for run in runs)
        self._runs = len(runs)
        self._ended = 0
        self._whole = self._progress.add_task("all runs", total=self._total, completed=done_flops, speed="")
        self._tasks: dict[str, TaskID] = {}
        self._seen: dict[str, float] = {}

    @contextmanager
    def shown(self) -> Iterator["Bars"]:
        """Draw until the block ends."""
        with self._progress:
            yield self

    def started(self, slot: Slot, run: PlannedRun) -> None:
        """Open a bar."""
        total = count(run.config).flops
        self._tasks[run.config.run_id] = self._progress.add_task(label(run), total=total, speed="starting")

    def advanced(self, slot: Slot, run: PlannedRun, row: dict[str, Any]) -> None:
        """Move the bars of the run and of the whole."""
        run_id = run.config.run_id
        flops, scored_on = row.get("flops", 0.0), row.get(SCORED_ON, "")
        self._progress.advance(self._whole, flops - self._seen.get(run_id, 0.0))
        self._seen[run_id] = flops
        speed = escape(scored_on) or _speed(row)
        self._progress.update(self._tasks[run_id], completed=flops, speed=speed, scored_on=scored_on)

    def ended(self, slot: Slot, run: PlannedRun, outcome: Outcome | None, problem: str) -> None:
        """Close the bar and print how the run ended."""
        run_id = run.config.run_id
        if (task := self._tasks.pop(run_id, None)) is not None:  # a run of another launcher has no bar
            self._progress.remove_task(task)
        if outcome is None:
            self._console.print(f"{label(run)}  [red]{escape(problem)}[/red]", highlight=False)
            return
        self._ended += 1
        self._progress.advance(self._whole, count(run.config).flops - self._seen.get(run_id, 0.0))
        if outcome.state == "finished":
            unit = loss_unit([run.stage]).replace(" per token", "/token")
            loss = f"{outcome.loss_nats:.4f} ± {outcome.loss_stderr or 0:.4f} {unit}"
            mfu = "" if outcome.mfu is None else f"  MFU {outcome.mfu:.2f}"
            result = f"loss {loss}  {outcome.seconds:.0f} s{mfu}"
        else:
            result = f"[yellow]{outcome.state}: {escape(outcome.reason)}[/yellow]"
        held_out = "  held out" if run.held_out else ""
        self._console.print(f"{label(run)}  {result}{held_out}", highlight=False)
