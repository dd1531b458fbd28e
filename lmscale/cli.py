"""The command line: the verbs in the order of work, the help that lists them, and the exit status.

A verb is a file in `commands`: its arguments, a dataclass whose docstring is the help, and `main(args, console)`, which
loads what it needs and returns an exit status or None. Only the file of the verb that is called is imported.
"""

import importlib
import sys
from typing import Any, NamedTuple, NoReturn

from lmscale.core.errors import UserError, nearest
from lmscale.core.exit_status import EXIT_CTRL_C, EXIT_STORAGE, EXIT_USER_ERROR, exit_status
from lmscale.core.files import check_working_folder, refusal
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

    def load(self) -> Any:
        """The verb's module."""
        return importlib.import_module(f"lmscale.commands.{self.module}")


VERBS = {
    "demo": Verb("demo", "DemoArgs", "Refit the published Chinchilla runs, train the CPU IsoFLOP sweep"),
    "plan": Verb("plan", "PlanArgs", "Print every run of a sweep with its size, length, cost and time"),
    "run": Verb("run", "RunArgs", "Train the runs of a sweep that have no result yet"),
    "finish": Verb("finish", "FinishArgs", "Train one run of a planned sweep to its end"),
    "train": Verb("train", "TrainArgs", "Train one run, as `lmscale run` does for each"),
    "status": Verb("status", "StatusArgs", "Show how far every run of a sweep is"),
    "logs": Verb("logs", "LogsArgs", "Print the end of a run's log"),
    "retry": Verb("retry", "RetryArgs", "Allow failed runs another attempt"),
    "stop": Verb("stop", "StopArgs", "Stop a sweep, or some of its runs, wherever they are trained"),
    "table": Verb("table", "TableArgs", "Write a sweep's table: one row per planned run, with its outcome"),
    "import": Verb("import_table", "ImportArgs", "Read other people's runs (CSV, JSON, Parquet, a W&B export)"),
    "export-jobs": Verb("export_jobs", "ExportJobsArgs", "Write one job per run of a sweep, for any scheduler"),
    "fit": Verb("fit", "FitArgs", "Fit scaling laws to a table of runs, with intervals and checks"),
    "check": Verb("check", "CheckArgs", "Judge a prediction that `lmscale fit --predict` wrote"),
    "emergence": Verb("emergence", "EmergenceArgs", "At which scale each ability appears, how sure that is"),
    "report": Verb("report", "ReportArgs", "Fit a sweep, check its held-out runs"),
    "data": Verb("data", "DataArgs", "Prepare a corpus, once, and report what is in it"),
    "eval": Verb("eval", "EvalArgs", "Score benchmark tasks on the checkpoint of a run"),
    "export": Verb("export", "ExportArgs", "Write a trained model as files that other programs read"),
    "import-model": Verb("import_model", "ImportModelArgs", "Read a published model from disk into a run folder"),
    "bench": Verb("bench", "BenchArgs", "Measure how fast a model trains here"),
}
"""In the order of work."""


def main() -> NoReturn:
    """The console command. A `UserError` is printed as one sentence; `core.exit_status` lists the exit statuses."""
    sys.exit(_status(sys.argv[1:]))


def _status(words: list[str]) -> int | str | None:
    """The exit status of a call, once everything it printed is written or nobody can read it any more."""
    try:
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
    if name not in VERBS:
        raise UserError(f"there is no verb {name!r} (`lmscale --help` lists them){nearest(name, VERBS)}")
    import tyro

    from lmscale.commands.console import open_console

    check_working_folder()
    verb = VERBS[name]
    module = verb.load()
    args = tyro.cli(
        getattr(module, verb.arguments), prog=f"lmscale {name}", args=rest, config=(tyro.conf.OmitArgPrefixes,)
    )
    return module.main(args, open_console()) or 0


def _help() -> str:
    width = max(map(len, VERBS))
    return "\n".join(
        [
            "usage: lmscale VERB ... | --version | --help",
            "",
            "Scaling laws of language models: plan, run, fit, report.",
            "",
            *(f"  {name:{width}}  {verb.summary}" for name, verb in VERBS.items()),
            "",
            "`lmscale VERB --help` lists the arguments of a verb.",
        ]
    )
