"""A scored text is the brute force of its rule: each token predicted once, from the window that the rule gives it."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.published import random_params, tiny
from helpers.tiny_runs import run

from lmscale.core.errors import UserError
from lmscale.lm.data.tokenizer import ByteTokenizer, FileTokenizer, SymbolTokenizer, Tokenizer, train_bpe
from lmscale.lm.eval.validation import by_position
from lmscale.lm.model import transformer
from lmscale.lm.use import score_text as module
from lmscale.lm.use import text_windows
from lmscale.lm.use.load import TrainedRun
from lmscale.lm.use.score_text import ScoredText, alternatives, score_text
from lmscale.lm.use.surprise import line_losses, pieces, surprise_class, surprising_spans, token_lines

ENGLISH = "the quick brown fox — 🙂 é\n\njumps over the lazy dog\n"
LOGITS = jax.jit(transformer.logits, static_argnames="config")


def trained(tokenizer: Tokenizer | None = None, **options: Any) -> TrainedRun:
    """A model with random parameters, sharpened so that its surprisals differ."""
    tokenizer = tokenizer or ByteTokenizer()
    model = tiny(vocab=tokenizer.vocab, **{"context": 16, **options})
    params = {name: jnp.asarray(value * (8 if name == "head" else 1)) for name, value in random_params(model).items()}
    return TrainedRun(run("here", 1, model=model), params, tokenizer)


def bpe() -> FileTokenizer:
    return FileTokenizer(train_bpe(280, [[ENGLISH.encode() * 20]], "a text"), "bpe")


def one_by_one(run: TrainedRun, document: str) -> list[float]:
    """Each token by itself, from the window that the rule gives it: the first that holds it, begun at half contexts."""
    model, tokenizer = run.config.model, run.tokenizer
    stream = [tokenizer.end_of_document, *tokenizer.encode(document).tolist(), tokenizer.end_of_document]
    stride, nats = max(1, model.context // 2), []
    for i in range(1, len(stream)):
        start = stride * max(0, math.ceil((i - model.context) / stride))
        window = np.zeros((1, model.context), np.int32)
        window[0, : i - start] = stream[start:i]
        logits_V = np.asarray(LOGITS(run.params, window, config=model))[0, i - start - 1].astype(np.float64)
        nats.append(float(np.log(np.exp(logits_V - logits_V.max()).sum()) + logits_V.max() - logits_V[stream[i]]))
    return nats


@pytest.mark.long
@pytest.mark.parametrize(
    "options",
    [
        {"tied_embeddings": False},
        {"context": 17, "kv_heads": 2},
        {"context": 1},
        {"document_end": 255, "positions": "alibi"},
    ],
    ids=str,
)
def test_every_token_is_scored_once_from_the_window_of_the_rule(options: dict[str, Any]) -> None:
    run = trained(**options)
    scored, open_ended = score_text(run, [ENGLISH]), score_text(run, [ENGLISH], end=False)
    np.testing.assert_allclose(scored.nats_T, one_by_one(run, ENGLISH), rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(open_ended.nats_T, scored.nats_T[:-1], rtol=2e-5, atol=2e-5)
    assert scored.tokens == open_ended.tokens + 1 == scored.bytes + 1 == len(ENGLISH.encode()) + 1
    assert scored.tokens_T[: scored.bytes].tolist() == list(ENGLISH.encode()) and scored.text == ENGLISH.encode()


@pytest.mark.long
@pytest.mark.parametrize("context", [2, 7])
def test_a_token_is_predicted_from_all_before_it_or_from_more_than_half_a_context(context: int) -> None:
    context_T = score_text(trained(context=context), [ENGLISH]).context_T
    assert context_T[:context].tolist() == list(range(1, len(context_T) + 1))[:context]
    assert set(context_T[context:].tolist()) == set(range(context - max(1, context // 2) + 1, context + 1))
    assert 2 * context_T[context:].min() > context


@pytest.mark.long
def test_documents_do_not_see_each_other_and_a_batch_is_its_rows() -> None:
    run = trained()
    texts = [ENGLISH, "x", ENGLISH[:9], ENGLISH[3:] * 3]
    together, single = score_text(run, texts), [score_text(run, [text]) for text in texts]
    np.testing.assert_allclose(together.nats_T, np.concatenate([one.nats_T for one in single]), rtol=1e-5, atol=1e-6)
    assert together.nats == pytest.approx(sum(one.nats for one in single), rel=1e-6)
    assert together.tokens == sum(one.tokens for one in single) and together.bytes == sum(one.bytes for one in single)
    assert together.tokens_D.tolist() == [one.tokens for one in single]


@pytest.mark.long
def test_the_size_of_batches_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    run, text = trained(), ENGLISH * 5
    whole = score_text(run, [text])
    shapes: list[tuple[int, ...]] = []
    batches = text_windows.batches

    def watched(*arguments: Any) -> Any:
        for batch in batches(*arguments):
            shapes.append(batch.tokens_BS.shape)
            yield batch

    monkeypatch.setattr(text_windows, "TOKENS_PER_CALL", 32)
    monkeypatch.setattr(module, "batches", watched)
    np.testing.assert_allclose(score_text(run, [text]).nats_T, whole.nats_T, rtol=1e-5, atol=1e-6)
    assert len(shapes) > 10 and set(shapes) == {(2, 17), (1, 17)}, "two shapes: two programs, of 32 tokens at most"


@pytest.mark.long
def test_sums_are_those_of_the_definitions() -> None:
    scored = score_text(trained(), [ENGLISH, "a"])
    nats = scored.nats_T.astype(np.float64).sum()
    assert scored.loss_nats == pytest.approx(nats / (len(ENGLISH.encode()) + 1 + 2))
    assert scored.bits_per_byte == pytest.approx(
        scored.loss_nats * scored.tokens / math.log(2) / scored.bytes, rel=1e-9
    )
    assert scored.bits_per_token == pytest.approx(scored.loss_nats / math.log(2))
    assert scored.to_json()["bytes"] == len(ENGLISH.encode()) + 1


def test_losses_by_position_are_those_of_validation() -> None:
    """A text that fills one window has the same numbers, and a longer one the mean by tokens of context."""
    scored = score_text(trained(context=16), ["sixteen letters"])
    assert scored.loss_by_position_nats == pytest.approx(by_position(scored.nats_T[None].astype(np.float64)))
    longer = score_text(trained(context=16), [ENGLISH])
    for i, loss in enumerate(longer.loss_by_position_nats):
        within = (longer.context_T >= 2**i) & (longer.context_T < 2 ** (i + 1))
        assert loss == pytest.approx(longer.nats_T[within].mean(), rel=1e-5)
    assert len(longer.loss_by_position_nats) == 5


@pytest.mark.long
@pytest.mark.parametrize("make", [ByteTokenizer, bpe])
def test_pieces_and_lines_are_the_whole_text(make: Callable[[], Tokenizer]) -> None:
    tokenizer = make()
    scored = score_text(trained(tokenizer), [ENGLISH, "🙂🙂", "end"])
    whole = list(pieces(scored))
    assert "".join(piece.text for piece in whole) == f"{ENGLISH}🙂🙂end"
    assert sum(piece.text == "" for piece in whole) == 3, "each document's end is a piece"
    assert [piece.first for piece in whole[1:]] == [piece.last for piece in whole[:-1]]
    assert sum(piece.nats for piece in whole) == pytest.approx(scored.nats)
    for most in range(scored.tokens + 1):
        assert list(pieces(scored, most)) == [piece for piece in whole if piece.last <= most]
    lines = line_losses(scored)
    assert {1, 3, 5, 6} <= {line.line for line in lines} <= {1, 2, 3, 5, 6}
    assert sum(line.nats for line in lines) == pytest.approx(scored.nats)
    assert sum(line.tokens for line in lines) == scored.tokens and sum(line.bytes for line in lines) == scored.bytes


def test_a_token_is_of_the_line_that_it_begins_in() -> None:
    scored = score_text(trained(), ["ab\nc\n", "de"], lines=[4, 9])
    assert token_lines(scored).tolist() == [4, 4, 4, 5, 5, 5, 9, 9, 9]


def with_surprisals(nats: list[float], texts: list[str], end: bool = True) -> ScoredText:
    """Texts whose bytes have these surprisals."""
    scored = score_text(trained(), texts, end=end)
    return replace(scored, nats_T=np.array(nats, np.float32))


def test_the_spans_that_stand_out_are_listed_by_their_surprisal() -> None:
    scored = with_surprisals([0, 0, 5, 5, 0, 0, 8, 7, 0, 0, 0, 0, 0], ["aaéa\nb", "cdef"])
    spans = surprising_spans(scored, 9)
    assert [(span.text, span.nats, span.tokens, span.line) for span in spans] == [("b", 15, 2, 2), ("é", 10, 2, 1)]
    assert spans[0].before == "aaéa\n" and spans[0].after == "", "the next document is no surrounding"
    assert [span.text for span in surprising_spans(scored, 1)] == ["b"]


def test_a_span_is_of_one_document_and_of_whole_characters() -> None:
    scored = with_surprisals([0, 0, 9, 0, 0, 0, 9, 9, 0, 0], ["éé", "éé"])
    assert [(span.text, span.tokens) for span in surprising_spans(scored, 5)] == [("éé", 2), ("é", 1)]
    joined = with_surprisals([0, 9, 9, 0], ["ab", "cd"], end=False)
    assert [(span.text, span.line) for span in surprising_spans(joined, 5)] == [("b", 1), ("c", 2)]


def test_alike_tokens_are_one_span() -> None:
    assert [span.text for span in surprising_spans(with_surprisals([2, 2, 2], ["ab"]), 5)] == ["ab"]
    assert [span.text for span in surprising_spans(with_surprisals([1, 1, 1, 1, 0], ["abcd"]), 5)] == ["abcd"]


def test_classes_are_by_probability() -> None:
    assert [surprise_class(-math.log(p)) for p in (1.0, 0.5, 0.49, 0.1, 0.09, 0.01, 0.009, 1e-3, 9e-4, 1e-9)] == [
        0, 0, 1, 1, 2, 2, 3, 3, 4, 4
    ]  # fmt: skip


@pytest.mark.long
def test_ranks_and_alternatives_are_those_of_the_logits() -> None:
    run = trained(context=8)
    scored = score_text(run, ["ab", ENGLISH])
    others = alternatives(run, scored, 30, count=4)
    assert len(others.rank_T) == len(others.tokens_TK) == 30
    np.testing.assert_allclose(
        np.where(others.rank_T == 1, others.nats_TK[:, 0], scored.nats_T[:30]), scored.nats_T[:30], rtol=1e-4, atol=1e-5
    )
    window = np.array([[255, *b"ab", 0, 0, 0, 0, 0]], np.int32)
    logprobs_TV = np.asarray(jax.nn.log_softmax(LOGITS(run.params, window, config=run.config.model)[0]))[:3]
    order_TV = np.argsort(-logprobs_TV, axis=-1, kind="stable")
    assert others.tokens_TK[:3].tolist() == order_TV[:, :4].tolist()
    ranks = [1 + row.tolist().index(token) for row, token in zip(order_TV, [*b"ab", 255])]
    assert others.rank_T[:3].tolist() == ranks
    assert alternatives(run, scored, 10**9).rank_T.shape == (scored.tokens,)


@pytest.mark.long
def test_a_padded_vocabulary_is_never_an_alternative() -> None:
    tokenizer = SymbolTokenizer(5)
    run = trained(tokenizer)
    model = replace(run.config.model, vocab=9)
    padded = {name: jnp.asarray(value) for name, value in random_params(model).items()}
    run = run._replace(config=replace(run.config, model=model), params=padded)
    others = alternatives(run, score_text(run, ['!"#$']), 5)
    assert others.tokens_TK.max() == 4 and others.rank_T.max() <= 5 and others.tokens_TK.shape == (5, 5)


@pytest.mark.parametrize(
    ("documents", "sentence"),
    [
        ([], "there is no text to score"),
        ([""], "there is no text to score"),
        (["a\ud800"], "character 1 of text 1 is the lone surrogate"),
        ([b"a", b"\xff\xfe"], "text 2 is not UTF-8 at byte 0"),
    ],
)
def test_what_is_no_text_is_refused(documents: list[str | bytes], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        score_text(trained(), documents)


def test_symbols_that_a_language_lacks_are_refused() -> None:
    with pytest.raises(UserError, match=r"character 1 of the text, '\\n', is no symbol of symbols:5"):
        score_text(trained(SymbolTokenizer(5)), ["!\n"])


def test_a_model_that_diverged_is_no_loss() -> None:
    run = trained()
    broken = {name: value * jnp.nan for name, value in run.params.items()}
    with pytest.raises(UserError, match="no numbers: its parameters have diverged"):
        score_text(run._replace(params=broken), ["a"])
