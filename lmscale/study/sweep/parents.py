"""Points that name other points: what a run starts from, or learns from, resolved to run ids and checked."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lmscale.core.config import CheckpointName, RunConfig, check, check_read, check_start
from lmscale.core.counting import drawing_flops, params_total, reference_bytes, reference_flops
from lmscale.core.errors import UserError, nearest
from lmscale.core.plans import PlannedRun
from lmscale.study.sweep.points import Point, describe

PARENT_VERBS = {
    "init_from": "starts from",
    "teacher": "learns from",
    "reference": "is compared with",
    "reward": "is rewarded by",
}
"""What a run does with each of its parents."""
PARENT_FIELDS = tuple(PARENT_VERBS)
"""Fields of a point that name a run: by its point, by the `name` of its point, or by its id, each with @step if wanted
but the first."""


class Parents:
    """Resolves what points name as their parents; `config_of` is the run at a point whose parents are resolved."""

    def __init__(self, points: Sequence[Point], config_of: Callable[[Point], RunConfig]) -> None:
        """Raises `UserError` where two points have one name."""
        self._config_of = config_of
        self._names: dict[str, Point] = {}
        self._run_ids: dict[int, tuple[Point, str]] = {}
        """Identity of a point in memory -> the point, kept so that the identity stays its own, and its run id."""
        self._planned: list[tuple[str, str, Point]] = []
        """(id, field, child) of every parent that the sweep itself must hold."""
        for point in points:
            if isinstance(name := point.get("name"), str):
                check(name not in self._names, f"two points are named {name!r}; a parent is found by its name")
                self._names[name] = point

    def resolved(self, point: Point, children: tuple[Point, ...] = ()) -> Point:
        """The point with run ids in place of other points. Raises `UserError` for a circle."""
        roles = [role for role in PARENT_FIELDS if point.get(role) is not None]
        if not roles:
            return point
        if any(child is point for child in children):
            circle = [*children[next(i for i, child in enumerate(children) if child is point) :], point]
            names = " needs ".join(str(one.get("name") or describe(one)) for one in circle)
            raise UserError(f"the points need each other in a circle: {names}; let one of them start from nothing")
        return {**point, **{role: self._run_id(role, point, (*children, point)) for role in roles}}

    def _run_id(self, role: str, point: Point, children: tuple[Point, ...]) -> str:
        """`run_id[@step]` of what `point` has in the field `role`."""
        value = point[role]
        if isinstance(value, Mapping):
            parent, step = value, ""
        else:
            check(
                isinstance(value, str),
                f"{describe(point)}: {role} is a point, the name of one or the id of a run, not {type(value).__name__}",
            )
            name, _, step = value.partition("@")
            if name not in self._names:
                return self._elsewhere(role, value)
            parent = self._names[name]
        run_id = self._id_of(parent, children)
        self._planned.append((run_id, role, point))
        return f"{run_id}@{step}" if step else run_id

    def _elsewhere(self, role: str, value: str) -> str:
        """The id of a run that no point of the sweep is named by."""
        try:
            return str(CheckpointName.parse(value, role))
        except UserError:
            hint = nearest(value, self._names) if self._names else ""
            raise UserError(f"{role} = {value!r} is neither the name of a point nor the id of a run{hint}") from None

    def _id_of(self, parent: Point, children: tuple[Point, ...]) -> str:
        if id(parent) not in self._run_ids:
            self._run_ids[id(parent)] = parent, self._config_of(self.resolved(parent, children)).run_id
        return self._run_ids[id(parent)][1]

    def check_planned(self, runs: Mapping[str, PlannedRun]) -> None:
        """Raise `UserError` where a point of this sweep is to be a parent and no run of it is."""
        for run_id, role, point in self._planned:
            check(
                run_id in runs,
                f"the {role} of {describe(point)} is a point that the sweep does not hold; add it, as in "
                f"chain(parents, fine_tune(parents, ...))",
            )


def started(config: RunConfig, point: Point) -> RunConfig:
    """The run with the parents that its point names. Raises `UserError` where its recipe took others or none."""
    given = {role: point.get(role) for role in ("init_from", "reference")}
    if missing := {role: parent for role, parent in given.items() if parent and getattr(config, role) is None}:
        config = replace(config, **missing)
    for role in PARENT_FIELDS:
        if (parent := point.get(role)) is not None:
            taken = config.parents.get(role)
            check(
                str(taken) == parent,
                f"{describe(point)} has a {role}, and the recipe gave its run {taken or 'none'}; take point[{role!r}] "
                f"in the recipe, as every Recipe does",
            )
    return config


def with_parents(runs: Sequence[PlannedRun]) -> list[PlannedRun]:
    """The runs with the tokens that their parents have seen and what reading a teacher costs.

    Raises `UserError` for a parent that keeps no checkpoint or does not fit its child.
    """
    by_id = {run.config.run_id: run for run in runs}
    return [_with_parents(run, by_id) for run in runs]


def _with_parents(run: PlannedRun, by_id: Mapping[str, PlannedRun]) -> PlannedRun:
    fields: dict[str, Any] = {
        "parent_tokens": _tokens_before(run.config, by_id),
        "reference_flops": 0,
        "reference_bytes": 0,
        "batch_flops": drawing_flops(run.config) * run.config.steps,
    }
    for role, name in run.config.parents.items():
        if (parent := by_id.get(name.run_id)) is None:
            continue
        _check_checkpoint(run.config, role, name, parent.config)
        if role == "init_from":
            _check_shape(run.config, parent.config)
        else:
            check_read(run.config, role, parent.config.run_id, parent.config.model)
            forward = reference_flops(parent.config.model, run.config)
            if role == "reward":  # it reads an answer once, however many updates are made from it
                fields["batch_flops"] += forward // run.config.steps // run.config.steps_per_batch * run.config.steps
            else:
                fields["reference_flops"] += forward
            fields["reference_bytes"] += reference_bytes(parent.config.model, run.config, whole_batch=role == "reward")
        _check_tokenizer(run.config, role, parent.config)
    return replace(run, **fields)


def _tokens_before(config: RunConfig, by_id: Mapping[str, PlannedRun]) -> int | None:
    """Training tokens of the runs that a run starts from, one after the other."""
    name = config.parents.get("init_from")
    if name is None:
        return 0
    if (parent := by_id.get(name.run_id)) is None:
        return None
    before = _tokens_before(parent.config, by_id)
    steps = parent.config.steps if name.step is None else name.step
    return None if before is None else before + steps * parent.config.batch_tokens


def _check_checkpoint(child: RunConfig, role: str, name: CheckpointName, parent: RunConfig) -> None:
    check(
        name.step is None or 0 < name.step <= parent.steps,
        f"run {child.run_id} takes its {role} from step {name.step} of run {name.run_id}, which has {parent.steps:,}",
    )
    check(
        parent.keep_checkpoint or (name.step is not None and name.step < parent.steps),
        f"run {child.run_id} takes its {role} from run {name.run_id}, which keeps no checkpoint; give its recipe "
        f"keep_checkpoint=True",
    )


def _check_shape(child: RunConfig, parent: RunConfig) -> None:
    """Raise `UserError` where a model surely has other parameters than the one it starts from. A reward model has
    another head than a language model that it starts from."""
    check_start(child, parent.run_id, parent.model)
    shapes = [
        f"{model.width} x {model.layers} with {model.heads} heads and {model.vocab:,} ids, {params:,} parameters"
        for model in (child.model, parent.model)
        for params in [params_total(replace(model, scalar_head=parent.model.scalar_head, lora=None))]
    ]
    check(
        shapes[0] == shapes[1],
        f"run {child.run_id} ({shapes[0]}) cannot start from run {parent.run_id} ({shapes[1]}); give both one model",
    )


def _check_tokenizer(child: RunConfig, role: str, parent: RunConfig) -> None:
    """Raise `UserError` where an id surely means other text to each of two models. What a file holds is known later."""
    theirs, own = parent.data.tokenizer, child.data.tokenizer
    trained = theirs.startswith("bpe:") and own.startswith("bpe:")
    given = f"the {role} of run {child.run_id} is run {parent.run_id}, whose tokenizer "
    check(
        theirs == own or not (trained or "bytes" in (theirs, own)),
        f"{given}is {theirs!r}, and its own is {own!r}; give both one tokenizer",
    )
    check(
        not trained or parent.data.source == child.data.source,
        f"{given}{theirs!r} is trained on {parent.data.source}, and its own on {child.data.source}, so an id would "
        f"mean other text to each; name one tokenizer.json for both (`lmscale data` says where a trained one lies)",
    )
