"""Does the least time of a training step, from the compiled program, lie below step times that others have measured?

    python experiments/published_steps.py    # the extra tpu; no TPU: minutes of both cores

The models of published tables, with their batches and machines, as this package compiles them: weights divided over all
chips, each layer computed again in the backward pass. The bound (`core.machines.step_bound`) is the largest of three
times at the peaks of a chip: matrix products, traffic with its memory, links. Another program took the measured time,
so a bound above it would count too much, and one far below it too little.

Published: MaxText, 16B on v5e-256, six sequences of 2,048 per chip, 120 TFLOP/s per chip in its own count, which takes
attention as full (configs/v5e/README.md); Llama 3.1 8B on v6e-256, four sequences of 8,192 per chip, 7,207 tokens per
second and chip (its page on tiering).

Outcome (29 November 2026, JAX 0.10.2, libtpu 0.0.42.1, compiled with little effort): the bound lies below both, and
products set it. 16B on v5e-256: products 7.57 s, memory 2.24, links 0.75, measured 10.31 (0.73 of it). Llama 3.1 8B on
v6e-256: products 2.24 s, memory 1.72, links 0.19, measured 4.55 (0.49 of it). A quarter of the products are those of
layers computed again. With little effort gradients are summed on all chips before each takes its share, so that links
carry more than in training.
"""

from dataclasses import dataclass

from lmscale.core.config import MeshConfig, ModelConfig, OptimizerConfig, RunConfig
from lmscale.core.counting import flops_per_token, flops_per_token_full_attention, params_total
from lmscale.core.machines import machine
from lmscale.core.plans import PlannedRun
from lmscale.study.compiled import compile_runs


@dataclass(frozen=True)
class Published:
    """A model, where and how it was trained, and how long a step took."""

    title: str
    machine: str
    rows_per_device: int
    model: ModelConfig
    tflops: float | None = None
    """TFLOP/s of a chip, attention counted in full."""
    tokens_per_second: float | None = None
    """Speed of one chip."""

    @property
    def tokens_per_device(self) -> int:
        """Tokens of a step on a chip."""
        return self.rows_per_device * self.model.context

    @property
    def seconds(self) -> float:
        """Measured time of a step."""
        if self.tokens_per_second is not None:
            return self.tokens_per_device / self.tokens_per_second
        assert self.tflops is not None
        return flops_per_token_full_attention(self.model) * self.tokens_per_device / (1e12 * self.tflops)

    @property
    def config(self) -> RunConfig:
        """The run, on all chips of the machine."""
        devices = machine(self.machine).devices
        rows = devices * self.rows_per_device
        settings = OptimizerConfig(peak_lr=1e-3, batch_sequences=rows)
        mesh = MeshConfig(fsdp=devices)
        return RunConfig(model=self.model, optimizer=settings, mesh=mesh, tokens=rows * self.model.context)


def model_of(width: int, heads: int, kv_heads: int, mlp_width: int, vocab: int, context: int) -> ModelConfig:
    """A Llama of 32 layers with heads of 128 features, computed in bfloat16."""
    return ModelConfig(
        width=width, layers=32, heads=heads, kv_heads=kv_heads, head_features=128, mlp_width=mlp_width, vocab=vocab,
        context=context, tied_embeddings=False, compute_dtype="bfloat16", remat="full",
    )  # fmt: skip


PUBLISHED = (
    Published("MaxText 16B", "v5e-256", 6, model_of(4096, 64, 64, 28_672, 32_000, 2048), tflops=120),
    Published("Llama 3.1 8B", "v6e-256", 4, model_of(4096, 32, 8, 14_336, 128_256, 8192), tokens_per_second=7207),
)


def main() -> None:
    """Print the parts of each bound, the measured time, and the utilisation that each means."""
    print("model, machine             N     products    memory     links     bound   measured   bound / measured   MFU")
    for one in PUBLISHED:
        target = machine(one.machine)
        (outcome,) = compile_runs([PlannedRun(one.config)], target)
        bound, accelerator = outcome.bound, target.accelerator
        assert bound is not None and accelerator is not None, outcome.train.problem
        needed = flops_per_token(one.model) * one.tokens_per_device
        mfu = needed / one.seconds / accelerator.flops_per_second(one.model.compute_dtype)
        parts = (bound.compute_seconds, bound.memory_seconds, bound.link_seconds, bound.seconds, one.seconds)
        print(
            f"{one.title}, {one.machine:8}  {params_total(one.model) / 1e9:5.1f}B  "
            + "  ".join(f"{seconds:6.2f} s" for seconds in parts)
            + f"   {bound.seconds / one.seconds:8.2f}           {mfu:.2f}  "
            f"({outcome.attention}, {outcome.bytes_per_device / 1e9:.1f} GB, {outcome.compile_seconds:.0f} s)",
            flush=True,
        )


if __name__ == "__main__":
    main()
