"""What a prepared text is like: how often tokens and words come, how long documents are, and how well simple models do.

The baselines are bits per byte of the validation split, so that they can stand beside a model's: every token but the
first is scored, ends of documents among them, over the bytes of text of those tokens. Unigram and bigram frequencies
are counted on the training split; compression sees the validation text alone, document after document.

Saved as `statistics.json` beside the tokens. Letters: V vocabulary, T tokens.
"""

import lzma
import math
import zlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmscale.core.errors import UserError
from lmscale.lm.data.corpora import Progress
from lmscale.lm.data.corpora.checksums import read_record, write_record
from lmscale.lm.data.manifest import Manifest, Tokens
from lmscale.lm.data.prepare import load_tokenizer
from lmscale.lm.data.tokenizer import Tokenizer, bits_per_byte, count_bytes

FORMAT = 1
STATISTICS_FILE = "statistics.json"
COUNTED_TOKENS = 16 << 20
"""Leading training tokens that are counted: documents lie in the order of their hash, so they are a fair sample."""
COMPRESSED_BYTES = 8 << 20
"""Leading bytes of validation text that are compressed."""
WORD_TOKENS = 8 << 20
TUNED_SHARE = 0.05
PRIORS = tuple(2.0**power for power in range(-2, 13))
POINTS = 60


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Frequencies, lengths and baselines of one corpus."""

    source: str
    fingerprint: str
    token_ranks: tuple[int, ...]
    """Some ranks, from 1, evenly spaced in the logarithm."""
    token_counts: tuple[int, ...]
    """How often the token of each such rank comes among the counted training tokens."""
    word_ranks: tuple[int, ...]
    word_counts: tuple[int, ...]
    """Ranks and counts of words, which white space separates."""
    length_edges: tuple[int, ...]
    """Lengths of training documents in tokens, their end included: powers of two."""
    length_counts: tuple[int, ...]
    """Documents of at least `length_edges[i]` and less than `length_edges[i + 1]` tokens."""
    unigram_bits_per_byte: float
    bigram_bits_per_byte: float
    zlib_bits_per_byte: float
    lzma_bits_per_byte: float
    zstd_bits_per_byte: float
    scored_tokens: int
    """Validation tokens that the unigram and the bigram were scored on."""
    compressed_bytes: int
    """Validation text that was compressed."""

    @property
    def baselines(self) -> dict[str, float]:
        """Bits per byte of the validation split by simple means."""
        names = ("unigram", "bigram", "zlib", "lzma", "zstd")
        return {name: getattr(self, f"{name}_bits_per_byte") for name in names}


def find_statistics(manifest: Manifest, held_out: Manifest | None = None) -> Statistics | None:
    """The statistics that are stored beside the tokens, None where there are none."""
    try:
        stored = read_record(_path(manifest, held_out))
        if stored.pop("format") != FORMAT:
            return None
        fields: dict[str, Any] = {key: tuple(item) if isinstance(item, list) else item for key, item in stored.items()}
        return Statistics(**fields)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # absent or of another version: counted again
        return None


def _path(manifest: Manifest, held_out: Manifest | None) -> Path:
    return manifest.folder / (STATISTICS_FILE if held_out is None else f"statistics-{held_out.fingerprint}.json")


def corpus_statistics(tokens: Tokens, progress: Progress | None = None, held_out: Tokens | None = None) -> Statistics:
    """The statistics of one corpus, from the file beside its tokens or counted now and stored there.

    `held_out` is what the corpus is validated on, if that is a source of its own. Raises `UserError` where the
    validation split has no text to score.
    """
    manifest, validated = tokens.manifest, None if held_out is None else held_out.manifest
    if held_out is not None:
        tokens = replace(tokens, validation=held_out.validation)
    assert not tokens.components and not manifest.endless, "each component of a mixture is counted by itself"
    if (stored := find_statistics(manifest, validated)) is not None:
        return stored

    def report(share: float) -> None:
        if progress is not None:
            progress(f"counting {manifest.source}", share)

    tokenizer = load_tokenizer(manifest)
    report(0.0)
    fields = _frequencies(tokens, tokenizer)
    report(0.2)
    fields |= _prediction_baselines(tokens, tokenizer)
    report(0.5)
    text = _leading_text(tokenizer, tokens.validation[:], COMPRESSED_BYTES)
    for number, (name, size) in enumerate(_COMPRESSORS.items()):
        fields[f"{name}_bits_per_byte"] = 8 * size(text) / len(text)
        report(0.6 + 0.2 * number)
    result = Statistics(source=manifest.source, fingerprint=manifest.fingerprint, compressed_bytes=len(text), **fields)
    write_record(_path(manifest, validated), {"format": FORMAT, **asdict(result)})
    report(1.0)
    return result


def _frequencies(tokens: Tokens, tokenizer: Tokenizer) -> dict[str, Any]:
    """How often tokens and words come in the training split, and how long its documents are, by field."""
    train = tokens.train[:COUNTED_TOKENS]
    token_ranks, token_counts = _by_rank(np.bincount(train, minlength=tokenizer.vocab))
    word_ranks, word_counts = _by_rank(_word_counts(tokenizer, train[:WORD_TOKENS]))
    edges, lengths = _lengths(np.diff(tokens.train_starts))
    return {
        "token_ranks": token_ranks,
        "token_counts": token_counts,
        "word_ranks": word_ranks,
        "word_counts": word_counts,
        "length_edges": edges,
        "length_counts": lengths,
    }


def _prediction_baselines(tokens: Tokens, tokenizer: Tokenizer) -> dict[str, Any]:
    """Unigram and bigram in bits per byte of the validation split, by field."""
    scored = tokens.validation[1:]
    scored_bytes = count_bytes(tokenizer, scored)
    if not scored_bytes:
        raise UserError(
            f"the validation split of {tokens.manifest.source} has no text beyond its first token, so nothing can be "
            f"scored; give more text or a larger validation_fraction"
        )
    unigram, bigram = baseline_nats(tokens.train[:COUNTED_TOKENS], tokens.validation[:], tokenizer.vocab)
    return {
        "unigram_bits_per_byte": bits_per_byte(unigram, scored_bytes),
        "bigram_bits_per_byte": bits_per_byte(bigram, scored_bytes),
        "scored_tokens": len(scored),
    }


def _by_rank(counts: NDArray[np.int64]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    ordered = np.sort(counts[counts > 0])[::-1]
    ranks = np.unique(np.round(np.geomspace(1, len(ordered), min(POINTS, len(ordered)))).astype(int))
    return tuple(ranks.tolist()), tuple(ordered[ranks - 1].tolist())


def _word_counts(tokenizer: Tokenizer, tokens: NDArray[Any]) -> NDArray[np.int64]:
    """How often each different word comes in the whole documents among `tokens`, in no order."""
    from collections import Counter

    text = _leading_text(tokenizer, tokens, len(tokens) * int(tokenizer.byte_lengths.max()))
    return np.array(list(Counter(text.split()).values()) or [1], np.int64)


def _lengths(lengths: NDArray[np.int64]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    powers = np.floor(np.log2(lengths)).astype(int)
    counts = np.bincount(powers - powers.min())
    return tuple(2 ** int(p) for p in range(powers.min(), powers.max() + 2)), tuple(counts.tolist())


def _leading_text(tokenizer: Tokenizer, tokens: NDArray[Any], most: int) -> bytes:
    """The text of the leading whole documents, at most `most` bytes; of the leading tokens where none is whole."""
    ends = np.flatnonzero(tokens == tokenizer.end_of_document) + 1
    spent = np.cumsum(tokenizer.byte_lengths[tokens])
    fitting = ends[spent[ends - 1] <= most] if len(ends) else ends
    if not len(fitting):
        return tokenizer.decode(tokens[: max(1, int(np.searchsorted(spent, most)))]).encode()
    return b"\n".join(tokenizer.decode_documents(tokens[: fitting[-1]]))


def baseline_nats(train: NDArray[Any], held_out: NDArray[Any], vocab: int) -> tuple[float, float]:
    """Nats of all of `held_out` but its first token, by the frequencies of tokens and of pairs in `train`.

    Tokens get half a count more; a pair is mixed with the frequency of its second token as if that had been seen k
    times more after the first (MacKay and Peto 1995), with the k that is best on the last twentieth of `train`, which
    is not counted.
    """
    cut = len(train) - max(2, int(TUNED_SHARE * len(train)))
    counted, tuning = (train[:cut], train[cut:]) if cut > 1 else (train, train)
    seen = np.bincount(counted, minlength=vocab).astype(np.float64)
    single = (seen + 0.5) / (seen.sum() + 0.5 * vocab)
    firsts = np.bincount(counted[:-1], minlength=vocab).astype(np.float64)
    codes, pairs = np.unique(_codes(counted, vocab), return_counts=True)

    def nats(text: NDArray[Any], prior: float) -> float:
        text_codes = _codes(text, vocab)
        index = np.minimum(np.searchsorted(codes, text_codes), len(codes) - 1)
        counts = np.where(codes[index] == text_codes, pairs[index], 0)
        return float(-np.log((counts + prior * single[text[1:]]) / (firsts[text[:-1]] + prior)).sum())

    best = min(PRIORS, key=lambda prior: nats(tuning, prior))
    return float(-np.log(single[held_out[1:]]).sum()), nats(held_out, best)


def _codes(tokens: NDArray[Any], vocab: int) -> NDArray[np.int64]:
    """Every pair of neighbours as one number."""
    return tokens[:-1].astype(np.int64) * vocab + tokens[1:]


def _zstd(text: bytes) -> int:
    import zstandard

    window = max(10, min(27, math.ceil(math.log2(len(text) + 1))))
    parameters = zstandard.ZstdCompressionParameters.from_level(19, window_log=window)
    return len(zstandard.ZstdCompressor(compression_params=parameters).compress(text))


_COMPRESSORS = {
    "zlib": lambda text: len(zlib.compress(text, 9)),
    "lzma": lambda text: len(lzma.compress(text, preset=9)),
    "zstd": _zstd,
}
