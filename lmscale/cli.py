"""The command line: the verbs in the order of work, the help that lists them, and the exit status.

A verb is a file in `commands`: its arguments, a dataclass whose docstring is the help, and `main(args, console)`, which
loads what it needs and returns an exit status or None. Only the file of the verb that is called is imported.
"""

import gc
import importlib
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple, NoReturn

from lmscale.core.errors import MemoryShortage, UserError, nearest
from lmscale.core.exit_status import EXIT_CTRL_C, EXIT_STORAGE, EXIT_USER_ERROR, exit_status
from lmscale.core.files import check_working_folder, refusal
from lmscale.core.signals import interrupt_again
from lmscale.core.streams import discard, guarded, is_nowhere
from lmscale.core.text import printable


class Verb(NamedTuple):
    """Where a verb stands, and what it does in a line."""

    module: str
    """In `lmscale.commands`."""
    arguments: str
    """The class of its arguments there."""
    summary: str
    """The beginning of that class's docstring."""
    example: str
    """A call, shown below that docstring in the verb's help."""

    def load(self) -> Any:
        """The verb's module."""
        return importlib.import_module(f"lmscale.commands.{self.module}")


VERBS = {
    "demo": Verb(
        "demo", "DemoArgs", "Refit the published Chinchilla runs, train the CPU IsoFLOP sweep",
        "lmscale demo --short",
    ),
    "init": Verb(
        "init", "InitArgs", "Write a sweep file to start from",
        "lmscale init mine",
    ),
    "plan": Verb(
        "plan", "PlanArgs", "Print every run of a sweep with its size, length, cost and time",
        "lmscale plan sweeps/mine.py --device h100 --devices 8",
    ),
    "run": Verb(
        "run", "RunArgs", "Train the runs of a sweep that have no result yet",
        "lmscale run sweeps/mine.py --workers 2",
    ),
    "finish": Verb(
        "finish", "FinishArgs", "Train one run of a planned sweep to its end",
        "lmscale finish runs/mine/0123456789ab",
    ),
    "train": Verb(
        "train", "TrainArgs", "Train one run, as `lmscale run` does for each",
        "lmscale train runs/mine/0123456789ab/config.json",
    ),
    "status": Verb(
        "status", "StatusArgs", "Show how far every run of a sweep is",
        "lmscale status runs/mine --watch",
    ),
    "logs": Verb(
        "logs", "LogsArgs", "Print the end of a run's log",
        "lmscale logs 0123 --lines 20",
    ),
    "retry": Verb(
        "retry", "RetryArgs", "Allow failed runs another attempt",
        "lmscale retry runs/mine 0123",
    ),
    "stop": Verb(
        "stop", "StopArgs", "Stop a sweep, or some of its runs, wherever they are trained",
        "lmscale stop runs/mine",
    ),
    "clean": Verb(
        "clean", "CleanArgs", "Say what a folder of runs and the cache hold",
        "lmscale clean runs --checkpoints",
    ),
    "table": Verb(
        "table", "TableArgs", "Write a sweep's table: one row per planned run, with its outcome",
        "lmscale table runs/mine --output runs.parquet",
    ),
    "import": Verb(
        "import_table", "ImportArgs", "Read other people's runs (CSV, JSON, Parquet, a W&B export)",
        "lmscale import wandb.csv --output runs.csv --columns params=n_params,loss=val/loss",
    ),
    "export-jobs": Verb(
        "export_jobs", "ExportJobsArgs", "Write one job per run of a sweep, for any scheduler",
        "lmscale export-jobs sweeps/mine.py --format shell",
    ),
    "fit": Verb(
        "fit", "FitArgs", "Fit scaling laws to a table of runs, with intervals and checks",
        "lmscale fit runs/mine --approach 3 --at 1e12,1e13 --json fits.json",
    ),
    "predict": Verb(
        "predict", "PredictArgs", "Ask a saved fit for the loss of a run, or for the best run",
        "lmscale predict fits/mine.slaw --params 1e9 --tokens 2e10",
    ),
    "check": Verb(
        "check", "CheckArgs", "Judge a prediction that `lmscale fit --predict` wrote",
        "lmscale check prediction.json --table runs/mine",
    ),
    "emergence": Verb(
        "emergence", "EmergenceArgs", "At which scale each ability appears, how sure that is",
        'lmscale emergence scores.csv --axis params --where "shots == 0"',
    ),
    "report": Verb(
        "report", "ReportArgs", "Fit a sweep, check its held-out runs",
        "lmscale report runs/mine",
    ),
    "data": Verb(
        "data", "DataArgs", "Prepare a corpus, once, and report what is in it",
        "lmscale data books/ --tokenizer bpe:4096",
    ),
    "eval": Verb(
        "eval", "EvalArgs", "Score benchmark tasks on the checkpoint of a run",
        "lmscale eval runs/mine/0123456789ab mmlu:data/mmlu --shots 0 5",
    ),
    "sample": Verb(
        "sample", "SampleArgs", "Let a trained model continue prompts",
        "lmscale sample runs/mine/0123456789ab --prompt 'def main(' --temperature 0.8",
    ),
    "score": Verb(
        "score", "ScoreArgs", "Score any text under a trained run",
        "lmscale score runs/mine/0123456789ab notes.txt --html notes.html",
    ),
    "inspect": Verb(
        "inspect", "InspectArgs", "Look inside trained models",
        "lmscale inspect runs/mine/0123456789ab --text 'the cat sat on the' --html inspect.html",
    ),
    "index": Verb(
        "index", "IndexArgs", "Keep the chunks of a corpus as vectors of a trained model",
        "lmscale index runs/mine/0123456789ab index --source books/",
    ),
    "ask": Verb(
        "ask", "AskArgs", "Answer a question from the passages of an index",
        "lmscale ask runs/mine/0123456789ab index 'What does bisect return?'",
    ),
    "judge": Verb(
        "judge", "JudgeArgs", "Grade, compare and measure what models write",
        "lmscale judge runs/mine --server http://localhost:8000/v1 --model NAME",
    ),
    "export": Verb(
        "export", "ExportArgs", "Write a trained model as files that other programs read",
        "lmscale export runs/mine/0123456789ab model",
    ),
    "import-model": Verb(
        "import_model", "ImportModelArgs", "Read a published model from disk into a run folder",
        "lmscale import-model models/gpt2 --output runs/published/gpt2",
    ),
    "bench": Verb(
        "bench", "BenchArgs", "Measure how fast a model trains here",
        "lmscale bench --sweep sweeps/mine.py",
    ),
    "doctor": Verb(
        "doctor", "DoctorArgs", "Check this machine for training",
        "lmscale doctor --json doctor.json",
    ),
}  # fmt: skip
"""In the order of work."""

SHELLS = ("bash", "zsh", "fish")
"""Shells that tyro writes completions for."""
STEPS = {
    "Begin": ("demo", "init", "doctor", "data"),
    "Plan and train": ("plan", "bench", "run", "finish", "train", "export-jobs"),
    "While runs train, and after": ("status", "logs", "retry", "stop", "clean"),
    "Read the results": ("table", "import", "fit", "predict", "check", "emergence", "report"),
    "Use a trained model": ("eval", "sample", "score", "inspect", "index", "ask", "judge", "export", "import-model"),
}
"""Steps of work and their verbs, as the help lists them."""

SYNONYMS = {
    "price": "plan", "cost": "plan", "launch": "run", "sweep": "run", "resume": "run", "verify": "check",
    "generate": "sample", "chat": "sample", "complete": "sample", "evaluate": "eval", "convert": "export",
    "new": "init",
}  # fmt: skip
"""What other programs call a verb -> the verb: no spelling is near enough to find it by."""

NARROWEST = 20
"""Columns of a terminal for which help is laid out at least: in fewer than eight, tyro breaks lines for ever."""
READING = frozenset({"plan", "status", "table", "fit", "predict", "check", "emergence", "report"})
"""Verbs that read what many runs have left, and train nothing."""


def main(interrupted: Any = None) -> NoReturn:
    """The console command. A `UserError` is printed as one sentence; `core.exit_status` lists the exit statuses.

    `interrupted` is the handler of SIGINT from here on; by default it stays as it is.
    """
    interrupt_again()
    sys.exit(_status(sys.argv[1:], interrupted))


def _status(words: list[str], interrupted: Any = None) -> int | str | None:
    """The exit status of a call, once everything it printed is written or nobody can read it any more."""
    try:
        if interrupted is not None:
            signal.signal(signal.SIGINT, interrupted)
        with guarded():
            status: int | str | None = 0
            try:
                status = _call(words)
            except SystemExit as end:
                status = end.code
            sys.stdout.flush()
            return status
    except KeyboardInterrupt:
        return _complain("stopped", EXIT_CTRL_C)
    except BrokenPipeError:  # the reader left early
        discard(sys.stdout)
        discard(sys.stderr)
        return 0
    except MemoryError as error:
        return _refuse(MemoryShortage(f"this needs more memory than there is ({error or 'none was left'}); take less"))
    except (UserError, OSError) as error:
        return _refuse(error)


def _refuse(error: UserError | OSError) -> int:
    """Print why a call cannot be done, after what it had printed before; the exit status."""
    from lmscale.commands.flags import as_flags

    error = error if isinstance(error, UserError) else refusal(error)
    try:
        sys.stdout.flush()
    except OSError:
        discard(sys.stdout)
    return _complain(as_flags(str(error)), exit_status(error))


def _complain(sentence: str, status: int) -> int:
    """Print a sentence on standard error; the exit status, that of a lost output where the sentence is lost too."""
    try:
        print(f"lmscale: {printable(sentence)}", file=sys.stderr, flush=True)
    except OSError:
        discard(sys.stderr)
        return EXIT_STORAGE
    return EXIT_STORAGE if is_nowhere(sys.stderr) else status


def _call(words: list[str]) -> int:
    """Do what the words of a call say; the exit status."""
    if not words:
        print(_help(), file=sys.stderr)
        return EXIT_USER_ERROR
    name, *rest = words
    if name in ("-h", "--help"):
        print(_help())
        return 0
    if name == "--version":
        from lmscale import __version__

        print(f"lmscale {__version__}")
        return 0
    if name == "--completion":
        return _print_completion(rest)
    if name not in VERBS:
        hint = f"; it is called {SYNONYMS[name]!r}" if name in SYNONYMS else nearest(name, VERBS)
        raise UserError(f"there is no verb {name!r} (`lmscale --help` lists them){hint}")
    from lmscale.commands.answer import alone
    from lmscale.commands.console import open_console
    from lmscale.commands.places import check_places

    check_working_folder()
    module, arguments = VERBS[name].load(), parse(name, rest)
    check_places(arguments)
    with seldom_collected() if name in READING else nullcontext(), alone(arguments):
        return module.main(arguments, open_console()) or 0


@contextmanager
def seldom_collected() -> Iterator[None]:
    """Python's search for cycles of garbage, rarely.

    Ten thousand plans, configurations and outcomes are millions of objects that live until the end and lie in no cycle:
    to walk through them again and again takes a fifth of the time. It is not switched off, since figures and
    `status --watch` do leave cycles.
    """
    before = gc.get_threshold()
    gc.set_threshold(100_000, 50, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def parse(name: str, words: list[str]) -> Any:
    """The arguments of a verb in the words after its name. Raises `SystemExit` for --help and for what is no call."""
    import inspect

    import tyro

    from lmscale.commands.numbers import number_rule
    from lmscale.commands.several_values import one_by_one

    verb = VERBS[name]
    registry = tyro.constructors.ConstructorRegistry()
    registry.primitive_rule(number_rule)
    arguments = getattr(verb.load(), verb.arguments)
    if shutil.get_terminal_size().columns < NARROWEST:
        os.environ["COLUMNS"] = str(NARROWEST)
    return tyro.cli(
        arguments,
        prog=f"lmscale {name}",
        description=f"{inspect.getdoc(arguments)}\n\nExample: {verb.example}",
        args=one_by_one(words, arguments),
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.DisallowNone, tyro.conf.PositionalMetavarFromFieldName),
        registry=registry,
    )


def _print_completion(words: list[str]) -> int:
    """Print what a shell needs to complete verbs and options, as tyro writes it; the exit status."""
    import tyro

    if len(words) != 1 or words[0] not in SHELLS:
        raise UserError(f"--completion takes one shell: {', '.join(SHELLS)}")
    arguments = {name: getattr(verb.load(), verb.arguments) for name, verb in VERBS.items()}
    try:
        tyro.extras.subcommand_cli_from_dict(
            arguments, prog="lmscale", args=["--tyro-print-completion", *words], config=(tyro.conf.OmitArgPrefixes,)
        )
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def _help() -> str:
    """The verbs by step of work, each with its summary."""
    width = max(map(len, VERBS))
    lines = [
        "usage: lmscale VERB ... | --version | --completion SHELL | --help",
        "",
        "Scaling laws of language models: plan, run, fit, report.",
    ]
    for step, names in STEPS.items():
        lines += ["", f"{step}:", *(f"  {name:{width}}  {VERBS[name].summary}" for name in names)]
    return "\n".join(
        [
            *lines,
            "",
            "`lmscale VERB --help` lists the arguments of a verb; NO_COLOR=1 turns colours",
            "off; `lmscale --completion bash` prints what a shell completes words from.",
        ]
    )
