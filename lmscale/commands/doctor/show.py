"""Print what `lmscale doctor` looked at."""

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape

from lmscale.commands.doctor.finding import Finding
from lmscale.core.quantities import counted

MARKS = {"ok": "[green]ok[/green]     ", "missing": "[yellow]missing[/yellow]", "wrong": "[red]wrong[/red]  "}


def show(findings: Sequence[Finding], console: Console) -> None:
    """A line for each, with the fix below what is not in order, and a verdict."""
    width = max(len(one.name) for one in findings)
    for one in findings:
        console.print(f"{MARKS[one.state]}  {escape(one.name):<{width}}  {escape(one.text)}")
        if one.fix:
            console.print(f"         {'':<{width}}  -> {escape(one.fix)}")
    wrong = sum(one.state == "wrong" for one in findings)
    console.print(f"{counted(wrong, 'thing')} to fix before training." if wrong else "Ready to train.")
