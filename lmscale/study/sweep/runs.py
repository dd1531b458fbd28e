"""From points to runs: every run made, checked and counted, duplicates merged, branches joined to their trunks."""

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lmscale.core.compiled import CompiledRun
from lmscale.core.config import FINE_TUNE, PREFER, REINFORCE, REWARD, RunConfig, check
from lmscale.core.counting import count
from lmscale.core.errors import UserError
from lmscale.core.plans import PlannedRun
from lmscale.core.quantities import counted
from lmscale.core.user_code import called
from lmscale.study.sweep.declare import Sweep
from lmscale.study.sweep.notebook import plan_html
from lmscale.study.sweep.parents import Parents, started, with_parents
from lmscale.study.sweep.points import DATASTORE, Point, describe
from lmscale.study.sweep.text import table
from lmscale.study.sweep.warnings import warnings_of

NEAR = 0.02
"""Relative difference up to which two budgets count as one, since runs have whole batches."""


@dataclass(frozen=True, repr=False)
class Plan:
    """The runs of a sweep, checked and counted; `print(plan)` shows every run."""

    sweep: Sweep
    runs: list[PlannedRun] = field(default_factory=list)
    warnings: tuple[str, ...] = ()
    """Sentences on what would bend a law."""
    compiled: dict[str, CompiledRun] = field(default_factory=dict)
    """run_id -> what the compiler says of the run on a machine; empty where nobody asked it."""

    @property
    def flops(self) -> int:
        """FLOPs of all runs, exact: training, the teachers that are read and the answers that are drawn; what branches
        share is paid once."""
        return sum(run.paid_flops for run in self.runs)

    @property
    def flops_apart(self) -> int:
        """The same if every branch were trained from its first step."""
        return sum(count(run.config).flops + run.reference_flops + run.batch_flops for run in self.runs)

    @property
    def batch_flops(self) -> int:
        """FLOPs that go into drawing answers and judging them, out of `flops`."""
        return sum(run.batch_flops for run in self.runs)

    @property
    def reference_flops(self) -> int:
        """FLOPs that go into reading teachers and references, out of `flops`."""
        return sum(run.reference_flops for run in self.runs)

    def _below(self) -> list[str]:
        """What all runs cost, what the compiler says of them, and sentences on what would bend a law."""
        held_out = sum(run.held_out for run in self.runs)
        totals = f"{counted(len(self.runs), 'run')}, {held_out} held out; {flops_text(self)}"
        if self.flops_apart > self.flops:
            totals += f" ({self.flops_apart:.3g} with every branch trained from its first step)"
        compiled = [f"{name} on {one.machine}: {one.sentence()}" for name, one in self.compiled.items()]
        notes = [f"note: {sentence}" for sentence in self.warnings]
        return [totals, *compiled, *notes]

    def __str__(self) -> str:
        return "\n".join([self.sweep.title, *table(self.runs), *self._below()])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return plan_html(self.sweep.title, self.runs, self._below())


def flops_text(plan: Plan) -> str:
    """What the runs of a plan spend, as its totals say it."""
    text = f"{plan.flops:.3g} training FLOPs"
    text += f", {plan.reference_flops:.3g} of them to read teachers" if plan.reference_flops else ""
    return text + (f", {plan.batch_flops:.3g} of them to draw and judge answers" if plan.batch_flops else "")


def plan(sweep: Sweep) -> Plan:
    """Turn every point into a run and check the whole.

    Points that give the same run are merged, with a note. Raises `UserError` where such points differ in purpose, for a
    D/N outside `Sweep.tokens_per_param`, for text repeated more often than the run allows, for branches of one trunk
    that differ in more than their length, and for parents that are missing, do not fit or need their own children.
    """
    parents = Parents(sweep.points, lambda point: _configured(sweep, point, point))
    runs: dict[str, PlannedRun] = {}
    points: dict[str, Point] = {}
    merged = 0
    for point in sweep.points:
        run = _planned(sweep, point, parents.resolved(point))
        name = run.config.run_id
        if name in runs:
            _check_same(runs[name], run, points[name], point)
            merged += DATASTORE not in point
            runs[name] = _with_datastores(runs[name], run)
            continue
        runs[name], points[name] = run, point
    parents.check_planned(runs)
    joined = with_parents(_with_trunks(list(runs.values()), list(points.values())))
    notes = [f"{merged} points give a run that another point gives already: each is trained once"] if merged else []
    return Plan(sweep, joined, (*notes, *warnings_of(joined)))


def _configured(sweep: Sweep, point: Point, resolved: Point) -> RunConfig:
    """The run at a point, whose parents `resolved` names by their ids."""
    module = getattr(sweep.recipe, "__module__", "")
    check(
        not (inspect.isfunction(sweep.recipe) and module.startswith("lmscale.study.recipes.")),
        f"the recipe of sweep {sweep.name!r} makes recipes of a family; call it with its settings first, as in "
        f"recipes.step_law(FAMILY)",
    )
    config = _called(f"the recipe of sweep {sweep.name!r}", sweep.recipe, resolved)
    check(
        isinstance(config, RunConfig),
        f"the recipe of sweep {sweep.name!r} returned {type(config).__name__} for {describe(point)}, not a RunConfig",
    )
    config = started(config, resolved)
    if sweep.exam is not None and not config.model.scalar_head:  # which has no next token to answer with
        config = replace(config, exam=sweep.exam)
    if DATASTORE not in point:
        return config
    try:
        return replace(config, exam=replace(config.exam, datastore_tokens=(round(point[DATASTORE]),)))
    except UserError as error:
        raise UserError(
            f"{describe(point)}: {error}; a sweep names tasks in Sweep(exam=ExamConfig(tasks=...))"
        ) from None


def _planned(sweep: Sweep, point: Point, resolved: Point) -> PlannedRun:
    config = _configured(sweep, point, resolved)
    counts, (low, high) = count(config), sweep.tokens_per_param
    check(
        low <= counts.tokens_per_param <= high or config.stage in (FINE_TUNE, PREFER, REWARD, REINFORCE),
        f"{describe(point)} trains {counts.params:,} parameters on {config.tokens:,} tokens: D/N = "
        f"{counts.tokens_per_param:.3g} is outside {low:g} to {high:g}; move the point or set "
        f"Sweep(tokens_per_param=...)",
    )
    _check_epochs(config, point)
    origins = getattr(sweep.recipe, "origins", None)
    return PlannedRun(
        config=config,
        held_out=bool(_called(f"the held_out of sweep {sweep.name!r}", sweep.held_out, point)),
        flops_budget=point.get("flops"),
        group=str(point.get("group", point.get("trunk", ""))) + (f" seed {config.seed}" if "trunk" in point else ""),
        origins=_called(f"the origins of sweep {sweep.name!r}", origins, resolved) if callable(origins) else {},
        stage=str(point.get("stage", "")),
    )


def _with_datastores(one: PlannedRun, other: PlannedRun) -> PlannedRun:
    """A run that is measured with the datastores of two points."""
    exam = one.config.exam
    sizes = tuple(sorted({*exam.datastore_tokens, *other.config.exam.datastore_tokens}))
    return replace(one, config=replace(one.config, exam=replace(exam, datastore_tokens=sizes)))


def _check_epochs(config: RunConfig, point: Point) -> None:
    """Check the repeats that are known before the corpus is prepared: those of the run's own limit of unique tokens."""
    unique, most = config.data.unique_tokens, config.data.max_epochs
    if unique is not None and config.tokens > most * unique:
        raise UserError(
            f"{describe(point)} passes its {unique:,} unique tokens {config.tokens / unique:.3g} times, more than "
            f"data.max_epochs = {most:g}; train on at most {int(most * unique):,} tokens or raise max_epochs"
        )


def _check_same(first: PlannedRun, second: PlannedRun, one: Point, other: Point) -> None:
    """Raise `UserError` where two points that give one run differ in purpose."""
    same = first.held_out == second.held_out and first.group == second.group
    if first.flops_budget is not None and second.flops_budget is not None:
        same &= math.isclose(first.flops_budget, second.flops_budget, rel_tol=NEAR)
    check(
        same,
        f"two points give the same run {first.config.run_id} but differ in purpose (held out, group or budget): "
        f"{describe(one)} and {describe(other)}; give one another size, length or seed",
    )


def _with_trunks(runs: Sequence[PlannedRun], points: Sequence[Point]) -> list[PlannedRun]:
    """The runs, where every branch but the longest states the trunk and the step from which it starts."""
    families: dict[str, list[int]] = {}
    for index, (run, point) in enumerate(zip(runs, points)):
        if "trunk" in point:
            families.setdefault(run.group, []).append(index)
    joined = list(runs)
    for name, members in families.items():
        longest = max(members, key=lambda index: runs[index].config.tokens)
        for index in members:
            if index != longest:
                joined[index] = _branch(name, runs[index], runs[longest])
    return joined


def _branch(name: str, run: PlannedRun, trunk: PlannedRun) -> PlannedRun:
    """`run` as a branch of `trunk`. Raises `UserError` where their first steps would not be the same."""
    ours, theirs = run.config, trunk.config
    alike = replace(ours, tokens=theirs.tokens).run_id == theirs.run_id and ours.warmup_steps == theirs.warmup_steps
    check(
        alike and ours.optimizer.schedule == "wsd",
        f"the branches of {name!r} at D = {ours.tokens:,} and {theirs.tokens:,} differ in more than their length: a "
        f"shared trunk takes one rate, batch, warmup_steps and seed and the schedule 'wsd'; choose them by the point's "
        f"trunk_tokens, as a Recipe does",
    )
    step = ours.steps - ours.cooldown_steps
    check(
        theirs.warmup_steps < step <= theirs.steps - theirs.cooldown_steps,
        f"the branch of {name!r} at D = {ours.tokens:,} leaves its trunk at step {step:,}, which must lie between "
        f"the end of the warmup at {theirs.warmup_steps:,} and the trunk's own cooldown at "
        f"{theirs.steps - theirs.cooldown_steps:,}; give the lengths more distance or the branch more steps",
    )
    return replace(run, trunk=theirs.run_id, branch_step=step)


def _called(what: str, function: Callable[[Point], Any], point: Point) -> Any:
    """What a function of the user's gives for a point; an error in it names the point."""
    try:
        return called(what, function, point)
    except UserError as error:
        raise UserError(f"{describe(point)}: {error}") from error


def whole_batches(tokens: float, batch_tokens: int) -> int:
    """The number of tokens nearest to `tokens` that is a whole number of batches, at least one."""
    check(math.isfinite(tokens) and tokens > 0, f"tokens = {tokens!r}: must be positive")
    return max(1, round(tokens / batch_tokens)) * batch_tokens
