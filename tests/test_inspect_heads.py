"""Heads on repeated random tokens: those of a model built by hand have the scores that its construction gives them."""

import numpy as np
import pytest
from helpers import induction

from lmscale.core.errors import UserError
from lmscale.lm.inspect import heads
from lmscale.lm.inspect.reading import lens_logprobs, read
from lmscale.lm.model import transformer

N = heads.copy_tokens(induction.CONTEXT)
TOKENS = heads.repeated_tokens(np.arange(induction.VOCAB, dtype=np.int32), induction.END, N, rows=20)


def test_rows_are_two_copies_of_different_tokens_behind_the_end_of_a_document() -> None:
    assert TOKENS.shape == (20, 1 + 2 * N) and N == 16
    assert (TOKENS[:, 0] == induction.END).all() and (TOKENS[:, 1:] != induction.END).all()
    np.testing.assert_array_equal(TOKENS[:, 1 : N + 1], TOKENS[:, N + 1 :])
    assert all(len(set(row[1 : N + 1].tolist())) == N for row in TOKENS)
    few = heads.repeated_tokens(np.arange(4, dtype=np.int32), 3, N, rows=5)
    assert few.max() == 3 and set(few[:, 1:].ravel().tolist()) == {0, 1, 2}, "fewer tokens than a copy has may repeat"


def test_scores_of_known_heads() -> None:
    scores = heads.head_scores(induction.params(), TOKENS, induction.CONFIG)
    visible = 1 / (np.arange(1, 2 * N + 1) + 1)  # of a head that attends to all alike, from position 1 on
    second, every, first = visible[N:].mean(), visible.mean(), visible[:N].sum() / (2 * N)
    np.testing.assert_allclose(scores.induction, [[0, second], [1, second]], atol=1e-6)
    np.testing.assert_allclose(scores.previous_token, [[1, every], [first, every]], atol=1e-6)
    np.testing.assert_allclose(scores.duplicate_token, [[0, second], [0, second]], atol=1e-6)


def test_heads_that_attend_to_all_alike_are_at_chance() -> None:
    """The second head of layer 0 does, after the end of a document: its rows are those of chance."""
    rows = heads.row_scores(induction.params(), TOKENS, induction.CONFIG)
    assert rows.induction.shape == (20, 2, 2)
    chances = heads.uniform_scores(N)
    np.testing.assert_allclose(rows.induction[:, 0, 1], chances[0], rtol=1e-5)
    np.testing.assert_allclose(rows.previous_token[:, 0, 1], chances[1], rtol=1e-5)
    np.testing.assert_allclose(heads.best_head_scores(rows.induction), 1, atol=1e-5)


def test_the_best_head_of_many_without_any_is_not_above_chance() -> None:
    """Each row is scored by the head that is best on the rows of the other half: no luck is counted."""
    rng = np.random.default_rng(0)
    scores = rng.random((40, 30, 30)).astype(np.float32)
    lucky = scores.mean(axis=0).max()
    values = heads.best_head_scores(scores)
    assert lucky > 0.6 and abs(values.mean() - 0.5) < 3 * values.std() / np.sqrt(40)
    np.testing.assert_allclose(heads.best_head_scores(scores[:1]), scores[0].max(), rtol=1e-6)


def test_batches_change_no_score(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = heads.head_scores(induction.params(), TOKENS, induction.CONFIG)
    monkeypatch.setattr("lmscale.lm.inspect.patching.MEMORY_BYTES", 60_000)
    np.testing.assert_allclose(heads.head_scores(induction.params(), TOKENS, induction.CONFIG), expected, atol=1e-6)


@pytest.mark.long
def test_without_either_head_of_the_circuit_the_second_copy_is_a_guess() -> None:
    """Heads that put out nothing are the control: without them no loss changes."""
    one_at_a_time = np.eye(4, dtype=np.bool_).reshape(4, 2, 2)
    whole = heads.copy_nats(induction.params(), TOKENS, induction.CONFIG)
    nats = heads.copy_nats(induction.params(), TOKENS, induction.CONFIG, one_at_a_time).mean(axis=1)
    assert whole.max() < 1e-4
    assert nats[0] > 1 and nats[2] > 1
    np.testing.assert_allclose(nats[[1, 3]], whole.mean(), atol=1e-5)


def test_controls_have_as_many_heads_in_every_layer_and_none_that_was_chosen() -> None:
    score = np.array([[0.9, 0.8, 0.7, 0.1], [0.6, 0.0, 0.1, 0.2]], np.float32)
    chosen = heads.strongest(score, 3)
    np.testing.assert_array_equal(chosen, [[True, True, False, False], [True, False, False, False]])
    controls = heads.matched_random(chosen, 200)
    assert not (controls & chosen).any()
    np.testing.assert_array_equal(controls.sum(axis=-1), np.broadcast_to([2, 1], (200, 2)))
    np.testing.assert_allclose(controls[:, 1, 1:].mean(axis=0), 1 / 3, atol=0.12)
    np.testing.assert_array_equal(heads.matched_random(chosen, 3), controls[:3])
    with pytest.raises(UserError, match="3 of the 4 heads of layer 1"):
        heads.matched_random(np.array([[False] * 4, [True, True, True, False]]))


def test_in_context_score_compares_token_500_with_token_50_of_512() -> None:
    nats_NT = np.random.default_rng(0).random((3, 512))
    np.testing.assert_array_equal(heads.in_context_score(nats_NT), nats_NT[:, 499] - nats_NT[:, 49])
    np.testing.assert_array_equal(heads.in_context_score(nats_NT[:, :64]), nats_NT[:, 61] - nats_NT[:, 5])
    np.testing.assert_array_equal(heads.in_context_score(nats_NT[:, :1]), np.zeros(3))
    scored_NT = np.ones((3, 512), np.bool_)
    scored_NT[0, 499] = scored_NT[1, 49] = scored_NT[2, 100] = False
    np.testing.assert_array_equal(heads.in_context_score(nats_NT, scored_NT), nats_NT[2:, 499] - nats_NT[2:, 49])


def test_a_context_without_room_for_two_copies_is_refused() -> None:
    assert heads.copy_tokens(5) == 2 and heads.copy_tokens(10_000) == heads.COPY_TOKENS
    with pytest.raises(UserError, match="context of 4 tokens"):
        heads.copy_tokens(4)


@pytest.mark.long
def test_the_lens_of_a_known_model_sees_the_answer_after_the_layer_that_writes_it() -> None:
    """Nothing predicts the second copy before layer 1, and everything after it; the last lens is the model itself."""
    config, tokens_T = induction.CONFIG, TOKENS[0]
    reading = read(induction.params(), tokens_T, config, induction.VOCAB)
    nats_JT = np.asarray(reading.lens.next_nats_JT)
    np.testing.assert_allclose(nats_JT[:2], np.where(np.arange(2 * N + 1) < 2 * N, np.log(induction.VOCAB), 0)[None]
                               .repeat(2, axis=0), rtol=1e-5)  # fmt: skip
    assert nats_JT[2, N + 1 :].max() < 1e-4
    np.testing.assert_array_equal(reading.lens.tokens_JTk[2, N + 1 : -1, 0], tokens_T[N + 2 :])
    logits_TV = transformer.logits(induction.params(), tokens_T[None], config)[0]
    own_TV = lens_logprobs(induction.params(), reading.residual_JTD[-1], config, induction.VOCAB)
    np.testing.assert_allclose(own_TV, logits_TV - np.logaddexp.reduce(logits_TV, axis=-1, keepdims=True), atol=1e-4)
    np.testing.assert_allclose(reading.lens.kl_JT[2], 0, atol=1e-5)
    expected = (np.exp(own_TV) * (own_TV + np.log(induction.VOCAB))).sum(axis=-1)
    np.testing.assert_allclose(reading.lens.kl_JT[0], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.asarray(reading.attention_LHTS).sum(axis=-1), 1, rtol=1e-5)


def test_ids_that_mean_no_text_are_not_predicted() -> None:
    reading = read(induction.params(), TOKENS[0, :8], induction.CONFIG, 30)
    assert np.asarray(reading.lens.tokens_JTk).max() < 30
    assert np.isfinite(np.asarray(reading.lens.kl_JT)).all()
