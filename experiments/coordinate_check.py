"""Do a few steps of Adam change every part of the model by the same amount, whatever its width and depth?

    python experiments/coordinate_check.py                     # writes figures/coordinate_check.svg
    python experiments/coordinate_check.py --output folder
    python experiments/coordinate_check.py --experts    # of models with 8 experts, 2 per token, each of half the width

The coordinate check of Yang 2022 (section D.1) and Dey 2025 (figure 7) on bytes of the standard library: models of one
seed take ten steps at one rate, and after every step the mean absolute change of each part since the start is read on
tokens that are not trained on. Against width: the standard parametrization and mup; against depth: mup and completep.
A slope of 0 means that what a step does to the model does not depend on its size, and so the rate need not either.

Parts: what attention and the MLP add to the stream, before the residual multiplier, over all layers; the stream before
the last norm; the logits; with experts, the logits of the routers too.

Cost: 3.5 minutes of one core. Outcome (2026-11, 2 CPU cores, AMD EPYC; experiments/outcomes/coordinate_check.svg),
slope of ln(change after ten steps) against ln(size) of attention, MLP, stream and logits:
against width (64 to 512)  standard  +2.37  +3.41  +3.24  +0.46     mup        -0.04  -0.09  -0.09  -0.04
against depth (2 to 32)    mup       +0.36  +0.16  +1.28  +0.06     completep  +0.25  +0.04  +0.13  +0.05

With experts the router's logits are a fifth part (about twelve minutes of one core;
experiments/outcomes/coordinate_check_experts.svg):
against width (64 to 256)  standard  +2.41  +2.35  +2.43  +0.59  router +1.22
                           mup       -0.06  +0.03  -0.03  -0.02  router -0.34
against depth (2 to 16)    mup       -0.01  -0.07  +0.92  +0.01  router +0.09
                           completep -0.02  +0.05  -0.04  +0.01  router -0.02
Under mup the router's change falls with the width, since its initial logits do, by the rule of an output: with them
goes what a change of the stream does to them.
"""

import argparse
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lmscale.core.config import DataConfig, ModelConfig, OptimizerConfig, RunConfig
from lmscale.lm import data
from lmscale.lm.devices import machine
from lmscale.lm.model.parameters import Params, residual_multiplier
from lmscale.lm.model.tap import record
from lmscale.lm.model.transformer import forward
from lmscale.lm.objectives import make_objective
from lmscale.lm.train.optimizer import Hyperparameters, make_optimizer
from lmscale.lm.train.step import init_state, train_step
from lmscale.study import plots
from lmscale.study.plots.axes import word_key

PARTS = ("attention", "MLP", "stream", "logits", "router")
STEPS, PEAK_LR, SEEDS = 10, 0.01, 3
BATCH, CONTEXT, HEAD_WIDTH = 8, 64, 16
BASE_WIDTH, BASE_LAYERS = 64, 2
WIDTHS, DEPTHS = (64, 128, 256, 512), (2, 4, 8, 16, 32)
EXPERT_WIDTHS, EXPERT_DEPTHS = (64, 128, 256), (2, 4, 8, 16)
HELD_BACK = 1_000_000
"""Number of the batch that the changes are read on, far beyond those that are trained on."""


def shape(parametrization: str, width: int, layers: int, **changed: Any) -> ModelConfig:
    """A model of the check; at the base shape all parametrizations are the same."""
    base = {"standard": {}, "mup": {"base_width": BASE_WIDTH}}.get(
        parametrization, {"base_width": BASE_WIDTH, "base_layers": BASE_LAYERS}
    )
    return ModelConfig(
        **{
            "width": width,
            "layers": layers,
            "heads": width // HEAD_WIDTH,
            "context": CONTEXT,
            "parametrization": parametrization,
            "scan_layers": layers > 4,
            **base,
            **changed,
        }
    )


def with_experts(config: ModelConfig) -> ModelConfig:
    """The same with experts that do the work of its MLP."""
    return replace(config, experts=8, experts_per_token=2, expert_width=config.hidden // 2)


def activations(params: Params, tokens_BT: jax.Array, config: ModelConfig) -> dict[str, jax.Array]:
    """The values of every part; those of all layers stand one behind the other."""
    sites = ("attention_output", "mlp_output", "residual_post", *(["router_logits"] if config.sparse else []))
    logits_BTV, taps = forward(params, tokens_BT, config, record(*sites))
    scale = residual_multiplier(config)
    attention, mlp = taps["attention_output"] / scale, taps["mlp_output"] / scale
    parts = (attention, mlp, taps["residual_post"][-1], logits_BTV, taps.get("router_logits"))
    return {name: value for name, value in zip(PARTS, parts) if value is not None}


def changes(
    config: ModelConfig, batches: list[jax.Array], probe_BT: jax.Array, seed: int, **optimizer: Any
) -> dict[str, list[float]]:
    """Part -> mean absolute change since the start, after each step of constant rate on one of `batches` [B, T + 1]."""
    settings = {"peak_lr": PEAK_LR, "schedule": "constant", "warmup_fraction": 0.0, "clip_norm": None, **optimizer}
    rows, context = len(batches[0]), config.context
    run = RunConfig(
        model=config,
        optimizer=OptimizerConfig(batch_sequences=rows, **settings),
        tokens=len(batches) * rows * context,
        seed=seed,
    )
    transformation, hyper = make_optimizer(run), Hyperparameters.of(run)
    step = jax.jit(partial(train_step, run, make_objective(run), transformation), donate_argnums=0)
    measured = jax.jit(partial(activations, config=config))
    state = jax.jit(partial(init_state, run, transformation))(jax.random.key(seed))
    start = measured(state.params, probe_BT)
    changes: dict[str, list[float]] = {part: [] for part in start}
    for batch in batches:
        state, _ = step(state, batch, hyper)
        now = measured(state.params, probe_BT)
        for part, before in start.items():
            changes[part].append(float(jnp.abs(now[part] - before).mean()))
    return changes


def check(shapes: list[ModelConfig], tokens: data.Tokens) -> dict[str, np.ndarray]:
    """Part -> change [steps, shapes], the geometric mean over seeds."""
    logs: dict[str, list[Any]] = {part: [] for part in PARTS if part != "router" or shapes[0].sparse}
    for config in shapes:
        by_seed = []
        for seed in range(SEEDS):
            source = data.Batches(tokens, config.context, BATCH, seed)
            batches = [jnp.asarray(source[number]) for number in range(STEPS)]
            by_seed.append(changes(config, batches, jnp.asarray(source[HELD_BACK])[:, :-1], seed))
        for part, log in logs.items():
            log.append(np.log([changes[part] for changes in by_seed]).mean(axis=0))
    return {part: np.exp(np.array(values)).T for part, values in logs.items()}


def draw(studies: list[tuple[str, tuple[int, ...], dict[str, dict[str, np.ndarray]]]], path: Path) -> None:
    """One row per study (axis, sizes, parametrization -> part -> changes), one panel per part."""
    from matplotlib.figure import Figure

    with plots.style():
        figure = Figure(figsize=(11, 5.6), layout="constrained")
        parts = list(next(iter(studies[0][2].values())))
        panels = figure.subplots(len(studies), len(parts))
        for row, (axis, sizes, changes) in zip(panels, studies):
            for ax, part in zip(row, parts):
                plots.coordinates(ax, sizes, {name: values[part] for name, values in changes.items()}, axis)
                ax.set_title(part)
            word_key(row[0], [(name, plots.PARAMETRIZATION_COLOUR[name]) for name in changes])
            row[0].set_ylabel("mean |change| since the start")
        print(plots.save(figure, path))


def main() -> None:
    """Measure, print the slopes, draw."""
    parser = argparse.ArgumentParser(description="Does a step change every part alike at all sizes?")
    parser.add_argument("--output", type=Path, default=Path("figures"), help="folder of the figure")
    parser.add_argument("--experts", action="store_true", help="check models with experts")
    args = parser.parse_args()
    parts = PARTS if args.experts else PARTS[:-1]
    widths, depths = (EXPERT_WIDTHS, EXPERT_DEPTHS) if args.experts else (WIDTHS, DEPTHS)
    tokens = data.prepare(DataConfig())
    studies = []
    print(f"slope of ln(mean |change| after {STEPS} steps) against ln(size); 0: the same at every size\n")
    print(f"{'':<10} {'':<14} {'sizes':<22}" + "".join(f"{part:>12}" for part in parts))
    for axis, sizes, pair in (("width", widths, ("standard", "mup")), ("layers", depths, ("mup", "completep"))):
        changes = {}
        for name in pair:
            shapes = [
                shape(name, size, BASE_LAYERS) if axis == "width" else shape(name, BASE_WIDTH, size) for size in sizes
            ]
            changes[name] = check([with_experts(config) if args.experts else config for config in shapes], tokens)
            slopes = "".join(f"{plots.slope(sizes, changes[name][part][-1]):>+12.2f}" for part in parts)
            print(f"{axis:<10} {name:<14} {', '.join(map(str, sizes)):<22}{slopes}", flush=True)
        studies.append((axis, sizes, changes))
    draw(studies, args.output / f"coordinate_check{'_experts' if args.experts else ''}.svg")


if __name__ == "__main__":
    machine.set_up()
    main()
