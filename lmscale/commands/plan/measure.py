"""`lmscale bench --sweep`: how fast a sweep's own shapes train here, as many at once as the launcher would start."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from lmscale.commands.progress import quantity
from lmscale.core.counting import flops_per_token, params_total
from lmscale.core.errors import UserError
from lmscale.core.files import read_json, write_json
from lmscale.core.plans import PlannedRun
from lmscale.core.run_folder import CONFIG_FILE
from lmscale.study import launch
from lmscale.study.sweep import Plan

SHAPES = 5
"""Sizes of a sweep that are measured, from the smallest to the largest."""


def measure_sweep(plan: Plan, steps: int, console: Console) -> None:
    """Measure some shapes of a plan in every place at once; each process keeps its figure for `lmscale plan`.

    Runs share a machine's memory and clock: alone, each would be faster than in a sweep. Raises `UserError` where a
    shape cannot be trained here.
    """
    slots = launch.slots()
    for run in chosen(plan.runs):
        with tempfile.TemporaryDirectory() as folder:
            config, shape = Path(folder) / CONFIG_FILE, run.config.model
            write_json(config, run.config.to_json())
            started = []
            for number, slot in enumerate(slots):
                command = [sys.executable, "-m", "lmscale", "bench", "--config", str(config), "--steps", str(steps)]
                command += ["--json", str(Path(folder) / f"{number}.json")]
                environment = {**os.environ, **slot.environment}
                started.append(
                    subprocess.Popen(
                        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
                    )
                )
            ended = [(process.communicate()[1], process.returncode) for process in started]
            if problems := [errors for errors, status in ended if status]:
                raise UserError(f"the shape {shape.width} x {shape.layers} cannot be measured: {_last(problems[0])}")
            rates = [
                read_json(Path(folder) / f"{number}.json", "figure")["flops_per_second"] for number in range(len(slots))
            ]
        console.print(
            f"{shape.width} x {shape.layers}, {quantity(params_total(shape))} parameters, batch "
            f"{quantity(run.config.batch_tokens)} tokens: {min(rates):.3g} to {max(rates):.3g} FLOP/s per run, "
            f"{len(slots)} at once"
        )


def chosen(runs: list[PlannedRun]) -> list[PlannedRun]:
    """Runs of up to `SHAPES` sizes, evenly from the smallest to the largest."""
    sizes = {flops_per_token(run.config.model): run for run in reversed(runs)}
    ordered = [sizes[size] for size in sorted(sizes)]
    count = min(SHAPES, len(ordered))
    places = sorted({round(i * (len(ordered) - 1) / max(1, count - 1)) for i in range(count)})
    return [ordered[place] for place in places]


def _last(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1].removeprefix("lmscale: ") if lines else "the process failed"
