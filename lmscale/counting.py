"""Parameters, FLOPs and bytes of a model under every named convention: the one place with a formula for N or C.

FLOPs are floating-point operations, a multiply-add counting two. A training step costs three forward passes: one
forward, two backward (Kaplan 2020, section 2.1). Norms, activations, softmax and rotations are left out, as everywhere
in the field: they are O(width) beside O(width^2).

Letters: d width, L layers, s context, V vocabulary, f hidden units of the MLP, h heads, g heads of keys and values,
k = d / h features of a head.
"""

from dataclasses import dataclass

from lmscale.config import ModelConfig, RunConfig

TRAIN_OVER_FORWARD = 3


def params_embedding(model: ModelConfig) -> int:
    """V d: the token table, which is also the output head where embeddings are tied."""
    return model.vocab * model.width


def params_head(model: ModelConfig) -> int:
    """V d where the head is a matrix of its own, 0 where it is tied to the embedding."""
    return 0 if model.tied_embeddings else model.vocab * model.width


def params_positions(model: ModelConfig) -> int:
    """s d where positions are learned."""
    return model.context * model.width if model.positions == "learned" else 0


def params_attention(model: ModelConfig) -> int:
    """2 d^2 + 2 d g k per layer: query and output projections, key and value projections; 4 d^2 where g = h."""
    return model.layers * 2 * model.width * (model.width + model.groups * model.head_width)


def params_mlp(model: ModelConfig) -> int:
    """2 d f per layer, 3 d f for SwiGLU."""
    return model.layers * _mlp_branches(model) * model.width * model.hidden


def _mlp_branches(model: ModelConfig) -> int:
    return 3 if model.mlp == "swiglu" else 2


def params_norm(model: ModelConfig) -> int:
    """Two gains of size d per layer and one before the head; as many biases where LayerNorm has them; two gains of size
    k per layer where queries and keys are normalised."""
    vectors = 2 if model.biases and model.norm == "layernorm" else 1
    queries_and_keys = 2 * model.layers * model.head_width if model.qk_norm else 0
    return vectors * (2 * model.layers + 1) * model.width + queries_and_keys


def params_bias(model: ModelConfig) -> int:
    """One number per output of every matrix of the layers, where they have biases."""
    attention = 2 * model.width + 2 * model.groups * model.head_width
    mlp = (_mlp_branches(model) - 1) * model.hidden + model.width
    return model.layers * (attention + mlp) if model.biases else 0


def params_total(model: ModelConfig) -> int:
    """N, the default convention: every trained number (Hoffmann 2022)."""
    tables = params_embedding(model) + params_positions(model) + params_head(model)
    return tables + params_non_embedding(model) + params_norm(model) + params_bias(model)


def params_non_embedding(model: ModelConfig) -> int:
    """N of Kaplan 2020, equation 2.1: the matrices of the layers, without tables, head, norms and biases."""
    return params_attention(model) + params_mlp(model)


def flops_per_token_forward(model: ModelConfig) -> int:
    """Exact forward FLOPs of one token of a full context: projections, MLP, causal attention, head.

    A token attends to s / 2 keys on average (the diagonal's half key is left out, as in the field's tables); a key
    costs 2 d for its score and 2 d for its value, so 2 d s per layer: what is needed, not what a kernel without a
    causal mask computes.
    """
    matmul = params_non_embedding(model) + model.vocab * model.width
    return 2 * matmul + model.layers * 2 * model.width * model.context


def flops_per_token(model: ModelConfig) -> int:
    """C / D, the default convention: exact training FLOPs of one token."""
    return TRAIN_OVER_FORWARD * flops_per_token_forward(model)


def flops_per_token_6n(model: ModelConfig) -> int:
    """6 N with N all parameters (Hoffmann 2022)."""
    return 6 * params_total(model)


def flops_per_token_kaplan(model: ModelConfig) -> int:
    """6 N with N the non-embedding parameters (Kaplan 2020, equation 2.2 without attention)."""
    return 6 * params_non_embedding(model)


def train_flops(config: RunConfig) -> int:
    """C of a run in the default convention: exact training FLOPs, validation left out."""
    return flops_per_token(config.model) * config.tokens


def validation_flops(config: RunConfig) -> int:
    """Forward FLOPs spent on the validation set, at most (a small split scores fewer tokens)."""
    return flops_per_token_forward(config.model) * config.validation_tokens * config.validations


DTYPE_BYTES = {"float32": 4, "bfloat16": 2}
MOMENTS = {"adamw": 2, "adam": 2, "sgd": 1, "rmsprop": 1, "adafactor": 1, "lion": 1, "muon": 2}
"""Numbers that an optimizer keeps per parameter, at most: Adafactor keeps far fewer for large matrices, Muon one for
those of the layers."""


def state_bytes(config: RunConfig) -> int:
    """Parameters, the optimizer's moments and averaged weights, as held in memory and in a checkpoint."""
    copies = 1 + MOMENTS[config.optimizer.kind] + (config.optimizer.ema_decay is not None)
    return copies * params_total(config.model) * DTYPE_BYTES[config.model.param_dtype]


def activation_bytes(model: ModelConfig, sequences: int) -> int:
    """What the backward pass keeps of `sequences` sequences, an estimate.

    Per token and layer about 10 d (norm inputs and outputs, q, k, v, attention output, two residuals), s attention
    weights per head over the causal half, and 2 to 4 f in the MLP; then the logits and their gradient. With `remat` the
    layers keep their input, and one layer at a time the rest; "dots" also keeps the outputs of its matrices.
    """
    width, hidden = model.width, model.hidden
    layer = 10 * width + model.heads * model.context // 2 + (4 if model.mlp == "swiglu" else 2) * hidden
    dots = 5 * width + (_mlp_branches(model) - 1) * hidden
    kept = {"none": model.layers * layer, "dots": model.layers * dots + layer, "full": model.layers * width + layer}
    logits = 2 * model.vocab * min(1.0, (model.loss_chunk or model.context) / model.context)
    return int(sequences * model.context * (kept[model.remat] + logits) * DTYPE_BYTES[model.compute_dtype])


def memory_bytes(config: RunConfig) -> int:
    """Peak memory of a training step over all devices, an estimate: state, gradients, activations, logits."""
    settings = config.optimizer
    gradients = (1 + (settings.micro_batches > 1)) * params_total(config.model) * DTYPE_BYTES[config.model.param_dtype]
    sequences = settings.batch_sequences // settings.micro_batches
    return state_bytes(config) + gradients + activation_bytes(config.model, sequences)


@dataclass(frozen=True)
class Counts:
    """A run's N and C under every convention."""

    params: int
    params_non_embedding: int
    tokens: int
    flops: int
    flops_6n: int
    flops_kaplan: int

    @property
    def tokens_per_param(self) -> float:
        """D / N with N all parameters."""
        return self.tokens / self.params


def count(config: RunConfig) -> Counts:
    """Count `config` under every convention."""
    return Counts(
        params=params_total(config.model),
        params_non_embedding=params_non_embedding(config.model),
        tokens=config.tokens,
        flops=train_flops(config),
        flops_6n=flops_per_token_6n(config.model) * config.tokens,
        flops_kaplan=flops_per_token_kaplan(config.model) * config.tokens,
    )
