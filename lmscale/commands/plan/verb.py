"""What `lmscale plan` does: read or make a plan, price it, judge its design and print it; start nothing."""

from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from lmscale.commands.answer import is_standard_output, write_answer
from lmscale.commands.constraints import Limits
from lmscale.commands.next_step import print_next, repeat
from lmscale.commands.plan.arguments import PlanArgs
from lmscale.commands.plan.compiled import compile_plan
from lmscale.commands.plan.hardware import hardware_of
from lmscale.commands.plan.improve import improved_plan
from lmscale.commands.plan.prior import prior_of
from lmscale.commands.plan.rows import PricedPlan, price_plan
from lmscale.commands.plan.show import show
from lmscale.commands.plan.verdict import show_proposal, show_verdict
from lmscale.core.config import PRETRAIN, check
from lmscale.core.errors import UserError
from lmscale.core.machines import Machine, machine
from lmscale.core.quantities import counted
from lmscale.core.run_folder import PLAN_FILE
from lmscale.study.design import Prior, Verdict, fitted_runs, judge_plan, line_through
from lmscale.study.prices import Hardware
from lmscale.study.sweep import Plan, read

LEAST_OF_A_LINE = 3
"""Fewest runs through which a line means anything: any two lie on one."""


def main(args: PlanArgs, console: Console) -> None:
    """Do what was asked. Raises `UserError` where a plan cannot identify its law, after printing it."""
    if args.optimal is not None:
        _optimal(args, console)
        return
    check(args.sweep is not None, "lmscale plan needs a sweep file, or --optimal FITS.json --flops C")
    assert args.sweep is not None
    plan = read(args.sweep)
    if args.improve:
        _improve(plan, args, console)
        return
    priced = _priced(plan, args, _verdict(plan, args), console, args.runs / plan.sweep.name)
    show(priced, console, args.convention, _target(args))
    if args.json is not None:
        write_answer(args.json, priced.to_json())
    if priced.verdict is not None:
        _check_design(priced.verdict, args.force)
    print_next("run", args.sweep if is_standard_output(args.json) else args.json or args.sweep, *_elsewhere(args))


def _target(args: PlanArgs) -> Machine | None:
    """The machine of --compile. Raises `UserError` that names the nearest."""
    return None if args.compile is None else machine(args.compile)


def _priced(
    plan: Plan, args: PlanArgs, verdict: Verdict | None, console: Console, folder: Path | None = None
) -> PricedPlan:
    """The plan with its prices, compiled where --compile names a machine."""
    hardware = _hardware(plan, args)  # before minutes of compilation, since it may refuse
    compiled = compile_plan(plan.runs, args.compile, console, args.compile_effort, args.pack)
    return price_plan(plan, hardware, verdict, folder, compiled, args.pack)


def _elsewhere(args: PlanArgs) -> tuple[object, ...]:
    return () if args.runs == PlanArgs.runs else ("--runs", args.runs)


def check_plan(plan: Plan, force: bool = False) -> None:
    """Raise `UserError` for a plan that cannot identify the law it is for, unless `force`."""
    if (verdict := _verdict(plan, PlanArgs())) is not None:
        _check_design(verdict, force)


def _hardware(plan: Plan, args: PlanArgs) -> Hardware:
    folder, target = args.runs / plan.sweep.name, _target(args)
    if args.device is None and target is not None and target.accelerator is not None:
        check(
            args.devices == 1,
            f"--devices {args.devices}: --compile {args.compile} has {target.devices} devices; leave it out, or give "
            f"--device too",
        )
        return hardware_of(plan.runs, folder, target.device, target.devices, args.utilisation, args.price)
    device = plan.sweep.device if args.device is None else args.device
    check(
        bool(device) or (args.devices == 1 and args.utilisation is None),
        "--devices and --utilisation belong to a named device: add --device h100, or leave them out",
    )
    return hardware_of(plan.runs, folder, device, args.devices, args.utilisation, args.price)


def _prior(plan: Plan, args: PlanArgs) -> Prior:
    law = str(plan.sweep.law or "chinchilla")
    prior = prior_of(args.prior, law, args.noise, args.shared_noise, args.discrepancy)
    return prior if args.given is None else replace(prior, given={**prior.given, **args.given})


def _verdict(plan: Plan, args: PlanArgs) -> Verdict | None:
    """None for a sweep without a law, and for a trial: fewer runs than the law has unknowns, not on a line."""
    if not plan.sweep.law:
        return None
    prior = _prior(plan, args)
    fitted = sum(not run.held_out and run.stage == PRETRAIN for run in plan.runs)
    if not fitted and any(run.stage != PRETRAIN for run in plan.runs):
        return None
    if fitted < len(prior.law.names()) and (fitted < LEAST_OF_A_LINE or not _on_a_line(plan)):
        return None
    return judge_plan(plan.runs, prior, args.target or plan.sweep.target_flops)


def _on_a_line(plan: Plan) -> bool:
    runs = fitted_runs([run for run in plan.runs if run.stage == PRETRAIN])
    line = line_through(runs.params_n, runs.tokens_n)
    return line is not None and line.sloped


def _check_design(verdict: Verdict, force: bool) -> None:
    if verdict.refused and not force:
        raise UserError(
            f"{verdict.sentence()}; {verdict.fix}; or, if it is for no law, set Sweep(law='') or give --force"
        )


def _improve(plan: Plan, args: PlanArgs, console: Console) -> None:
    check(args.spend is not None, "--improve needs the training FLOPs that it may spend: --spend 2e18")
    assert args.spend is not None
    check(bool(plan.sweep.law), f"sweep {plan.sweep.name!r} is for no law (law=''), so nothing can be improved")
    prior = _prior(plan, args)
    target = judge_plan(plan.runs, prior, args.target or plan.sweep.target_flops).target_flops
    improved, proposal, quantity = improved_plan(plan, prior, args.quantity, target, args.spend, args.most)
    priced = _priced(improved, args, judge_plan(improved.runs, prior, target), console)
    console.print(
        f"{plan.sweep.name}: {counted(len(plan.runs), 'run')} planned; up to {args.most} more for "
        f"{args.spend:.3g} FLOPs, chosen to narrow {quantity}"
    )
    show_proposal(priced, proposal, len(improved.runs) - len(plan.runs), quantity, console)
    console.print(f"Times: {priced.hardware.title}.")
    if priced.verdict is not None:
        show_verdict(priced.verdict, console)
    _write(priced, args, "all runs, old and new", console)


def _optimal(args: PlanArgs, console: Console) -> None:
    from lmscale.commands.plan.optimal import optimal

    limits = Limits.of(args)
    check(args.flops is not None or limits.constrain, "--optimal needs a budget of training FLOPs: --flops 1e21")
    assert args.optimal is not None
    sweep = None if args.sweep is None else read(args.sweep).sweep
    run = optimal(args.optimal, limits, args.tokens_per_param, sweep)
    priced = None if run.plan is None else _priced(run.plan, args, None, console)
    if priced is not None:
        show(priced, console, args.convention, _target(args))
    for line in run.lines():
        console.print(escape(line[0].upper() + line[1:]) + ".")
    if priced is not None:
        _write(priced, args, "a sweep of one run", console, {"optimal": run.to_json()})
    elif args.json is not None:
        write_answer(args.json, {"optimal": run.to_json()})


def _write(
    priced: PricedPlan, args: PlanArgs, content: str, console: Console, more: dict[str, object] | None = None
) -> None:
    """Write the plan with --json, or name the call that would."""
    if args.json is None:
        print_next(*repeat("--json", PLAN_FILE))
        return
    write_answer(args.json, {**priced.to_json(), **(more or {})})
    if is_standard_output(args.json):
        return
    console.print(f"{args.json} holds {content}.")
    print_next("run", args.json, *_elsewhere(args))
