"""Parameters of a model, by part and under every convention.

Letters: d width, L layers, s context, V vocabulary, f hidden units of the MLP, h heads, g heads of keys and values,
k features of a head, d / h unless the model says otherwise, a = h k.
"""

from lmscale.core.config import ModelConfig


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
    """2 d a + 2 d g k per layer: query and output projections, key and value projections; 4 d^2 where g k = a = d."""
    return model.layers * 2 * model.width * (model.attention_width + model.num_kv_heads * model.head_width)


def params_mlp(model: ModelConfig) -> int:
    """2 d f per layer, 3 d f for SwiGLU and GEGLU."""
    return model.layers * mlp_branches(model) * model.width * model.hidden


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
    """One number per output of every matrix of the layers that has a bias."""
    qkv = model.attention_width + 2 * model.num_kv_heads * model.head_width
    rest = 2 * model.width + (mlp_branches(model) - 1) * model.hidden
    return model.layers * (qkv * (model.biases or model.qkv_biases) + rest * model.biases)


def params_total(model: ModelConfig) -> int:
    """N, the default convention: every trained number (Hoffmann 2022)."""
    tables = params_embedding(model) + params_positions(model) + params_head(model)
    return tables + params_non_embedding(model) + params_norm(model) + params_bias(model)


def params_non_embedding(model: ModelConfig) -> int:
    """N of Kaplan 2020, equation 2.1: the matrices of the layers, without tables, head, norms and biases."""
    return params_attention(model) + params_mlp(model)


def params_with_head(model: ModelConfig) -> int:
    """The matrices of the layers and the output head, tied or not: what every token is multiplied by (Porian 2024)."""
    return params_non_embedding(model) + model.vocab * model.width


def layer_matrices(model: ModelConfig) -> list[tuple[int, int, int]]:
    """(how many, inputs, outputs) of the matrices of the layers; query, key and value projections are listed apart."""
    width, keys = model.width, model.num_kv_heads * model.head_width
    projections = model.heads // model.num_kv_heads + 2
    return [
        (model.layers * projections, width, keys),
        (model.layers, model.attention_width, width),
        (model.layers * (mlp_branches(model) - 1), width, model.hidden),
        (model.layers, model.hidden, width),
    ]


def outer_matrices(model: ModelConfig) -> list[tuple[int, int, int]]:
    """(how many, inputs, outputs) of the tables and of an untied head."""
    matrices = [(1, model.vocab, model.width)]
    if model.positions == "learned":
        matrices.append((1, model.context, model.width))
    return matrices if model.tied_embeddings else [*matrices, (1, model.width, model.vocab)]
