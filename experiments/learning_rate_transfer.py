"""Does the best learning rate of a small model stay the best for a wider and a deeper one?

    python experiments/learning_rate_transfer.py                     # trains, writes figures/learning_rate_transfer.svg
    python experiments/learning_rate_transfer.py --output folder

Models of one length of training on bytes of the standard library, each at a row of peak rates: the standard
parametrization and mup at four widths (Yang 2022, figure 1), mup and completep at three depths (Dey 2025, figure 2). At
the base shape all are the same model. The optimum of a size is the vertex of the parabola in ln(rate) through the five
rates around the lowest loss, with the standard error that the points' scatter gives it; it is flagged where the lowest
loss is at an end of the row. Beside it: how the optimum moves with the size, and what the largest model loses if it is
trained at the optimum of the base size.

Runs are kept in runs/learning_rate_transfer: Ctrl-C stops, the same command goes on. On an accelerator all rates of a
shape train in one program.

Cost: 77 runs of 82,000 tokens; 36 minutes of training on a machine that had much else to do. Outcome (2026-11, 2 CPU
cores, AMD EPYC, one seed; experiments/outcomes/learning_rate_transfer.svg): from width 32 to 256 the optimum moves from
.0225 to .0023 under standard (as width^-1.10) and stays at .0109 to .0115 under mup (width^+.03); at the rate that is
best at width 64, width 256 ends .247 nats above its lowest under standard, .009 under mup, and mup's lowest is .12 nats
lower. From 2 to 8 layers it goes as layers^-.17 under mup and layers^+.06 under completep: over so few layers, and with
errors of up to 13 %, little tells the two apart, and in so short a run completep's deeper models learn no more.
"""

import argparse
import math
import sys
from pathlib import Path

import jax
import numpy as np

from lmscale.core.config import ModelConfig, OptimizerConfig, RunConfig
from lmscale.lm.devices import machine
from lmscale.lm.train.loop import Interrupted, train_packed
from lmscale.study import plots
from lmscale.study.plots.transfer import BestRate, best_rate

BASE_WIDTH, BASE_LAYERS = 64, 2
WIDTHS, DEPTHS = (32, 64, 128, 256), (2, 4, 8)
HEAD_WIDTH, CONTEXT, BATCH, STEPS = 16, 64, 8, 160
VALIDATION_TOKENS = 32_768
RATES = tuple(2.0**power for power in range(-10, -3))
STUDIES = (("width", WIDTHS, ("standard", "mup")), ("layers", DEPTHS, ("mup", "completep")))
FOLDER = Path("runs/learning_rate_transfer")


def shape(parametrization: str, width: int, layers: int) -> ModelConfig:
    """A model of the study; the base shape, the same under all parametrizations, is always the standard one."""
    base = {
        "standard": {},
        "mup": {"base_width": BASE_WIDTH},
        "completep": {"base_width": BASE_WIDTH, "base_layers": BASE_LAYERS},
    }
    name = "standard" if (width, layers) == (BASE_WIDTH, BASE_LAYERS) else parametrization
    return ModelConfig(
        width=width, layers=layers, heads=width // HEAD_WIDTH, context=CONTEXT, parametrization=name, **base[name]
    )


def losses(model: ModelConfig) -> list[float]:
    """Final validation loss in nats at each of `RATES`, infinite where the run diverged."""
    configs = [
        RunConfig(
            model=model,
            optimizer=OptimizerConfig(peak_lr=rate, batch_sequences=BATCH),
            tokens=STEPS * BATCH * CONTEXT,
            validation_tokens=VALIDATION_TOKENS,
            validations=1,
            keep_checkpoint=False,
        )
        for rate in RATES
    ]
    folders = [FOLDER / config.run_id for config in configs]
    together = 1 if jax.default_backend() == "cpu" else len(configs)
    outcomes = []
    for first in range(0, len(configs), together):
        pack = slice(first, first + together)
        outcomes += train_packed(configs[pack], folders[pack])
    return [math.inf if outcome.loss_nats is None else outcome.loss_nats for outcome in outcomes]


def study(axis: str, sizes: tuple[int, ...], parametrization: str) -> dict[int, list[float]]:
    """Size -> losses at each rate."""
    losses_by_size = {}
    for size in sizes:
        width, layers = (size, BASE_LAYERS) if axis == "width" else (BASE_WIDTH, size)
        losses_by_size[size] = losses(shape(parametrization, width, layers))
    return losses_by_size


def loss_at(rate: float, values: list[float]) -> float:
    """The loss at a rate between those that were tried, on the parabola through the three nearest."""
    apart = np.log(RATES) - math.log(rate)
    near = np.argsort(abs(apart), kind="stable")[:3]
    return float(np.polyfit(apart[near], np.array(values)[near], 2)[-1])


def rows(axis: str, name: str, losses_by_size: dict[int, list[float]], optima: dict[int, BestRate]) -> list[str]:
    """One line per size, then how the optimum moves and what the base's rate costs the largest model."""
    base, largest = BASE_WIDTH if axis == "width" else BASE_LAYERS, max(optima)
    slope = plots.slope(list(optima), [optimum.rate for optimum in optima.values()])
    carried = loss_at(optima[base].rate, losses_by_size[largest])
    return [
        *(f"{axis:<7} {name:<10} {size:>5}  {optimum}" for size, optimum in optima.items()),
        f"{axis:<7} {name:<10} the optimum goes as {axis}^{slope:+.2f}; at that of {axis} {base}, {axis} {largest} "
        f"ends {carried - optima[largest].loss_nats:.3f} nats above its lowest",
    ]


def limits(studies: list[dict[int, list[float]]]) -> tuple[float, float]:
    """Ends of the axis that the panels of a row share; the labels at its edge are placed by them."""
    finite = [
        loss
        for losses_by_size in studies
        for losses in losses_by_size.values()
        for loss in losses
        if math.isfinite(loss)
    ]
    margin = 0.05 * (max(finite) - min(finite))
    return min(finite) - margin, max(finite) + margin


def draw(studies: list[tuple[str, str, dict[int, list[float]], dict[int, BestRate]]], folder: Path) -> None:
    """One panel per study (axis, parametrization, losses, optima), one row per axis."""
    from matplotlib.figure import Figure

    with plots.style():
        figure = Figure(figsize=(10, 6.6), layout="constrained")
        panels = figure.subplots(2, 2, sharex=True, sharey="row").flat
        for ax, (axis, name, losses_by_size, optima) in zip(panels, studies):
            ax.set_ylim(*limits([both for same, _, both, _ in studies if same == axis]))
            plots.rate_sweep(ax, {size: (RATES, values) for size, values in losses_by_size.items()}, optima)
            ax.set_title(f"{name}, by {axis}")
            ax.label_outer()
        print(plots.save(figure, folder / "learning_rate_transfer.svg"))


def main() -> None:
    """Train what is missing, print the optima, draw the curves."""
    parser = argparse.ArgumentParser(description="Does the best learning rate carry over to wider and deeper models?")
    parser.add_argument("--output", type=Path, default=Path("figures"), help="folder of the figure")
    args = parser.parse_args()
    studies = []
    for axis, sizes, pair in STUDIES:
        for name in pair:
            losses_by_size = study(axis, sizes, name)
            optima = {size: best_rate(RATES, values) for size, values in losses_by_size.items()}
            print("\n".join(rows(axis, name, losses_by_size, optima)), end="\n\n", flush=True)
            studies.append((axis, name, losses_by_size, optima))
    draw(studies, args.output)


if __name__ == "__main__":
    machine.set_up()
    try:
        main()
    except Interrupted as stop:
        sys.exit(f"learning_rate_transfer: {stop}; the same command goes on from there")
