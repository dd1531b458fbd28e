"""Planned runs as plain text, for notebooks and scripts; `lmscale plan` prints more, with times and memory."""

from collections.abc import Sequence

from lmscale.core.config import PRETRAIN, ModelConfig
from lmscale.core.counting import count
from lmscale.core.plans import PlannedRun
from lmscale.core.quantities import quantity

HEADINGS = ("run", "stage", "shape", "experts", "N", "active", "D", "D/N", "C", "steps", "batch", "lr", "")
OF_EXPERTS = ("experts", "active")
"""Headings that a plan of dense models goes without."""
LEFT_BOUND = ("run", "stage", "shape", "")
SHOWN = 60
"""Most runs that are written out; of a longer plan, half as many from either end."""


def table(runs: Sequence[PlannedRun]) -> list[str]:
    """Lines of columns, one run each, under headings: N all parameters, D training tokens, C exact training FLOPs.

    Of models with experts also how many there are, and the active parameters, which one token passes; where runs are
    more than pretraining, the stage of each.
    """
    rows, omitted = cells(runs)
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = [_line(row, rows[0], widths) for row in rows]
    half = 1 + SHOWN // 2
    return [*lines[:half], f"... {omitted:,} more runs", *lines[half:]] if omitted else lines


def cells(runs: Sequence[PlannedRun]) -> tuple[list[tuple[str, ...]], int]:
    """The headings and the rows that are shown, without columns that say nothing; and how many rows are not shown."""
    half = SHOWN // 2
    omitted = len(runs) - 2 * half if len(runs) > SHOWN else 0
    lines = [_cells(run) for run in (runs if not omitted else [*runs[:half], *runs[-half:]])]
    omitted_headings = OF_EXPERTS if all(run.config.model.experts == 1 for run in runs) else ()
    if all(run.stage == PRETRAIN for run in runs):
        omitted_headings = (*omitted_headings, "stage")
    return [_without(row, omitted_headings) for row in (HEADINGS, *lines)], omitted


def experts_text(model: ModelConfig) -> str:
    """ "2 of 8": how many experts of a layer a token passes, shared ones apart; "1" of a dense model."""
    if model.experts == 1:
        return "1"
    shared = f" + {model.shared_experts}" if model.shared_experts else ""
    return f"{model.experts_per_token}{shared} of {model.experts}"


def _without(cells: Sequence[str], headings: Sequence[str]) -> tuple[str, ...]:
    """The cells of a line but those under `headings`."""
    return tuple(cell for cell, heading in zip(cells, HEADINGS) if heading not in headings)


def _line(cells: Sequence[str], headings: Sequence[str], widths: Sequence[int]) -> str:
    aligned = (
        cell.ljust(width) if heading in LEFT_BOUND else cell.rjust(width)
        for cell, width, heading in zip(cells, widths, headings)
    )
    return "  ".join(aligned).rstrip()


def _cells(run: PlannedRun) -> tuple[str, ...]:
    config, counts = run.config, count(run.config)
    notes = ["held out"] if run.held_out else []
    if run.branch_step is not None:
        notes.append(f"from {run.trunk} at step {run.branch_step:,}")
    return (
        config.run_id,
        run.stage,
        f"{config.model.width} x {config.model.layers}",
        experts_text(config.model),
        quantity(counts.params),
        quantity(counts.active_params),
        quantity(counts.tokens),
        f"{counts.tokens_per_param:.3g}",
        f"{counts.flops:.2e}",
        f"{config.steps:,}",
        quantity(config.batch_tokens),
        f"{config.optimizer.peak_lr:.2g}",
        ", ".join(notes),
    )
