"""The command line: the verbs in the order of work, the parser, and the exit status.

A verb is a file in `commands`: its arguments, a dataclass whose docstring is the help, and `main(args, console)`, which
loads what it needs and returns an exit status or None.
"""

import os
import sys
from collections.abc import Callable
from typing import Annotated, Any, NoReturn, Union

import tyro
from tyro.conf import OmitArgPrefixes

from lmscale.commands import (
    bench,
    check,
    data,
    demo,
    emergence,
    eval,
    export_jobs,
    finish,
    fit,
    import_table,
    logs,
    plan,
    report,
    retry,
    run,
    status,
    stop,
    table,
    train,
)
from lmscale.commands.console import open_console
from lmscale.commands.flags import as_flags
from lmscale.core.errors import UserError
from lmscale.core.exit_status import EXIT_CTRL_C, exit_status

VERBS: dict[str, tuple[type, Callable[..., int | None]]] = {
    "demo": (demo.DemoArgs, demo.main),
    "plan": (plan.PlanArgs, plan.main),
    "run": (run.RunArgs, run.main),
    "finish": (finish.FinishArgs, finish.main),
    "train": (train.TrainArgs, train.main),
    "status": (status.StatusArgs, status.main),
    "logs": (logs.LogsArgs, logs.main),
    "retry": (retry.RetryArgs, retry.main),
    "stop": (stop.StopArgs, stop.main),
    "table": (table.TableArgs, table.main),
    "import": (import_table.ImportArgs, import_table.main),
    "export-jobs": (export_jobs.ExportJobsArgs, export_jobs.main),
    "fit": (fit.FitArgs, fit.main),
    "check": (check.CheckArgs, check.main),
    "emergence": (emergence.EmergenceArgs, emergence.main),
    "report": (report.ReportArgs, report.main),
    "data": (data.DataArgs, data.main),
    "eval": (eval.EvalArgs, eval.main),
    "bench": (bench.BenchArgs, bench.main),
}
"""Verb -> its arguments and what it does, in the order of the help."""


def main() -> NoReturn:
    """The console command. A `UserError` is printed as one sentence; `core.exit_status` lists the exit statuses."""
    subcommands = tuple(Annotated[args, tyro.conf.subcommand(verb)] for verb, (args, _) in VERBS.items())
    union: Any = Annotated[Union[subcommands], OmitArgPrefixes]  # noqa: UP007 - of a tuple
    try:
        args = tyro.cli(union, prog="lmscale", description="Scaling laws of language models: plan, run, fit, report.")
        act = next(act for kind, act in VERBS.values() if isinstance(args, kind))
        status = act(args, open_console()) or 0
        sys.stdout.flush()
        sys.exit(status)
    except UserError as error:
        print(f"lmscale: {as_flags(str(error))}", file=sys.stderr)
        sys.exit(exit_status(error))
    except KeyboardInterrupt:
        print("lmscale: stopped", file=sys.stderr)
        sys.exit(EXIT_CTRL_C)
    except BrokenPipeError:  # the reader left early; what is still buffered has nowhere to go
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
