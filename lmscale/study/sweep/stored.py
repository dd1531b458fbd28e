"""A plan that `lmscale plan --json` wrote, as a plan again."""

from pathlib import Path

from lmscale.core.config import check
from lmscale.core.errors import UserError
from lmscale.core.files import read_json
from lmscale.core.plans import PlannedRun
from lmscale.study.sweep.declare import Sweep, load
from lmscale.study.sweep.runs import Plan, plan
from lmscale.study.sweep.warnings import of_runs

KEPT = ("question", "law", "target_flops", "max_flops", "max_hours")
"""Fields of a `Sweep` that go with its plan."""


def of_runs_made(name: str, runs: list[PlannedRun], **fields: object) -> Plan:
    """A plan of runs that are made already; `fields` are those of the `Sweep`."""
    by_id = {run.config.run_id: run for run in runs}
    sweep = Sweep(
        name=name,
        points=tuple({"run": run_id} for run_id in by_id),
        recipe=lambda point: by_id[point["run"]].config,
        held_out=lambda point: by_id[point["run"]].held_out,
        **fields,  # type: ignore[arg-type]
    )
    return Plan(sweep, list(by_id.values()), of_runs(list(by_id.values())))


def read(path: str | Path) -> Plan:
    """The plan of a sweep file, or of a file that ends in .json, as `lmscale plan --json` writes one.

    Raises `UserError` for what `load` and `plan` refuse and for a corrupt plan.
    """
    path = Path(path)
    if path.suffix != ".json":
        return plan(load(path))
    value = read_json(path, "plan")
    try:
        name, runs = value["sweep"], [PlannedRun.from_json(line) for line in value["runs"]]
        fields = {key: value[key] for key in KEPT if key in value}
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is no plan ({error!r}); `lmscale plan SWEEP.py --json {path.name}` writes one"
        ) from None
    check(bool(runs), f"the plan {path} holds no runs")
    return of_runs_made(name, runs, **fields)
