"""Bytes that a training step keeps for its backward pass, on a CPU and on accelerators.

On a CPU fitted to what the compiler counts (`experiments/bench_memory.py`). On an accelerator layers run in a loop, and
what it keeps is what JAX saves of each: the terms below are those of the traced step and of the compiler's assignment
of buffers, and agree with its count (`experiments/bench_memory.py --target`, `tests/test_counting_activations.py`).

Letters as in `params`.
"""

import math
from dataclasses import replace
from typing import Literal

from lmscale.core.config import MeshConfig, ModelConfig
from lmscale.core.counting.chunks import attention_chunks, peak_logits_bytes
from lmscale.core.counting.params import mlp_branches, params_with_head

Platform = Literal["cpu", "gpu", "tpu"]
"""JAX's names of kinds of devices."""
DTYPE_BYTES = {"float32": 4, "bfloat16": 2}
WIDENED_BYTES = 3
"""Bytes of a bfloat16 number on a CPU, whose products are float32: half of the numbers have a float32 copy."""
MLP_SAVED = {"swiglu": 5, "geglu": 5, "gelu": 4, "gelu-erf": 4, "relu2": 3}
"""Numbers per hidden unit that an MLP saves on a CPU, where the compiler computes some of them twice."""
MLP_STACKED = {"swiglu": 6, "geglu": 8, "gelu": 6, "gelu-erf": 4, "relu2": 2.5}
"""Numbers per hidden unit that an MLP saves on an accelerator: intermediate results of its function, and the input of
the second matrix."""
COPIES_OF_TOKEN, COPIES_OF_WEIGHTS = 5, 1.25
"""Vectors of the width of the model that each expert of a token saves; copies of all experts that XLA's ragged product
makes on a CPU. From the shapes with experts in `experiments/bench_memory.py`."""
ONE_DEVICE = MeshConfig()
TPU_LANES = 128
"""Features of a head are padded to whole registers of a TPU."""
ALIBI_FEATURES = 8
"""Features that a kernel which computes ALiBi adds to each head (`lm/model/attention/alibi`)."""
WIDEST_HEAD = 256
"""Features of a head that cuDNN's fused attention takes at most."""


def activation_bytes(
    model: ModelConfig, sequences: int, platform: Platform = "cpu", mesh: MeshConfig = ONE_DEVICE
) -> int:
    """Estimated peak bytes of a step for `sequences` sequences, besides state and float32 gradients, over all devices
    of `mesh` together.

    On a CPU per token and layer 4 d (both residuals, both norms), 6 a (queries, keys, values, the attention's output
    and its transposed copies), 3 to 5 f in the MLP, and attention's weights with the prefixes of keys and values that
    each chunk of queries attends to; then twice the logits and 4 d at the ends of the model. With `remat` the layers
    save their input, and one layer at a time the rest; "dots" also saves the outputs of its matrices. Unrolled layers
    on a CPU save everything all the same, since XLA merges what is computed twice.

    On an accelerator the larger of two moments, beside what all layers saved: the loss; and the backward pass of one
    layer, with the gradients of all.
    """
    if platform == "cpu":
        return _on_cpu(model, sequences, mesh)
    tokens, size = sequences * model.context, DTYPE_BYTES[model.compute_dtype]
    layer, dots = _layer_numbers(model, platform, mesh), _matrix_outputs(model, mesh)
    scanned = True if model.scan_layers is None else model.scan_layers
    remat = model.remat if scanned else "none"
    whole = layer if scanned else _written_out_numbers(model, platform, mesh)
    saved = model.layers * {"none": whole, "dots": dots, "full": mesh.tensor * model.width}[remat] * tokens * size
    ends = 4 * model.width * mesh.tensor * tokens * size
    at_the_loss, after_it = _loss_bytes(model, sequences, platform, mesh)
    in_a_layer = _backward_of_a_layer(model, whole * tokens * size, mesh)
    return int(saved + max(ends + at_the_loss, after_it + in_a_layer))


def forward_bytes(model: ModelConfig, sequences: int, platform: Platform = "cpu", mesh: MeshConfig = ONE_DEVICE) -> int:
    """Estimated peak bytes, besides the parameters, of reading `sequences` sequences without derivatives: one layer,
    and the logits, over all devices of `mesh` together."""
    if platform == "cpu":
        return _on_cpu(replace(model, layers=1), sequences, mesh)
    size = DTYPE_BYTES[model.compute_dtype]
    numbers = 4 * model.width * mesh.tensor + _layer_numbers(model, platform, mesh)
    read = numbers * sequences * model.context + _head_numbers(model, mesh)
    return int(read * size) + logits_bytes(model, sequences, mesh.devices)


def _loss_bytes(model: ModelConfig, sequences: int, platform: Platform, mesh: MeshConfig) -> tuple[float, float]:
    """Bytes on an accelerator for logits and the derivatives by them: in the loss, and in the layers' backward pass.

    Logits are in float32, the derivatives in the compute dtype, as is the head, of which each device has the part that
    its tensor axis leaves it; the sum of the head's gradients over chunks is in float32. A TPU's compiler takes logits
    that are not cut into chunks into the products that read them, so that they exist once; since the head's gradient
    may be the last of these, they stay until the end.
    """
    logits = logits_bytes(model, sequences, mesh.devices)
    at_once = logits == _position_bytes(model, sequences) * model.context
    if platform == "tpu" and at_once:
        return logits, logits
    size, wide = DTYPE_BYTES[model.compute_dtype], DTYPE_BYTES["float32"]
    head_bytes = (size if at_once else size + wide) * _head_numbers(model, mesh)
    return (1 + size / wide) * logits + head_bytes, 0


def _backward_of_a_layer(model: ModelConfig, layer_bytes: float, mesh: MeshConfig) -> float:
    """Bytes on an accelerator while the backward pass is in one layer, besides what all layers saved: the gradients of
    all matrices, and a copy of these where they are computed in another type than that of the parameters; and again as
    much as a layer saves, for what it reads of that and the derivatives by it."""
    copies = 1 if model.compute_dtype == model.param_dtype else 2
    matrices = params_with_head(model) * DTYPE_BYTES[model.compute_dtype] * mesh.data * mesh.sequence
    return copies * matrices + layer_bytes


def _layer_numbers(model: ModelConfig, platform: Platform, mesh: MeshConfig) -> float:
    """Numbers that a layer saves per token on an accelerator, over the devices of the tensor axis together.

    Of the residual stream, which that axis does not divide: both residuals, the inputs of both norms in float32, and
    those of the first matrices of attention and MLP. Of the parts that it divides: attention and MLP.
    """
    wide = DTYPE_BYTES["float32"] / DTYPE_BYTES[model.compute_dtype]
    stream: float = (2 * wide + 4) * model.width
    if model.residual_dropout:
        stream += 2 * model.width / DTYPE_BYTES[model.compute_dtype]
    if model.sparse:  # the router reads float32; what every expert adds is summed in float32
        chosen = model.experts_per_token * (model.router.capacity or 1.0)
        stream += ((1 + model.experts_per_token) * wide + chosen - 1) * model.width
        hidden = (chosen + model.shared_experts) * model.expert_hidden
    else:
        hidden = model.hidden
    return mesh.tensor * stream + MLP_STACKED[model.mlp] * hidden + _attention_numbers(model, platform, mesh)


def _written_out_numbers(model: ModelConfig, platform: Platform, mesh: MeshConfig) -> float:
    """As `_layer_numbers` where layers are written out one after the other: the compiler then computes again what takes
    no product, and saves both residuals, what the MLP's first matrices give, and what attention reads and gives."""
    inputs = mlp_branches(model) * active_hidden(model)
    return 2 * mesh.tensor * model.width + inputs + _attention_numbers(model, platform, mesh) - model.attention_width


def document_features(context: int) -> int:
    """By how many features a kernel's heads are wider where documents do not see each other (`lm/model/attention/
    documents`): one for each binary digit of their numbers in a row, in eights as kernels need them."""
    return math.ceil((context - 1).bit_length() / 8) * 8


def _attention_numbers(model: ModelConfig, platform: Platform, mesh: MeshConfig) -> float:
    """Numbers that attention saves per token on an accelerator: queries, keys, values, its output, and what QK-norm and
    the formula without a kernel keep besides."""
    size, queries, keys = DTYPE_BYTES[model.compute_dtype], model.heads, model.num_kv_heads
    wide = DTYPE_BYTES["float32"] / size
    numbers: float = model.attention_width
    if model.qk_norm:
        numbers += (wide + 1) * (queries + keys) * model.head_width
    if fused_attention(model, platform, mesh):
        features = model.head_width + ALIBI_FEATURES * (model.positions == "alibi")
        if platform == "gpu" and model.document_end is not None:  # the kernel's result is as wide as what it reads
            more = document_features(model.context)
            numbers += queries * more if features + more <= WIDEST_HEAD else 0
        if platform == "tpu":
            features = math.ceil(features / TPU_LANES) * TPU_LANES
        return numbers + 2 * (queries + keys) * features
    scores = wide + 1  # in float32, and their softmax
    if platform == "gpu":  # whose compiler keeps the scores in float32 beside their softmax
        scores += wide
    if model.attention_dropout:
        scores += 1 / size
    return numbers + (queries + 2 * keys) * model.head_width + scores * queries * model.context


def fused_attention(model: ModelConfig, platform: Platform, mesh: MeshConfig) -> bool:
    """Whether a kernel computes attention on an accelerator, so that scores never exist in memory.

    As `lm/model/attention` chooses, on a GPU of the Hopper generation or later.
    """
    parts = mesh.tensor * mesh.sequence
    repeatable = mesh.sequence > 1 and parts % model.num_kv_heads == 0 and model.heads % parts == 0
    if model.attention_dropout or not (model.num_kv_heads % parts == 0 or repeatable):
        return False
    if platform == "tpu":
        return model.context % TPU_LANES == 0
    features = model.head_width + ALIBI_FEATURES * (model.positions == "alibi")
    return model.compute_dtype != "float32" and features % 8 == 0 and features <= WIDEST_HEAD


def _matrix_outputs(model: ModelConfig, mesh: MeshConfig) -> int:
    """Numbers per token and layer that `remat="dots"` saves: the outputs of the matrices, and the layer's input."""
    divided = (model.heads + 2 * model.num_kv_heads) * model.head_width + (mlp_branches(model) - 1) * active_hidden(
        model
    )
    return 2 * model.width * mesh.tensor + divided


def active_hidden(model: ModelConfig) -> int:
    """Hidden units that one token is read by."""
    return (model.experts_per_token + model.shared_experts) * model.expert_hidden


def logits_bytes(model: ModelConfig, sequences: int, devices: int) -> int:
    """Float32 logits that are held at once."""
    position_bytes = _position_bytes(model, sequences)
    if model.loss_chunk is not None:
        return position_bytes * min(model.loss_chunk, model.context)
    return peak_logits_bytes(position_bytes, model.context, devices)


def _position_bytes(model: ModelConfig, sequences: int) -> int:
    """Float32 logits of one position of all sequences."""
    return sequences * _outputs(model) * DTYPE_BYTES["float32"]


def _head_numbers(model: ModelConfig, mesh: MeshConfig) -> int:
    """Numbers of the head's matrix over all devices together; the tensor axis divides it, each other axis copies it."""
    return _outputs(model) * model.width * mesh.devices // mesh.tensor


def _outputs(model: ModelConfig) -> int:
    """Numbers that the model gives for one position."""
    return 1 if model.scalar_head else model.vocab


def _on_cpu(model: ModelConfig, sequences: int, mesh: MeshConfig) -> int:
    """The activations of a step on a CPU, counted as `activation_bytes` does."""
    layer = 4 * model.width + 6 * model.attention_width + mlp_numbers(model) + _chunked_attention(model)
    dots = 2 * model.width + 3 * model.attention_width + (mlp_branches(model) - 1) * active_hidden(model)
    saved = {
        "none": model.layers * layer,
        "dots": model.layers * dots + layer,
        "full": model.layers * model.width + layer,
    }
    numbers = saved[model.remat if model.scan_layers else "none"] + 4 * model.width
    size = DTYPE_BYTES["float32"] if model.compute_dtype == "float32" else WIDENED_BYTES
    weights = int(_copied_experts(model) * DTYPE_BYTES[model.compute_dtype])
    return int(sequences * model.context * numbers * size) + weights + 2 * logits_bytes(model, sequences, mesh.devices)


def mlp_numbers(model: ModelConfig) -> float:
    """Numbers per token that an MLP saves on a CPU; an expert also saves its copies of the token and of what it adds to
    it, and under a limit all that there is room for."""
    if not model.sparse:
        return MLP_SAVED[model.mlp] * model.hidden
    chosen = model.experts_per_token * (model.router.capacity or 1.0)
    hidden = (chosen + model.shared_experts) * model.expert_hidden
    return MLP_SAVED[model.mlp] * hidden + COPIES_OF_TOKEN * chosen * model.width


def _copied_experts(model: ModelConfig) -> float:
    """Numbers of expert weights that dropless layers on a CPU hold besides the parameters."""
    if not model.sparse or model.router.capacity is not None:
        return 0.0
    return COPIES_OF_WEIGHTS * routed_numbers(model)


def routed_numbers(model: ModelConfig) -> int:
    """Numbers in the matrices of all experts that tokens are routed to."""
    return model.layers * model.experts * mlp_branches(model) * model.width * model.expert_hidden if model.sparse else 0


def _chunked_attention(model: ModelConfig) -> float:
    """Softmax weights and copied keys and values of one token and layer in chunked attention on a CPU."""
    chunks = attention_chunks(model.context)
    key_chunks = (chunks + 1) / 2  # that a query attends to, on average
    return key_chunks * (model.heads * math.ceil(model.context / chunks) + 2 * model.num_kv_heads * model.head_width)
