"""kNN interpolation (Khandelwal 2020, arXiv 1911.00172): a token is predicted by the model and by its nearest contexts.

    p(y | x) = w p_kNN(y | x) + (1 - w) p_LM(y | x)
    p_kNN(y | x) ~ sum over neighbours i with the next token y of exp(-d(k_i, f(x)) / T)            (eqs. 2 and 3)

A key f(x) is what the MLP of the last layer reads, d the squared Euclidean distance, and the datastore holds the key of
every token of its text. Search is exact and reads the datastore once, block by block. Of its neighbours a query keeps
the next tokens alone.

The paper tunes w on held-out text; so are w and T here, for each half of the windows on the other half. The model's own
loss, w = 0, is among the choices.

Letters: Q tokens that are predicted, W windows, k neighbours, D width; others as in `transformer`.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

from lmscale.core.config import ModelConfig, check
from lmscale.lm.devices.sharding import batch_devices, batch_sharding
from lmscale.lm.inspect.subject import Subject
from lmscale.lm.model import transformer
from lmscale.lm.model.parameters import Params
from lmscale.lm.model.tap import record
from lmscale.lm.retrieve.embed import Vectors, reading_flops_per_token
from lmscale.lm.retrieve.losses import Floats, LossAtSize, Recorded, WindowStream, batches_of
from lmscale.lm.retrieve.nearest import NOBODY, Nearest, Neighbours
from lmscale.lm.retrieve.text import Datastore, RetrievalCorpus, grow, sizes_of

SITE = "mlp_input"
NEIGHBOURS = 64
"""k. The paper takes 1024 of 100M; the gain from 64 to 1024 is small there (its figure 4), the work is not."""
QUERY_TOKENS = 1 << 14
"""Held-out tokens that are predicted where nobody says how many windows."""
BLOCK_TOKENS = 1 << 14
"""Tokens of the datastore that are in memory at once."""
MEMORY_BYTES = 1 << 28
"""What the recorded values of all layers may take."""
WEIGHTS = tuple(np.arange(0, 0.951, 0.05).round(2).tolist())
TEMPERATURES = tuple(2.0**power for power in range(-4, 7))
"""In units of the median distance between the nearest and the farthest neighbour of a query."""


class Queries(NamedTuple):
    """Held-out tokens, window after window."""

    windows_WS: NDArray[np.int32]
    keys_QD: Vectors
    nats_Q: Floats
    """Loss of the model alone."""

    @property
    def targets_Q(self) -> NDArray[np.int32]:
        """The tokens themselves."""
        return self.windows_WS[:, 1:].ravel()


class Interpolation(NamedTuple):
    """The two settings of the mixture."""

    weight: float
    temperature: float
    """In the units of `TEMPERATURES`."""


class KnnMeasurement:
    """The loss against the size of the datastore, and what was left out of that."""

    def __init__(self, subject: Subject, corpus: RetrievalCorpus, windows: int | None = None) -> None:
        """Raises `UserError` for held-out text of fewer than two windows."""
        self._subject, context = subject, subject.config.model.context
        documents = Recorded(corpus.held_out.documents())
        stream = WindowStream(documents, subject.tokenizer, context)
        windows_WS = stream.spread(max(2, windows or QUERY_TOKENS // context))
        check(
            len(windows_WS) > 1,
            f"{corpus.held_out.corpus.source} holds out too little text for two windows of {context:,} tokens, on one "
            f"of which the interpolation is tuned for the other; hold out more with a larger validation_fraction",
        )
        self.datastore = Datastore(corpus.datastore, documents.read)
        self._queries = Queries(windows_WS, _keys(subject, windows_WS), _losses(subject, windows_WS))

    def losses(self, sizes: Sequence[int] = ()) -> Iterator[LossAtSize]:
        """The loss at every size, ascending; where the text ends before one, with all of it, and then no more."""
        subject, context = self._subject, self._subject.config.model.context
        stream = WindowStream((text for _, text in self.datastore.documents()), subject.tokenizer, context)
        nearest = Nearest(self._queries.keys_QD, NEIGHBOURS, "squared distance")

        def add(most: int) -> int | None:
            if most < context:
                return 0
            windows_NS = stream.take(min(most, max(context, BLOCK_TOKENS)) // context)
            if not len(windows_NS):
                return None
            nearest.add(_keys(subject, windows_NS), windows_NS[:, 1:].ravel())
            return windows_NS[:, 1:].size

        per_token = reading_flops_per_token(subject.config.model, context)
        for size, tokens in grow(add, sizes_of(sizes)):
            nats_Q, settings = interpolated(self._queries, nearest.neighbours() if tokens else None)
            details = {"neighbours": NEIGHBOURS, "settings": [one._asdict() for one in settings]}
            nats_W = nats_Q.reshape(-1, context).mean(axis=1)
            yield LossAtSize(size, tokens, nats_W, tokens * per_token, nearest.flops_per_query, details)


def interpolated(queries: Queries, neighbours: Neighbours | None) -> tuple[Floats, list[Interpolation]]:
    """Nats of every token with the neighbours, and the settings of the odd and of the even windows, each chosen on the
    others; without neighbours the loss of the model alone."""
    if neighbours is None:
        return queries.nats_Q, [Interpolation(0.0, 1.0)] * 2
    unit = temperature_unit(neighbours)
    by_temperature = {factor: knn_probability(neighbours, queries.targets_Q, factor * unit) for factor in TEMPERATURES}
    windows, context = queries.windows_WS.shape[0], queries.windows_WS.shape[1] - 1
    odd_Q = np.repeat(np.arange(windows) % 2 == 1, context)
    nats_Q, settings = np.empty_like(queries.nats_Q), []
    for scored_Q in (odd_Q, ~odd_Q):
        best = best_interpolation(queries.nats_Q, by_temperature, ~scored_Q)
        nats_Q[scored_Q] = mixed(queries.nats_Q, by_temperature[best.temperature], best.weight)[scored_Q]
        settings.append(best)
    return nats_Q, settings


def temperature_unit(neighbours: Neighbours) -> float:
    """The median distance between the nearest and the farthest neighbour of a query; 1 where all are as far."""
    scores_Qk = np.where(neighbours.labels_Qk == NOBODY, np.nan, neighbours.scores_Qk).astype(np.float64)
    spread = float(np.median(np.nanmax(scores_Qk, axis=1) - np.nanmin(scores_Qk, axis=1)))
    return spread if spread > 0 else 1.0


def knn_probability(neighbours: Neighbours, targets_Q: NDArray[np.int32], temperature: float) -> Floats:
    """p_kNN of every target: the share of the neighbours, weighted by exp(-d / T), that it follows."""
    real_Qk = neighbours.labels_Qk != NOBODY
    far_Qk = np.where(real_Qk, neighbours.scores_Qk.astype(np.float64) - neighbours.scores_Qk[:, :1], np.inf)
    weight_Qk = np.exp(-far_Qk / temperature)
    hits_Qk = neighbours.labels_Qk == targets_Q[:, None]
    share_Q: Floats = (weight_Qk * hits_Qk).sum(axis=1) / weight_Qk.sum(axis=1)
    return share_Q


def mixed(nats_Q: Floats, knn_Q: Floats, weight: float) -> Floats:
    """-ln of the mixture of both probabilities."""
    if not weight:
        return nats_Q
    mixture_Q: Floats = (1 - weight) * np.exp(-nats_Q) + weight * knn_Q
    return -np.log(mixture_Q)


def best_interpolation(
    nats_Q: Floats, by_temperature: dict[float, Floats], chosen_Q: NDArray[np.bool_]
) -> Interpolation:
    """The settings with the lowest mean loss over the chosen tokens; the smallest weight of equal ones."""
    own_N = nats_Q[chosen_Q]
    choices = [
        (float(mixed(own_N, knn_Q[chosen_Q], weight).mean()), weight, factor)
        for factor, knn_Q in by_temperature.items()
        for weight in WEIGHTS
    ]
    _, weight, factor = min(choices)
    return Interpolation(weight, factor)


def _rows_per_call(subject: Subject) -> int:
    """Windows that are read together."""
    model = subject.config.model
    row_bytes, devices = 4 * model.layers * model.context * model.width, batch_devices(subject.mesh)
    rows = max(1, min(BLOCK_TOKENS // model.context, MEMORY_BYTES // row_bytes))
    return devices * max(1, rows // devices)


def _keys(subject: Subject, windows_WS: NDArray[np.int32]) -> Vectors:
    """[W T, D]: the key of every token but the last of a window."""
    model = subject.config.model
    keys_WTD = np.empty((len(windows_WS), model.context, model.width), np.float32)
    with jax.set_mesh(subject.mesh):
        for rows in batches_of(len(windows_WS), _rows_per_call(subject)):
            tokens_BS = jax.device_put(windows_WS[rows], batch_sharding(subject.mesh))
            keys_WTD[rows] = np.asarray(last_keys(subject.params, tokens_BS, config=model))
    check(
        bool(np.isfinite(keys_WTD).all()),
        "the model's activations are not finite, so nothing can be compared by them; take an earlier checkpoint",
    )
    return keys_WTD.reshape(-1, model.width)


def _losses(subject: Subject, windows_WS: NDArray[np.int32]) -> Floats:
    """[W T]: nats of every token of a window but its first."""
    model = subject.config.model
    nats_WT = np.empty((len(windows_WS), model.context))
    with jax.set_mesh(subject.mesh):
        for rows in batches_of(len(windows_WS), _rows_per_call(subject)):
            tokens_BS = jax.device_put(windows_WS[rows], batch_sharding(subject.mesh))
            nats_WT[rows] = np.asarray(window_losses(subject.params, tokens_BS, config=model))
    return nats_WT.ravel()


@partial(jax.jit, static_argnames=("config",))
def last_keys(params: Params, tokens_BS: jax.Array, *, config: ModelConfig) -> jax.Array:
    """[B, S - 1, D]: what the MLP of the last layer reads."""
    activations = transformer.final_residual(params, tokens_BS[:, :-1], config, None, record(SITE))[2]
    return activations[SITE][-1].astype("float32")


@partial(jax.jit, static_argnames=("config",))
def window_losses(params: Params, tokens_BS: jax.Array, *, config: ModelConfig) -> jax.Array:
    """[B, S - 1]: nats of every token but the first."""
    return transformer.token_losses(params, tokens_BS, config)[0]
