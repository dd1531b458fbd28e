"""A recipe is a value: a family of shapes and a rule for every number, each rule with its source.

Called with a point (N, D or C, ...) it gives the run, called with settings a recipe that has them; `origins` states
where each value of a run comes from.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from numbers import Real
from typing import Any, overload

from lmscale.core.arguments import Finite, Positive, checked, shown
from lmscale.core.config import (
    DataConfig,
    Distillation,
    ModelConfig,
    OptimizerConfig,
    Reinforcement,
    RewardModel,
    RunConfig,
    check,
)
from lmscale.core.counting import active_params_total, flops_per_token, params_total
from lmscale.core.errors import UserError, nearest
from lmscale.core.user_code import called
from lmscale.study.recipes.experts import EXPERT_AXES, with_experts
from lmscale.study.recipes.family import Family, nearest_model
from lmscale.study.recipes.lora import with_lora
from lmscale.study.sweep import PARENT_FIELDS, Point, whole_batches

TRUNK_WARMUP = 0.1
"""Share of a trunk's shortest branch that is warmup: all branches share it."""
SIZES_OF_A_POINT = ("width", "params", "active_params")
"""Coordinates that choose the shape; the width goes before the others, which may name the size that was meant."""
OF_THE_POINT = ("model", "tokens", "seed")
"""Fields of a run that no recipe fixes: its point does."""
RULES = ("lr", "batch_sequences")
"""Fields of a recipe that are rules."""
GIVEN = "given to the recipe"
"""Source of a rule that came without one."""
ALWAYS_REPORTED = ("warmup_fraction", "weight_decay", "beta1", "beta2", "schedule", "final_lr_fraction")
"""Settings of the optimizer whose origin is stated even where they are defaults."""
OBJECTIVE_OF_ROLE = {"teacher": "Distillation", "reward": "Reinforcement"}
"""Parents that an objective names, and which does."""


@checked
@dataclass(frozen=True)
class Rule:
    """A number that follows from (model, D tokens), and its source."""

    value: Callable[[ModelConfig, float], float]
    source: str

    def __call__(self, model: ModelConfig, tokens: float) -> float:
        return called(f"the rule of {self.source!r}", self.value, model, tokens)

    def number(self, model: ModelConfig, tokens: float) -> float:
        """The number of a quantity that is positive. Raises `UserError` for anything else."""
        value = self(model, tokens)
        positive = isinstance(value, Real) and not isinstance(value, bool) and 0 < float(value) < math.inf
        check(positive, f"the rule of {self.source!r} gives {shown(value)}: must be a positive number")
        return float(value)


@checked
def constant(value: Finite, source: str) -> Rule:
    """A rule that gives the same number at every size and length."""
    return Rule(lambda model, tokens: value, source)


@checked
@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Every opinion that turns a point into a run."""

    name: str
    source: str
    """Source of the settings that have no rule of their own."""
    family: Family
    lr: Rule
    """Peak learning rate."""
    batch_sequences: Rule
    """Global batch in sequences, rounded to whole ones here."""
    optimizer: Mapping[str, Any] = field(default_factory=dict)
    """Further settings of the optimizer, a value or a `Rule` each."""
    data: DataConfig = field(default_factory=DataConfig)
    run: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of the run."""
    micro_batch_tokens: int | None = None
    """Most tokens of a micro-batch: larger batches are divided, which changes nothing but memory."""

    @overload
    def __call__(self, point: Point, /) -> RunConfig: ...

    @overload
    def __call__(self, /, **settings: Any) -> "Recipe": ...

    def __call__(self, point: Point | None = None, /, **settings: Any) -> "RunConfig | Recipe":
        """The run at a point; or this recipe with the settings that are given by name: `recipes.cpu(validations=3)`.

        Settings are fields of the recipe, of the run (`keep_checkpoint`, `objective`, `mesh`, ...), and `optimizer`, a
        mapping that is added to the recipe's own. Raises `UserError` for a setting that there is not.
        """
        if point is None:
            return self._with(settings)
        check(
            isinstance(point, Mapping) and not settings,
            f"recipe {self.name!r} is called with a point, a mapping as {{'params': 1e5, 'flops': 1e12}}, or with "
            f"settings by name, not with {type(point).__name__}{' and settings' if settings else ''}",
        )
        return self._run(point)

    def _with(self, settings: Mapping[str, Any]) -> "Recipe":
        """The recipe with other settings: its own fields replaced, those of optimizer and run added to its own."""
        own = {item.name for item in fields(self)} - {"optimizer", "run"}
        of_run = {name for name in RunConfig.__dataclass_fields__ if name not in (*own, "optimizer", *OF_THE_POINT)}
        if unknown := sorted(settings.keys() - own - of_run - {"optimizer"}):
            raise UserError(
                f"recipe {self.name!r} has no setting {unknown[0]!r}{nearest(unknown[0], own | of_run | {'optimizer'})}"
            )
        optimizer = settings.get("optimizer", {})
        check(
            isinstance(optimizer, Mapping),
            f"recipe {self.name!r}: optimizer = {optimizer!r} must be a mapping",
        )
        return replace(
            self,
            optimizer={**self.optimizer, **optimizer},
            run={**self.run, **{name: value for name, value in settings.items() if name in of_run}},
            **{name: self._own(name, value) for name, value in settings.items() if name in own},
        )

    def _own(self, name: str, value: Any) -> Any:
        """The value of a field of the recipe; for a rule, a number or a function of (model, tokens) will do."""
        if name not in RULES or isinstance(value, Rule):
            return value
        if callable(value):
            return Rule(value, GIVEN)
        check(
            isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf,
            f"recipe {self.name!r}: {name} = {value!r} must be a positive number or a rule, a function of (model, "
            f"tokens)",
        )
        return constant(value, GIVEN)

    def _least_sequences(self, data: DataConfig) -> int:
        """Sequences that a batch has a whole number of: those of a pair, or of a group of answers to one prompt."""
        objective = self.run.get("objective")
        return objective.group if isinstance(objective, Reinforcement) else 2 if data.pairs else 1

    def _run(self, point: Point) -> RunConfig:
        """The run at a point with the size `params` (N), `active_params` or `width`, and the length `tokens` (D),
        `flops` (exact C) or `tokens_per_param`.

        Values of the point override the rules: `peak_lr`, `batch_sequences`, `parametrization`, `unique_tokens`,
        `seed`, `experts` and what else says how many there are (`EXPERT_AXES`), and any setting of the optimizer. D
        follows from C by the exact count of the chosen shape, so that every
        run of a budget costs the same, and from D/N by its own N. Branches of a trunk share rate, batch and warmup: the
        rules are evaluated at the geometric mean of their lengths.
        """
        model, data = with_lora(self.model(point), point), self._data(point)
        if isinstance(self.run.get("objective"), RewardModel):  # the shape is that of the language model at the point
            model = replace(model, scalar_head=True)
        tokens = self.tokens(point, model)
        rule_tokens, least = _rule_tokens(point, tokens), self._least_sequences(data)
        batch = point.get("batch_sequences", 0) or self.batch_sequences.number(model, rule_tokens)
        sequences = least * max(1, round(batch / least))
        return RunConfig(
            model=model,
            data=data,
            optimizer=OptimizerConfig(
                peak_lr=float(point.get("peak_lr", 0) or self.lr.number(model, rule_tokens)),
                batch_sequences=sequences,
                **self._settings(point, model, rule_tokens, sequences * model.context),
            ),
            tokens=whole_batches(tokens, sequences * model.context),
            seed=int(point.get("seed", 0)),
            **{**self.run, **self._parents(point)},
        )

    def _parents(self, point: Point) -> dict[str, Any]:
        """The fields of the run that name other runs: those that the point does."""
        of_the_run = {"init_from", "reference"}
        given: dict[str, Any] = {role: point[role] for role in PARENT_FIELDS if role in point and role in of_the_run}
        if roles := {role: point[role] for role in PARENT_FIELDS if role in point and role not in of_the_run}:
            objective = self.run.get("objective", Distillation())
            for role in roles:
                check(
                    hasattr(objective, role),
                    f"recipe {self.name!r}: the point has a {role}, which the objective {objective.kind!r} has not; "
                    f"give the recipe one that has, as objective={OBJECTIVE_OF_ROLE[role]}()",
                )
            given["objective"] = replace(objective, **roles)
        return given

    def model(self, point: Point) -> ModelConfig:
        """The shape at a point."""
        family = with_experts(self.family, point)
        sizes = [name for name in SIZES_OF_A_POINT if name in point]
        check(
            bool(sizes),
            f"recipe {self.name!r} needs the size of a model: give the point params (N), active_params or width",
        )
        check(
            not {"params", "active_params"} <= set(sizes),
            f"recipe {self.name!r}: the point gives both params and active_params, and one of them sets the size",
        )
        if "width" in point:
            model = family.shape(int(point["width"]))
        else:
            model = nearest_model(point[sizes[0]], family, active=sizes[0] == "active_params")
        if (kind := point.get("parametrization")) is None or kind == model.parametrization:
            return model
        base = replace(model, parametrization="standard", base_width=None, base_layers=None, base_head_width=None)
        if kind == "standard":
            return base
        narrow = family.shape(int(point.get("base_width", family.base.base_width or family.width_multiple)))
        layers = narrow.layers if kind == "completep" else None
        return replace(base, parametrization=kind, base_width=narrow.width, base_layers=layers)

    def tokens(self, point: Point, model: ModelConfig) -> float:
        """D at a point, before it is rounded to whole batches."""
        check(
            "tokens" in point or "flops" in point,
            f"recipe {self.name!r} needs the length of a run: give the point tokens (D) or flops (exact C)",
        )
        if "tokens_per_param" in point:  # N of the chosen shape, not the N that was asked for
            params = active_params_total(model) if "active_params" in point else params_total(model)
            return float(point["tokens_per_param"] * params)
        return float(point["tokens"] if "tokens" in point else point["flops"] / flops_per_token(model))

    def origins(self, point: Point) -> dict[str, str]:
        """Field of the run -> where its value comes from."""
        own = "the point's own"
        rule = {name: value.source for name, value in self.optimizer.items() if isinstance(value, Rule)}
        origins = {
            "model": f"{own} width, in a family of {self.family}"
            if "width" in point
            else f"nearest to {_size(point)} in a family of {with_experts(self.family, point)}",
            "tokens": f"{own} D/N"
            if "tokens_per_param" in point
            else f"{own} D"
            if "tokens" in point
            else f"C = {point['flops']:.4g} over exact FLOPs per token",
            "optimizer.peak_lr": own if "peak_lr" in point else self.lr.source,
            "optimizer.batch_sequences": own if "batch_sequences" in point else self.batch_sequences.source,
        }
        for name in dict.fromkeys((*ALWAYS_REPORTED, *self.optimizer)):
            given = rule.get(name, self.source) if name in self.optimizer else "the default of OptimizerConfig"
            origins[f"optimizer.{name}"] = own if name in point else given
        if "trunk" in point:
            origins |= {f"optimizer.{name}": "branches of a trunk (Haegele 2024)" for name in ("schedule", "cooldown")}
            origins["optimizer.warmup_steps"] = f"{TRUNK_WARMUP:.0%} of the trunk's shortest branch"
            origins.pop("optimizer.warmup_fraction")
        origins |= {f"model.{field}": own for name, field in EXPERT_AXES.items() if name in point}
        if "unique_tokens" in point:
            origins["data.unique_tokens"] = own
        return origins

    def _data(self, point: Point) -> DataConfig:
        if "unique_tokens" not in point:
            return self.data
        check(
            point["unique_tokens"] >= 1, f"the point has unique_tokens = {point['unique_tokens']}: a text has 1 or more"
        )
        unique, tokens = int(point["unique_tokens"]), point.get("tokens", point["unique_tokens"])
        # The point asks for these repeats; whole batches may round D up a little.
        passes = max(self.data.max_epochs, 1.05 * tokens / unique)
        return replace(self.data, unique_tokens=unique, max_epochs=passes)

    def _settings(self, point: Point, model: ModelConfig, tokens: float, batch_tokens: int) -> dict[str, Any]:
        settings = {
            name: value(model, tokens) if isinstance(value, Rule) else value for name, value in self.optimizer.items()
        }
        known = {name for name in OptimizerConfig.__dataclass_fields__ if name not in ("peak_lr", "batch_sequences")}
        settings |= {name: value for name, value in point.items() if name in known}
        if self.micro_batch_tokens is not None:
            settings["micro_batches"] = _micro_batches(
                batch_tokens // model.context, batch_tokens / self.micro_batch_tokens
            )
        if "trunk" in point:
            check(
                "trunk_tokens" in point,
                f"recipe {self.name!r}: the point has a trunk and no trunk_tokens, the lengths of all its branches",
            )
            settings.pop("warmup_fraction", None)
            settings |= {
                "schedule": "wsd",
                "warmup_steps": max(1, round(TRUNK_WARMUP * min(point["trunk_tokens"]) / batch_tokens)),
            }
        return settings


def _size(point: Point) -> str:
    """The size that a point asks for, as text."""
    if "active_params" in point:
        return f"{point['active_params']:.4g} active parameters"
    return f"N = {point['params']:.4g}"


def _rule_tokens(point: Point, tokens: float) -> float:
    """The D at which rules are evaluated: that of the run; for branches the geometric mean of all."""
    lengths = point.get("trunk_tokens")
    return math.exp(sum(map(math.log, lengths)) / len(lengths)) if lengths else tokens


def _micro_batches(sequences: int, least: float) -> int:
    """The smallest number, at least `least`, of equal micro-batches of a batch; at most one per sequence."""
    divisors = (number for number in range(1, sequences + 1) if sequences % number == 0)
    return next(number for number in divisors if number >= min(least, sequences))


@checked
def power_of_two(value: Positive) -> int:
    """The power of two nearest to `value` in ratio, at least 1."""
    return 2 ** max(0, round(math.log2(value)))
