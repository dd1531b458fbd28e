"""Planned runs as plain text, for notebooks and scripts; `lmscale plan` prints more, with times and memory."""

from collections.abc import Sequence

from lmscale.core.counting import count
from lmscale.core.plans import PlannedRun
from lmscale.core.quantities import quantity

HEADINGS = ("run", "shape", "N", "D", "D/N", "C", "steps", "batch", "lr", "")
LEFT_BOUND = ("run", "shape", "")
SHOWN = 60
"""Most runs that are written out; of a longer plan, half as many from either end."""


def table(runs: Sequence[PlannedRun]) -> list[str]:
    """Lines of columns, one run each, under headings: N all parameters, D training tokens, C exact training FLOPs."""
    half = SHOWN // 2
    omitted = len(runs) - 2 * half if len(runs) > SHOWN else 0
    cells = [_cells(run) for run in (runs if not omitted else [*runs[:half], *runs[-half:]])]
    widths = [max(map(len, column)) for column in zip(HEADINGS, *cells)]
    lines = [_line(row, widths) for row in (HEADINGS, *cells)]
    return [*lines[: 1 + half], f"... {omitted:,} more runs", *lines[1 + half :]] if omitted else lines


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    aligned = (
        cell.ljust(width) if heading in LEFT_BOUND else cell.rjust(width)
        for cell, width, heading in zip(cells, widths, HEADINGS)
    )
    return "  ".join(aligned).rstrip()


def _cells(run: PlannedRun) -> tuple[str, ...]:
    config, counts = run.config, count(run.config)
    notes = ["held out"] if run.held_out else []
    if run.branch_step is not None:
        notes.append(f"from {run.trunk} at step {run.branch_step:,}")
    return (
        config.run_id,
        f"{config.model.width} x {config.model.layers}",
        quantity(counts.params),
        quantity(counts.tokens),
        f"{counts.tokens_per_param:.3g}",
        f"{counts.flops:.2e}",
        f"{config.steps:,}",
        quantity(config.batch_tokens),
        f"{config.optimizer.peak_lr:.2g}",
        ", ".join(notes),
    )
