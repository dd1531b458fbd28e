"""A plan that `lmscale plan --json` wrote, as a plan again; the configuration of one run as a plan."""

from pathlib import Path

from lmscale.core.config import RunConfig, check, from_json
from lmscale.core.errors import UserError
from lmscale.core.files import read_json
from lmscale.core.plans import PURPOSE, PlannedRun
from lmscale.study.laws import within_reach
from lmscale.study.sweep.declare import Sweep
from lmscale.study.sweep.runs import Plan, plan
from lmscale.study.sweep.sweep_file import load
from lmscale.study.sweep.warnings import warnings_of


def plan_of_runs(name: str, runs: list[PlannedRun], **fields: object) -> Plan:
    """The plan of given runs; `fields` are those of its `Sweep`."""
    by_id = {run.config.run_id: run for run in runs}
    sweep = Sweep(
        name=name,
        points=tuple({"run": run_id} for run_id in by_id),
        recipe=lambda point: by_id[point["run"]].config,
        held_out=lambda point: by_id[point["run"]].held_out,
        **fields,  # type: ignore[arg-type]
    )
    return Plan(sweep, list(by_id.values()), warnings_of(list(by_id.values())))


def read(path: str | Path) -> Plan:
    """The plan of a sweep file, of a .json file that `lmscale plan --json` wrote, or of the config.json of one run.

    Raises `UserError` for what `load` and `plan` refuse and for a corrupt plan.
    """
    path = Path(path)
    if path.suffix != ".json":
        return plan(load(path))
    value = read_json(path, "plan")
    if isinstance(value, dict) and {"model", "optimizer"} <= value.keys():
        config = from_json(RunConfig, value, where=str(path))
        return plan_of_runs(f"run_{config.run_id}", [PlannedRun(config)], law="")
    try:
        name, runs = value["sweep"], [PlannedRun.from_json(line) for line in value["runs"]]
        fields = {key: value[key] for key in PURPOSE if key in value}
        if isinstance(fields.get("law"), str) and fields["law"]:
            within_reach(fields["law"])
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is not a plan ({error!r}); `lmscale plan SWEEP.py --json {path.name}` writes one"
        ) from None
    check(bool(runs), f"the plan {path} holds no runs")
    return plan_of_runs(name, runs, **fields)
