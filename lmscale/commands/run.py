"""`lmscale run`: train what is missing of a sweep, on this machine or through Slurm.

This stands above both halves: it prepares the data (training half) and then launches the runs (study half).
"""

import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tyro.conf import Positional, UseAppendAction

from lmscale.commands.answer import write_answer
from lmscale.commands.next_step import print_next, repeat
from lmscale.core.exit_status import EXIT_CTRL_C
from lmscale.core.quantities import counted

if TYPE_CHECKING:
    from rich.console import Console

    from lmscale.core.config import DataConfig
    from lmscale.lm.data import Manifest
    from lmscale.study.launch import Summary
    from lmscale.study.launch.slurm import Cluster
    from lmscale.study.sweep import Plan


@dataclass(frozen=True)
class RunArgs:
    """Train the runs of a sweep that have no result yet; Ctrl-C stops cleanly, and the same command continues."""

    sweep: Positional[Path]
    """A file that defines SWEEP, or a plan that `lmscale plan --json` wrote."""
    runs: Path = Path("runs")
    """Folder that holds one folder per sweep."""
    workers: int | None = None
    """Runs at once; by default one per GPU, or one per core."""
    pack: int = 1
    """Train up to this many runs of one shape and length in one program, for small models on a GPU; bench_pack.py
    measures what it gains."""
    wandb: Literal["off", "offline", "online"] = "off"
    """Send metrics to Weights & Biases as well."""
    force: bool = False
    """Train a plan that cannot identify its law."""
    launcher: Literal["local", "slurm"] = "local"
    """Train here, or submit job arrays to Slurm. The options below are for Slurm; by default the cluster decides."""
    partition: str | None = None
    """Slurm's partition, as sbatch --partition takes it."""
    account: str | None = None
    """The account that Slurm charges."""
    time: str | None = None
    """Time limit of a job, as 2:00:00; a run that needs longer is requeued and continues."""
    cores: int = 1
    """CPU cores of each process."""
    gpus_per_node: int = 0
    """GPUs of a node that runs may use; 0 trains on CPUs."""
    at_once: int | None = None
    """Jobs of an array that run at the same time."""
    sbatch: UseAppendAction[tuple[str, ...]] = ()
    """Further options for sbatch: --sbatch=--qos=low."""
    dry_run: bool = False
    """Print the exact submission and submit nothing."""
    check_compiled: str | None = None
    """Compile every run for this machine first, as `lmscale plan --compile` does, and train nothing where one does not
    fit: h100x8, v5e-16."""
    json: Path | None = None
    """Write the state of every run at the end, as `lmscale status` does, or what is submitted to Slurm here (- or
    no file: to standard output, alone)."""


def main(args: RunArgs, console: "Console") -> int:
    """Run or submit the sweep; the exit status. Raises `UserError` for a plan that cannot identify its law."""
    from lmscale.commands.plan import verb
    from lmscale.commands.status import states_value
    from lmscale.study import sweep
    from lmscale.study.launch.slurm import Cluster
    from lmscale.study.launch.states import read_states

    plan = sweep.read(args.sweep)
    verb.check_plan(plan, args.force)
    if args.check_compiled is not None:
        from lmscale.commands.plan.compiled import check_compiled

        check_compiled(plan.runs, args.check_compiled, console, args.pack)
    if args.launcher == "slurm":
        from lmscale.core.config import check

        check(args.pack == 1, f"--pack {args.pack}: a job of Slurm trains one run; leave it out")
        settings = {name: getattr(args, name) for name in Cluster.__dataclass_fields__ if name != "options"}
        cluster = Cluster(options=args.sbatch, **settings)
        return submit_sweep(plan, args.runs, console, cluster, args.dry_run, args.json)
    status = exit_status_of(run_sweep(plan, args.runs, console, args.workers, args.pack, args.wandb))
    folder = args.runs / plan.sweep.name
    if args.json is not None:
        write_answer(args.json, {"folder": str(folder), "status": status, **states_value(*read_states(folder))})
    if status == 0:
        print_next("report", folder)
    else:
        print_next("retry", folder) if status != EXIT_CTRL_C else print_next(*repeat())
    return status


def _all(runs: int, name: str) -> str:
    return f"the one run of {name} is" if runs == 1 else f"all {runs:,} runs of {name} are"


def exit_status_of(summary: "Summary") -> int:
    """0 where every run is at an end, 1 where some failed, and that of Ctrl-C where the launch was interrupted."""
    if summary.interrupted:
        return EXIT_CTRL_C
    return 1 if summary.failed else 0


def run_sweep(
    plan: "Plan", runs: Path, console: "Console", workers: int | None = None, pack: int = 1, wandb: str = "off"
) -> "Summary":
    """Prepare the data of a plan, train its missing runs under progress bars, and say how that ended.

    Raises `UserError` where that would spend more than the sweep may.
    """
    from rich.markup import escape

    from lmscale.commands.plan.limits import check_limits, within_hours
    from lmscale.commands.progress import Bars
    from lmscale.core.counting import count
    from lmscale.core.results import corpora_sentence, outcome_or_problem
    from lmscale.study import launch
    from lmscale.study.launch.watchers import WandbWatcher

    folder = runs / plan.sweep.name
    check_limits(plan, folder)
    for sentence in launch.changes(plan.sweep.name, plan.runs, folder):
        console.print(escape(sentence))
    plan = _prepare(plan, console)
    outcomes = [outcome_or_problem(folder / run.config.run_id)[0] for run in plan.runs]
    done = [run for run, outcome in zip(plan.runs, outcomes) if outcome]
    fingerprints = (
        outcome.data_fingerprint if outcome else run.data_fingerprint for run, outcome in zip(plan.runs, outcomes)
    )
    if mixed := corpora_sentence(fingerprints, (run.stage for run in plan.runs)):
        console.print(f"[yellow]note:[/yellow] {escape(mixed)}; a fit takes them together only with --mixed-corpora")
    if len(done) == len(plan.runs):
        console.print(f"{_all(len(done), plan.sweep.name)} there: {folder}")
    else:
        console.print(
            f"{plan.sweep.name}: {len(plan.runs) - len(done)} of {counted(len(plan.runs), 'run')} to train in "
            f"{folder}; Ctrl-C stops cleanly, the same command continues"
        )
        console.print("a line per run: N, D, peak rate, seed; final loss ± standard error; time of training; MFU")
    bars = Bars(plan.runs, sum(count(run.config).flops for run in done), console)
    with bars.shown():
        watcher = within_hours(plan, folder, bars, console.print)
        if wandb != "off":
            watcher = WandbWatcher(watcher, folder, lambda sentence: console.print(escape(sentence)))
        summary = launch.run(
            plan.sweep.name, plan.runs, folder, watcher, workers=workers, pack=pack, wandb=wandb,
            purpose=plan.sweep.purpose,
        )  # fmt: skip
    _print_summary(summary, folder, console)
    return summary


def _print_summary(summary: "Summary", folder: Path, console: "Console") -> None:
    from rich.markup import escape

    from lmscale.core.run_folder import LOG_FILE

    if summary.interrupted:
        console.print("stopped; checkpoints are kept, and the same command continues from them")
        return
    for run_id, problem in summary.failed.items():
        console.print(f"[red]run {run_id} failed:[/red] {escape(problem)}  (log: {folder / run_id / LOG_FILE})")
    if summary.failed:
        console.print(f"`lmscale retry {folder}` allows failed runs another attempt")
    if summary.diverged:
        diverged = counted(summary.diverged, "run")
        console.print(f"[yellow]{diverged} diverged: in the table, and out of the fits[/yellow]")


def submit_sweep(
    plan: "Plan",
    runs: Path,
    console: "Console",
    cluster: "Cluster",
    dry_run: bool = False,
    json: Path | None = None,
) -> int:
    """Submit the missing runs of a plan to Slurm, or print exactly what would be submitted; the exit status.

    What is submitted is written to `json` too.
    """
    from rich.markup import escape

    from lmscale.commands.plan.limits import check_limits
    from lmscale.core.plans import write_plan
    from lmscale.study import launch
    from lmscale.study.launch import slurm

    folder = runs / plan.sweep.name
    check_limits(plan, folder)
    if not dry_run:
        slurm.check_cluster(cluster)
    changed = launch.changes(plan.sweep.name, plan.runs, folder)
    launch.check_elsewhere(plan.runs, folder)
    missing, left_out = slurm.ready(slurm.to_submit(plan.runs, folder), folder)
    submissions = slurm.submissions(plan.sweep.name, missing, folder, cluster)
    if dry_run:
        for one in submissions:
            earlier = ["JOBS_BEFORE"] * bool(one.depth) + slurm.jobs_before(one, missing, folder)
            print(f"$ {shlex.join(one.command(earlier))}\n{one.text}")
    for sentence in (*changed, *left_out):
        console.print(escape(sentence))
    value = {"sweep": plan.sweep.name, "folder": str(folder), "dry_run": dry_run, "left_out": left_out}
    arrays = [{"script": str(one.script), "runs": list(one.runs), "text": one.text} for one in submissions]
    if dry_run:
        write_answer(json, {**value, "arrays": arrays})
        return 0
    plan = _prepare(plan, console)
    write_plan(folder, plan.sweep.name, plan.runs, plan.sweep.purpose)
    for sentence in slurm.submit(submissions, missing, folder):
        console.print(sentence)
    console.print(f"{len(missing)} of {counted(len(plan.runs), 'run')} submitted")
    write_answer(json, {**value, "arrays": arrays})
    print_next("status", folder, "--watch")
    return 0


def _prepare(plan: "Plan", console: "Console") -> "Plan":
    """Prepare the corpora of all runs; the plan, whose runs now name their data.

    Raises `UserError` where a corpus is too small for a run.
    """
    from lmscale.lm import data

    fingerprints = {}
    for config in {run.config.data: None for run in plan.runs}:
        manifest = prepare_data(config, console)
        for run in plan.runs:
            if run.config.data == config:
                data.check_enough(manifest, run.config)
        fingerprints[config] = manifest.fingerprint
    runs = [replace(run, data_fingerprint=fingerprints[run.config.data]) for run in plan.runs]
    return replace(plan, runs=runs)


def prepare_data(config: "DataConfig", console: "Console", allow_download: bool = False) -> "Manifest":
    """Prepare a corpus on disk under a progress bar, and describe it in one line."""
    from rich.markup import escape

    from lmscale.commands.console import preparing
    from lmscale.core.quantities import quantity
    from lmscale.lm import data

    with preparing(console) as progress:
        manifest = data.prepare(config, progress=progress, allow_download=allow_download).manifest
    if manifest.endless:
        console.print(f"corpus {escape(manifest.source)}: generated as it is read, without end")
        return manifest
    console.print(
        f"corpus {escape(manifest.source)}: {quantity(manifest.train_tokens)} training tokens in "
        f"{manifest.train_documents:,} documents, {quantity(manifest.validation_tokens)} validation tokens in "
        f"{manifest.validation_documents:,}"
    )
    if manifest.skipped:
        console.print(f"{len(manifest.skipped):,} files or kinds of lines were not read; `lmscale data` names them")
    return manifest
