"""Bytes of parameters and optimizer state, which a checkpoint holds too, and of a training step.

Letters as in `params`.
"""

import math
from dataclasses import replace

from lmscale.core.config import ModelConfig, Reinforcement, RunConfig
from lmscale.core.counting.activations import (
    DTYPE_BYTES,
    WIDENED_BYTES,
    Platform,
    activation_bytes,
    forward_bytes,
    mlp_numbers,
    routed_numbers,
)
from lmscale.core.counting.params import (
    adapter_matrices,
    layer_matrices,
    outer_matrices,
    params_adapters,
    params_non_embedding,
    params_total,
    trained_params,
)

MOMENTS = {"adamw": 2, "adam": 2, "sgd": 1, "rmsprop": 1, "lion": 1}
"""Numbers that an optimizer keeps per parameter; for Adafactor and Muon see `moments`."""
LEAST_FACTORED = 128
"""Adafactor factors a matrix whose second-largest axis has at least this size (Shazeer and Stern 2018; optax)."""


def moments(config: RunConfig) -> int:
    """Numbers in the optimizer's state, counters apart."""
    model, kind = config.model, config.optimizer.kind
    total = trained_params(model)
    if model.lora is not None:
        return _moments_of_adapters(model, kind)
    if kind == "muon":  # one for the matrices of the layers, those of Adam for the rest
        return 2 * total - params_non_embedding(model)
    if kind != "adafactor":
        return MOMENTS[kind] * total
    matrices = [*layer_matrices(model), *outer_matrices(model)]
    vectors = total - sum(count * inputs * outputs for count, inputs, outputs in matrices)
    return vectors + sum(map(_second_moments, matrices))


def _moments_of_adapters(model: ModelConfig, kind: str) -> int:
    """What `moments` counts, for adapters alone, all of which are matrices of the layers."""
    if kind != "adafactor":
        return MOMENTS.get(kind, 1) * params_adapters(model)  # Muon keeps one of each
    return sum(map(_second_moments, adapter_matrices(model)))


def _second_moments(matrix: tuple[int, int, int]) -> int:
    """Row and column means over the two largest axes of [count, inputs, outputs], where both are large enough."""
    size = math.prod(matrix)
    *_, second, largest = sorted(matrix)
    return size // largest + size // second if second >= LEAST_FACTORED else size


def state_bytes(config: RunConfig) -> int:
    """Bytes of parameters, optimizer state and averaged weights, in memory and in a checkpoint."""
    params_with_adapters = params_total(config.model) + params_adapters(config.model)
    numbers = (1 + (config.optimizer.ema_decay is not None)) * params_with_adapters + moments(config)
    return numbers * DTYPE_BYTES[config.model.param_dtype]


COPIES_OF_CACHE = 1.1
"""Keys and values of drawn answers, times which the compiler counts for 4 and 8 layers: 1.05."""


def state_bytes_on_mesh(config: RunConfig) -> int:
    """Bytes of the state on all devices of the mesh together: the axes fsdp and tensor divide it, that of experts only
    theirs, and every other axis holds copies."""
    mesh, routed = config.mesh, routed_numbers(config.model) / params_total(config.model)
    copies = mesh.data * mesh.sequence * (routed + (1 - routed) * mesh.expert)
    return int(copies * state_bytes(config))


def memory_bytes(config: RunConfig, platform: Platform = "cpu") -> int:
    """Estimated peak memory of a training step over all devices: state, gradients, activations, logits.

    On an accelerator the gradients in the dtype of the parameters exist when the activations are gone; of several
    micro-batches their sum exists all the time.
    """
    settings, state = config.optimizer, state_bytes_on_mesh(config)
    copies = state / state_bytes(config)
    gradients = int(copies * trained_params(config.model) * DTYPE_BYTES[config.model.param_dtype])
    summed = gradients if settings.micro_batches > 1 else 0
    sequences = settings.batch_sequences // settings.micro_batches
    activations = activation_bytes(config.model, sequences, platform, config.mesh)
    update = summed + (gradients + activations if platform == "cpu" else max(gradients, activations))
    return state + max(update, drawing_bytes(config, platform))


def drawing_bytes(config: RunConfig, platform: Platform = "cpu") -> int:
    """Estimated bytes of drawing the answers of a batch beside the state: keys and values, the reading of the prompts,
    the logits of a token and the parameters as they are used; or, where several updates share a batch, one layer that
    reads all of it. 0 where the batches are text."""
    settings, model = config.objective, config.model
    if not isinstance(settings, Reinforcement):
        return 0
    rows = config.optimizer.batch_sequences
    prompt = config.prompt_tokens
    numbers: float = (
        COPIES_OF_CACHE * 2 * model.layers * model.num_kv_heads * model.head_width * (prompt + settings.answer_tokens)
    )
    numbers += prompt * (4 * model.width + 6 * model.attention_width + mlp_numbers(model))
    numbers += prompt * model.heads * (prompt + settings.answer_tokens)
    widened = model.compute_dtype == "bfloat16" and platform == "cpu"
    size = WIDENED_BYTES if widened else DTYPE_BYTES[model.compute_dtype]
    logits = 2 * rows * model.vocab * DTYPE_BYTES["float32"]
    drawing = int(rows * numbers * size) + logits + params_total(model) * size
    if settings.updates == 1:
        return drawing
    return max(drawing, forward_bytes(model, rows, platform, config.mesh))


def reference_bytes(
    reference: ModelConfig, config: RunConfig, platform: Platform = "cpu", whole_batch: bool = False
) -> int:
    """Estimated bytes of a teacher, reference or reward model beside a training step: its parameters, and one layer of
    its forward pass with the logits, of a micro-batch or of the whole batch."""
    settings = config.optimizer
    sequences = settings.batch_sequences // (1 if whole_batch else settings.micro_batches)
    params = params_total(reference) + params_adapters(reference)
    working_bytes = forward_bytes(replace(reference, context=config.model.context), sequences, platform, config.mesh)
    return params * DTYPE_BYTES[reference.param_dtype] + working_bytes
