"""Where a plan is trained and how fast: a named device, or this machine by what was measured on it."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from lmscale.core import accelerators, measured_speeds
from lmscale.core.counting import validation_flops
from lmscale.core.host import usable_cores
from lmscale.core.measured_speeds import MeasuredSpeed
from lmscale.core.plans import PlannedRun
from lmscale.core.results import Outcome
from lmscale.study import launch
from lmscale.study.prices import STARTUP_SECONDS, Hardware, on_devices

ASSUMED_MFU = 0.3
"""Share of the matmul peak that a small run reaches, where nothing was measured."""


def hardware_of(
    runs: Sequence[PlannedRun],
    folder: Path,
    device: str = "",
    count: int = 1,
    utilisation: float | None = None,
    price_per_hour: float | None = None,
) -> Hardware:
    """`count` devices called `device`; without a name this machine, by the best that is known of it.

    That is, in this order: runs of the sweep that have finished, figures of `lmscale bench`, a share of the matmul peak
    measured now.
    """
    if device:
        return on_devices(accelerators.by_name(device), count, utilisation, price_per_hour)
    slots = launch.slots()
    places = len(slots)
    finished = _finished(runs, folder)
    if finished:
        title = f"this machine, {places} at once, by the {len(finished)} runs that have finished here"
        return Hardware(title, places, price_per_hour=price_per_hour, figures=finished, figures_source="finished")
    cores = 0 if slots[0].has_gpu else max(1, len(usable_cores()) // places)
    benched, how = _benched(cores)
    if benched:
        title = f"this machine, {places} at once, by {len(benched)} figures of `lmscale bench`{how}"
        return Hardware(title, places, price_per_hour=price_per_hour, figures=benched, figures_source="bench")
    peak = matmul_peak() / places
    title = (
        f"this machine, {places} at once, assuming {ASSUMED_MFU:.0%} of its float32 matmul peak, {peak:.3g} FLOP/s per "
        f"run, measured now; `lmscale bench --sweep SWEEP` measures the sweep's own shapes"
    )
    return Hardware(title, places, price_per_hour=price_per_hour, assumed=ASSUMED_MFU * peak)


def _finished(runs: Sequence[PlannedRun], folder: Path) -> tuple[MeasuredSpeed, ...]:
    found = []
    for run in runs:
        outcome = Outcome.read(folder / run.config.run_id)
        if run.branch_step is not None:  # its FLOPs are those of the whole run, its time is not
            continue
        if outcome is not None and outcome.state == "finished" and outcome.seconds > 0:
            done = outcome.flops + validation_flops(run.config)
            compiling = max(0.0, outcome.startup_seconds - STARTUP_SECONDS)
            found.append(
                MeasuredSpeed(
                    config=run.config, flops_per_second=done / outcome.seconds, compile_seconds=compiling,
                    device=outcome.device, cores=len(usable_cores()),
                )
            )  # fmt: skip
    return tuple(found)


def _benched(cores: int) -> tuple[tuple[MeasuredSpeed, ...], str]:
    """Figures for runs on so many cores each (0: on an accelerator), and what was done to them."""
    found = [figure for figure in measured_speeds.of_this_machine() if figure.device.startswith("cpu") == bool(cores)]
    same = tuple(figure for figure in found if not cores or figure.cores == cores)
    if same or not found:
        return same, ""
    scaled = [
        replace(figure, flops_per_second=figure.flops_per_second * cores / figure.cores, cores=cores)
        for figure in found
    ]
    return tuple(scaled), f", taken on {found[0].cores} cores and shared out over the runs"


def matmul_peak() -> float:
    """FLOP/s of NumPy's float32 matrix product on all cores: planning must not take hold of an accelerator."""
    size, best = 512, float("inf")
    matrix = np.ones((size, size), np.float32)
    for _ in range(8):
        start = time.perf_counter()
        matrix @ matrix
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best
