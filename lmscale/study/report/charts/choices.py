"""Which runs a reader may choose to see, and the names of a table's runs."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lmscale.study.report.marks import Switch

if TYPE_CHECKING:
    import pandas as pd

MOST_CHOICES = 40
"""Values of a switch; a table of more sizes than this is read by its rows."""


def names(runs: "pd.DataFrame") -> list[str]:
    """The runs of a table, by row."""
    return [str(run) for run in runs["run"]]


def switches(records: Mapping[str, Mapping[str, Any]]) -> list[Switch]:
    """Choices by budget and size, as the runs' records state them; none where there is only one."""
    chosen = []
    for name, label, number in (("budget", "budget", "flops_budget"), ("size", "size N", "params")):
        known = {record[name]: record[number] for record in records.values() if record[name]}
        values = sorted(known, key=lambda text: known[text])
        if 1 < len(values) <= MOST_CHOICES:
            chosen.append(Switch(name, label, values))
    return chosen
