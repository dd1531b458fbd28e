"""How much faster do several small runs train in one program than one after the other?

    python experiments/bench_pack.py                                        # 1, 2 and 4 runs at once: a minute
    python experiments/bench_pack.py --runs 4 16 64 --dtype bfloat16      # on a GPU

The step of `lmscale train A.json B.json ...`, fed with a batch for every run; tokens/s of all runs together, the median
step of each. Where packing pays, the launcher's one process per device does not; on a CPU it is expected not to, as XLA
multiplies stacks of matrices more slowly than one matrix. Cost: 2 CPU cores.

Outcome (2026-11, two idle cores of an AMD EPYC, 117k parameters): 86.4k tokens/s of one run, 86.6k of two, 91.2k of
four: on a CPU it neither pays nor harms. Not measured on an accelerator.
"""

import argparse
import statistics
import time

from lmscale.core.config import ModelConfig, OptimizerConfig, RunConfig
from lmscale.core.counting import flops_per_token, params_total
from lmscale.lm.devices import machine

WARM_STEPS = 3


def configurations(arguments: argparse.Namespace, runs: int) -> list[RunConfig]:
    """Runs that differ in seed and learning rate."""
    model = ModelConfig(
        width=arguments.width,
        layers=arguments.layers,
        heads=max(2, arguments.width // 64),
        context=arguments.context,
        compute_dtype=arguments.dtype,
    )
    return [
        RunConfig(
            model=model,
            optimizer=OptimizerConfig(peak_lr=1e-3 * 2 ** (seed % 4), batch_sequences=arguments.batch),
            tokens=1000 * arguments.batch * arguments.context,
            seed=seed,
        )
        for seed in range(runs)
    ]


def step_seconds(configs: list[RunConfig], steps: int) -> float:
    """The median time of a step that moves all of `configs` on, batches made and placed between steps."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from lmscale.lm.devices.sharding import make_mesh
    from lmscale.lm.train import pack
    from lmscale.lm.train.optimizer import Hyperparameters
    from lmscale.lm.train.step import make_step

    first, count = configs[0], len(configs)
    mesh, generator = make_mesh(first.mesh), np.random.default_rng(0)

    def batch() -> jax.Array:
        shape = first.optimizer.batch_sequences, first.model.context + 1
        return jnp.asarray(pack.stack([generator.integers(0, 256, shape, np.int32) for _ in configs]))

    with jax.set_mesh(mesh):
        programs = make_step(first, mesh)
        state = pack.stack([programs.start(jax.random.key(config.seed)) for config in configs])
        hyper = pack.stack([Hyperparameters.of(config) for config in configs])
        step = pack.packed_step(programs, first, count)
        ends = []
        for _ in range(WARM_STEPS + steps + 1):
            state, metrics = step(state, batch(), hyper, ())
            jax.block_until_ready(metrics)
            ends.append(time.perf_counter())
    return statistics.median(end - start for start, end in zip(ends[WARM_STEPS:], ends[WARM_STEPS + 1 :]))


def main(arguments: argparse.Namespace) -> None:
    """Print a row for every number of runs."""
    machine.set_up()
    alone = configurations(arguments, 1)[0]
    print(f"{params_total(alone.model):,} parameters, {alone.batch_tokens:,} tokens a batch, {machine.device_name()}")
    print("runs   tokens/s of all   over one alone    FLOP/s")
    rate_alone = alone.batch_tokens / step_seconds([alone], arguments.steps)
    for runs in (1, *arguments.runs):
        configs = configurations(arguments, runs)
        rate = rate_alone if runs == 1 else runs * alone.batch_tokens / step_seconds(configs, arguments.steps)
        flops = rate * flops_per_token(alone.model)
        print(f"{runs:4}   {rate:15,.0f}   {rate / rate_alone:14.2f}   {flops:9.3g}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, nargs="+", default=[2, 4], help="runs in one program")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--context", type=int, default=128)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--steps", type=int, default=50)
    main(parser.parse_args())
