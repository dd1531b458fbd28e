"""Pairs of prompts: what is read, made from tasks, compared token by token, and refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from lmscale.core.config.synthetic import TASKS, Tasks
from lmscale.core.errors import UserError
from lmscale.lm.data.languages.tasks import all_tasks
from lmscale.lm.data.tokenizer import ByteTokenizer, FileTokenizer, train_bpe
from lmscale.lm.eval.tasks import Item, Task
from lmscale.lm.inspect.pairs import Pair, comparable, pair_tokens, read_pairs
from lmscale.lm.inspect.task_pairs import language_pairs, pairs_of, task_pairs

BYTES = ByteTokenizer()
PAIR = Pair("copy ab=", "ab", "copy ac=", "ac")


def test_both_prompts_end_where_the_answers_begin_to_differ() -> None:
    """The part that both answers begin with is read as part of the prompt."""
    longer = Pair("sort cba=", "abc", "sort cbd=", "bcd")
    tokens = pair_tokens([PAIR, longer], BYTES, 32)
    end = BYTES.end_of_document
    assert tokens.prompt_NT[0].tolist() == [end, *b"copy ab=a"] and tokens.other_NT[0].tolist() == [end, *b"copy ac=a"]
    assert tokens.prompt_NT[1].tolist() == [end, *b"sort cba="]
    assert tokens.end_N.tolist() == [9, 9]
    assert (tokens.answer_N.tolist(), tokens.other_answer_N.tolist()) == ([*b"ba"], [*b"cb"])
    swapped = tokens.swapped()
    np.testing.assert_array_equal(swapped.prompt_NT, tokens.other_NT)
    np.testing.assert_array_equal(swapped.answer_N, tokens.answer_N)
    assert tokens.take(np.array([1, 1, 0])).pair_count == 3
    short = pair_tokens([PAIR, Pair("a=", "a", "b=", "b")], BYTES, 32)
    assert short.end_N.tolist() == [9, 2] and short.prompt_NT[1].tolist() == [end, *b"a=", *[0] * 7]


@pytest.mark.parametrize(
    ("pair", "sentence"),
    [
        (Pair("a=", "a", "bb=", "b"), "pair 2: its prompts have 3 and 4 tokens"),
        (Pair("a=", "a", "b=", "ab"), "begins with the other"),
        (Pair("a=", "a", "b=", "a"), "they are the same"),
        (Pair("a=", "a", "a=", "b"), "its prompts are the same"),
        (Pair("a" * 40, "a", "b" * 40, "b"), "41 tokens"),
    ],
)
def test_what_is_no_pair_is_refused_by_its_number(pair: Pair, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        pair_tokens([PAIR, pair], BYTES, 32)
    assert comparable([PAIR, pair], BYTES, 32) == [PAIR]


def test_answers_that_a_tokenizer_joins_to_one_prompt_alone_are_refused() -> None:
    """The tokenizer has a token for "xy", and none for "zy"."""
    tokenizer = FileTokenizer(train_bpe(258, iter([[b"xy " * 9]]), "a text"), "bpe:258")
    assert len(tokenizer.encode("xy")) == 1 and len(tokenizer.encode("zy")) == 2
    with pytest.raises(UserError, match="pair 1: its prompts have 1 and 2 tokens"):
        pair_tokens([Pair("x", "y", "z", "w")], tokenizer, 32)


def test_pairs_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps(PAIR._asdict()) + "\n\n" + json.dumps({**PAIR._asdict(), "note": 1}) + "\n", "utf-8")
    assert read_pairs(path) == [PAIR, PAIR]
    for line, sentence in (
        ({"prompt": "a"}, "line 1: the field 'answer' is missing"),
        ({**PAIR._asdict(), "answer": ""}, "line 1: an answer is empty"),
        ({**PAIR._asdict(), "answer": 1}, "line 1: the field 'answer' is 1"),
        ([1], "line 1"),
    ):
        path.write_text(json.dumps(line), "utf-8")
        with pytest.raises(UserError, match=sentence):
            read_pairs(path)
    path.write_text("\n", "utf-8")
    with pytest.raises(UserError, match="has no pairs"):
        read_pairs(path)


@pytest.mark.long
@pytest.mark.parametrize("task", all_tasks(Tasks(letters=4, length=4)), ids=lambda task: task.name)
def test_questions_of_algorithmic_tasks_differ_in_one_character_and_both_answers_are_right(task: object) -> None:
    pairs = language_pairs(task, 12)  # type: ignore[arg-type]
    assert 2 <= len(pairs) <= 12 and pairs == language_pairs(task, 12)  # type: ignore[arg-type]
    for pair in pairs:
        assert sum(a != b for a, b in zip(pair.prompt, pair.other_prompt, strict=True)) == 1
        for prompt, answer in ((pair.prompt, pair.answer), (pair.other_prompt, pair.other_answer)):
            question = prompt.partition(" ")[2].removesuffix("=")
            assert answer == task.answer(question)  # type: ignore[attr-defined]
        assert pair.answer != pair.other_answer
    assert comparable(pairs, BYTES, 64) == pairs


def of_items(*questions: tuple[str, str]) -> Task:
    items = tuple(
        Item(str(number), question, ("yes", "no"), (float(answer == "yes"), float(answer == "no")))
        for number, (question, answer) in enumerate(questions)
    )
    return Task("logic", items, ("accuracy",), description="Is it so?\n")


def test_questions_of_a_task_are_paired_with_the_nearest_of_the_same_length() -> None:
    task = of_items(("2 < 3", "yes"), ("9 < 1", "no"), ("2 < 1", "no"), ("20 < 30", "yes"), ("1 < 3", "yes"))
    pairs = task_pairs(task, BYTES, 5)
    assert pairs[0] == Pair("Is it so?\n2 < 3", " yes", "Is it so?\n2 < 1", " no")
    assert pairs[1] == Pair("Is it so?\n9 < 1", " no", "Is it so?\n1 < 3", " yes") and len(pairs) == 2
    assert task_pairs(task, BYTES, 1) == pairs[:1]


@pytest.mark.long
def test_pairs_of_a_specification() -> None:
    named = pairs_of("synthetic:tasks(letters=4, length=4)", BYTES, 64, 3)
    assert set(named.by_task) == set(TASKS) and all(2 <= len(pairs) <= 3 for pairs in named.by_task.values())
    assert named.without == ()
    with pytest.raises(UserError, match="do not fit the context of 8"):
        pairs_of("synthetic:tasks(only='copy')", BYTES, 8, 3)
    with pytest.raises(UserError, match="has no questions"):
        pairs_of("synthetic:zipf-facts", BYTES, 64, 3)
    with pytest.raises(UserError, match="at least 1"):
        pairs_of("synthetic:tasks", BYTES, 64, 0)


@pytest.mark.long
def test_pairs_that_do_not_fit_are_made_up_for_and_tasks_without_any_are_named() -> None:
    """The context has no room for questions about brackets; of those that a tokenizer cuts unequally, others remain."""
    named = pairs_of("synthetic:tasks(only='copy brackets', letters=4, length=4)", BYTES, 12, 3)
    assert set(named.by_task) == {"copy"} and named.without == ("brackets",)
    tokenizer = FileTokenizer(train_bpe(258, iter([[b"aa " * 9]]), "a text"), "bpe:258")
    spec = "synthetic:tasks(only='copy', letters=4, length=4)"
    (first, *_) = [language_pairs(task, 8) for task in all_tasks(Tasks(letters=4, length=4, only="copy"))]
    assert len(comparable(first, tokenizer, 64)) < 8 == len(pairs_of(spec, tokenizer, 64, 8).by_task["copy"])


def test_pairs_of_one_length_have_positions_that_correspond() -> None:
    """What two answers begin with alike belongs to their prompts, which are of several lengths for that."""
    spec = "synthetic:tasks(only='copy sort', letters=4, length=4)"
    for one_length in (False, True):
        for pairs in pairs_of(spec, BYTES, 64, 16, one_length=one_length).by_task.values():
            lengths = set(pair_tokens(pairs, BYTES, 64).end_N.tolist())
            assert len(pairs) > 4 and (len(lengths) == 1) == one_length
