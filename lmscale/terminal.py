"""What the verbs show on a terminal, and the order in which the main ones do their work.

Like `cli`, this stands above both halves: it prepares data (run half) and then plans and launches (study half).
"""

import math
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from lmscale import data, launch
from lmscale.config import DataConfig
from lmscale.counting import count
from lmscale.errors import UserError
from lmscale.process import EXIT_CTRL_C
from lmscale.progress import Bars, quantity
from lmscale.results import CONFIG_FILE, Outcome, read_plan
from lmscale.sweep import Plan, estimate

ASSUMED_MFU = 0.3
"""Share of the matmul peak that a small run reaches, until runs of the same sweep have said."""
STARTUP_SECONDS = 5.0


def show_plan(plan: Plan, folder: Path, console: Console) -> None:
    """Print every run with N, D, D/N, C, steps, batch, learning rate, memory and time, then the totals."""
    sweep = plan.sweep
    known = {config: data.find(config) for config in {run.config.data for run in plan.runs}}
    for run in plan.runs:
        if (manifest := known[run.config.data]) is not None:
            data.check_enough(manifest, run.config)
    speed, at_once, source = _speed(plan, folder)
    title = f"{sweep.name}: {sweep.question}" if sweep.question else sweep.name
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for heading in ("run", "shape", "N", "D", "D/N", "C", "epochs", "steps", "batch", "lr", "memory", "time"):
        table.add_column(heading, justify="left" if heading in ("run", "shape") else "right", no_wrap=True)
    table.add_column("", no_wrap=True)
    seconds = 0.0
    for run in plan.runs:
        config, counts = run.config, count(run.config)
        manifest = known[config.data]
        cost = estimate(config, speed, STARTUP_SECONDS)
        seconds += cost.seconds
        epochs = config.tokens / manifest.unique_tokens(config.model.context) if manifest else None
        table.add_row(
            config.run_id,
            f"{config.model.width} x {config.model.layers}",
            quantity(counts.params),
            quantity(counts.tokens),
            f"{counts.tokens_per_param:.3g}",
            f"{counts.flops:.2e}",
            "?" if epochs is None else f"{epochs:.2g}",
            f"{config.steps:,}",
            f"{quantity(config.batch_tokens)}",
            f"{config.optimizer.peak_lr:.2g}",
            f"{math.ceil(cost.memory_bytes / 2**20):,} MiB",
            duration(cost.seconds),
            "held out" if run.held_out else "",
        )
    _print_whole(table, console)
    held = sum(run.held_out for run in plan.runs)
    console.print(
        f"{len(plan.runs)} runs, {held} of them held out; {plan.flops:.3g} training FLOPs, {at_once} at once: about "
        f"{duration(seconds / at_once)} ({source})."
    )
    console.print(
        "N: all parameters. D: training tokens. C: exact training FLOPs, causal attention counted as needed. "
        "batch: tokens per update. memory: estimate over all devices. time: start-up and validation included."
    )
    if None in known.values():
        console.print("epochs are unknown until the corpus is prepared: `lmscale data SOURCE`, or `lmscale run`.")


def _print_whole(table: Table, console: Console) -> None:
    """Print a table at its own width: a narrower terminal wraps its lines, and no digit is lost."""
    table.width = console.measure(table, options=console.options.update(max_width=1000)).maximum
    console.print(table, crop=False)


def _speed(plan: Plan, folder: Path) -> tuple[float, int, str]:
    """FLOP/s of one run, runs at once, and where the figures come from."""
    if device := plan.sweep.device:
        return device.flops_per_second, device.runs_at_once, f"at {device.flops_per_second:.3g} FLOP/s on {device.name}"
    places = len(launch.slots())
    outcomes = [outcome for run in plan.runs if (outcome := Outcome.read(folder / run.config.run_id))]
    if outcomes:
        rate = statistics.median(outcome.flops / outcome.seconds for outcome in outcomes)
        return rate, places, f"at {rate:.3g} FLOP/s per run, the median of the {len(outcomes)} finished here"
    peak = _matmul_peak() / places
    assumed = f"assuming {ASSUMED_MFU:.0%} of this machine's float32 matmul peak, {peak:.3g} FLOP/s per run"
    return ASSUMED_MFU * peak, places, f"{assumed}, measured now"


def _matmul_peak() -> float:
    """FLOP/s of NumPy's float32 matrix product on all cores: planning must not take hold of an accelerator."""
    matrix = np.ones((1024, 1024), np.float32)
    best = float("inf")
    for _ in range(4):
        start = time.perf_counter()
        matrix @ matrix
        best = min(best, time.perf_counter() - start)
    return 2 * 1024**3 / best


def duration(seconds: float) -> str:
    """12 s, 3 min 05 s, 2 h 10 min."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


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


def run_sweep(plan: Plan, runs: Path, console: Console, workers: int | None = None, wandb: str = "off") -> int:
    """Prepare the data of a plan, train what is missing of it under bars, say how it ended; the exit status."""
    folder = runs / plan.sweep.name
    for config in {run.config.data: None for run in plan.runs}:
        manifest = prepare_data(config, console)
        for run in plan.runs:
            if run.config.data == config:
                data.check_enough(manifest, run.config)
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
        summary = launch.run(plan.sweep.name, plan.runs, folder, bars, workers=workers, wandb=wandb)
    if summary.interrupted:
        console.print("stopped; what was trained is kept, and the same command goes on from there")
        return EXIT_CTRL_C
    for run_id, problem in summary.failed.items():
        console.print(f"[red]run {run_id} failed:[/red] {escape(problem)}  (log: {folder / run_id / launch.LOG_FILE})")
    if summary.diverged:
        console.print(f"[yellow]{summary.diverged} runs diverged; they stay in the table and out of the fits[/yellow]")
    return 1 if summary.failed else 0


def status(folder: Path, console: Console) -> None:
    """Print the state of every run of the plan in a sweep's folder."""
    name, runs = read_plan(folder)
    table = Table(title=name, title_justify="left", box=None, pad_edge=False)
    for heading in ("run", "N", "C", "state", "done", "loss", "tokens/s", "MFU", ""):
        table.add_column(heading, justify="left" if heading in ("run", "state", "") else "right", no_wrap=True)
    states: Counter[str] = Counter()
    for run in runs:
        counts, place = count(run.config), folder / run.config.run_id
        outcome, row = Outcome.read(place), launch.last_row(place) or {}
        state: str = outcome.state if outcome else "begun" if (place / CONFIG_FILE).exists() else "missing"
        states[state] += 1
        latest = asdict(outcome) if outcome else row
        done = outcome.flops if outcome else row.get("flops", 0)
        table.add_row(
            run.config.run_id,
            quantity(counts.params),
            f"{counts.flops:.2e}",
            state,
            f"{done / counts.flops:.0%}",
            _number(latest.get("loss_nats"), ".4f"),
            _number(latest.get("tokens_per_second"), ",.0f"),
            _number(latest.get("mfu"), ".2f"),
            escape(outcome.reason if outcome else "") or ("held out" if run.held_out else ""),
        )
    _print_whole(table, console)
    console.print(", ".join(f"{number} {state}" for state, number in states.items()))
    if states["begun"]:
        console.print("loss: of a run under way the training loss, else that of validation, in nats per token.")


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def table_of(folder: Path, output: Path | None) -> None:
    """Print a sweep's table as CSV, or write it as .csv, .parquet or .jsonl, atomically."""
    from lmscale import files, results

    table = results.collect(folder)
    if output is None:
        print(table.to_csv(index=False), end="")
        return
    kinds = {".csv", ".parquet", ".jsonl"}
    if output.suffix not in kinds:
        raise UserError(f"--output {output}: the ending says the format, one of {', '.join(sorted(kinds))}")
    with files.whole(output, "wb") as file:
        if output.suffix == ".parquet":
            table.to_parquet(file, index=False)
        elif output.suffix == ".jsonl":
            table.to_json(file, orient="records", lines=True)
        else:
            table.to_csv(file, index=False)
    print(f"{len(table)} runs in {output}")
