"""Runs of a plan that compute attention by its formula, so that all scores are in a device's memory."""

from collections.abc import Iterator, Sequence

from lmscale.core.config import RunConfig
from lmscale.core.counting import Platform
from lmscale.core.counting.activations import fused_attention
from lmscale.core.plans import PlannedRun


def without_kernel(runs: Sequence[PlannedRun], platform: Platform) -> list[PlannedRun]:
    """The runs whose attention no fused kernel of an accelerator computes."""
    return [run for run in runs if not fused_attention(run.config.model, platform, run.config.mesh)]


def plain_note(plain: Sequence[PlannedRun], runs: int, platform: Platform) -> Iterator[str]:
    """A sentence on the runs without a kernel, with the reason of the first; nothing where there are none."""
    if plain:
        yield (
            f"{len(plain)} of {runs} runs compute attention without a fused kernel, so that all scores are in memory "
            f"(run {plain[0].config.run_id}: {reason(plain[0].config, platform)})"
        )


def reason(config: RunConfig, platform: Platform) -> str:
    """Why no kernel of an accelerator computes the attention of a run."""
    model, mesh = config.model, config.mesh
    if model.attention_dropout:
        return f"attention_dropout = {model.attention_dropout:g}, which no kernel has; residual_dropout costs little"
    if model.compute_dtype == "float32" and platform == "gpu":
        return "compute_dtype = 'float32', which no kernel of a GPU takes"
    if mesh.sequence > 1 and not fused_attention(model, platform, mesh):
        return (
            f"mesh.tensor x mesh.sequence = {mesh.tensor * mesh.sequence} devices share the heads while a kernel runs, "
            f"and {model.heads} heads, {model.num_kv_heads} of keys and values, do not divide over them"
        )
    return f"context {model.context}, heads of {model.head_width} features"
