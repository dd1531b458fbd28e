"""A scorer gives what a plain loop over whole texts gives."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmscale.core.config import ModelConfig
from lmscale.core.errors import UserError
from lmscale.lm.data.tokenizer import ByteTokenizer
from lmscale.lm.eval import batching
from lmscale.lm.eval import scorer as module
from lmscale.lm.eval.scorer import LMScorer
from lmscale.lm.eval.tasks import Item, Shots, Task, prompt
from lmscale.lm.model import transformer
from lmscale.lm.model.parameters import init

TOKENIZER = ByteTokenizer()
CONTEXT = 64
CONFIG = ModelConfig(width=16, layers=1, heads=2, vocab=256, context=CONTEXT, mlp_width=16, positions="alibi")
ITEMS = (
    Item("sky", "The sky is", ("blue", "a cup", "é"), (1.0, 0.0, 0.0)),
    Item("sea", "And the sea, as everybody knows, is", ("blue", "green"), (0.0, 1.0), ("grün",)),
    Item("one", "1 + 1 =", answers=("2", "two")),
    Item("spaces", "A: ", ("x", "y y"), (0.0, 1.0)),
)
TASK = Task("few", ITEMS, ("gold_bits_per_byte", "exact_match"), description="Say.\n", longest_answer=12)


@pytest.fixture(scope="module")
def params() -> Any:
    values = jax.jit(lambda key: init(CONFIG, key))(jax.random.key(0))
    return {name: value * (3 if name == "embedding" else 1) for name, value in values.items()}


@pytest.fixture(scope="module")
def scorer(params: Any) -> LMScorer:
    return LMScorer(params, CONFIG, TOKENIZER)


def whole(params: Any, tokens: list[int]) -> np.ndarray:
    """Logits after every token, by one pass over them all."""
    return np.asarray(LOGITS(params, jnp.asarray([tokens + [0] * (CONTEXT - len(tokens))])))[0, : len(tokens)]


LOGITS = jax.jit(lambda params, tokens: transformer.logits(params, tokens, CONFIG))


def by_hand(params: Any, task: Task, item: Item, answer: str, shots: Shots) -> tuple[float, bool, int]:
    """ln p, whether it is greedy, tokens cut: in as few lines as the definition takes."""
    documents, opening, question = prompt(task, item, shots)
    end = [TOKENIZER.end_of_document]
    before = end + [t for text in documents for t in [*TOKENIZER.encode(text).tolist(), *end]]
    asked = before + TOKENIZER.encode((opening + question).rstrip()).tolist()
    full = before + TOKENIZER.encode(opening + question + task.delimiter + answer).tolist()
    scored, window = len(full) - len(asked), full[-(CONTEXT + 1) :]
    logits = whole(params, window[:-1])
    nats = np.asarray(jax.nn.log_softmax(logits))[np.arange(len(window) - 1), window[1:]]
    return float(nats[-scored:].sum()), bool((logits.argmax(1) == window[1:])[-scored:].all()), len(full) - len(window)


@pytest.mark.long
@pytest.mark.parametrize("shots", [Shots(), Shots(2), Shots(2, draw="each"), Shots(3)], ids=str)
def test_scores_are_those_of_a_plain_loop(shots: Shots, scorer: LMScorer, params: Any) -> None:
    assert_as_by_hand(TASK, shots, scorer, params)


@pytest.mark.long
def test_examples_that_are_documents(scorer: LMScorer, params: Any) -> None:
    assert_as_by_hand(Task("documents", ITEMS, ("gold_bits_per_byte",), separator=None), Shots(1), scorer, params)


def assert_as_by_hand(task: Task, shots: Shots, scorer: LMScorer, params: Any) -> None:
    cut = []
    for item, response in zip(task.items, scorer.responses(task, shots)):
        expected = [by_hand(params, task, item, answer, shots) for answer in (*item.choices, *item.answers)]
        nats, greedy = (
            (*response.choice_logprobs, *response.answer_logprobs),
            (*response.choice_greedy, *response.answer_greedy),
        )
        np.testing.assert_allclose(nats, [value for value, _, _ in expected], rtol=1e-4, atol=1e-4)
        assert list(greedy) == [same for _, same, _ in expected]
        assert response.item == item.name and len(response.choice_logprobs) == len(item.choices)
        cut.append(response.tokens_cut)
        assert response.tokens_cut == max(0, *(tokens for _, _, tokens in expected))
    assert any(cut) if shots.count == 3 else shots.count or not any(cut)


@pytest.mark.long
def test_what_is_written_is_the_likeliest_until_it_ends(scorer: LMScorer, params: Any) -> None:
    for item, response in zip(ITEMS, scorer.responses(TASK, Shots(1))):
        _, opening, question = prompt(TASK, item, Shots(1))
        tokens = [TOKENIZER.end_of_document, *TOKENIZER.encode((opening + question).rstrip()).tolist()]
        start = len(tokens)
        for _ in range(TASK.longest_answer):
            tokens.append(int(whole(params, tokens[-CONTEXT:])[-1].argmax()))
        ends = [*np.flatnonzero(np.array(tokens[start:]) == TOKENIZER.end_of_document), len(tokens)]
        assert response.generated == TOKENIZER.decode(np.array(tokens[start:][: ends[0]]))[: TASK.longest_answer]


@pytest.mark.long
def test_the_answer_that_is_written_scores_as_greedy(scorer: LMScorer) -> None:
    written = scorer.responses(TASK)[0].generated
    assert written
    again = Task("again", (Item("sky", "The sky is", answers=(written,)),), TASK.metrics, "Say.\n", delimiter="")
    if not written[0].isspace() and written.isascii():
        assert scorer.responses(again)[0].answer_greedy == (True,)


@pytest.mark.long
def test_how_many_are_read_together_changes_nothing(scorer: LMScorer, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = scorer.responses(TASK, Shots(1))
    monkeypatch.setattr(module, "TOKENS_PER_CALL", 16)
    for one, other in zip(expected, scorer.responses(TASK, Shots(1))):
        np.testing.assert_allclose(one.choice_logprobs, other.choice_logprobs, rtol=1e-5)
        assert one.generated == other.generated


def test_an_answer_longer_than_the_context(scorer: LMScorer) -> None:
    long = Task("long", (Item("a", "?", answers=("x" * 200,)),), ("gold_bits_per_byte",))
    with pytest.raises(UserError, match=r"item a: the answer 'x+' has 201 tokens, more than the context of 64"):
        scorer.responses(long)


def test_a_few_that_begin_otherwise_do_not_take_the_common_beginning_from_all() -> None:
    """The same 200 tokens stand before 38 of 40 questions; the other two are read by themselves, as one group."""
    rng = np.random.default_rng(0)
    examples = rng.integers(0, 200, 200)
    texts = [np.append(examples, rng.integers(0, 200, 10)).astype(np.int32) for _ in range(40)]
    for number, prefix_length in ((7, 3), (21, 60)):
        texts[number] = np.append(examples[:prefix_length], rng.integers(0, 200, 200)).astype(np.int32)
    groups = batching.prefix_groups(texts)
    assert sorted(map(len, groups)) == [2, 38] and sorted(min(groups, key=len)) == [7, 21]
    assert sorted(n for group in groups for n in group) == list(range(40))
    assert [sorted(group) for group in batching.prefix_groups(texts[8:12])] == [[0, 1, 2, 3]]
    assert batching.prefix_groups([]) == [] and batching.prefix_groups(texts[:1]) == [[0]]
