"""What a plan means for a folder that already holds runs."""

from collections.abc import Sequence
from pathlib import Path

from lmscale.core.errors import UserError
from lmscale.core.files import read_json
from lmscale.core.plans import PlannedRun
from lmscale.core.quantities import counted
from lmscale.core.run_folder import CONFIG_FILE, OUTCOME_FILE, PLAN_FILE

NAMED = 3
"""Most orphaned runs that are named; of more, only the number is given."""


def changes(name: str, runs: Sequence[PlannedRun], folder: Path) -> list[str]:
    """Sentences on the runs that stay, are new or are orphaned where `folder` holds another plan; none for the same.

    Raises `UserError` for the folder of another sweep: of another name, or without a single run in common.
    """
    if not (folder / PLAN_FILE).exists():
        return []
    plan = read_json(folder / PLAN_FILE, "plan")
    try:
        old_name, old = str(plan["sweep"]), [str(line["run_id"]) for line in plan["runs"]]
    except (KeyError, TypeError):
        raise UserError(f"the plan {folder / PLAN_FILE} is corrupt; delete it, and it will be written again") from None
    new = {planned.config.run_id for planned in runs}
    common = [run_id for run_id in old if run_id in new]
    begun = [run_id for run_id in old if (folder / run_id / CONFIG_FILE).exists()]
    if old_name != name or (begun and not common):
        other = f"a sweep of this name with {counted(len(old), 'run')}, none of them here"
        content = other if old_name == name else f"the sweep {old_name!r}"
        raise UserError(f"{folder} holds {content}; give this one another name, or another folder with --runs")
    added = len(new) - len(common)
    if not added and len(common) == len(old):
        return []
    done = sum((folder / run_id / OUTCOME_FILE).exists() for run_id in common)
    orphans = [run_id for run_id in begun if run_id not in new]
    sentences = [f"the sweep has changed: {len(common)} runs stay, {done} of them with an outcome; {added} are new"]
    if orphans:
        names = ", ".join(orphans) if len(orphans) <= NAMED else f"{len(orphans)} runs"
        sentences.append(f"no longer planned, so in no table, but still in {folder}: {names}")
    return sentences
