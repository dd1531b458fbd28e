"""Bytes of parameters and optimizer state, which a checkpoint holds too, and of a training step.

Letters as in `params`.
"""

import math
from dataclasses import replace

from lmscale.core.config import ModelConfig, Reinforcement, RunConfig
from lmscale.core.config.synthetic import longest_prompt, parse
from lmscale.core.counting.chunks import attention_chunks, peak_logits_bytes
from lmscale.core.counting.params import (
    adapter_matrices,
    layer_matrices,
    mlp_branches,
    outer_matrices,
    params_adapters,
    params_non_embedding,
    params_total,
    trained_params,
)

DTYPE_BYTES = {"float32": 4, "bfloat16": 2}
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


WIDENED_BYTES = 3
"""Bytes of a bfloat16 number on a CPU, whose products are float32: half of the numbers have a float32 copy."""
MLP_SAVED = {"swiglu": 5, "geglu": 5, "gelu": 4, "gelu-erf": 4, "relu2": 3}
"""Numbers per hidden unit that an MLP saves for its backward pass."""
COPIES_OF_CACHE = 1.1
"""Keys and values of drawn answers, times which the compiler counts for 4 and 8 layers: 1.05."""
COPIES_OF_TOKEN, COPIES_OF_WEIGHTS = 5, 1.25
"""Vectors of the width of the model that each expert of a token saves; copies of all experts that XLA's ragged product
makes on a CPU. From the shapes with experts in `experiments/bench_memory.py`."""


def activation_bytes(model: ModelConfig, sequences: int, accelerator: bool = False, devices: int = 1) -> int:
    """Estimated peak bytes of a step for `sequences` sequences, besides state and gradients.

    Per token and layer 4 d (both residuals, both norms), 6 a (queries, keys, values, the attention's output and its
    transposed copies), 3 to 5 f in the MLP, and what attention saves; then twice the logits and 4 d at the ends of the
    model. On a CPU attention saves its weights and the prefixes of keys and values that each chunk of queries attends
    to; a kernel on an accelerator saves neither. With `remat` the layers save their input, and one layer at a time the
    rest; "dots" also saves the outputs of its matrices. Unrolled layers on a CPU save everything all the same, since
    XLA merges what is computed twice. Coefficients: `experiments/bench_memory.py`.
    """
    layer: float = 4 * model.width + 6 * model.attention_width + _mlp_numbers(model)
    if not accelerator:
        layer += _chunked_attention(model)
    elif model.compute_dtype == "float32":  # no kernel of a GPU takes it: scores and weights exist
        layer += 2 * model.heads * model.context
    dots = 2 * model.width + 3 * model.attention_width + (mlp_branches(model) - 1) * _active_hidden(model)
    saved = {
        "none": model.layers * layer,
        "dots": model.layers * dots + layer,
        "full": model.layers * model.width + layer,
    }
    scanned = accelerator if model.scan_layers is None else model.scan_layers
    numbers = saved[model.remat if scanned else "none"] + 4 * model.width
    size = DTYPE_BYTES[model.compute_dtype]
    if model.compute_dtype == "bfloat16" and not accelerator:
        size = WIDENED_BYTES
    weights = 0 if accelerator else int(_copied_experts(model) * DTYPE_BYTES[model.compute_dtype])
    return int(sequences * model.context * numbers * size) + weights + 2 * _logits_bytes(model, sequences, devices)


def _active_hidden(model: ModelConfig) -> int:
    """Hidden units that one token is read by."""
    return (model.experts_per_token + model.shared_experts) * model.expert_hidden


def _mlp_numbers(model: ModelConfig) -> float:
    """Numbers per token that an MLP saves; an expert also saves its copies of the token and of what it adds to it, and
    under a limit all that there is room for."""
    if not model.sparse:
        return MLP_SAVED[model.mlp] * model.hidden
    chosen = model.experts_per_token * (model.router.capacity or 1.0)
    hidden = (chosen + model.shared_experts) * model.expert_hidden
    return MLP_SAVED[model.mlp] * hidden + COPIES_OF_TOKEN * chosen * model.width


def _copied_experts(model: ModelConfig) -> float:
    """Numbers of expert weights that dropless layers on a CPU hold besides the parameters."""
    if not model.sparse or model.router.capacity is not None:
        return 0.0
    experts = model.layers * model.experts * mlp_branches(model) * model.width * model.expert_hidden
    return COPIES_OF_WEIGHTS * experts


def _logits_bytes(model: ModelConfig, sequences: int, devices: int) -> int:
    """Float32 logits that are held at once."""
    position_bytes = sequences * (1 if model.scalar_head else model.vocab) * DTYPE_BYTES["float32"]
    if model.loss_chunk is not None:
        return position_bytes * min(model.loss_chunk, model.context)
    return peak_logits_bytes(position_bytes * model.context, devices)


def _chunked_attention(model: ModelConfig) -> float:
    """Softmax weights and copied keys and values of one token and layer in chunked attention on a CPU."""
    chunks = attention_chunks(model.context)
    key_chunks = (chunks + 1) / 2  # that a query attends to, on average
    return key_chunks * (model.heads * math.ceil(model.context / chunks) + 2 * model.num_kv_heads * model.head_width)


def memory_bytes(config: RunConfig, accelerator: bool = False) -> int:
    """Estimated peak memory of a training step over all devices: state, gradients, activations, logits."""
    settings = config.optimizer
    gradients = (
        (1 + (settings.micro_batches > 1)) * trained_params(config.model) * DTYPE_BYTES[config.model.param_dtype]
    )
    sequences = settings.batch_sequences // settings.micro_batches
    update = gradients + activation_bytes(config.model, sequences, accelerator, config.mesh.devices)
    return state_bytes(config) + max(update, drawing_bytes(config, accelerator))


def drawing_bytes(config: RunConfig, accelerator: bool = False) -> int:
    """Estimated bytes of drawing the answers of a batch beside the state: keys and values, the reading of the prompts,
    the logits of a token and the parameters as they are used; or, where several updates share a batch, one layer that
    reads all of it. 0 where the batches are text."""
    settings, model = config.objective, config.model
    if not isinstance(settings, Reinforcement):
        return 0
    rows, devices = config.optimizer.batch_sequences, config.mesh.devices
    prompt = 1 + longest_prompt(parse(config.data.source))
    numbers: float = (
        COPIES_OF_CACHE * 2 * model.layers * model.num_kv_heads * model.head_width * (prompt + settings.answer_tokens)
    )
    numbers += prompt * (4 * model.width + 6 * model.attention_width + _mlp_numbers(model))
    numbers += prompt * model.heads * (prompt + settings.answer_tokens)
    widened = model.compute_dtype == "bfloat16" and not accelerator
    size = WIDENED_BYTES if widened else DTYPE_BYTES[model.compute_dtype]
    logits = 2 * rows * model.vocab * DTYPE_BYTES["float32"]
    drawing = int(rows * numbers * size) + logits + params_total(model) * size
    if settings.updates == 1:
        return drawing
    return max(drawing, activation_bytes(replace(model, layers=1), rows, accelerator, devices))


def reference_bytes(
    reference: ModelConfig, config: RunConfig, accelerator: bool = False, whole_batch: bool = False
) -> int:
    """Estimated bytes of a teacher, reference or reward model beside a training step: its parameters, and one layer of
    its forward pass with the logits, of a micro-batch or of the whole batch."""
    settings = config.optimizer
    one_layer = replace(reference, layers=1, context=config.model.context)
    sequences = settings.batch_sequences // (1 if whole_batch else settings.micro_batches)
    params = params_total(reference) + params_adapters(reference)
    working_bytes = activation_bytes(one_layer, sequences, accelerator, config.mesh.devices)
    return params * DTYPE_BYTES[reference.param_dtype] + working_bytes
