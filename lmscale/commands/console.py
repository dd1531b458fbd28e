"""What the verbs show on a terminal, and the order in which the main ones do their work.

Like `cli`, this stands above both halves: it prepares data (run half) and then plans and launches (study half).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from lmscale.commands.plan.limits import check_limits, within_hours
from lmscale.commands.progress import Bars, quantity
from lmscale.core.config import DataConfig
from lmscale.core.counting import count
from lmscale.core.exit_status import EXIT_CTRL_C
from lmscale.core.plans import write_plan
from lmscale.core.results import Outcome
from lmscale.core.run_folder import LOG_FILE
from lmscale.lm import data
from lmscale.study import launch
from lmscale.study.launch import slurm
from lmscale.study.sweep import Plan


@contextmanager
def preparing(console: Console) -> Iterator[Callable[[str, float], None]]:
    """Bars for the stages of preparing text, one for each, that vanish at the end; none on what is no terminal."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with bar:
        tasks: dict[str, TaskID] = {}

        def progress(what: str, share: float) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(escape(what), total=1.0)
            bar.update(tasks[what], completed=share)

        yield progress


def prepare_data(config: DataConfig, console: Console, allow_download: bool = False) -> data.Manifest:
    """Bring a corpus onto disk under a progress bar, and say in a line what it is."""
    with preparing(console) as progress:
        manifest = data.prepare(config, progress=progress, allow_download=allow_download).manifest
    if manifest.endless:
        console.print(f"corpus {escape(manifest.source)}: made as it is read, without end")
        return manifest
    console.print(
        f"corpus {escape(manifest.source)}: {quantity(manifest.train_tokens)} training tokens in "
        f"{manifest.train_documents:,} documents, {quantity(manifest.validation_tokens)} validation tokens in "
        f"{manifest.validation_documents:,}"
    )
    return manifest


def run_sweep(
    plan: Plan, runs: Path, console: Console, workers: int | None = None, pack: int = 1, wandb: str = "off"
) -> int:
    """Prepare the data of a plan, train what is missing of it under bars, say how it ended; the exit status.

    Raises `UserError` where that would spend more than the sweep may.
    """
    folder = runs / plan.sweep.name
    check_limits(plan, folder)
    for sentence in launch.changes(plan.sweep.name, plan.runs, folder):
        console.print(escape(sentence))
    _prepare(plan, console)
    done = [run for run in plan.runs if Outcome.read(folder / run.config.run_id)]
    if len(done) == len(plan.runs):
        console.print(f"all {len(done)} runs of {plan.sweep.name} are there: {folder}")
    else:
        console.print(
            f"{plan.sweep.name}: {len(plan.runs) - len(done)} of {len(plan.runs)} runs to train in {folder}; "
            f"Ctrl-C stops cleanly, the same command goes on"
        )
    bars = Bars(plan.runs, sum(count(run.config).flops for run in done), console)
    with bars.shown():
        watcher = within_hours(plan, folder, bars, console.print)
        summary = launch.run(plan.sweep.name, plan.runs, folder, watcher, workers=workers, pack=pack, wandb=wandb)
    if summary.interrupted:
        console.print("stopped; what was trained is kept, and the same command goes on from there")
        return EXIT_CTRL_C
    for run_id, problem in summary.failed.items():
        console.print(f"[red]run {run_id} failed:[/red] {escape(problem)}  (log: {folder / run_id / LOG_FILE})")
    if summary.failed:
        console.print(f"`lmscale retry {folder}` lets what has failed be tried again")
    if summary.diverged:
        console.print(f"[yellow]{summary.diverged} runs diverged; they stay in the table and out of the fits[/yellow]")
    return 1 if summary.failed else 0


def _prepare(plan: Plan, console: Console) -> None:
    """Bring the corpora of all runs onto disk. Raises `UserError` where one is too small for a run."""
    for config in {run.config.data: None for run in plan.runs}:
        manifest = prepare_data(config, console)
        for run in plan.runs:
            if run.config.data == config:
                data.check_enough(manifest, run.config)


def submit_sweep(plan: Plan, runs: Path, console: Console, cluster: slurm.Cluster, dry_run: bool = False) -> int:
    """Hand what is missing of a plan to Slurm, or print exactly what would be handed over; the exit status."""
    folder = runs / plan.sweep.name
    check_limits(plan, folder)
    if not dry_run:
        slurm.check_cluster(cluster)
    changed = launch.changes(plan.sweep.name, plan.runs, folder)
    missing = slurm.to_submit(plan.runs, folder)
    made = slurm.submissions(plan.sweep.name, missing, folder, cluster)
    if dry_run:
        for one in made:
            print(f"$ {' '.join(one.command(['JOBS_BEFORE'] if one.branches else []))}\n{one.text}")
        return 0
    for sentence in changed:
        console.print(escape(sentence))
    _prepare(plan, console)
    write_plan(folder, plan.sweep.name, plan.runs)
    for sentence in slurm.submit(made, missing, folder):
        console.print(sentence)
    console.print(f"{len(missing)} of {len(plan.runs)} runs submitted; `lmscale status {folder} --watch` follows them")
    return 0
