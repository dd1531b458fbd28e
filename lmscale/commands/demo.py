"""`lmscale demo`: what the published runs say, what runs trained on this machine say, and a page about the latter."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lmscale.commands.answer import write_answer
from lmscale.commands.next_step import print_next, repeat
from lmscale.core.errors import UserError
from lmscale.core.exit_status import EXIT_CTRL_C
from lmscale.core.quantities import duration

if TYPE_CHECKING:
    from rich.console import Console

DEMO_SWEEP, SHORT_SWEEP = "sweeps/isoflop_cpu.py", "sweeps/isoflop_short.py"
PUBLISHED_BUDGETS = tuple(10.0**exponent for exponent in range(18, 27))
RULE = 20.0
"""Tokens per parameter of the rule of thumb (Hoffmann 2022)."""


@dataclass(frozen=True)
class DemoArgs:
    """Refit the published Chinchilla runs, train the CPU IsoFLOP sweep, fit it, check it, and write the report."""

    runs: Path = Path("runs")
    """Folder that holds one folder per sweep."""
    short: bool = False
    """Train twelve smaller runs: about three minutes of CPU time, and numbers of their own."""
    json: Path | None = None
    """Write the path of the page and what it answers here (- or no file: to standard output, alone)."""


def main(args: DemoArgs, console: "Console") -> int:
    """Print the published allocation, train the sweep, write its report; the exit status."""
    from lmscale.commands.report import answer_of, corpus_baselines, print_answer
    from lmscale.commands.run import exit_status_of, run_sweep
    from lmscale.study import report, sweep

    began, path = time.monotonic(), sweep_file(SHORT_SWEEP if args.short else DEMO_SWEEP)
    console.rule("1  The published Chinchilla runs, refitted", align="left")
    published(console)
    console.rule("2  An IsoFLOP sweep trained here", align="left")
    plan = sweep.plan(sweep.load(path))
    if status := exit_status_of(run_sweep(plan, args.runs, console)):
        print_next(*repeat()) if status == EXIT_CTRL_C else print_next("retry", args.runs / plan.sweep.name)
        return status
    console.rule("3  Fit, held-out check, report", align="left")
    folder = args.runs / plan.sweep.name
    page = report.of_sweep(
        folder, commands=(f"lmscale demo{' --short' * args.short}",),
        baselines=corpus_baselines(folder),
    )  # fmt: skip
    print_answer(page, console)
    console.print(f"the report is [bold]{page}[/bold]  ({duration(time.monotonic() - began)} in all)")
    write_answer(args.json, {"page": str(page), "answer": answer_of(page), "seconds": time.monotonic() - began})
    print_next("fit", folder)
    return 0


def sweep_file(name: str) -> Path:
    """A sweep file of the demo: in the clone that lmscale is installed from, or in the installed package itself."""
    package = Path(__file__).resolve().parents[1]
    for root in (package.parent, package):
        if (root / name).is_file():
            return root / name
    raise UserError(f"this installation of lmscale lacks {name}; install it again, or call `lmscale demo` in a clone")


def published(console: "Console") -> None:
    """Approach 3 on the published runs: N*, D* and tokens per parameter for C = 1e18 ... 1e26, with intervals."""
    from rich.table import Table

    from lmscale.study import fits
    from lmscale.study.report.brief import QUANTITIES
    from lmscale.study.tables import read_table

    law = fits.loss_law(read_table("chinchilla"), at=PUBLISHED_BUDGETS)
    console.print(
        f"L(N, D) = E + A/N^alpha + B/D^beta on {law.n_runs} runs of Hoffmann 2022 as extracted by Besiroglu 2024: "
        + ", ".join(f"{name} {value:.5g}" for name, value in law.law.values().items())
    )
    table = Table(box=None, padding=(0, 2, 1, 0))
    for heading in ("C = 6ND", "N*\n[80 %]\n[95 %]", "D*\n[80 %]\n[95 %]", "D/N\n[80 %]\n[95 %]", "20 lies\nwithin"):
        table.add_column(heading, justify="right", no_wrap=True)
    holding: list[float] = []
    for row in law.allocations():
        intervals = row["intervals"]
        inside = {
            level: low <= RULE <= high
            for level in ("0.8", "0.95")
            for low, high in [intervals[level]["tokens_per_param"]]
        }
        if inside["0.95"]:
            holding.append(row["flops"])
        cells = [
            "\n".join([write(row[name]), *("-".join(map(write, intervals[level][name])) for level in ("0.8", "0.95"))])
            for name, _, write in QUANTITIES
        ]
        verdict = "80 %" if inside["0.8"] else "95 %" if inside["0.95"] else "neither"
        table.add_row(f"{row['flops']:.0e}", *cells, verdict)
    console.print(table)
    console.print(_verdict(holding))


def _verdict(holding: list[float]) -> str:
    """A sentence on the budgets at which 20 lies within the 95 % interval."""
    outside = [flops for flops in PUBLISHED_BUDGETS if flops not in holding]
    exceptions = ", ".join(f"{flops:.0e}" for flops in outside)
    if not holding:
        return "20 tokens per parameter lies outside the 95 % interval at every one of these budgets."
    return (
        f"20 tokens per parameter lies within the 95 % interval for C = {min(holding):.0e} to {max(holding):.0e}"
        + (f" and outside it at {exceptions}" if outside else "")
        + ". N: all parameters, D: training tokens, C = 6ND; intervals: bootstrap over runs, percentiles."
    )
