"""What heads do on random tokens that are repeated once: induction, attention to the token before, and what is lost
without them.

A row is the end of a document, n random tokens and the same n tokens again: the second copy can only be predicted by
finding each token's earlier occurrence and reading what followed it (Olsson 2022, arXiv 2209.11895, which leaves out
the rarest tokens, too). Letters as in `transformer`; n tokens of a copy, P sets of heads.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from lmscale.core.config import ModelConfig, check
from lmscale.lm.inspect.means import mean_values
from lmscale.lm.inspect.patching import chunks, patching_tap
from lmscale.lm.model import transformer
from lmscale.lm.model.parameters import Params
from lmscale.lm.model.tap import Tap

COPY_TOKENS = 64
"""n where the context has room for it: scores hardly change beyond, and attention costs n squared."""
ROWS = 64
CONTROLS = 16
"""Sets of random heads that an ablation is compared with."""
LATE, EARLY, OF = 500, 50, 512
"""The tokens whose losses the in-context score compares, and the context to which that is scaled (Olsson 2022)."""

Ids = NDArray[np.int32]
Floats = NDArray[np.float64]


class HeadScores(NamedTuple):
    """Attention of every head, averaged over queries; each from 0 to 1, [N, L, H], or [L, H] on average over rows."""

    induction: NDArray[np.float32]
    """From a token of the second copy to the one that followed it in the first: "prefix matching" in Olsson 2022."""
    previous_token: NDArray[np.float32]
    """From every token to the one before."""
    duplicate_token: NDArray[np.float32]
    """From a token of the second copy to itself in the first (Wang 2023, arXiv 2211.00593, section 3.1)."""


def copy_tokens(context: int) -> int:
    """n for a context. Raises `UserError` for one that holds no two copies of 2 tokens."""
    check(context >= 5, f"a context of {context} tokens cannot hold two copies of two tokens and an end of document")
    return min(COPY_TOKENS, (context - 1) // 2)


def repeated_tokens(ids: Ids, end: int, n: int, rows: int = ROWS, seed: int = 0) -> Ids:
    """[rows, 1 + 2 n]: tokens drawn uniformly from `ids`, the end of a document apart, no two of a copy alike where
    there are enough of them."""
    rng, others = np.random.default_rng(seed), np.setdiff1d(ids, [end]).astype(np.int32)
    copies = np.stack([rng.choice(others, n, replace=len(others) < n) for _ in range(rows)])
    return np.concatenate([np.full((rows, 1), end, np.int32), copies, copies], axis=1)


def head_scores(params: Params, tokens_NT: Ids, config: ModelConfig) -> HeadScores:
    """The scores of all heads, on average over rows of `repeated_tokens`; each [L, H]."""
    rows = row_scores(params, tokens_NT, config)
    return HeadScores(*(score_NLH.mean(axis=0, dtype=np.float64).astype(np.float32) for score_NLH in rows))


def row_scores(params: Params, tokens_NT: Ids, config: ModelConfig) -> HeadScores:
    """The scores of all heads on every row of `repeated_tokens`; each [N, L, H]."""
    time = tokens_NT.shape[1]
    scores_NL3H = np.zeros((len(tokens_NT), config.layers, 3, config.heads), np.float32)
    for rows in chunks(len(tokens_NT), 4 * config.heads * time * time):
        scores_NL3H[rows] = np.moveaxis(_scores(params, tokens_NT[rows], config), 1, 0)
    return HeadScores(*(scores_NL3H[:, :, kind] for kind in range(3)))


def uniform_scores(n: int) -> tuple[float, float]:
    """Induction and previous-token score of a head that attends to all visible positions alike."""
    share = 1 / (np.arange(1, 2 * n + 1) + 1)
    return float(share[n:].mean()), float(share.mean())


def best_head_scores(score_NLH: NDArray[np.float32]) -> NDArray[np.float64]:
    """The score of the best head on every row, [N]: which head that is, is read from the rows of the other half, so
    that the best of many heads is not taken for better than it is. A single row has no other half."""
    score_NE = score_NLH.reshape(len(score_NLH), -1).astype(np.float64)
    half_N, values = np.arange(len(score_NE)) % 2, np.zeros(len(score_NE))
    for half in np.unique(half_N):
        others = half_N != half if len(score_NE) > 1 else half_N == half
        values[half_N == half] = score_NE[half_N == half, int(score_NE[others].mean(axis=0).argmax())]
    return values


@partial(jax.jit, static_argnames=("config",))
def _scores(params: Params, tokens_BT: jax.Array, config: ModelConfig) -> jax.Array:
    """[L, B, 3, H]."""
    n = (tokens_BT.shape[1] - 1) // 2

    def keep(_: str, weights_BHTS: jax.Array, layer: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        second = jnp.arange(n + 1, 2 * n + 1)
        every = jnp.arange(1, 2 * n + 1)
        pairs = (second, second - n + 1), (every, every - 1), (second, second - n)
        scores_BH = [weights_BHTS[:, :, query, key].astype(jnp.float32).mean(axis=-1) for query, key in pairs]
        return weights_BHTS, jnp.stack(scores_BH, axis=1)

    tap = Tap(("attention_weights",), keep)
    return transformer.final_residual(params, tokens_BT, config, None, tap)[2]["attention_weights"]


def in_context_score(nats_NT: Floats, scored_NT: NDArray[np.bool_] | None = None) -> Floats:
    """The loss of token 500 of 512 less that of token 50, both scaled to the tokens that are scored: the more negative,
    the more the context helps (Olsson 2022). [N], or fewer where padding stands at one of the two places of a row."""
    time = nats_NT.shape[1]
    late, early = (min(time, max(1, round(token / OF * time))) - 1 for token in (LATE, EARLY))
    if scored_NT is not None:
        nats_NT = nats_NT[scored_NT[:, late] & scored_NT[:, early]]
    return np.asarray(nats_NT, np.float64)[:, late] - nats_NT[:, early]


def copy_nats(
    params: Params, tokens_NT: Ids, config: ModelConfig, ablated_PLH: NDArray[np.bool_] | None = None
) -> Floats:
    """Loss of the tokens of the second copy but its first, which nothing tells: [P, N], with the heads of each set
    ablated; without sets of heads [1, N] of the whole model."""
    if ablated_PLH is None:
        ablated_PLH = np.zeros((1, config.layers, config.heads), np.bool_)
    n = (tokens_NT.shape[1] - 1) // 2
    return ablated_nats(params, tokens_NT, config, ablated_PLH)[:, :, n + 1 :].mean(axis=-1)


def ablated_nats(params: Params, tokens_NT: Ids, config: ModelConfig, ablated_PLH: NDArray[np.bool_]) -> Floats:
    """Loss of every token but the first, [P, N, T - 1], with the heads of each set ablated.

    An ablated head puts out its mean over all rows and positions instead (Wang 2023, section 2.2), which keeps what
    does not depend on the text.
    """
    count = len(tokens_NT)
    mean = jnp.zeros((config.layers, 1, 1, config.heads, config.head_width))
    if ablated_PLH.any():
        mean = mean_values(params, tokens_NT, config, "head_outputs")
    values = np.zeros((len(ablated_PLH) * count, tokens_NT.shape[1] - 1))
    for rows in chunks(len(values), 4 * tokens_NT.shape[1] * config.vocab):
        sets_R, rows_R = np.divmod(rows, count)
        masks = {"head_outputs": jnp.asarray(ablated_PLH[sets_R][:, :, None, :])}
        values[rows] = _nats(params, tokens_NT[rows_R], masks, {"head_outputs": mean}, config)
    return values.reshape(len(ablated_PLH), count, -1)


@partial(jax.jit, static_argnames=("config",))
def _nats(
    params: Params,
    tokens_RT: jax.Array,
    masks: dict[str, jax.Array],
    sources: dict[str, jax.Array],
    config: ModelConfig,
) -> jax.Array:
    """Cross-entropy of every token but the first, [R, T - 1]."""
    tap = patching_tap(masks, sources, jnp.zeros(len(tokens_RT), jnp.int32), config)
    logits_RTV, _ = transformer.forward(params, tokens_RT, config, tap)
    logprob_RTV = jax.nn.log_softmax(logits_RTV[:, :-1], axis=-1)
    return -jnp.take_along_axis(logprob_RTV, tokens_RT[:, 1:, None], axis=-1)[:, :, 0]


def strongest(score_LH: NDArray[np.float32], most: int) -> NDArray[np.bool_]:
    """The heads with the highest scores, [L, H], at most half of those of a layer: as many others stay to compare them
    with."""
    chosen = np.zeros(score_LH.shape, np.bool_)
    for head in np.argsort(-score_LH, axis=None, kind="stable"):
        layer, number = divmod(int(head), score_LH.shape[1])
        if chosen.sum() < most and 2 * (chosen[layer].sum() + 1) <= score_LH.shape[1]:
            chosen[layer, number] = True
    return chosen


def matched_random(chosen_LH: NDArray[np.bool_], draws: int = CONTROLS, seed: int = 0) -> NDArray[np.bool_]:
    """Sets of other heads, [draws, L, H], with as many in every layer as `chosen_LH` has.

    Raises `UserError` where a layer has fewer others than chosen ones.
    """
    count_L, heads = chosen_LH.sum(axis=1), chosen_LH.shape[1]
    for layer in np.flatnonzero(2 * count_L > heads).tolist():
        check(
            False,
            f"{count_L[layer]} of the {heads} heads of layer {layer} are ablated, so that there are not as many others "
            f"to compare them with; ablate at most {heads // 2} of a layer",
        )
    order = np.random.default_rng(seed).random((draws, *chosen_LH.shape)) + chosen_LH  # chosen ones come last
    rank = np.argsort(np.argsort(order, axis=-1), axis=-1)
    return rank < count_L[None, :, None]
