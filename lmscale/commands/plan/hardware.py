"""The hardware that a plan is priced for: a named device, or this machine at the speeds that were measured on it."""

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
from lmscale.core.quantities import counted
from lmscale.core.results import outcome_or_problem
from lmscale.core.threads import one_thread_for_products
from lmscale.study import launch
from lmscale.study.prices import STARTUP_SECONDS, Hardware, on_devices

ASSUMED_MFU = 0.3
"""Share of the matmul peak that a small run is assumed to reach where nothing was measured."""


def hardware_of(
    runs: Sequence[PlannedRun],
    folder: Path,
    device: str = "",
    count: int = 1,
    utilisation: float | None = None,
    price_per_hour: float | None = None,
) -> Hardware:
    """`count` devices called `device`; without a name this machine, at the best known speeds.

    These come, in this order, from finished runs of the sweep, from `lmscale bench`, or from a share of the matmul
    peak, measured now.
    """
    if device:
        return on_devices(accelerators.by_name(device), count, utilisation, price_per_hour)
    slots = launch.slots()
    at_once = len(slots)
    finished = _finished(runs, folder)
    if finished:
        title = f"this machine, {at_once} at once, by what {counted(len(finished), 'run')} took here"
        return Hardware(title, at_once, price_per_hour=price_per_hour, figures=finished, figures_source="measured")
    cores = 0 if slots[0].has_gpu else max(1, len(usable_cores()) // at_once)
    benched, scaling = _benched(cores)
    if benched:
        title = f"this machine, {at_once} at once, by {len(benched)} speeds of `lmscale bench`{scaling}"
        return Hardware(title, at_once, price_per_hour=price_per_hour, figures=benched, figures_source="bench")
    peak = matmul_peak() / at_once
    title = (
        f"this machine, {at_once} at once, assuming {ASSUMED_MFU:.0%} of its float32 matmul peak, {peak:.3g} FLOP/s "
        f"per run, measured now; `lmscale bench --sweep SWEEP` measures the sweep's own shapes"
    )
    return Hardware(title, at_once, price_per_hour=price_per_hour, assumed=ASSUMED_MFU * peak)


def _finished(runs: Sequence[PlannedRun], folder: Path) -> tuple[MeasuredSpeed, ...]:
    speeds, cores = [], len(usable_cores())
    for run in runs:
        outcome, _ = outcome_or_problem(folder / run.config.run_id, run.config)  # `run` says what is corrupt
        if run.branch_step is not None:  # its FLOPs are those of the whole run, its time is only that of the branch
            continue
        if outcome is not None and outcome.state == "finished" and outcome.seconds > 0:
            # in an old outcome the time of validation is part of its seconds
            done = outcome.flops + (validation_flops(run.config) if outcome.paused_seconds is None else 0)
            compiling = max(0.0, outcome.startup_seconds - STARTUP_SECONDS)
            speeds.append(
                MeasuredSpeed(
                    config=run.config, flops_per_second=done / outcome.seconds, compile_seconds=compiling,
                    device=outcome.device, cores=cores,
                )
            )  # fmt: skip
    return tuple(speeds)


def _benched(cores: int) -> tuple[tuple[MeasuredSpeed, ...], str]:
    """Measured speeds for runs on `cores` cores each (0: on an accelerator), and how they were scaled, in words."""
    measured = [speed for speed in measured_speeds.of_this_machine() if speed.device.startswith("cpu") == bool(cores)]
    same = tuple(speed for speed in measured if not cores or speed.cores == cores)
    if same or not measured:
        return same, ""
    scaled = [
        replace(speed, flops_per_second=speed.flops_per_second * cores / speed.cores, cores=cores) for speed in measured
    ]
    return tuple(scaled), f", taken on {measured[0].cores} cores and divided among the runs"


def matmul_peak() -> float:
    """FLOP/s of NumPy's float32 matrix product on one core, times the usable cores.

    By NumPy, since planning must not occupy an accelerator; and on one core, since the threads of a product wait for
    one another: where another program holds one of the cores, all would seem slow.
    """
    size, best = 512, float("inf")
    matrix = np.ones((size, size), np.float32)
    with one_thread_for_products():
        for _ in range(8):
            start = time.perf_counter()
            matrix @ matrix
            best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best * len(usable_cores())
