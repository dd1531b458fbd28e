"""The page of a comparison: who needs less compute, what differs, the laws side by side, how many runs there are."""

import math
from collections.abc import Sequence

from lmscale.study.fits.predict.multiplier import ComputeMultiplier
from lmscale.study.plots import compact, number, power
from lmscale.study.report import account, page
from lmscale.study.report.comparison import differences, laws, point_sections, scores
from lmscale.study.report.comparison.points import Point
from lmscale.study.report.comparison.scores import ScoreRow
from lmscale.study.report.comparison.sides import Side, Unit
from lmscale.study.report.methods import listed
from lmscale.study.report.page import Number


def answer(
    sides: Sequence[Side],
    multipliers: Sequence[ComputeMultiplier | str],
    unit: Unit,
    points: Sequence[Point] = (),
    score_rows: Sequence[ScoreRow] = (),
) -> list[str]:
    """What can be said of every further side: its compute at equal loss as a share of the first side's, the losses and
    best rates at the points that both ran, their benchmark scores; a sentence that says why where there is nothing."""
    sentences = []
    for other, (side, result) in enumerate(zip(sides[1:], multipliers), 1):
        ladders = sides[0].is_ladder and side.is_ladder
        if ladders:
            sentences.append(_sentence(side.label, sides[0].label, result, unit))
        shared = any(point.sides[other] for point in points)
        if not ladders or (isinstance(result, str) and shared):
            sentences += point_sections.answer(sides, unit, points, other)
        if score_rows:
            sentences.append(scores.answer(sides, score_rows, other))
    return sentences


def _sentence(label: str, first: str, result: ComputeMultiplier | str, unit: Unit) -> str:
    if isinstance(result, str):
        return f"{label} against {first}: no compute at equal loss can be stated. {result[:1].upper()}{result[1:]}."
    stated = result.multiplier
    low, high = stated.intervals["0.95"]
    ends = f" (95 % interval {number(low)} to {number(high)})" if math.isfinite(low) and math.isfinite(high) else ""
    verdict = "" if low <= 1 <= high else " less compute" if stated.multiplier > 1 else " more compute"
    times = stated.multiplier if stated.multiplier >= 1 else 1 / stated.multiplier
    if not verdict:
        return (
            f"At {stated.loss_nats:.4f} {unit.name}, {first} takes {number(stated.multiplier)} times the compute of "
            f"{label}{ends}: no difference that these runs show."
        )
    return (
        f"{label} reaches {stated.loss_nats:.4f} {unit.name} with {number(times)} times{verdict} than {first}: the "
        f"ratio of their compute is {number(stated.multiplier)}{ends}."
    )


def differing(sides: Sequence[Side]) -> list[str]:
    """What differs in the configurations and versions, in a table; a sentence where nothing does."""
    rows = differences.differences(sides)
    of_sweeps = all(side.folder is not None for side in sides)
    compared = "configurations" if of_sweeps else "columns that all tables have"
    if not rows:
        return [page.paragraphs([f"The {compared}, and the versions that trained the runs, do not differ."])]
    heads = [("field", ""), *((side.label, "") for side in sides)]
    table = page.table(heads, [("", [name, *values]) for name, values in rows], text_columns=range(len(heads)))
    return [
        page.paragraphs(
            [f"Of the {compared}, and the versions that trained the runs: {differences.counted(len(rows))}."]
        ),
        table,
    ]


def side_by_side(sides: Sequence[Side], unit: Unit) -> list[str]:
    """Every quantity on every side, and how the further sides differ from the first; nothing of sweeps for no law."""
    rows = laws.compared(sides, unit)
    title = page.heading("Laws side by side")
    if not any(side.kind.fits_law or side.fits for side in sides):
        return []
    if not rows:
        return [title, page.paragraphs([_incomparable(sides)])]
    allocated = laws.all_allocate(sides)
    heads = [("", f"at C = {power(laws.common_budget(sides))} FLOPs" if allocated else ""), *_heads(sides)]
    where = f"At the largest compute up to which all were fitted{_given(sides)}. " if allocated else ""
    return [
        title,
        page.paragraphs(
            [
                f"{where}Changes are against {sides[0].label}: a factor (×) for sizes and tokens, a difference "
                "otherwise; intervals of 95 % over independent draws of both.",
                *([] if allocated else [_without_allocation(sides)]),
            ]
        ),
        *[page.paragraphs([sentence], "caution") for sentence in laws.extrapolated(sides)],
        page.table(heads, [("", [row.name, *_cells(row)]) for row in rows]),
    ]  # fmt: skip


def _incomparable(sides: Sequence[Side]) -> str:
    """Why the laws share no quantity."""
    if lacking := [side.label for side in sides if side.fit is None and side.law is None]:
        return f"No law is fixed by the runs of {', '.join(lacking)}, so that none can be compared."
    forms = ", ".join(f"{side.label}: {side.law.law.NAME}" for side in sides if side.law is not None)
    return f"Laws of different forms ({forms}) have no parameter in common. {_without_allocation(sides)}"


def _without_allocation(sides: Sequence[Side]) -> str:
    """Whose law states no allocation, and which inputs it needs for one."""
    lacking = [(side.label, side.law.law) for side in sides if side.fit is None and side.law is not None]
    inputs = sorted({name for _, law in lacking for name in law.further_inputs()})
    of = " and ".join(label for label, _ in lacking)
    if not inputs or not all(law.splits_compute() for _, law in lacking):
        return f"No allocation of compute follows from the law of {of}."
    example = ",".join(f"{name}=VALUE" for name in inputs)
    return f"With --given {example} the allocations by the law of {of} are compared, too."


def _given(sides: Sequence[Side]) -> str:
    """At which values of further inputs allocations are stated; "" of laws of size and data alone."""
    values = {
        name: value for side in sides if side.fit is side.law and side.law for name, value in side.law.given.items()
    }
    return f", with {', '.join(f'{name} = {number(value)}' for name, value in values.items())}" if values else ""


def _heads(sides: Sequence[Side]) -> list[tuple[str, str]]:
    values = [(side.label, part) for side in sides for part in ("", "95 %")]
    changes = [(f"change to {side.label}", part) for side in sides[1:] for part in ("", "95 %")]
    return [*values, *changes]


def _cells(row: laws.Compared) -> list[page.Cell]:
    cells: list[page.Cell] = []
    for stated in row.values:
        cells += _stated(stated, "", row.is_ratio)
    for stated in row.changes:
        cells += _stated(stated, "×" if row.is_ratio else "±", row.is_ratio)
    return cells


def _stated(stated: laws.Stated | None, sign: str, count: bool) -> list[page.Cell]:
    """A value and its interval; `sign` "×" for a factor, "±" for a difference, whose sign is written."""
    if stated is None:
        return ["–", "–"]
    write = {"": compact if count else "{:#.5g}".format, "×": lambda value: f"×{number(value)}", "±": "{:+.3g}".format}[
        sign
    ]
    low, high = stated.interval
    known = math.isfinite(low) and math.isfinite(high)
    return [Number(write(stated.value), stated.value), f"{write(low)} – {write(high)}" if known else "–"]


def counts(sides: Sequence[Side]) -> list[str]:
    """How many runs every side has, and what its fits say of themselves."""
    sentences = [f"{side.label}: {account.run_count(side.table)}" for side in sides]
    warnings = [
        f"{side.label}, Approach {fit.approach}: {status.sentence}."
        for side in sides
        for fit in side.fits
        for status in fit.status
        if status.severity == "warning"
    ]
    return [page.paragraphs(sentences), *([page.bullets(warnings)] if warnings else [])]


def title(sides: Sequence[Side]) -> str:
    """The labels of all sides: "a and b", "a, b and c"."""
    return listed([side.label for side in sides])
