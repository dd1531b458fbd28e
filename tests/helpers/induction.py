"""A two-layer model of attention alone whose heads are known by construction; its MLPs put out zero.

The residual stream has four parts: the token, the token before it, the token to predict, and the position, each a
vector with a single 1. Head 0 of layer 0 attends to the position before and writes its token into the second part.
Head 0 of layer 1 attends to the position whose token before is the token just read, and writes its token into the third
part, which the model's head reads. Head 1 of both layers attends to all visible positions alike and writes nothing.
"""

import math
from functools import cache

import jax.numpy as jnp
import numpy as np

from lmscale.core.config import ModelConfig
from lmscale.lm.model.parameters import Params, parameter_table

VOCAB, CONTEXT, END = 40, 33, 0
SHARP = 200.0
"""Scores of what a head attends to: exp(-SHARP) is 0 in float32 beside 1."""
LOGIT = 30.0
"""Logit of the predicted token; e^-30 is less than the rounding of float32."""
TOKEN, BEFORE, PREDICTED, POSITION = (slice(VOCAB * part, VOCAB * part + VOCAB) for part in range(4))
CONFIG = ModelConfig(
    width=4 * VOCAB, layers=2, heads=2, head_features=VOCAB, vocab=VOCAB, context=CONTEXT, positions="learned",
    mlp="gelu", mlp_width=8, tied_embeddings=False, embedding_scale=1.0, norm_epsilon=1e-12,
)  # fmt: skip


@cache
def params() -> Params:
    """Ones enter the stream twice, the token and the position, so that the first norm multiplies by sqrt(D / 2); after
    layer 0 they are three."""
    values = {name: np.zeros(row.shape, np.float32) for name, row in parameter_table(CONFIG).items()}
    for name in ("attention_norm", "mlp_norm", "final_norm"):
        values[name][...] = 1
    width, one = 4 * VOCAB, np.eye(VOCAB, dtype=np.float32)
    values["embedding"][:, TOKEN], values["positions"][:, POSITION] = one, one[:CONTEXT]
    gain = math.sqrt(width / 2), math.sqrt(width / 3)
    score = [SHARP * math.sqrt(VOCAB) / each**2 for each in gain]
    query, key, value = range(3)
    qkv, out = values["attention_qkv"], values["attention_out"]  # [L, D, G, P, K], [L, H, K, D]
    qkv[0, POSITION, 0, query], qkv[0, POSITION, 0, key] = score[0] * one, np.eye(VOCAB, k=1)
    qkv[1, TOKEN, 0, query], qkv[1, BEFORE, 0, key] = score[1] * one, one
    for layer, part in enumerate((BEFORE, PREDICTED)):
        qkv[layer, TOKEN, 0, value], out[layer, 0, :, part] = one / gain[layer], one
    values["head"][PREDICTED] = LOGIT * math.sqrt(4 / width) * one
    return {name: jnp.asarray(value) for name, value in values.items()}
