"""One verb per stage. No logic lives here, and what a verb needs is imported inside it."""

import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import tyro
from tyro.conf import OmitArgPrefixes, Positional

from lmscale.errors import UserError
from lmscale.fits.command import CheckArgs, FitArgs
from lmscale.process import EXIT_CTRL_C, EXIT_INTERRUPTED, EXIT_USER_ERROR

if TYPE_CHECKING:
    from rich.console import Console

    from lmscale.sweep import Plan

DEMO_SWEEP = "sweeps/isoflop_cpu.py"


@dataclass(frozen=True)
class Demo:
    """Refit the published Chinchilla runs, train the CPU IsoFLOP sweep, fit it, check it, write the report."""

    runs: Path = Path("runs")
    """Folder that holds one folder per sweep."""


@dataclass(frozen=True)
class PlanArgs:
    """Print every run of a sweep with its size, length, cost and time; start nothing."""

    sweep: Positional[Path]
    """A file that defines SWEEP."""
    runs: Path = Path("runs")
    json: Path | None = None
    """Write the plan here as well."""


@dataclass(frozen=True)
class RunArgs:
    """Train what is missing of a sweep; Ctrl-C stops cleanly, and the same command goes on."""

    sweep: Positional[Path]
    runs: Path = Path("runs")
    workers: int | None = None
    """Runs at once; unset, one per GPU or one per core."""
    wandb: Literal["off", "offline", "online"] = "off"
    """Send metrics to Weights & Biases as well."""


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
    """How far every run of a sweep is."""

    folder: Positional[Path]
    """runs/<sweep>."""


@dataclass(frozen=True)
class TableArgs:
    """Write a sweep's table: one row per planned run, with its outcome."""

    folder: Positional[Path]
    output: Path | None = None
    """A .csv, .parquet or .jsonl file; unset, CSV on the terminal."""


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
    steps: int = 30
    json: Path | None = None
    """Write the figures here as well."""
    profile: Path | None = None
    """Write a trace of a few steps into this folder."""


VERBS: dict[str, tuple[type, str]] = {
    "demo": (Demo, "_demo"),
    "plan": (PlanArgs, "_plan"),
    "run": (RunArgs, "_run"),
    "train": (TrainArgs, "_train"),
    "status": (StatusArgs, "_status"),
    "table": (TableArgs, "_table"),
    "fit": (FitArgs, "_fit"),
    "check": (CheckArgs, "_check"),
    "report": (ReportArgs, "_report"),
    "data": (DataArgs, "_data"),
    "bench": (BenchArgs, "_bench"),
}


def main() -> NoReturn:
    """The console command. A `UserError` is printed as one sentence, with exit status 2."""
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
        sys.exit(EXIT_USER_ERROR)
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
    from lmscale import demo

    return demo.main(_demo_sweep(), args.runs, _console())


def _demo_sweep() -> Path:
    """The demo's sweep file: below the working folder or beside an editable install."""
    for root in (Path.cwd(), Path(__file__).resolve().parent.parent):
        if (root / DEMO_SWEEP).is_file():
            return root / DEMO_SWEEP
    raise UserError(f"there is no {DEMO_SWEEP} here; run `lmscale demo` in a clone of the repository")


def _load(path: Path) -> "Plan":
    from lmscale import sweep

    return sweep.plan(sweep.load(path))


def _plan(args: PlanArgs) -> int:
    from lmscale import results, terminal

    plan = _load(args.sweep)
    terminal.show_plan(plan, args.runs / plan.sweep.name, _console())
    if args.json is not None:
        results.write_plan(args.json, plan.sweep.name, plan.runs)
    return 0


def _run(args: RunArgs) -> int:
    from lmscale import terminal

    plan = _load(args.sweep)
    status = terminal.run_sweep(plan, args.runs, _console(), workers=args.workers, wandb=args.wandb)
    if status == 0:
        print(f"next: lmscale report {args.runs / plan.sweep.name}")
    return status


def _train(args: TrainArgs) -> int:
    from lmscale import machine

    machine.set_up()
    from lmscale import distributed
    from lmscale.config import RunConfig, from_json
    from lmscale.files import read_json
    from lmscale.train import Interrupted, train_packed

    files = [args.config, *args.more]
    configs = [from_json(RunConfig, read_json(file, "run configuration"), where=str(file)) for file in files]
    distributed.start(args.coordinator, args.processes, args.process, args.wait_seconds)
    try:
        outcomes = train_packed(configs, [file.parent for file in files], wandb=args.wandb)
    except Interrupted as stop:
        print(stop)
        return EXIT_INTERRUPTED
    for outcome in outcomes:
        print(f"{outcome.state}: {outcome.reason or f'validation loss {outcome.loss_nats:.4f} nats per token'}")
    return 0


def _status(args: StatusArgs) -> int:
    from lmscale import terminal

    terminal.status(args.folder, _console())
    return 0


def _table(args: TableArgs) -> int:
    from lmscale import terminal

    terminal.table_of(args.folder, args.output)
    return 0


def _fit(args: FitArgs) -> int:
    from lmscale.fits.command import main_fit

    main_fit(args)
    return 0


def _check(args: CheckArgs) -> int:
    from lmscale.fits.command import main_check

    main_check(args)
    return 0


def _report(args: ReportArgs) -> int:
    from lmscale import report

    path = report.of_sweep(args.folder, args.output, resamples=args.resamples, seed=args.seed)
    print(f"the report is {path}")
    return 0


def _data(args: DataArgs) -> int:
    from dataclasses import fields

    from lmscale import look
    from lmscale.config import DataConfig

    settings = {item.name for item in fields(DataConfig)}
    config = DataConfig(**{item.name: getattr(args, item.name) for item in fields(args) if item.name in settings})
    look.show(config, _console(), args.output, allow_download=args.allow_download)
    return 0


def _bench(args: BenchArgs) -> int:
    from lmscale import machine

    machine.set_up()
    from lmscale import bench
    from lmscale.files import write_json

    shape = {name: value for name, value in asdict(args).items() if name not in ("config", "steps", "json", "profile")}
    speed = bench.measure(bench.configuration(args.config, **shape), args.steps, args.profile)
    for name, value in bench.lines(speed):
        print(f"{name:22} {value}")
    if args.json is not None:
        write_json(args.json, asdict(speed))
    return 0
