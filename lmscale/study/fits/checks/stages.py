"""Whether a table's runs are of one stage of training: losses of several belong to different laws."""

from typing import TYPE_CHECKING

from lmscale.core.config import PRETRAIN
from lmscale.core.errors import UserError, nearest

if TYPE_CHECKING:
    import pandas as pd

COLUMN = "stage"


def one_stage(table: "pd.DataFrame", stage: str | None) -> "pd.DataFrame":
    """The rows of one stage; those of others join what was left out when the table was read, each with its reason.

    Without `stage`, a table of several stages gives those of pretraining, and one of a single stage all. A row that
    states none is of pretraining. Raises `UserError` for a stage that the table does not hold, and where it holds
    several without pretraining.
    """
    if COLUMN not in table:
        if stage is not None:
            raise UserError(f"stage = {stage!r}: the table has no column 'stage'; leave it out")
        return table
    stages = table[COLUMN].astype(object).where(table[COLUMN].notna(), PRETRAIN).astype(str)
    counts = {str(name): int(number) for name, number in stages.value_counts().items()}
    listed = ", ".join(f"{number} of {name}" for name, number in counts.items())
    if stage is None:
        if len(counts) < 2:
            return table
        if PRETRAIN not in counts:
            raise UserError(
                f"the table holds runs of several stages ({listed}), and losses of different stages belong to "
                f"different laws; choose one with `stage`, for example stage={next(iter(counts))!r}"
            )
        stage = PRETRAIN
    if stage not in counts:
        raise UserError(f"stage = {stage!r}: the table holds {listed}{nearest(stage, counts)}")
    chosen = stages == stage
    rows = table[chosen]
    names = (
        table["run"].astype(str) if "run" in table else "row " + (table.index + 1).astype(str).to_series(table.index)
    )
    dropped = [
        {"run": run, "reason": f"of the stage {name}, and the fit is of {stage}"}
        for run, name in zip(names[~chosen], stages[~chosen])
    ]
    rows.attrs = {**table.attrs, "dropped": [*table.attrs.get("dropped", []), *dropped]}
    return rows
