"""What a plan means for a folder that already holds runs."""

from collections.abc import Sequence
from pathlib import Path

from lmscale.core.errors import UserError
from lmscale.core.files import read_json
from lmscale.core.plans import PlannedRun
from lmscale.core.run_folder import CONFIG_FILE, OUTCOME_FILE, PLAN_FILE

NAMED = 3
"""Orphans that are named; of more, the number is said."""


def changes(name: str, runs: Sequence[PlannedRun], folder: Path) -> list[str]:
    """Sentences on what is kept, new and orphaned where `folder` holds another plan; none where it holds this one.

    Raises `UserError` where it is the folder of another sweep: of another name, or without a single run in common.
    """
    if not (folder / PLAN_FILE).exists():
        return []
    plan = read_json(folder / PLAN_FILE, "plan")
    try:
        there, old = str(plan["sweep"]), [str(line["run_id"]) for line in plan["runs"]]
    except (KeyError, TypeError):
        raise UserError(f"the plan {folder / PLAN_FILE} is corrupt; delete it, and it will be made again") from None
    new = {planned.config.run_id for planned in runs}
    kept = [run_id for run_id in old if run_id in new]
    begun = [run_id for run_id in old if (folder / run_id / CONFIG_FILE).exists()]
    if there != name or (begun and not kept):
        why = (
            f"the sweep {there!r}" if there != name else f"a sweep of this name with {len(old)} runs, none of them here"
        )
        raise UserError(f"{folder} holds {why}; give this one another name, or another folder with --runs")
    added = len(new) - len(kept)
    if not added and len(kept) == len(old):
        return []
    done = sum((folder / run_id / OUTCOME_FILE).exists() for run_id in kept)
    orphans = [run_id for run_id in begun if run_id not in new]
    said = [f"the sweep has changed: {len(kept)} runs are kept, {done} of them with an outcome; {added} are new"]
    if orphans:
        names = ", ".join(orphans) if len(orphans) <= NAMED else f"{len(orphans)} runs"
        said.append(f"no longer planned, so in no table, but left in {folder}: {names}")
    return said
