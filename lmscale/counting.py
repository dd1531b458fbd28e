"""Parameters, FLOPs and bytes of a model under every named convention: the one place with a formula for N or C.

FLOPs are floating-point operations, a multiply-add counting two. A training step costs three forward passes: one
forward, two backward (Kaplan 2020, section 2.1). Norms, activations, softmax and rotations are left out, as everywhere
in the field: they are O(width) beside O(width^2).

Letters: d width, L layers, s context, V vocabulary, f hidden units of the MLP.
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


def params_attention(model: ModelConfig) -> int:
    """4 d^2 per layer: query, key, value and output projections."""
    return model.layers * 4 * model.width**2


def params_mlp(model: ModelConfig) -> int:
    """2 d f per layer for GELU, 3 d f for SwiGLU."""
    return model.layers * (3 if model.mlp == "swiglu" else 2) * model.width * model.hidden


def params_norm(model: ModelConfig) -> int:
    """Two gains of size d per layer and one before the head."""
    return (2 * model.layers + 1) * model.width


def params_total(model: ModelConfig) -> int:
    """N, the default convention: every trained number (Hoffmann 2022)."""
    return params_embedding(model) + params_head(model) + params_non_embedding(model) + params_norm(model)


def params_non_embedding(model: ModelConfig) -> int:
    """N of Kaplan 2020, equation 2.1: the matrices of the layers, without token table, head and norms."""
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
ADAM_MOMENTS = 2


def state_bytes(model: ModelConfig) -> int:
    """Parameters and Adam's two moments, as held in memory and in a checkpoint."""
    return (1 + ADAM_MOMENTS) * params_total(model) * DTYPE_BYTES[model.param_dtype]


def activation_bytes(model: ModelConfig, sequences: int) -> int:
    """What the backward pass keeps of `sequences` sequences without rematerialisation, an estimate.

    Per token and layer about 10 d (norm inputs and outputs, q, k, v, attention output, two residuals), s attention
    weights per head over the causal half, and 2 to 3 f in the MLP; then the logits and their gradient.
    """
    per_layer = 10 * model.width + model.heads * model.context // 2 + (4 if model.mlp == "swiglu" else 2) * model.hidden
    per_token = model.layers * per_layer + 2 * model.vocab
    return sequences * model.context * per_token * DTYPE_BYTES[model.compute_dtype]


def memory_bytes(config: RunConfig) -> int:
    """Peak memory of a training step over all devices, an estimate: state, gradients, activations, logits."""
    gradients = params_total(config.model) * DTYPE_BYTES[config.model.param_dtype]
    return state_bytes(config.model) + gradients + activation_bytes(config.model, config.optimizer.batch_sequences)


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
