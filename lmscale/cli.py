"""One verb per stage. No logic lives here, and what a verb needs is imported inside it."""

import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import tyro
from tyro.conf import OmitArgPrefixes, Positional

from lmscale.commands.check import CheckArgs
from lmscale.commands.emergence import EmergenceArgs
from lmscale.commands.fit import FitArgs
from lmscale.commands.plan.arguments import PlanArgs
from lmscale.core.errors import UserError
from lmscale.core.exit_status import EXIT_CTRL_C, exit_status

if TYPE_CHECKING:
    from rich.console import Console

DEMO_SWEEP = "sweeps/isoflop_cpu.py"


@dataclass(frozen=True)
class Demo:
    """Refit the published Chinchilla runs, train the CPU IsoFLOP sweep, fit it, check it, write the report."""

    runs: Path = Path("runs")
    """Folder that holds one folder per sweep."""


@dataclass(frozen=True)
class RunArgs:
    """Train what is missing of a sweep; Ctrl-C stops cleanly, and the same command goes on."""

    sweep: Positional[Path]
    runs: Path = Path("runs")
    workers: int | None = None
    """Runs at once; unset, one per GPU or one per core."""
    pack: int = 1
    """Runs of one shape and length in one program and place, for small models on a GPU; bench_pack.py measures it."""
    wandb: Literal["off", "offline", "online"] = "off"
    """Send metrics to Weights & Biases as well."""
    force: bool = False
    """Train a plan that cannot identify its law."""
    launcher: Literal["local", "slurm"] = "local"
    """Here, or as job arrays of Slurm; what follows is for Slurm, and what is unset is the cluster's default."""
    partition: str | None = None
    account: str | None = None
    time: str | None = None
    """Limit of a job, as 2:00:00; a run that needs longer is requeued and goes on."""
    cores: int = 1
    """Of every process."""
    gpus_per_node: int = 0
    """GPUs of a node that runs may take; 0 trains on CPUs."""
    at_once: int | None = None
    """Jobs of an array at the same time."""
    sbatch: tuple[str, ...] = ()
    """Further options of sbatch, as they are: --sbatch=--qos=low."""
    dry_run: bool = False
    """Print the exact submission and submit nothing."""


@dataclass(frozen=True)
class FinishArgs:
    """Train one run of a planned sweep to its end, tried again as `lmscale run` would: what a cluster's job calls."""

    folder: Positional[Path]
    """runs/<sweep>/<run>."""
    wandb: Literal["off", "offline", "online"] = "off"


@dataclass(frozen=True)
class TrainArgs:
    """Train one run, what `lmscale run` starts for each; or several of one shape in one program, for accelerators."""

    config: Positional[Path]
    """A RunConfig as JSON; metrics, checkpoints and the outcome go beside it."""
    more: Positional[tuple[Path, ...]] = ()
    """Further ones, each in a folder of its own, that differ in seed, learning rate, schedule or weight decay."""
    wandb: Literal["off", "offline", "online"] = "off"
    coordinator: str | None = None
    """HOST:PORT of process 0, where several train one run; Slurm, Open MPI and Cloud TPU are asked when it is unset."""
    processes: int | None = None
    """How many; 1 asks no launcher."""
    process: int | None = None
    """Which of them this is, from 0."""
    wait_seconds: int = 300
    """How long they wait for each other at the start."""


@dataclass(frozen=True)
class StatusArgs:
    """How far every run of a sweep is: state, loss, speed, time left, why it failed, and what was spent."""

    folder: Positional[Path]
    """runs/<sweep>."""
    watch: bool = False
    """Look again every two seconds until all runs are at an end."""
    all: bool = False
    """Every run of a sweep of more than 200; unset, those at work or in trouble."""


@dataclass(frozen=True)
class LogsArgs:
    """The end of a run's log, and how its attempts ended."""

    run: Positional[str]
    """Its folder, or the first letters of its name."""
    runs: Path = Path("runs")
    lines: int = 40
    follow: bool = False
    """Go on as the log grows, until the run is at an end."""


@dataclass(frozen=True)
class RetryArgs:
    """Let runs that have failed be tried again by the next `lmscale run`."""

    folder: Positional[Path]
    """runs/<sweep>."""
    run: Positional[tuple[str, ...]] = ()
    """Runs; none for all that have failed."""


@dataclass(frozen=True)
class StopArgs:
    """Stop a sweep wherever it is trained, or some of its runs: each saves a checkpoint; waits until all have."""

    folder: Positional[Path]
    """runs/<sweep>."""
    run: Positional[tuple[str, ...]] = ()
    """Runs; none for all, and for the launchers."""
    wait_seconds: float = 120.0


@dataclass(frozen=True)
class TableArgs:
    """Write a sweep's table: one row per planned run, with its outcome."""

    folder: Positional[Path]
    output: Path | None = None
    """A .csv, .parquet or .jsonl file; unset, on the terminal."""
    to: Literal["csv", "parquet", "jsonl", "wandb", "tensorboard"] | None = None
    """The format; unset, that of the file's ending, else CSV. `wandb` sends the table and the report's page;
    `tensorboard` writes the metrics of every run to its folder."""
    scores: bool = False
    """The scores on benchmark tasks instead: a row per run, step, task, metric and number of shots."""


@dataclass(frozen=True)
class ImportArgs:
    """Read runs of others (CSV, JSONL, Parquet, a W&B export) into a table that fits and reports take."""

    source: Positional[Path]
    output: Path
    """A .csv, .parquet or .jsonl file."""
    columns: str | None = None
    """Names here and there: params=n_params,tokens=n_tokens,loss=summary.eval/loss; usual names are recognised."""
    where: str | None = None
    """An expression over the columns that keeps a row: "state == 'finished'"."""


@dataclass(frozen=True)
class ExportJobsArgs:
    """Write one job per run of a sweep, for any scheduler: Kubernetes manifests or shell scripts."""

    sweep: Positional[Path]
    """A file that defines SWEEP, or a plan that `lmscale plan --json` wrote."""
    format: Literal["k8s", "shell"] = "shell"
    runs: Path = Path("runs")
    image: str | None = None
    """Container image with lmscale, for Kubernetes."""
    claim: str | None = None
    """PersistentVolumeClaim that all pods share, with runs/ and cache/ in it."""
    gpus: bool = False
    """A GPU for every device of a run's mesh; unset, CPUs."""


@dataclass(frozen=True)
class ReportArgs:
    """Fit a sweep and write one self-contained HTML page about it."""

    folder: Positional[Path]
    output: Path | None = None
    """Folder of the report; unset, <folder>/report."""
    resamples: int = 4000
    seed: int = 0


@dataclass(frozen=True)
class DataArgs:
    """Prepare a corpus, once, and say what is in it."""

    source: Positional[str] = "stdlib"
    """`stdlib`, a file or folder of text, JSONL or Parquet, tfds:NAME, synthetic:LANGUAGE(...), or a mixture of these:
    "mix: 0.7 * stdlib + 0.3 * books/"."""
    text_field: str = "text"
    tokenizer: str = "bytes"
    """`bytes`, `bpe:V` trained on the training split, or a tokenizer.json."""
    validation_fraction: float = 0.05
    test_fraction: float = 0.0
    unreadable: Literal["skip", "refuse"] = "skip"
    """What to do about files and lines that are not UTF-8 text."""
    near_duplicates: float | None = None
    """Remove documents that share this share of their five-word runs with another (needs datasketch)."""
    unique_tokens: int | None = None
    """Use the leading U training tokens only."""
    allow_download: bool = False
    """Let TFDS download the data set."""
    output: Path | None = None
    """Folder for a figure."""


@dataclass(frozen=True)
class EvalArgs:
    """Score benchmark tasks on the checkpoint of a run."""

    run: Positional[Path]
    """runs/<sweep>/<run_id>."""
    tasks: Positional[tuple[str, ...]]
    """FORMAT:PATH, with FORMAT of bigbench, mmlu, truthfulqa, wic, gsm8k, stories or task (a JSON file of your own);
    or synthetic:tasks(...). Nothing is downloaded. With --harness: tasks of the harness by name, or its YAML files."""
    harness: bool = False
    """Let lm-evaluation-harness ask and score its tasks: pip install 'lmscale[lm-eval]'."""
    include_path: Path | None = None
    """Folder of further tasks for the harness."""
    shots: tuple[int, ...] = ()
    """Worked examples before every question, one table row each; unset, none, or as many as the harness's task says."""
    draw: Literal["shared", "each"] = "shared"
    """The same examples for all questions of a task, or others for each."""
    seed: int = 0
    """Of drawing the examples."""
    items: int | None = None
    """Only the first so many items of every task."""


@dataclass(frozen=True)
class BenchArgs:
    """How fast a model trains here: tokens/s, FLOP/s, MFU, memory, input. Give a shape or a configuration."""

    layers: int | None = None
    width: int | None = None
    heads: int | None = None
    kv_heads: int | None = None
    context: int | None = None
    vocab: int | None = None
    batch: int | None = None
    """Sequences of a global batch. Unset: 4 layers, width 128, 4 heads, context 256, vocab 256, batch 16."""
    compute_dtype: Literal["float32", "bfloat16"] | None = None
    remat: Literal["none", "dots", "full"] | None = None
    config: Path | None = None
    """A RunConfig as JSON, instead of a shape."""
    sweep: Path | None = None
    """A sweep or plan, of which some shapes are measured, as many at once as `lmscale run` starts; `lmscale plan` takes
    its times from all figures that were ever measured here."""
    steps: int = 30
    json: Path | None = None
    """Write the figures here as well."""
    profile: Path | None = None
    """Write a trace of a few steps into this folder."""


VERBS: dict[str, tuple[type, str]] = {
    "demo": (Demo, "_demo"),
    "plan": (PlanArgs, "_plan"),
    "run": (RunArgs, "_run"),
    "finish": (FinishArgs, "_finish"),
    "train": (TrainArgs, "_train"),
    "status": (StatusArgs, "_status"),
    "logs": (LogsArgs, "_logs"),
    "retry": (RetryArgs, "_retry"),
    "stop": (StopArgs, "_stop"),
    "table": (TableArgs, "_table"),
    "import": (ImportArgs, "_import"),
    "export-jobs": (ExportJobsArgs, "_export_jobs"),
    "fit": (FitArgs, "_fit"),
    "check": (CheckArgs, "_check"),
    "emergence": (EmergenceArgs, "_emergence"),
    "report": (ReportArgs, "_report"),
    "data": (DataArgs, "_data"),
    "eval": (EvalArgs, "_eval"),
    "bench": (BenchArgs, "_bench"),
}


def main() -> NoReturn:
    """The console command. A `UserError` is printed as one sentence; the exit statuses are listed in `process`."""
    commands = tuple(Annotated[args, tyro.conf.subcommand(verb)] for verb, (args, _) in VERBS.items())
    union: Any = Annotated[_union(commands), OmitArgPrefixes]
    try:
        args = tyro.cli(union, prog="lmscale", description="Scaling laws of language models: plan, run, fit, report.")
        action = next(globals()[function] for kind, function in VERBS.values() if isinstance(args, kind))
        status = action(args) or 0
        sys.stdout.flush()
        sys.exit(status)
    except UserError as error:
        print(f"lmscale: {error}", file=sys.stderr)
        sys.exit(exit_status(error))
    except KeyboardInterrupt:
        print("lmscale: stopped", file=sys.stderr)
        sys.exit(EXIT_CTRL_C)
    except BrokenPipeError:  # the reader has seen enough; what is still buffered goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def _union(kinds: tuple[Any, ...]) -> Any:
    from typing import Union

    return Union[kinds]  # noqa: UP007


def _console() -> "Console":
    from rich.console import Console

    console = Console(highlight=False)
    # A file or a pipe has no width of its own: give tables what they need.
    return console if console.is_terminal else Console(highlight=False, width=160)


def _demo(args: Demo) -> int:
    from lmscale.commands import demo

    return demo.main(_demo_sweep(), args.runs, _console())


def _demo_sweep() -> Path:
    """The demo's sweep file: below the working folder or beside an editable install."""
    for root in (Path.cwd(), Path(__file__).resolve().parent.parent):
        if (root / DEMO_SWEEP).is_file():
            return root / DEMO_SWEEP
    raise UserError(f"there is no {DEMO_SWEEP} here; run `lmscale demo` in a clone of the repository")


def _plan(args: PlanArgs) -> int:
    from lmscale.commands.plan import verb

    verb.main(args, _console())
    return 0


def _run(args: RunArgs) -> int:
    from lmscale.commands import console as terminal
    from lmscale.commands.plan import verb
    from lmscale.study import sweep

    plan = sweep.read(args.sweep)
    verb.check_plan(plan, args.force)
    if args.launcher == "slurm":
        from lmscale.study.launch.slurm import Cluster

        settings = {name: getattr(args, name) for name in Cluster.__dataclass_fields__ if name != "options"}
        cluster = Cluster(options=args.sbatch, **settings)
        if args.pack != 1:
            raise UserError(f"--pack {args.pack}: a job of Slurm trains one run; leave it out")
        return terminal.submit_sweep(plan, args.runs, _console(), cluster, args.dry_run)
    status = terminal.run_sweep(plan, args.runs, _console(), workers=args.workers, pack=args.pack, wandb=args.wandb)
    if status == 0:
        print(f"next: lmscale report {args.runs / plan.sweep.name}")
    return status


def _finish(args: FinishArgs) -> int:
    from lmscale.study.launch.finish import finish

    return finish(args.folder, args.wandb)


def _train(args: TrainArgs) -> int:
    from lmscale.commands import train

    files = [args.config, *args.more]
    train.main(files, args.wandb, args.coordinator, args.processes, args.process, args.wait_seconds)
    return 0


def _status(args: StatusArgs) -> int:
    from lmscale.commands import status

    status.show(args.folder, _console(), args.watch, args.all)
    return 0


def _logs(args: LogsArgs) -> int:
    from lmscale.study.launch import control

    control.logs(args.run, args.runs, args.lines, args.follow)
    return 0


def _retry(args: RetryArgs) -> int:
    from lmscale.study.launch import control

    control.retry(args.folder, args.run)
    return 0


def _stop(args: StopArgs) -> int:
    from lmscale.study.launch import control

    return control.stop(args.folder, args.run, args.wait_seconds)


def _table(args: TableArgs) -> int:
    from lmscale.commands import table_io

    table_io.table_of(args.folder, args.output, args.to, args.scores)
    return 0


def _import(args: ImportArgs) -> int:
    from lmscale.commands import table_io

    table_io.take_in(args.source, args.output, args.columns, args.where)
    return 0


def _export_jobs(args: ExportJobsArgs) -> int:
    from lmscale.study import sweep
    from lmscale.study.launch import jobs

    plan = sweep.read(args.sweep)
    pod = jobs.Pod(image=args.image, claim=args.claim, gpus=args.gpus) if args.image and args.claim else None
    print(jobs.export(plan.sweep.name, plan.runs, args.runs / plan.sweep.name, args.format, pod))
    return 0


def _fit(args: FitArgs) -> int:
    from lmscale.commands import fit

    fit.main(args, _console())
    return 0


def _check(args: CheckArgs) -> int:
    from lmscale.commands import check

    check.main(args, _console())
    return 0


def _emergence(args: EmergenceArgs) -> int:
    from lmscale.commands import emergence

    emergence.main(args, _console())
    return 0


def _report(args: ReportArgs) -> int:
    from lmscale.commands import data
    from lmscale.study import report

    known = data.baselines(args.folder)
    path = report.of_sweep(args.folder, args.output, resamples=args.resamples, seed=args.seed, baselines=known)
    print(f"the report is {path}")
    return 0


def _data(args: DataArgs) -> int:
    from dataclasses import fields

    from lmscale.commands import data
    from lmscale.core.config import DataConfig

    settings = {item.name for item in fields(DataConfig)}
    config = DataConfig(**{item.name: getattr(args, item.name) for item in fields(args) if item.name in settings})
    data.show(config, _console(), args.output, allow_download=args.allow_download)
    return 0


def _eval(args: EvalArgs) -> int:
    from lmscale.lm.devices import machine

    machine.set_up()
    from lmscale.lm.use import score

    if args.harness:
        shots = args.shots or (None,)
        score.show_lm_eval(args.run, args.tasks, shots, args.items, args.seed, args.include_path, _console())
        return 0
    from lmscale.lm.eval.tasks import Shots

    drawn = [Shots(count, args.seed, args.draw) for count in args.shots or (0,)]
    score.show(args.run, args.tasks, drawn, args.items, _console())
    return 0


def _bench(args: BenchArgs) -> int:
    if args.sweep is not None:
        from lmscale.commands.plan.measure import measure_sweep
        from lmscale.study import sweep

        measure_sweep(sweep.read(args.sweep), args.steps, _console())
        return 0
    from lmscale.lm.devices import machine

    machine.set_up()
    from lmscale.core import measured_speeds
    from lmscale.core.files import write_json
    from lmscale.lm.train import bench

    others = ("config", "steps", "json", "profile", "sweep")
    shape = {name: value for name, value in asdict(args).items() if name not in others}
    config = bench.configuration(args.config, **shape)
    speed = bench.measure(config, args.steps, args.profile)
    for name, value in bench.lines(speed):
        print(f"{name:22} {value}")
    measured_speeds.record(config, speed.flops_per_second, speed.compile_seconds, speed.device)
    if args.json is not None:
        write_json(args.json, asdict(speed))
    return 0
