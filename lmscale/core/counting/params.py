"""Parameters of a model, by part and under every convention.

Those named `params` are all that a model has, those named `active_params` the ones that take part in reading one token:
of a dense model the same, of a mixture of experts without the experts that a token does not take.

Letters: d width, L layers, s context, V vocabulary, f hidden units of the MLP, h heads, g heads of keys and values,
k features of a head, d / h unless the model says otherwise, a = h k; E experts, of which a token takes t, S shared
experts, e hidden units of an expert.
"""

from functools import lru_cache

from lmscale.core.config import ModelConfig


def params_embedding(model: ModelConfig) -> int:
    """V d: the token table, which is also the output head where embeddings are tied."""
    return model.vocab * model.width


def params_head(model: ModelConfig) -> int:
    """V d where the head is a matrix of its own, 0 where it is tied to the embedding; d of a reward model."""
    if model.scalar_head:
        return model.width
    return 0 if model.tied_embeddings else model.vocab * model.width


def params_positions(model: ModelConfig) -> int:
    """s d where positions are learned."""
    return model.context * model.width if model.positions == "learned" else 0


def params_attention(model: ModelConfig) -> int:
    """2 d a + 2 d g k per layer: query and output projections, key and value projections; 4 d^2 where g k = a = d."""
    return model.layers * 2 * model.width * (model.attention_width + model.num_kv_heads * model.head_width)


def params_mlp(model: ModelConfig) -> int:
    """2 d f per layer, 3 d f for SwiGLU and GEGLU; of a mixture of experts (E + S) d e times the same, and the
    router."""
    return _params_mlp(model, model.experts)


def active_params_mlp(model: ModelConfig) -> int:
    """2 d f per layer, 3 d f for SwiGLU and GEGLU; of a mixture of experts (t + S) d e times the same, and the
    router."""
    return _params_mlp(model, model.experts_per_token)


def _params_mlp(model: ModelConfig, experts: int) -> int:
    """Parameters of so many experts of a layer, of the shared ones and of the router."""
    mlps = experts + model.shared_experts
    return model.layers * mlps * mlp_branches(model) * model.width * model.expert_hidden + params_router(model)


def params_router(model: ModelConfig) -> int:
    """d E per layer: from the residual stream to a score per expert; none in a dense model."""
    return model.layers * model.width * model.experts if model.sparse else 0


def mlp_branches(model: ModelConfig) -> int:
    """Matrices of an MLP: 3 for SwiGLU and GEGLU, else 2."""
    return 3 if model.gated else 2


def params_norm(model: ModelConfig) -> int:
    """Two gains of size d per layer and one before the head; as many biases where LayerNorm has them; two gains of size
    k per layer where queries and keys are normalised."""
    vectors = 2 if model.biases and model.norm == "layernorm" else 1
    queries_and_keys = 2 * model.layers * model.head_width if model.qk_norm else 0
    return vectors * (2 * model.layers + 1) * model.width + queries_and_keys


def params_bias(model: ModelConfig) -> int:
    """One number per output of every matrix of the layers that has a bias, and one per expert by which it is chosen."""
    router = model.layers * model.experts * (model.router.bias_rate > 0)
    qkv = model.attention_width + 2 * model.num_kv_heads * model.head_width
    rest = 2 * model.width + (mlp_branches(model) - 1) * model.hidden
    return router + model.layers * (qkv * (model.biases or model.qkv_biases) + rest * model.biases)


def params_total(model: ModelConfig) -> int:
    """N, the default convention: every trained number (Hoffmann 2022)."""
    tables = params_embedding(model) + params_positions(model) + params_head(model)
    return tables + params_non_embedding(model) + params_norm(model) + params_bias(model)


def params_non_embedding(model: ModelConfig) -> int:
    """N of Kaplan 2020, equation 2.1: the matrices of the layers, without tables, head, norms and biases."""
    return params_attention(model) + params_mlp(model)


def params_with_head(model: ModelConfig) -> int:
    """The matrices of the layers and the output head, tied or not: what every token is multiplied by (Porian 2024)."""
    outputs = 1 if model.scalar_head else model.vocab
    return params_non_embedding(model) + outputs * model.width


def params_adapters(model: ModelConfig) -> int:
    """r (inputs + outputs) of every adapted matrix: the factors of low-rank adapters (Hu 2021); 0 without."""
    return sum(count * inputs * outputs for count, inputs, outputs in adapter_matrices(model))


def adapter_matrices(model: ModelConfig) -> list[tuple[int, int, int]]:
    """(how many, inputs, outputs) of the factors of low-rank adapters; the second factor of queries, keys and values
    and that of a gated MLP's branches are listed apart."""
    if model.lora is None:
        return []
    layers, rank, projections = model.layers, model.lora.rank, model.heads // model.num_kv_heads + 2
    branches, keys = mlp_branches(model) - 1, model.num_kv_heads * model.head_width
    factors = {
        "attention_qkv": [(layers, model.width, rank), (layers * projections, rank, keys)],
        "attention_out": [(layers, model.attention_width, rank), (layers, rank, model.width)],
        "mlp_in": [(layers, model.width, rank), (layers * branches, rank, model.hidden)],
        "mlp_out": [(layers, model.hidden, rank), (layers, rank, model.width)],
    }
    return [matrix for name in model.lora.matrices for matrix in factors[name]]


@lru_cache(maxsize=10_000)
def trained_params(model: ModelConfig) -> int:
    """Numbers that training moves: all, or those of the adapters alone."""
    return params_total(model) if model.lora is None else params_adapters(model)


def active_params_total(model: ModelConfig) -> int:
    """N by the default convention, without the experts that a token does not take."""
    return params_total(model) - _params_idle(model)


def active_params_non_embedding(model: ModelConfig) -> int:
    """N of Kaplan 2020 without the experts that a token does not take."""
    return params_non_embedding(model) - _params_idle(model)


def active_params_with_head(model: ModelConfig) -> int:
    """The matrices that one token is multiplied by: those of the layers, without the experts that it does not take, and
    the output head."""
    return params_with_head(model) - _params_idle(model)


def _params_idle(model: ModelConfig) -> int:
    """Parameters of the experts that a token does not take."""
    return params_mlp(model) - active_params_mlp(model)


def layer_matrices(model: ModelConfig) -> list[tuple[int, int, int]]:
    """(how many, inputs, outputs) of the matrices of the layers; projections of queries, keys and values, and experts
    are listed apart, shared experts as the one MLP that they are."""
    width, keys = model.width, model.num_kv_heads * model.head_width
    projections = model.heads // model.num_kv_heads + 2
    attention = [(model.layers * projections, width, keys), (model.layers, model.attention_width, width)]
    if not model.sparse:
        return attention + _mlp_matrices(model, 1, model.hidden)
    experts = [(model.layers, width, model.experts), *_mlp_matrices(model, model.experts, model.expert_hidden)]
    shared = _mlp_matrices(model, 1, model.shared_experts * model.expert_hidden) if model.shared_experts else []
    return attention + experts + shared


def _mlp_matrices(model: ModelConfig, mlps: int, hidden: int) -> list[tuple[int, int, int]]:
    """(how many, inputs, outputs) of those of so many MLPs in every layer."""
    number = model.layers * mlps
    return [(number * (mlp_branches(model) - 1), model.width, hidden), (number, hidden, model.width)]


def outer_matrices(model: ModelConfig) -> list[tuple[int, int, int]]:
    """(how many, inputs, outputs) of the tables and of an untied head."""
    matrices = [(1, model.vocab, model.width)]
    if model.positions == "learned":
        matrices.append((1, model.context, model.width))
    if model.scalar_head:
        return [*matrices, (1, model.width, 1)]
    return matrices if model.tied_embeddings else [*matrices, (1, model.width, model.vocab)]
