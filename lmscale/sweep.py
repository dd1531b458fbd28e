"""A sweep is a value: points in the space of a scaling law, a recipe that turns each into a run, and what is held out.

Importing a sweep file does nothing; `plan` checks and counts every run before a FLOP is spent.
"""

import math
import runpy
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmscale.config import RunConfig, check, check_types
from lmscale.counting import count, memory_bytes, validation_flops
from lmscale.errors import UserError, nearest
from lmscale.results import PlannedRun

Point = Mapping[str, Any]
"""Coordinates of one run, as a builder made them: `flops`, `params`, `tokens`, `seed`, ..."""


def grid(**axes: Iterable[Any]) -> tuple[Point, ...]:
    """Every combination of the given axes, the last varying fastest."""
    points: list[dict[str, Any]] = [{}]
    for name, values in axes.items():
        points = [{**point, name: value} for point in points for value in values]
    return tuple(points)


def chain(*parts: Iterable[Point]) -> tuple[Point, ...]:
    """The points of several lists, one after the other."""
    return tuple(point for part in parts for point in part)


def isoflop(
    budgets: Sequence[float],
    *,
    centre: Callable[[float], float],
    sizes: int = 7,
    spread: float = 4.0,
    seeds: Sequence[int] = (0,),
) -> tuple[Point, ...]:
    """At each compute budget, model sizes spaced evenly in ln N around where the minimum is expected.

    Args:
        budgets: C, exact training FLOPs.
        centre: expected optimal N (all parameters) at a budget.
        sizes: model sizes per budget; 7 is enough for a parabola and its check.
        spread: the grid runs from centre / spread to centre * spread. Approach 2 is biased by a grid that is wide or
            off centre (laws of unequal exponents: +1.3 % in N* at spread 4, +5.4 % at 16).
        seeds: repeats of each point.
    """
    check(sizes >= 3, f"isoflop(sizes={sizes}): a parabola takes at least 3 sizes, and 7 are advised")
    check(spread > 1, f"isoflop(spread={spread}): must be larger than 1, and 4 is advised")
    ratios = [spread ** (2 * i / (sizes - 1) - 1) for i in range(sizes)]
    return tuple(
        {"flops": float(flops), "params": centre(flops) * ratio, "seed": seed}
        for flops in budgets
        for ratio in ratios
        for seed in seeds
    )


def ladder(sizes: Sequence[float], tokens_per_param: Sequence[float], seeds: Sequence[int] = (0,)) -> tuple[Point, ...]:
    """Model sizes N (all parameters) times training lengths D/N."""
    return tuple(
        {"params": float(params), "tokens": float(params * ratio), "seed": seed}
        for params in sizes
        for ratio in tokens_per_param
        for seed in seeds
    )


@dataclass(frozen=True)
class Device:
    """A machine other than this one, for the time estimates of a plan."""

    name: str
    flops_per_second: float
    """Sustained training FLOP/s of one run, an assumption that the plan repeats."""
    runs_at_once: int = 1


@dataclass(frozen=True)
class Sweep:
    """What is to be learned, before any of it is run."""

    name: str
    points: Sequence[Point]
    recipe: Callable[[Point], RunConfig]
    """Every opinion that turns a point into a run; see `recipes`."""
    held_out: Callable[[Point], bool] = lambda point: False
    """Points that no fit may see: they are the prediction, fixed before anything runs."""
    tokens_per_param: tuple[float, float] = (0.1, 10_000.0)
    """D/N (N all parameters) outside of this range is refused."""
    question: str = ""
    """One sentence, printed above the plan and the report."""
    device: Device | None = None
    """Where the sweep is meant to run, if not here."""

    def __post_init__(self) -> None:
        check_types(self)
        check(
            bool(self.name.strip(".")) and all(c.isalnum() or c in "-_." for c in self.name),
            f"Sweep.name = {self.name!r}: it names a folder, so use letters, digits, '-', '_' and '.'",
        )
        check(len(self.points) > 0, f"sweep {self.name!r} has no points")


@dataclass(frozen=True)
class Plan:
    """The runs of a sweep, checked and counted."""

    sweep: Sweep
    runs: list[PlannedRun] = field(default_factory=list)

    @property
    def flops(self) -> int:
        """Training FLOPs of all runs, exact."""
        return sum(count(run.config).flops for run in self.runs)


def plan(sweep: Sweep) -> Plan:
    """Turn every point into a run and check the whole.

    Raises `UserError` for two points that are the same run and for a D/N outside `Sweep.tokens_per_param`.
    """
    runs: list[PlannedRun] = []
    seen: dict[str, Point] = {}
    low, high = sweep.tokens_per_param
    for point in sweep.points:
        config = _called(sweep, "recipe", point)
        check(
            isinstance(config, RunConfig),
            f"the recipe of sweep {sweep.name!r} returned {type(config).__name__} for {_said(point)}, not a RunConfig",
        )
        ratio = count(config).tokens_per_param
        check(
            low <= ratio <= high,
            f"{_said(point)} trains {count(config).params:,} parameters on {config.tokens:,} tokens: D/N = "
            f"{ratio:.3g} is outside {low:g} to {high:g}; move the point or set Sweep(tokens_per_param=...)",
        )
        if config.run_id in seen:
            raise UserError(
                f"two points are the same run {config.run_id}: {_said(seen[config.run_id])} and {_said(point)}; "
                f"give one another size, length or seed"
            )
        seen[config.run_id] = point
        runs.append(
            PlannedRun(
                config=config,
                held_out=bool(_called(sweep, "held_out", point)),
                flops_budget=point.get("flops"),
                group=str(point.get("group", "")),
            )
        )
    return Plan(sweep, runs)


def _called(sweep: Sweep, name: str, point: Point) -> Any:
    """`sweep.recipe` or `sweep.held_out` of a point; what it raises is said with the point."""
    try:
        return getattr(sweep, name)(point)
    except UserError as error:
        raise UserError(f"{_said(point)}: {error}") from None
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise UserError(
            f"the {name} of sweep {sweep.name!r} fails at {_said(point)}: {type(error).__name__}: {error} "
            f"({place.filename}, line {place.lineno})"
        ) from error


def _said(point: Point) -> str:
    values = ", ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in point.items())
    return f"point({values})"


@dataclass(frozen=True)
class Estimate:
    """Time and memory of one run on a stated machine."""

    seconds: float
    memory_bytes: int


def estimate(config: RunConfig, flops_per_second: float, startup_seconds: float) -> Estimate:
    """Seconds at a sustained `flops_per_second`, validation and start-up included; bytes over all devices."""
    flops = count(config).flops + validation_flops(config)
    return Estimate(startup_seconds + flops / flops_per_second, memory_bytes(config))


def load(path: str | Path) -> Sweep:
    """The `SWEEP` that a sweep file defines.

    Raises `UserError` when the file is absent, defines no `SWEEP`, or fails: the line and its error are named.
    """
    path = Path(path)
    if not path.is_file():
        others = [other.name for other in (path if path.is_dir() else path.parent).glob("*.py")]
        raise UserError(f"there is no sweep file {path}{nearest(path.name, others) if others else ''}")
    try:
        names = runpy.run_path(str(path), run_name="sweep")
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except Exception as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = error.lineno if isinstance(error, SyntaxError) else frames[-1].lineno if frames else "?"
        raise UserError(f"{path}, line {line}: {type(error).__name__}: {error}") from None
    found = names.get("SWEEP")
    if found is None:
        variables = [name for name, value in names.items() if isinstance(value, Sweep)]
        hint = f"; it defines a Sweep as {variables[0]}: call that SWEEP" if variables else "; write SWEEP = Sweep(...)"
        raise UserError(f"{path} defines no SWEEP{hint}")
    check(isinstance(found, Sweep), f"{path}: SWEEP is of type {type(found).__name__}; write SWEEP = Sweep(...)")
    return found


def whole_batches(tokens: float, batch_tokens: int) -> int:
    """The number of tokens nearest to `tokens` that is a whole number of batches, at least one."""
    check(math.isfinite(tokens) and tokens > 0, f"tokens = {tokens!r}: must be positive")
    return max(1, round(tokens / batch_tokens)) * batch_tokens
