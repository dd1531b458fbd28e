"""What is measured inside a trained run, as values that JSON holds: one function for each question."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from lmscale.core.config import check
from lmscale.lm.inspect import expert_neurons, heads
from lmscale.lm.inspect.expert_choices import expert_choices
from lmscale.lm.inspect.intervals import Interval
from lmscale.lm.inspect.mediation import Effects, Progress, measure_effects
from lmscale.lm.inspect.neurons import used_neurons
from lmscale.lm.inspect.pairs import Pair, PairTokens, pair_tokens
from lmscale.lm.inspect.reading import read
from lmscale.lm.inspect.subject import HeldOutText, Subject, held_out_text, known_tokens

ABLATED = 4
"""Heads with the highest induction score that are ablated together, where layers have enough others."""
TEXT_ROWS = 32
"""Windows of held-out text on which the loss without those heads is measured."""
MOST_TOKENS = 128
"""Tokens of a text that are read: attention has so many numbers squared for every head."""
KEY_OFFSETS = {"itself": 0, "previous_token": 1}


@dataclass(frozen=True)
class TextReading:
    """A text as a model reads it."""

    tokens: tuple[str, ...]
    """The text of every token, the end of a document before it as ""."""
    left_out: int
    """Tokens of the text that do not fit, or are beyond the most that are read."""
    attention_LHTS: NDArray[np.float32]
    lens: tuple[dict[str, Any], ...]
    """Before the first layer and after each: `likeliest`, for every position the (text, probability) of a few tokens;
    `next_nats` and `kl_nats` as in `reading.Lens`."""

    def to_json(self) -> dict[str, Any]:
        """Attention to four decimals."""
        rounded = np.round(self.attention_LHTS.astype(np.float64), 4).tolist()
        return {"tokens": self.tokens, "left_out": self.left_out, "attention": rounded, "lens": self.lens}

    def head_summary(self) -> dict[str, NDArray[np.float64]]:
        """How much every head attends to the query's own token, the one before and the first, [L, H], on average over
        the queries that have all three."""
        attention = self.attention_LHTS.astype(np.float64)
        time = np.arange(min(2, len(self.tokens) - 1), len(self.tokens))
        shares = {name: attention[:, :, time, time - offset].mean(axis=-1) for name, offset in KEY_OFFSETS.items()}
        return {**shares, "first_token": attention[:, :, time, 0].mean(axis=-1)}


def read_text(subject: Subject, text: str, most: int = MOST_TOKENS) -> TextReading:
    """Attention and logit lens of the beginning of a text, as a document of its own. Raises `UserError` for no text."""
    config, params, tokenizer, mesh = subject
    check(bool(text), "there is no text to read: it is empty; give at least one character")
    ids = np.concatenate([[tokenizer.end_of_document], tokenizer.encode(text)]).astype(np.int32)
    tokens_T = ids[: min(most, config.model.context)]
    with jax.set_mesh(mesh):
        reading = read(params, tokens_T, config.model, subject.vocab)
    lens = jax.tree.map(np.asarray, reading.lens)
    texts: dict[int, str] = {tokenizer.end_of_document: ""}

    def of(token: int) -> str:
        return texts.setdefault(token, tokenizer.decode([token]))

    layers = [
        {
            "likeliest": [
                [(of(token), float(f"{np.exp(-nats):.4g}")) for token, nats in zip(*row)]
                for row in zip(lens.tokens_JTk[point].tolist(), lens.nats_JTk[point].tolist())
            ],
            "next_nats": lens.next_nats_JT[point].tolist(),
            "kl_nats": lens.kl_JT[point].tolist(),
        }
        for point in range(len(lens.kl_JT))
    ]
    attention = np.asarray(reading.attention_LHTS, np.float32)
    return TextReading(tuple(map(of, tokens_T.tolist())), len(ids) - len(tokens_T), attention, tuple(layers))


def effects(
    subject: Subject,
    pairs: Sequence[Pair],
    mediators: Sequence[str],
    *,
    name: str = "pair",
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Total, direct and indirect effects on the pairs by kind of unit; with neurons among the kinds, and two pairs or
    more, the share of them that the task uses. Raises `UserError` as `pair_tokens` and `measure_effects` do."""
    config, params, tokenizer, mesh = subject
    tokens = pair_tokens(pairs, tokenizer, config.model.context, name)
    value: dict[str, Any] = {"pairs": tokens.pair_count, "units": {}}
    with jax.set_mesh(mesh):
        for number, kind in enumerate(mediators):
            measured = measure_effects(params, tokens, config.model, kind, _part(progress, number, len(mediators)))
            value["total_nats"] = _interval(measured.total(seed), 0)
            value["units"][kind] = _units(measured, seed)
            if kind == "neurons" and config.model.sparse:
                value["experts"] = _experts(subject, tokens)
            if kind == "neurons" and tokens.pair_count > 1:
                value["used_neurons"] = _used(subject, tokens, measured, seed)
    return value


def _experts(subject: Subject, tokens: PairTokens) -> dict[str, Any]:
    """How the neurons of a layer are numbered, and how often those of an expert could be replaced."""
    model = subject.config.model
    choices = expert_choices(subject.params, tokens, model)
    routed, shared = expert_neurons.routed_count(model), expert_neurons.shared_count(model)
    return {"experts": model.experts, "neurons": routed // model.experts, "shared_neurons": shared, **choices._asdict()}


def _part(progress: Progress | None, number: int, parts: int) -> Progress | None:
    return None if progress is None else lambda share: progress((number + share) / parts)


def _units(measured: Effects, seed: int) -> dict[str, Any]:
    """Effects [L][units], each with the bounds of its 95 % interval."""
    parts = {
        "indirect_nats": measured.indirect(seed),
        "direct_nats": measured.direct(seed),
        "indirect_share": measured.indirect_share(seed),
    }
    return {
        name: {bound: _finite(values.reshape(measured.shape)) for bound, values in interval._asdict().items()}
        for name, interval in parts.items()
    }


def _finite(values: NDArray[np.float64]) -> list[Any]:
    """Nested lists, None for what is no number: a share of no effect at all."""
    return [[float(f"{value:.6g}") if np.isfinite(value) else None for value in row] for row in values.tolist()]


def _interval(interval: Interval, unit: int) -> dict[str, float]:
    return {bound: float(values[unit]) for bound, values in interval._asdict().items()}


def _used(subject: Subject, tokens: PairTokens, measured: Effects, seed: int) -> dict[str, Any]:
    used = used_neurons(subject.params, tokens, subject.config.model, measured.indirect_NE, seed=seed)
    low, high = used.share_bounds
    return {
        "share": {"mean": used.share, "low": low, "high": high}, "count": used.count, "neurons": used.neurons,
        "score": float(used.right_N.mean()), "score_without": float(used.right_without_N.mean()),
        "used": [np.flatnonzero(row).tolist() for row in used.used_LU],
    }  # fmt: skip


def head_scores(subject: Subject, seed: int = 0) -> dict[str, Any]:
    """Scores of all heads on repeated random tokens, and what is lost without the strongest induction heads, beside as
    many random ones of the same layers."""
    config, params, tokenizer, mesh = subject
    model, n = config.model, heads.copy_tokens(config.model.context)
    text = held_out_text(config, TEXT_ROWS)
    tokens_NT = heads.repeated_tokens(known_tokens(subject, text), tokenizer.end_of_document, n, seed=seed)
    with jax.set_mesh(mesh):
        scores = heads.head_scores(params, tokens_NT, model)
        value: dict[str, Any] = {
            "copy_tokens": n,
            **{name: np.round(part.astype(np.float64), 6).tolist() for name, part in scores._asdict().items()},
            "second_copy_nats": _mean(heads.copy_nats(params, tokens_NT, model)[0]),
        }
        if text is not None:
            none_LH = np.zeros((model.layers, model.heads), np.bool_)
            value |= {name: _mean(values) for name, values in _text_losses(subject, text, none_LH[None])[0].items()}
        if model.heads > 1:
            value["ablation"] = _ablation(subject, scores.induction, tokens_NT, text, seed)
    return value


def _ablation(
    subject: Subject, induction_LH: NDArray[np.float32], tokens_NT: heads.Ids, text: HeldOutText | None, seed: int
) -> dict[str, Any]:
    """Losses without the strongest induction heads, and without each set of random ones."""
    params, model = subject.params, subject.config.model
    chosen_LH = heads.strongest(induction_LH, ABLATED)
    sets_PLH = np.concatenate([chosen_LH[None], heads.matched_random(chosen_LH, seed=seed)])
    losses: dict[str, list[float]] = {
        "second_copy_nats": heads.copy_nats(params, tokens_NT, model, sets_PLH).mean(axis=1).tolist()
    }
    if text is not None:
        per_set = _text_losses(subject, text, sets_PLH)
        losses |= {name: [float(values[name].mean()) for values in per_set] for name in per_set[0]}
    return {
        "heads": [(int(layer), int(head)) for layer, head in np.argwhere(chosen_LH)],
        **{name: {"without": values[0], "without_random": values[1:]} for name, values in losses.items()},
    }


def _text_losses(
    subject: Subject, text: HeldOutText, ablated_PLH: NDArray[np.bool_]
) -> list[dict[str, NDArray[np.float64]]]:
    """For every set of ablated heads the loss of each window of text, padding apart, and its in-context scores, which
    are left out where padding stands at their places in every window."""
    nats_PNT = heads.ablated_nats(subject.params, text.tokens_NT, subject.config.model, ablated_PLH)
    tokens_N = text.scored_NT.sum(axis=1)
    per_set = []
    for nats_NT in nats_PNT:
        sums_N = np.where(text.scored_NT, nats_NT, 0).sum(axis=1)
        scores_N = heads.in_context_score(nats_NT, text.scored_NT)
        losses = {"text_nats": sums_N[tokens_N > 0] / tokens_N[tokens_N > 0], "in_context": scores_N}
        per_set.append({name: values for name, values in losses.items() if len(values)})
    return per_set


def _mean(values: NDArray[np.float64]) -> dict[str, float | None]:
    """The mean over rows and its standard error; None for a single row."""
    error = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
    return {"mean": float(values.mean()), "stderr": error}
