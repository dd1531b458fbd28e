"""`lmscale bench`: how fast a model trains here, or a sweep's own shapes, as many at once as the launcher starts."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from lmscale.commands.answer import write_answer
from lmscale.commands.next_step import print_next

if TYPE_CHECKING:
    from rich.console import Console

    from lmscale.core.plans import PlannedRun
    from lmscale.study.launch import Slot
    from lmscale.study.sweep import Plan

SHAPES = 5
"""Sizes of a sweep that are measured, from the smallest to the largest."""


@dataclass(frozen=True)
class BenchArgs:
    """Measure how fast a model trains here: tokens/s, FLOP/s, MFU, memory, input. Give a shape or a configuration."""

    FOLDERS: ClassVar[tuple[str, ...]] = ("profile",)

    layers: int | None = None
    """Blocks of the model; by default 4."""
    width: int | None = None
    """Features of the residual stream; by default 128."""
    heads: int | None = None
    """Attention heads; by default 4."""
    kv_heads: int | None = None
    """Heads of keys and values; by default as many as attention heads."""
    context: int | None = None
    """Tokens of a sequence; by default 256."""
    vocab: int | None = None
    """Tokens that there are; by default 256."""
    experts: int | None = None
    """MLPs of a layer of which every token passes some; by default 1, a dense model."""
    experts_per_token: int | None = None
    """Experts that a token passes; by default 1."""
    shared_experts: int | None = None
    """Experts that every token passes; by default none."""
    expert_width: int | None = None
    """Hidden units of one expert; by default those of the MLP."""
    batch: int | None = None
    """Sequences of a global batch; by default 16."""
    compute_dtype: Literal["float32", "bfloat16"] | None = None
    """Numbers that matrix products take; by default float32."""
    remat: Literal["none", "dots", "full"] | None = None
    """What the backward pass computes again instead of storing it; by default none."""
    config: Path | None = None
    """A RunConfig as JSON, instead of a shape."""
    sweep: Path | None = None
    """A sweep or plan: measure some of its shapes, as many at once as `lmscale run` starts. `lmscale plan` takes its
    times from everything that was ever measured here."""
    steps: int = 30
    """Steps that are timed."""
    json: Path | None = None
    """Write the figures here (- or no file: to standard output, alone)."""
    profile: Path | None = None
    """Write a trace of a few steps into this folder."""


def main(args: BenchArgs, console: "Console") -> None:
    """Measure, print, and note the speed for `lmscale plan`. Raises `UserError` for a shape that cannot be trained."""
    if args.sweep is not None:
        from lmscale.study import sweep

        write_answer(args.json, {"shapes": measure_sweep(sweep.read(args.sweep), args.steps, console)})
        print_next("plan", args.sweep)
        return
    from lmscale.core.signals import NOTHING_TO_SAVE_SECONDS, end_with_launcher

    end_with_launcher(NOTHING_TO_SAVE_SECONDS)  # of `measure_sweep`, before the seconds that JAX takes to load
    from lmscale.lm.devices import machine

    machine.set_up()
    from lmscale.core import measured_speeds
    from lmscale.lm.train import bench
    from lmscale.lm.train.references import reference_model

    others = ("config", "steps", "json", "profile", "sweep")
    shape = {name: value for name, value in asdict(args).items() if name not in others}
    config = bench.configuration(args.config, **shape)
    folder = Path() if args.config is None else args.config.absolute().parent
    speed = bench.measure(config, args.steps, args.profile, reference_model(config, folder))
    for name, value in bench.lines(speed):
        print(f"{name:22} {value}")
    measured_speeds.record(config, speed.flops_per_second, speed.compile_seconds, speed.device, speed.steps)
    write_answer(args.json, asdict(speed))
    print_next("plan", "SWEEP.py")


def measure_sweep(plan: "Plan", steps: int, console: "Console") -> list[dict[str, Any]]:
    """Measure some shapes of a plan in every slot at once; each process notes its figure for `lmscale plan`.

    Returns what was measured of each shape.

    Runs share a machine's memory and clock: alone, each would be faster than in a sweep. Raises `UserError` where a
    shape cannot be trained here.
    """
    from lmscale.core.counting import active_params_total, params_total
    from lmscale.core.quantities import model_size, quantity
    from lmscale.study import launch

    slots, shapes = launch.slots(), list[dict[str, Any]]()
    for run in spread_of_sizes(plan.runs):
        rates, shape = _measure(run, plan.runs, slots, steps), run.config.model
        shapes.append({"width": shape.width, "layers": shape.layers, "flops_per_second": rates})
        console.print(
            f"{shape.width} x {shape.layers}, {model_size(params_total(shape), active_params_total(shape))} "
            f"parameters, batch "
            f"{quantity(run.config.batch_tokens)} tokens: {min(rates):.3g} to {max(rates):.3g} FLOP/s per run, "
            f"{len(slots)} at once"
        )
    return shapes


def _measure(run: "PlannedRun", runs: "list[PlannedRun]", slots: "list[Slot]", steps: int) -> list[float]:
    """FLOP/s of one shape in every slot, measured by a process in each at the same time.

    The configurations of those of `runs` that it needs lie beside its own, for the shape of a teacher or reference.
    """
    import os
    import subprocess
    import sys
    import tempfile

    from lmscale.core.errors import UserError
    from lmscale.core.files import read_json, write_json
    from lmscale.core.run_folder import CONFIG_FILE
    from lmscale.core.signals import LIFELINE_VARIABLE, lifeline

    needed = {run.config.run_id, *(name.run_id for name in run.config.parents.values())}
    with tempfile.TemporaryDirectory() as folder, lifeline() as held_open:
        sweep = Path(folder) / "sweep"
        for each in runs:
            if each.config.run_id in needed:
                write_json(sweep / each.config.run_id / CONFIG_FILE, each.config.to_json())
        config = sweep / run.config.run_id / CONFIG_FILE
        figures = [Path(folder) / f"{number}.json" for number in range(len(slots))]
        command = [sys.executable, "-m", "lmscale", "bench", "--config", str(config), "--steps", str(steps), "--json"]
        processes = [
            subprocess.Popen(
                [*command, str(figure)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                env={**os.environ, **slot.environment, LIFELINE_VARIABLE: str(held_open)}, pass_fds=(held_open,),
            )
            for figure, slot in zip(figures, slots)
        ]  # fmt: skip
        ends = [(process.communicate()[1], process.returncode) for process in processes]
        if problems := [errors for errors, status in ends if status]:
            shape = run.config.model
            raise UserError(f"the shape {shape.width} x {shape.layers} cannot be measured: {_last_line(problems[0])}")
        return [read_json(figure, "figure")["flops_per_second"] for figure in figures]


def spread_of_sizes(runs: "list[PlannedRun]") -> "list[PlannedRun]":
    """Runs of up to `SHAPES` sizes, evenly from the smallest to the largest, dense ones and with experts apart."""
    from lmscale.core.counting import flops_per_token

    chosen = []
    for sparse in (False, True):
        of_kind = [run for run in reversed(runs) if (run.config.model.experts > 1) == sparse]
        sizes = {(flops_per_token(run.config.model), run.config.model.experts): run for run in of_kind}
        ascending = [sizes[size] for size in sorted(sizes)]
        gaps = max(1, min(SHAPES, len(ascending)) - 1)
        if ascending:
            indices = sorted({round(i * (len(ascending) - 1) / gaps) for i in range(gaps + 1)})
            chosen += [ascending[index] for index in indices]
    return chosen


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1].removeprefix("lmscale: ") if lines else "the process failed"
