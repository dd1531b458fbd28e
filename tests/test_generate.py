"""Continuations are drawn from the distribution that the filters say, and the cache changes nothing."""

import itertools
from collections import Counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.published import random_params
from helpers.tiny_runs import run

from lmscale.core.config import ModelConfig
from lmscale.core.errors import UserError
from lmscale.lm.data.tokenizer import SymbolTokenizer
from lmscale.lm.model import kv_cache, transformer
from lmscale.lm.use import generate as generation
from lmscale.lm.use.beam import beam_search
from lmscale.lm.use.generate import Generated, generate
from lmscale.lm.use.load import TrainedRun
from lmscale.lm.use.sampling import Sampling, choose, filtered_logprobs, filters, penalised

VOCAB = 8
LOGITS = jax.jit(transformer.logits, static_argnames="config")


def model(**options: Any) -> ModelConfig:
    return ModelConfig(**{"width": 16, "layers": 2, "heads": 4, "vocab": VOCAB, "context": 16, **options})


def trained(config: ModelConfig, ids: int = VOCAB) -> TrainedRun:
    """A random model, sharp enough that its tokens differ in how likely they are."""
    params = {
        name: jnp.asarray(4.0 * value if value.ndim > 2 else value) for name, value in random_params(config).items()
    }
    return TrainedRun(run("stdlib", 8, model=config), params, SymbolTokenizer(ids))


def reference_filter(logits: np.ndarray, sampling: Sampling) -> np.ndarray:
    """Probabilities [V] after temperature, top-k, top-p and min-p, one token after the other."""
    p = np.exp(logits / sampling.temperature - np.max(logits / sampling.temperature))
    order = np.argsort(-p)
    tokens = list(order[: sampling.top_k or len(p)])
    shares = p[tokens] / p[tokens].sum()
    if sampling.top_p < 1:
        enough = next(n for n in range(1, len(tokens) + 1) if shares[:n].sum() >= sampling.top_p - 1e-9)
        tokens = tokens[:enough]
    tokens = [token for token in tokens if p[token] >= sampling.min_p * p[tokens[0]]]
    answer = np.zeros(len(p))
    answer[tokens] = p[tokens] / p[tokens].sum()
    return answer


SAMPLINGS = [
    Sampling(temperature=t, top_k=k, top_p=p, min_p=m)
    for t, k, p, m in itertools.product((0.7, 1.0, 1.6), (None, 1, 3), (1.0, 0.8, 0.1), (0.0, 0.2))
]


@pytest.mark.long
def test_each_filter_alone_and_all_together_leave_what_they_should() -> None:
    rng = np.random.default_rng(0)
    for sampling in SAMPLINGS:
        logits = rng.normal(0, 2, (4, VOCAB)).astype(np.float32)
        probabilities = np.exp(np.asarray(filtered_logprobs(jnp.asarray(logits), filters(sampling, VOCAB))))
        for row, logits_V in zip(probabilities, logits):
            np.testing.assert_allclose(row, reference_filter(logits_V.astype(np.float64), sampling), atol=1e-5)


def test_the_repetition_penalty_is_on_what_has_occurred_alone() -> None:
    logits, seen = jnp.array([[2.0, -2.0, 1.0, -1.0]]), jnp.array([[True, True, False, False]])
    np.testing.assert_allclose(penalised(logits, seen, jnp.float32(1.25)), [[1.6, -2.5, 1.0, -1.0]])


@pytest.mark.long
def test_draws_have_the_frequencies_of_the_distribution() -> None:
    """20,000 draws: every frequency within five standard errors, and nothing that was removed."""
    sampling, draws = Sampling(temperature=0.8, top_k=5, top_p=0.9, min_p=0.05), 20_000
    logits = np.random.default_rng(3).normal(0, 1, VOCAB).astype(np.float32)
    rows = jnp.broadcast_to(logits, (draws, VOCAB))
    tokens = choose(
        rows, jnp.zeros((draws, VOCAB), bool), jax.random.split(jax.random.key(0), draws), filters(sampling, VOCAB)
    )
    expected = reference_filter(logits.astype(np.float64), sampling)
    observed = np.bincount(tokens, minlength=VOCAB) / draws
    assert np.all(observed[expected == 0] == 0)
    assert np.all(np.abs(observed - expected) <= 5 * np.sqrt(expected * (1 - expected) / draws) + 1e-12)


@pytest.mark.long
def test_texts_have_the_probabilities_of_an_exact_enumeration() -> None:
    """All texts of three tokens over four: drawn 3,000 times, as often as the product of their probabilities says."""
    config, draws = model(vocab=4, context=8), 3000
    each = trained(config, ids=4)
    generated = generate(each, ["!"] * draws, max_tokens=3, seed=5)
    counts = Counter((*one.tokens, *([3] if one.finish_reason == "stop" else [])) for one in generated.completions)
    end, total = each.tokenizer.end_of_document, 0.0
    for text in itertools.chain.from_iterable(itertools.product(range(4), repeat=n) for n in (1, 2, 3)):
        if end in text[:-1] or (len(text) < 3 and text[-1] != end):
            continue
        logprobs = jax.nn.log_softmax(LOGITS(each.params, np.array([[0, *text]]), config=config))[0]
        p = float(np.exp(sum(logprobs[at, token] for at, token in enumerate(text))))
        total += p
        assert abs(counts[text] / draws - p) <= 5 * np.sqrt(p * (1 - p) / draws) + 1e-9, text
    assert total == pytest.approx(1, abs=1e-4)


def greedy_without_cache(each: TrainedRun, prompt: list[int], tokens: int) -> list[int]:
    """The rule of the module, read anew for every token: the last half when the context is full."""
    config = each.config.model
    half = max(1, config.context // 2)
    steps = min(generation.STEPS_PER_CALL, config.context + 1 - half)
    text, written = prompt[-config.context :], []
    while len(written) < tokens:
        if len(text) + steps > config.context + 1:
            text = text[-half:]
        for _ in range(steps):
            padded = np.zeros((1, config.context), np.int32)
            padded[0, : len(text)] = text
            logits = np.asarray(LOGITS(each.params, padded, config=config))[0, len(text) - 1]
            text = [*text, int(logits[: each.tokenizer.vocab].argmax())]
            written.append(text[-1])
    return written[:tokens]


@pytest.mark.long
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"positions": "learned", "kv_heads": 2, "norm": "layernorm", "biases": True, "mlp": "gelu"},
        {"positions": "alibi", "kv_heads": 1, "qk_norm": True, "document_end": 5, "tied_embeddings": False},
        {"positions": "none", "parallel_block": True},
        {"context": 3},
        {"context": 1},
    ],
    ids=str,
)
def test_greedy_text_is_that_of_the_whole_model_read_anew_for_every_token(options: dict[str, Any]) -> None:
    """Rows of different lengths together, some longer than the context, beyond the end of the context."""
    each = trained(model(**options))
    prompts = ["!", '"#$!', "#" * 5 + "!$" * 9, ""]
    generated = generate(each, prompts, max_tokens=40, sampling=Sampling(temperature=0))
    for prompt, completion in zip(prompts, generated.completions):
        tokens = [int(token) for token in generation.encode_prompt(prompt, each.tokenizer)]
        expected = greedy_without_cache(each, tokens, 40)
        end = expected.index(VOCAB - 1) if VOCAB - 1 in expected else None
        assert completion.tokens == expected[:end]
        assert completion.finish_reason == ("length" if end is None else "stop")
        assert completion.text == each.tokenizer.decode(completion.tokens)


def texts(generated: Generated) -> list[str]:
    return [completion.text for completion in generated.completions]


@pytest.mark.long
def test_a_text_does_not_depend_on_those_beside_it() -> None:
    each = trained(model())
    together = generate(each, ["!#", '"', "$" * 20], max_tokens=30, seed=7)
    alone = generate(each, ["!#"], max_tokens=30, seed=7)
    assert texts(together)[0] == texts(alone)[0]
    assert texts(generate(each, ["!#"], max_tokens=30, seed=8)) != texts(alone)
    assert texts(generate(each, ["!#"], max_tokens=30, seed=7)) == texts(alone)


@pytest.mark.long
def test_rows_that_pad_the_table_are_never_drawn() -> None:
    each = trained(model(vocab=32), ids=4)
    for sampling in (Sampling(), Sampling(temperature=0), Sampling(top_k=2)):
        for completion in generate(each, ["!"] * 20, max_tokens=8, sampling=sampling).completions:
            assert max(completion.tokens, default=0) < 4
    hypotheses = beam_search(each, np.array([0]), beams=8, max_tokens=4)
    assert all(max(one.tokens, default=0) < 4 for one in hypotheses)


@pytest.mark.long
def test_a_stop_string_ends_a_text_and_is_no_part_of_it() -> None:
    each = trained(model())
    shown: list[str] = []
    drawn = ((seed, texts(generate(each, ["!"], max_tokens=60, seed=seed))[0]) for seed in range(50))
    seed, whole = next((seed, text) for seed, text in drawn if len(text) > 9)
    stop = whole[5:8]
    cut = generate(each, ["!"], max_tokens=60, seed=seed, stop=(stop, "zz"), show=lambda _, text: shown.append(text))
    assert texts(cut)[0] == whole[: whole.index(stop)] == "".join(shown)
    assert cut.completions[0].finish_reason == "stop"


def test_what_is_shown_while_it_is_written_is_the_text() -> None:
    """Characters of several bytes are shown once they are whole."""
    from lmscale.lm.data.tokenizer import ByteTokenizer

    text = generation._Text("", ByteTokenizer(), 99, ())
    pieces = [text.take([byte]) for byte in "aé\N{SLIGHTLY SMILING FACE}z".encode()]
    assert pieces == ["a", "", "é", "", "", "", "\N{SLIGHTLY SMILING FACE}", "z"]


def brute_force(each: TrainedRun, prompt: list[int], most: int, penalty: float) -> list[tuple[float, tuple[int, ...]]]:
    """Every continuation by ln p over length^penalty, the best first."""
    end, config = each.tokenizer.end_of_document, each.config.model
    scored = []
    for length in range(1, most + 1):
        for text in itertools.product(range(each.tokenizer.vocab), repeat=length):
            if end in text[:-1] or (length < most and text[-1] != end):
                continue
            logprobs = jax.nn.log_softmax(LOGITS(each.params, np.array([[*prompt, *text]]), config=config))[0]
            value = float(sum(logprobs[len(prompt) - 1 + at, token] for at, token in enumerate(text)))
            scored.append((value / length**penalty, text))
    return sorted(scored, reverse=True)


@pytest.mark.long
@pytest.mark.parametrize("penalty", [0.0, 1.0, 1.7])
def test_a_wide_beam_finds_what_brute_force_finds(penalty: float) -> None:
    """With as many beams as there are prefixes nothing is lost: the five best continuations, in order."""
    each = trained(model(vocab=4, context=8), ids=4)
    hypotheses = beam_search(each, np.array([0, 2]), beams=16, max_tokens=3, length_penalty=penalty)
    expected = brute_force(each, [0, 2], 3, penalty)
    for one, (score, text) in zip(hypotheses[:5], expected):
        assert (*one.tokens, *([3] if one.ended else [])) == text
        assert one.score(penalty) == pytest.approx(score, abs=1e-4)


@pytest.mark.long
def test_one_beam_is_greedy() -> None:
    each = trained(model())
    hypothesis = beam_search(each, np.array([1, 2]), beams=1, max_tokens=10)[0]
    greedy = greedy_without_cache(each, [1, 2], 10)
    assert list(hypothesis.tokens) == greedy[: len(hypothesis.tokens)]


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Sampling(temperature=-0.1), "temperature = -0.1: at least 0, which is greedy"),
        (lambda: Sampling(temperature=float("nan")), "temperature = nan"),
        (lambda: Sampling(top_p=0.0), "top_p = 0.0: above 0 and at most 1"),
        (lambda: Sampling(top_p=1.1), "top_p = 1.1"),
        (lambda: Sampling(top_k=0), "top_k = 0: at least 1"),
        (lambda: Sampling(min_p=2.0), "min_p = 2.0"),
        (lambda: Sampling(repetition_penalty=0.0), "repetition_penalty = 0.0: above 0"),
        (lambda: generate(trained(model()), ["!"], max_tokens=0), "max_tokens = 0: at least 1"),
        (lambda: generate(trained(model()), ["!"], stop=("",)), "a stop string is empty"),
        (lambda: generate(trained(model()), ["~"]), "is no symbol of symbols:8"),
        (lambda: beam_search(trained(model()), np.arange(4), beams=2, max_tokens=14), "take a shorter prompt"),
        (lambda: beam_search(trained(model()), np.arange(4), beams=0, max_tokens=2), "beams = 0: at least 1"),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_refused(make: Any, sentence: str) -> None:
    with pytest.raises(UserError) as refusal:
        make()
    assert sentence in str(refusal.value)


CACHED = jax.jit(kv_cache.extend, static_argnames="config")


@pytest.mark.long
@pytest.mark.parametrize(
    "options",
    [
        {"compute_dtype": "bfloat16"},
        {"compute_dtype": "bfloat16", "positions": "learned", "norm": "layernorm"},
        {"compute_dtype": "bfloat16", "positions": "alibi", "kv_heads": 1, "document_end": 3},
    ],
    ids=str,
)
def test_bfloat16_through_the_cache_is_near_the_whole(options: dict[str, Any]) -> None:
    """One token at a time: within 2 % of the range of the logits, some four steps of bfloat16."""
    config = model(**options)
    params = {name: jnp.asarray(value) for name, value in random_params(config).items()}
    tokens = np.random.default_rng(0).integers(0, VOCAB, (3, 16), np.int32)
    whole = np.asarray(LOGITS(params, tokens, config=config), np.float32)
    cache = kv_cache.init_cache(config, 3, 16)
    for at in range(16):
        logits, cache = CACHED(params, cache, tokens[:, at : at + 1], np.ones(3, np.int32), config=config)
        assert np.abs(np.asarray(logits[:, 0], np.float32) - whole[:, at]).max() < 0.02 * np.ptp(whole)
