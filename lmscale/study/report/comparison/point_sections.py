"""What a comparison says of sweeps that fix no law: losses and best learning rates at the points that both ran."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from lmscale.study.plots import compact, number
from lmscale.study.report import page
from lmscale.study.report.comparison import points
from lmscale.study.report.comparison.laws import Stated
from lmscale.study.report.comparison.points import Measured, Point, SeedNoise
from lmscale.study.report.comparison.sides import Side, Unit
from lmscale.study.report.kinds import SEEDS
from lmscale.study.report.page import Number

NAMES = {
    "params": ("N", "parameters"), "params_non_embedding": ("N", "non-emb. params"), "tokens": ("D", "tokens"),
    "flops_budget": ("C", "FLOPs"), "batch_tokens": ("batch", "tokens"), "passes": ("passes", "over the text"),
}  # fmt: skip
READING = (
    "Losses are means over seeds, at the lowest of the rates (and batches) tried; “tried” are the rates on both sides "
    "of the best, between which it lies. A change is against {first}; its 95 % interval is Student's, of the noise of "
    "seeds alone, and “–” where no seeds show that noise. A ratio of rates lies within what the rates tried allow."
)


def pair_noise(sides: Sequence[Side], unit: Unit, other: int) -> SeedNoise:
    """The noise of one run, pooled over the seeds of the first side and another."""
    return points.seed_noise([sides[0], sides[other]], Unit(unit.name, (unit.factors[0], unit.factors[other])))


def answer(sides: Sequence[Side], unit: Unit, common: Sequence[Point], other: int) -> list[str]:
    """What the points that the first side and another ran say: the losses, the best rates, the noise."""
    both = [point for point in common if point.sides[0] and point.sides[other]]
    pair = f"{sides[other].label} against {sides[0].label}"
    if not both:
        return [f"{pair}: nothing to compare, since no size and length was run on both ({_ran(sides[0])}; "
                f"{_ran(sides[other])})."]  # fmt: skip
    losses = unit.caution if unit.caution else _losses(sides, unit, both, other)
    sentences = [f"{pair}, at the {_counted(both)} that both ran: {losses[:1].lower()}{losses[1:]}."]
    if rates := _rates(both, other):
        sentences.append(rates)
    if sides[0].kind == sides[other].kind == SEEDS:
        sentences += _noise(sides, unit, other)
    return sentences


def _counted(both: Sequence[Point]) -> str:
    """ "3 points (N, D)", "one point (N, D, context)"."""
    names = ", ".join(NAMES.get(name, (name, ""))[0] for name, _ in both[0].coordinates)
    return f"{f'{number(len(both))} points' if len(both) > 1 else 'one point'} ({names})"


def _ran(side: Side) -> str:
    """The sizes and lengths of a side, by their ends."""
    parts = []
    for letter, name in (("N", "params"), ("D", "tokens")):
        low, high = (compact(float(end)) for end in (side.runs[name].min(), side.runs[name].max()))
        parts.append(f"{letter} = {low}" if low == high else f"{letter} from {low} to {high}")
    return f"{side.label}: {' and '.join(parts)}"


def _losses(sides: Sequence[Side], unit: Unit, both: Sequence[Point], other: int) -> str:
    noise = pair_noise(sides, unit, other)
    change, source = points.mean_change(both, other, (unit.factors[0], unit.factors[other]), noise)
    size = f"{change.value:+.4f} {unit.name}{' on average' * (len(both) > 1)}"
    if not source:
        return f"the loss changes by {size}; no seeds show the noise, so that no interval can be stated"
    low, high = change.interval
    verdict = ", no difference that these runs show" if low <= 0 <= high else ""
    return f"the loss changes by {size} (95 % interval {low:+.4f} to {high:+.4f}, of {source}){verdict}"


def _rates(both: Sequence[Point], other: int) -> str:
    """At how many points the best rates are apart by more than the rates tried leave open."""
    pairs = [(point, first, one) for point in both if (first := point.sides[0]) and (one := point.sides[other])]
    known = [(point, first, one) for point, first, one in pairs if points.rate_change(first, one) is not None]
    if not known:
        return ""
    apart = [one for one in known if not _overlapping(one[1].bracket, one[2].bracket)]
    if not apart:
        which = "the point" if len(known) == 1 else f"all {len(known)} points"
        return f"Of the best learning rates, those tried allow that they are the same at {which}."
    point, first, one = apart[0]
    return (
        f"The best learning rates differ by more than the steps of those tried at {len(apart)} of {len(known)} points: "
        f"{first.rate:.3g} against {one.rate:.3g} at {_place(point)}{' and others' * (len(apart) > 1)}."
    )


def _overlapping(first: tuple[float, float], other: tuple[float, float]) -> bool:
    return first[0] < other[1] and other[0] < first[1]


def _place(point: Point) -> str:
    return ", ".join(f"{NAMES.get(name, (name, ''))[0]} = {_value(value)}" for name, value in point.coordinates)


def _noise(sides: Sequence[Side], unit: Unit, other: int) -> list[str]:
    """One run's noise on both sides, and their ratio."""
    own = [points.seed_noise([sides[index]], Unit(unit.name, (unit.factors[index],))) for index in (0, other)]
    ratio = points.noise_ratio(own[0], own[1])
    if ratio is None:
        return []
    low, high = ratio.interval
    verdict = ": no difference that these runs show" if low <= 1 <= high else ""
    return [
        f"One run's standard deviation between seeds is {own[0].sd:.2g} in {sides[0].label} and {own[1].sd:.2g} "
        f"{unit.name} in {sides[other].label}, {number(ratio.value)} times as large (95 % interval {number(low)} to "
        f"{number(high)}, normal noise){verdict}."
    ]


def section(sides: Sequence[Side], unit: Unit, common: Sequence[Point]) -> list[str]:
    """The points side by side in a table; nothing where there are none."""
    if not common:
        return []
    tuned = any(one is not None and one.rate is not None for point in common for one in point.sides)
    heads = [NAMES.get(name, (name, "")) for name, _ in common[0].coordinates]
    for side in sides:
        heads += [(side.label, f"loss, {unit.name}"), ("runs", "")]
        heads += [("best rate", ""), ("tried", "")] if tuned else []
    for side in sides[1:]:
        heads += [(f"change to {side.label}", "loss"), ("", "95 %")]
        heads += [("", "best rate"), ("", "tried")] if tuned else []
    noises = [pair_noise(sides, unit, other) for other in range(1, len(sides))]
    rows = [page.Row(_cells(point, unit, noises, tuned)) for point in common]
    reading = READING.format(first=sides[0].label)
    known = [f"{side.label}: {noise.sd:.2g} {unit.name}, {noise.freedom} degrees of freedom"
             for side, noise in zip(sides[1:], noises) if noise.freedom]  # fmt: skip
    sentences = [reading, *([f"Noise of one run, pooled with {sides[0].label}. {'; '.join(known)}."] if known else [])]
    return [page.heading("The same points, side by side"), page.paragraphs(sentences), page.table(heads, rows, ())]


def _cells(point: Point, unit: Unit, noises: Sequence[SeedNoise], tuned: bool) -> list[page.Cell]:
    cells: list[page.Cell] = [_coordinate(value) for _, value in point.coordinates]
    for one, factor in zip(point.sides, unit.factors):
        cells += ["–"] * (4 if tuned else 2) if one is None else _measured(one, factor, tuned)
    first = point.sides[0]
    for index, (one, noise) in enumerate(zip(point.sides[1:], noises), 1):
        if first is None or one is None:
            cells += ["–"] * (4 if tuned else 2)
            continue
        if unit.caution:
            cells += ["–", "–"]
        else:
            factors = (unit.factors[0], unit.factors[index])
            cells += _change(points.loss_change(first, one, factors, noise), "{:+.4f}".format)
        if tuned:
            ratio = points.rate_change(first, one)
            cells += ["–", "–"] if ratio is None else _change(ratio, lambda value: f"×{value:.3g}")
    return cells


def _measured(one: Measured, factor: float, tuned: bool) -> list[page.Cell]:
    cells: list[page.Cell] = [Number(f"{factor * one.loss_nats:.4f}", factor * one.loss_nats), str(len(one.runs))]
    if tuned:
        cells += ["–", "–"] if one.rate is None else [Number(f"{one.rate:.3g}", one.rate), _bracket(*one.bracket)]
    return cells


def _bracket(low: float, high: float) -> str:
    """Between which of the rates tried the best lies; of a rate at the edge, that the best may lie beyond."""
    if not low:
        return f"below {high:.3g}, at the edge" if math.isfinite(high) else "–"
    return f"{low:.3g} – {high:.3g}" if math.isfinite(high) else f"above {low:.3g}, at the edge"


def _change(change: Stated, write: Any) -> list[page.Cell]:
    low, high = change.interval
    if math.isnan(low) or math.isnan(high) or not (low or math.isfinite(high)):
        return [Number(write(change.value), change.value), "–"]
    if not low or not math.isfinite(high):
        return [Number(write(change.value), change.value), f"< {write(high)}" if not low else f"> {write(low)}"]
    return [Number(write(change.value), change.value), f"{write(low)} – {write(high)}"]


def _coordinate(value: Any) -> page.Cell:
    return value if isinstance(value, str) else Number(_value(value), float(value))


def _value(value: Any) -> str:
    return value if isinstance(value, str) else compact(float(value))


def to_json(sides: Sequence[Side], unit: Unit, common: Sequence[Point]) -> list[dict[str, Any]]:
    """The points as plain values: what every side measured, and how the further sides differ from the first."""
    noises = [pair_noise(sides, unit, other) for other in range(1, len(sides))]
    rows = []
    for point in common:
        changes: list[dict[str, Any] | None] = []
        for index, (one, noise) in enumerate(zip(point.sides[1:], noises), 1):
            if (first := point.sides[0]) is None or one is None:
                changes.append(None)
                continue
            loss = points.loss_change(first, one, (unit.factors[0], unit.factors[index]), noise)
            rate = points.rate_change(first, one)
            changes.append({"loss": None if unit.caution else asdict(loss), "rate": rate and asdict(rate)})
        measured = [one and asdict(one) for one in point.sides]
        rows.append({"point": dict(point.coordinates), "sides": measured, "changes": changes})
    return rows
