"""What `lmscale plan` does: read or make a plan, price it, judge it, print it; start nothing."""

from rich.console import Console

from lmscale.commands.plan.arguments import PlanArgs
from lmscale.commands.plan.hardware import hardware_of
from lmscale.commands.plan.improve import more_runs
from lmscale.commands.plan.prior import prior_of
from lmscale.commands.plan.rows import Priced, priced
from lmscale.commands.plan.show import show, show_proposal, show_verdict
from lmscale.core.config import check
from lmscale.core.errors import UserError
from lmscale.core.files import write_json
from lmscale.study.design import Prior, Verdict, fitted_runs, judge_plan, line_through
from lmscale.study.prices import Hardware
from lmscale.study.sweep import Plan, read

LEAST_OF_A_LINE = 3
"""Runs through which a line says something: any two lie on one."""


def main(asked: PlanArgs, console: Console) -> None:
    """Do what was asked. Raises `UserError` where a plan cannot identify its law, after it was shown."""
    if asked.optimal is not None:
        _optimal(asked, console)
        return
    check(asked.sweep is not None, "lmscale plan needs a sweep file, or --optimal FITS.json --flops C")
    assert asked.sweep is not None
    plan = read(asked.sweep)
    if asked.improve:
        _improve(plan, asked, console)
        return
    found = _priced(plan, asked)
    show(found, console, asked.convention)
    if asked.json is not None:
        write_json(asked.json, found.to_json())
    if found.verdict is not None:
        _check_design(found.verdict, asked.force)


def check_plan(plan: Plan, force: bool = False) -> None:
    """Raise `UserError` for a plan that cannot identify the law it is for, unless `force`."""
    if (verdict := _verdict(plan, PlanArgs())) is not None:
        _check_design(verdict, force)


def _priced(plan: Plan, asked: PlanArgs) -> Priced:
    return priced(plan, _hardware(plan, asked), _verdict(plan, asked))


def _hardware(plan: Plan, asked: PlanArgs) -> Hardware:
    device = plan.sweep.device if asked.device is None else asked.device
    check(
        bool(device) or (asked.devices == 1 and asked.utilisation is None),
        "--devices and --utilisation are of a named device: add --device h100, or leave them out",
    )
    folder = asked.runs / plan.sweep.name
    return hardware_of(plan.runs, folder, device, asked.devices, asked.utilisation, asked.price)


def _prior(plan: Plan, asked: PlanArgs) -> Prior:
    return prior_of(asked.prior, str(plan.sweep.law or "chinchilla"), asked.noise, asked.shared_noise)


def _verdict(plan: Plan, asked: PlanArgs) -> Verdict | None:
    """None where no law is asked of the sweep, or it is a trial: fewer runs than a law has unknowns, on no line."""
    if not plan.sweep.law:
        return None
    prior = _prior(plan, asked)
    seen = sum(not run.held_out for run in plan.runs)
    if seen < len(prior.law.names()) and (seen < LEAST_OF_A_LINE or not _on_a_line(plan)):
        return None
    return judge_plan(plan.runs, prior, asked.target or plan.sweep.target_flops)


def _on_a_line(plan: Plan) -> bool:
    runs = fitted_runs(plan.runs)
    line = line_through(runs.params_n, runs.tokens_n)
    return line is not None and line.sloped


def _check_design(verdict: Verdict, force: bool) -> None:
    if verdict.refused and not force:
        raise UserError(
            f"{verdict.sentence()}; {verdict.fix}; or, where no law is asked of it, say Sweep(law='') or --force"
        )


def _improve(plan: Plan, asked: PlanArgs, console: Console) -> None:
    check(
        asked.spend is not None,
        "--improve needs what it may spend, in training FLOPs: --spend 2e18",
    )
    assert asked.spend is not None
    check(bool(plan.sweep.law), f"sweep {plan.sweep.name!r} asks for no law (law=''), so nothing can be improved")
    prior = _prior(plan, asked)
    target = judge_plan(plan.runs, prior, asked.target or plan.sweep.target_flops).target_flops
    grown, proposal, what = more_runs(plan, prior, asked.quantity, target, asked.spend, asked.most)
    found = priced(grown, _hardware(grown, asked), judge_plan(grown.runs, prior, target))
    console.print(
        f"{plan.sweep.name}: {len(plan.runs)} runs planned, up to {asked.most} more for {asked.spend:.3g} FLOPs that "
        f"say most of {what}"
    )
    show_proposal(found, proposal, len(grown.runs) - len(plan.runs), what, console)
    console.print(f"Times: {found.hardware.title}.")
    if found.verdict is not None:
        show_verdict(found.verdict, console)
    _keep(found, asked, "all runs, old and new", console)


def _optimal(asked: PlanArgs, console: Console) -> None:
    from lmscale.commands.plan.optimal import optimal

    check(asked.flops is not None, "--optimal needs a budget of training FLOPs: --flops 1e21")
    assert asked.optimal is not None and asked.flops is not None
    sweep = None if asked.sweep is None else read(asked.sweep).sweep
    made = optimal(asked.optimal, asked.flops, asked.tokens_per_param, sweep)
    found = priced(made.plan, _hardware(made.plan, asked), None)
    show(found, console, asked.convention)
    for line in made.lines():
        console.print(line[0].upper() + line[1:] + ".")
    _keep(found, asked, "a sweep of one", console, {"optimal": made.to_json()})


def _keep(found: Priced, asked: PlanArgs, what: str, console: Console, more: dict[str, object] | None = None) -> None:
    """Write the plan, or say how to."""
    if asked.json is None:
        console.print(f"With --json FILE.json this is written down ({what}), and `lmscale run FILE.json` trains it.")
        return
    write_json(asked.json, {**found.to_json(), **(more or {})})
    console.print(f"{asked.json} holds {what}; `lmscale run {asked.json}` trains what is missing of it.")
