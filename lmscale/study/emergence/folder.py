"""The scores that a sweep's runs keep, as one table: those of `RunConfig.exam`, and what `lmscale eval` wrote."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from lmscale.core.errors import UserError
from lmscale.core.run_folder import SCORES_FILE

if TYPE_CHECKING:
    import pandas as pd


def holds_scores(path: Path) -> bool:
    """Whether `path` is a run's folder with scores, or a folder of such."""
    return path.is_dir() and bool(_files(path))


def read_scores(path: Path, every_step: bool = False) -> "pd.DataFrame":
    """The rows of every run below `path`, of its last scored step or of all; a sweep's seeds in a column `seed`.

    Raises `UserError` where a file is no JSON lines.
    """
    import pandas as pd

    from lmscale.core.results import collect
    from lmscale.core.run_folder import PLAN_FILE

    rows = []
    for file in _files(path):
        try:
            rows += [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        except ValueError as error:
            raise UserError(f"the scores {file} are corrupt ({error}); score the run again") from None
    table = pd.DataFrame(rows)
    if not every_step and {"run_id", "step"} <= set(table):
        table = table[table["step"] == table.groupby("run_id")["step"].transform("max")].reset_index(drop=True)
    if "run_id" in table and (path / PLAN_FILE).exists():
        seeds = collect(path).set_index("run")["seed"]
        table["seed"] = table["run_id"].map(seeds)
    return table


def _files(path: Path) -> list[Path]:
    return sorted(path.glob(SCORES_FILE)) + sorted(path.glob(f"*/{SCORES_FILE}"))
