"""How near is the estimated memory of a training step to what the compiler counts for it?

    python experiments/bench_memory.py                  # a grid of shapes: many minutes, nearly all of it compilation
    python experiments/bench_memory.py --only 8         # the first eight of them
    python experiments/bench_memory.py --target h100x4  # options and meshes, compiled for a machine that is not here

Each shape's step is lowered and compiled as `train` does, never run. The compiler's figure is that of
`memory_analysis`: arguments, results and temporaries, without what results share with arguments. The estimate is
`counting.memory_bytes`, which decides whether a run is started and what `lmscale plan` prints. On an accelerator the
same table is printed for its own kernels. With --target (v5e-4, h100x4; the extra tpu or cuda) bytes are those of one
device, and the model is one of 12 layers x 768 at context 1024, with one option or mesh changed at a time.

Outcome (2026-11, CPU, JAX 0.10.2): 34 of 34 shapes within 15 %, estimate / compiler from .89 (48 x 2 bytes) to 1.11 (8
layers in a loop, remat dots). Widths 64 to 1024 give .96 to 1.02, contexts 64 to 1024 .92 to 1.02, vocabularies 256 to
16,384 .95 to 1.01, bfloat16 .96, micro-batches .97, experts 1.00 to 1.03. Layers that are written out keep as much with
remat as without (331 of 353 MB for "full"): on a CPU it takes effect in a loop alone. Not yet measured on an
accelerator.

Outcome of --target (29 November 2026; libtpu 0.0.42.1 with little effort, CUDA 13 plugin 0.10.2): estimate / compiler
within 15 % in all 36 rows for v5e-4, each program compiled by itself, and in all 36 for h100x4 with --batch 32, in one
call.

v5e-4: 18 options at 124M parameters .98 (2 micro-batches, 5.5 GB) to 1.03 (attention dropout, 15.2 GB), among them
plain 1.01 (7.3 GB), float32 1.00 (12.2), remat full 1.02 (2.5), experts of a capacity 1.02 (18.6); meshes .93 (fsdp =
4, 2.4 GB) to 1.06 (sequence = 4, 3.5 GB), expert = 4 1.00 (5.7); eight runs in one program 1.03 (9.1); 256 x 4 1.01
(234 MB), with 16 layers 1.00, a vocabulary of 50,304 1.07, batch 32 and vocabulary 16,384 1.10 (1.2 GB), context 512
1.02, GELU 1.05, remat full 1.07, float32 1.01, layers written out 1.06, experts of a capacity 1.00.
h100x4: plain 1.03 (20.4 GB), GQA and GPT-2 1.03, attention dropout 1.08 (72.0), remat dots 1.06, full 1.09 (3.7),
float32 1.08 (91.8), 2 micro-batches 1.00, optimizers 1.03, context 4096 1.03, experts .96, of a capacity 1.03 (46.5);
data = 4 .95, fsdp = 4 .99, tensor = 4 1.01, sequence = 4 .96, expert = 4 1.00; eight runs .99 (22.3); of the 256 x 4
rows 256 x 4 1.00, 16 layers 1.00, GELU 1.03, remat full 1.08, float32 1.12, written out .99, the others .99 to 1.05.
Further options of layers that are written out: .87 to 1.15, with attention dropout 1.20 on a v5e and 1.26 on an H100.

The earlier figures of v5es were too large, by up to the whole state: libtpu counts donated arguments whose place
temporaries take as temporaries too, and calls the whole of a program that does not fit "temporaries". So the experts of
a capacity need 18.6 GB and not 24.8, eight runs 9.1 and not 10.2. What the estimates did lack, by the compiler's
assignment of buffers: the working set of one layer's backward pass, as large as what a layer saves; the bfloat16 copies
of the matrices; and on the other side logits, which a TPU holds once.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from lmscale.core.config import MeshConfig, ModelConfig, OptimizerConfig, RouterConfig, RunConfig
from lmscale.core.counting import memory_bytes, params_total, state_bytes
from lmscale.core.machines import machine
from lmscale.core.plans import PlannedRun
from lmscale.lm.devices.machine import device_name
from lmscale.lm.devices.sharding import make_mesh
from lmscale.lm.train.optimizer import Hyperparameters
from lmscale.lm.train.step import make_step
from lmscale.study.compiled import compile_runs

BASE = ModelConfig(width=256, layers=4, heads=4, vocab=1024, context=256)
GOAL = 0.15
PACKED = 8


def shapes() -> Iterator[tuple[str, RunConfig]]:
    """Name and run: around `BASE`, one thing changed at a time; then models of other proportions."""

    def run(name: str, batch: int = 8, optimizer: dict[str, Any] | None = None, **model: Any) -> tuple[str, RunConfig]:
        shape = replace(BASE, **model)
        settings = OptimizerConfig(peak_lr=1e-3, batch_sequences=batch, weight_decay=0.0, **(optimizer or {}))
        return name, RunConfig(model=shape, optimizer=settings, tokens=batch * shape.context)

    yield run("base: 256 x 4, 4 heads, context 256")
    yield from (run(f"width {width}", width=width, heads=max(1, width // 64)) for width in (64, 128, 512, 1024))
    yield run("8 layers", layers=8)
    yield from (run(f"batch {batch}", batch) for batch in (1, 2, 32))
    yield from (run(f"context {context}", context=context) for context in (64, 128, 512, 1024))
    yield from (run(f"vocabulary {vocab:,}", vocab=vocab) for vocab in (256, 4096, 16_384))
    yield from (run(mlp, mlp=mlp) for mlp in ("gelu", "relu2"))
    yield from (run(f"{kv_heads} heads of keys and values", kv_heads=kv_heads) for kv_heads in (1, 2))
    yield run("16 heads", heads=16)
    yield run("LayerNorm, biases", norm="layernorm", biases=True)
    yield run("bfloat16", compute_dtype="bfloat16")
    yield run("2 micro-batches", optimizer={"micro_batches": 2})
    yield run("Adafactor", optimizer={"kind": "adafactor"})
    for remat in ("none", "dots", "full"):
        yield run(f"8 layers in a loop, remat {remat}", layers=8, scan_layers=True, remat=remat)
    yield run("8 experts, 2 of half the width", experts=8, experts_per_token=2, expert_width=344)
    yield run("16 experts, 1 of the whole width", experts=16)
    yield run("8 experts, 2 and a shared one", experts=8, experts_per_token=2, shared_experts=1, expert_width=344)
    yield run("8 experts of capacity 1.25", experts=8, experts_per_token=2, router=RouterConfig(capacity=1.25))
    yield run("48 x 2, 3 heads, context 128, bytes", width=48, layers=2, heads=3, vocab=256, context=128)
    yield run(
        "768 x 6, 12 heads, context 512, GELU", 4, width=768, layers=6, heads=12, vocab=8192, context=512, mlp="gelu"
    )


def target_shapes(batch: int, devices: int) -> Iterator[tuple[str, RunConfig]]:
    """Name and run: options and meshes of at most `devices` devices, around a model of 124M parameters."""
    base = ModelConfig(width=768, layers=12, heads=12, context=1024, vocab=50_304, compute_dtype="bfloat16")

    def run(
        name: str, optimizer: dict[str, Any] | None = None, rows: int = batch, **model: Any
    ) -> tuple[str, RunConfig]:
        mesh = MeshConfig(**model.pop("mesh", {}))
        settings = OptimizerConfig(peak_lr=1e-3, batch_sequences=rows, **(optimizer or {}))
        shape = replace(base, **model)
        return name, RunConfig(model=shape, optimizer=settings, mesh=mesh, tokens=rows * shape.context)

    yield run("plain")
    yield run("GQA with QK-norm", kv_heads=4, qk_norm=True)
    yield run("GPT-2: GELU, LayerNorm, biases", mlp="gelu", norm="layernorm", biases=True, positions="learned")
    yield run("ALiBi", positions="alibi")
    yield run("documents apart", document_end=0)
    yield run("residual dropout", residual_dropout=0.1)
    yield run("attention dropout", attention_dropout=0.1)
    yield from (run(f"remat {remat}", remat=remat) for remat in ("dots", "full"))
    yield run("float32", compute_dtype="float32")
    yield run("2 micro-batches", {"micro_batches": 2})
    yield from (run(kind, {"kind": kind}) for kind in ("muon", "adafactor", "lion"))
    yield run("averaged weights", {"ema_decay": 0.999})
    yield run("context 4096", rows=max(1, batch // 4), context=4096)
    yield run("8 experts, 2 of a quarter", experts=8, experts_per_token=2, expert_width=512)
    yield run("8 experts of capacity 1.25", experts=8, experts_per_token=2, router=RouterConfig(capacity=1.25))
    if devices >= 4:
        meshes = ({"data": 4}, {"fsdp": 4}, {"tensor": 4}, {"sequence": 4}, {"fsdp": 2, "sequence": 2})
        for mesh in (*meshes, {"fsdp": 2, "tensor": 2}):
            yield run(", ".join(f"{axis} = {size}" for axis, size in mesh.items()), mesh=mesh)
        sparse = {"experts": 8, "experts_per_token": 2, "router": RouterConfig(capacity=1.25)}
        yield run("expert = 4", mesh={"expert": 4}, **sparse)
    yield from small_shapes()


def small_shapes() -> Iterator[tuple[str, RunConfig]]:
    """Name and run: models of 4 layers x 256, of which one layer, or the logits, are a large part of a step."""
    base = replace(BASE, compute_dtype="bfloat16")

    def run(name: str, rows: int = 8, **model: Any) -> tuple[str, RunConfig]:
        settings, shape = OptimizerConfig(peak_lr=1e-3, batch_sequences=rows), replace(base, **model)
        return f"256 x 4{name}", RunConfig(model=shape, optimizer=settings, tokens=rows * shape.context)

    yield run("")
    yield run(", 16 layers", layers=16)
    yield run(", vocabulary 50,304", vocab=50_304)
    yield run(", batch 32, vocabulary 16,384", 32, vocab=16_384)
    yield run(", context 512, vocabulary 4096", context=512, vocab=4096)
    yield run(", GELU", mlp="gelu")
    yield run(", remat full", remat="full")
    yield run(", float32", compute_dtype="float32")
    yield run(", layers written out", scan_layers=False)
    yield run(", 8 experts of capacity 1.25", experts=8, experts_per_token=2, router=RouterConfig(capacity=1.25))


def packed_run(batch: int) -> RunConfig:
    """One of the runs of `PACKED` in one program: so small that a device holds them all."""
    model = ModelConfig(width=512, layers=8, heads=8, context=512, vocab=8192, compute_dtype="bfloat16")
    settings = OptimizerConfig(peak_lr=1e-3, batch_sequences=max(1, batch // 2))
    return RunConfig(model=model, optimizer=settings, tokens=settings.batch_sequences * model.context)


def print_target(name: str, batch: int, only: int | None) -> None:
    """Print a row per option and mesh, and one for runs in one program, compiled for the machine called `name`."""
    target = machine(name)
    shapes = list(target_shapes(batch, target.devices))[:only]
    outcomes = compile_runs([PlannedRun(config) for _, config in shapes], target)
    one = packed_run(batch)
    shapes.append((f"{PACKED} runs of 29M in one program", one))
    alike = [PlannedRun(replace(one, seed=seed)) for seed in range(PACKED)]
    outcomes.append(compile_runs(alike, target, pack=PACKED)[0])
    print(f"{target.name}, batch {batch}; {outcomes[0].versions}")
    print(f"{'shape':34}  compiled   estimate   ratio   attention   compilation   least step")
    within = 0
    for (shape, config), outcome in zip(shapes, outcomes):
        estimated = outcome.packed * memory_bytes(config, target.platform) / config.mesh.devices
        ratio = estimated / outcome.train.bytes_per_device
        within += abs(ratio - 1) <= GOAL
        step = "" if outcome.bound is None else f"{1e3 * outcome.bound.seconds:8.1f} ms"
        print(
            f"{shape:34}  {outcome.train.bytes_per_device / 1e9:5.1f} GB   {estimated / 1e9:5.1f} GB   {ratio:5.2f}   "
            f"{outcome.attention:9}   {outcome.compile_seconds:8.1f} s   {step}"
        )
    print(f"{within} of {len(shapes)} within {GOAL:.0%}")


def compiled_bytes(config: RunConfig) -> int:
    """What the compiler counts for the step."""
    mesh = make_mesh(MeshConfig())
    with jax.set_mesh(mesh):
        programs = make_step(config, mesh)
        tokens = jax.ShapeDtypeStruct((config.optimizer.batch_sequences, config.model.context + 1), jnp.int32)
        hyper = jax.eval_shape(lambda: Hyperparameters.of(config))
        counted = programs.step.lower(programs.state, tokens, hyper, ()).compile().memory_analysis()
    whole = counted.argument_size_in_bytes + counted.output_size_in_bytes + counted.temp_size_in_bytes
    return int(whole - counted.alias_size_in_bytes)


def main(only: int | None) -> None:
    """Print a row per shape and the share within the goal."""
    platform: Any = jax.default_backend()
    within, rows = 0, list(shapes())[:only]
    print(f"{device_name()}, JAX {jax.__version__}")
    print("shape                                          N      state   compiler   estimate   estimate / compiler")
    for name, config in rows:
        compiled, estimated = compiled_bytes(config), memory_bytes(config, platform)
        within += abs(estimated / compiled - 1) <= GOAL
        sizes = "  ".join(f"{size / 2**20:7.1f}" for size in (state_bytes(config), compiled, estimated))
        print(f"{name:38}  {params_total(config.model):10,}  {sizes} MiB  {estimated / compiled:6.2f}", flush=True)
    print(f"{within} of {len(rows)} within {GOAL:.0%}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=int, help="the first so many shapes")
    parser.add_argument("--target", help="a machine that need not be here, as `lmscale plan --compile` takes it")
    parser.add_argument("--batch", type=int, default=8, help="sequences of a batch with --target")
    arguments = parser.parse_args()
    if arguments.target is None:
        main(arguments.only)
    else:
        print_target(arguments.target, arguments.batch, arguments.only)
