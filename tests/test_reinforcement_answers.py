"""Answers that a policy draws: their questions, their rewards, and the batches that they become."""

import math
from decimal import Decimal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.reinforced import MODEL, reinforced

from lmscale.core.config import MeshConfig
from lmscale.core.config.synthetic import longest_prompt, parse
from lmscale.core.errors import UserError
from lmscale.lm import data
from lmscale.lm.data.languages.tasks import all_tasks
from lmscale.lm.devices.sharding import make_mesh
from lmscale.lm.model.parameters import init
from lmscale.lm.train.last_number import last_number
from lmscale.lm.train.questions import Question, drawn_tasks
from lmscale.lm.train.rewards import Answers, Checker, CheckerKind, check_finite
from lmscale.lm.train.sampled_answers import SampledAnswers, laid_out


def rewards(checker: CheckerKind, right: str, texts: list[str], ended: list[bool]) -> list[float]:
    nothing = jnp.zeros((len(texts), 1), jnp.int32)
    questions = [Question(np.zeros(1, np.int32), right)] * len(texts)
    return Checker(checker)(Answers(questions, texts, np.array(ended), nothing, nothing > 0)).tolist()


def test_a_checker_rewards_what_is_right_and_has_come_to_its_end() -> None:
    given = ["ab", "ab", "ba", "aab", "a", ""], [True, False, True, True, True, True]
    assert rewards("exact", "ab", *given) == [1, 0, 0, 0, 0, 0]
    assert rewards("graded", "ab", *given) == [1, 1, 0, 0.5, 0.5, 0]
    assert rewards("graded", "0002", ["0002", "0102", "0"], [True] * 3) == [1, 0.75, 0.25]


def test_an_answer_in_words_is_right_by_its_last_number() -> None:
    texts = ["1,234.0", "12 and then 1234", "1234 or 12", "none", "is 1234", "-1234"]
    ended = [True, True, True, True, False, True]
    assert rewards("number", "so 1,200 + 34 = 1,234.", texts, ended) == [1, 1, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("3-5", "5"), ("3 - 5", "5"), ("= -5", "-5"), ("(-5)", "-5"), ("x-5", "5"), ("7.", "7"), ("0.50", "0.5"),
        ("costs $.5", "0.5"), ("1,2", "2"), ("1,234,567", "1234567"), ("1,2345", "2345"), ("a4", "4"), ("", None),
        ("x", None), ("\u0663", None), ("#### 72", "72"), ("1e3", "3"),
    ],
)  # fmt: skip
def test_the_last_number_of_a_text(text: str, number: str | None) -> None:
    assert last_number(text) == (None if number is None else Decimal(number))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_reward_that_is_not_finite_is_one_sentence(value: float) -> None:
    check_finite(np.ones(3, np.float32), 4, "the checker")
    with pytest.raises(UserError, match=rf"step 5: the reward model, run x, gave 2 of 3 answers .* \({value}\)"):
        check_finite(np.array([1, value, value], np.float32), 4, "the reward model, run x,")


@pytest.mark.long
def test_questions_follow_from_seed_and_number_and_are_none_of_an_exam() -> None:
    tasks = all_tasks(parse("synthetic:tasks(length=6)"))
    first = drawn_tasks(tasks, 20, seed=0, number=3)
    assert first == drawn_tasks(tasks, 20, seed=0, number=3)
    for other in (drawn_tasks(tasks, 20, 0, 4), drawn_tasks(tasks, 20, 1, 3)):
        assert [question for _, question in other] != [question for _, question in first]
    assert len({task.name for task, _ in first}) > 3
    longest = max(len(task.prompt(question)) for task, question in drawn_tasks(tasks, 200, 0, 0))
    assert longest == longest_prompt(parse("synthetic:tasks(length=6)"))


def test_prompts_are_read_and_answers_scored() -> None:
    prompts = [np.array([9, 5], np.int32), np.array([9, 6, 7], np.int32)]
    tokens, scored = laid_out(prompts, np.array([[1, 9, -1], [1, 2, 3]], np.int32), 6)
    assert tokens.tolist() == [[9, 5, 1, 9, -1, -1, -1], [9, 6, 7, 1, 2, 3, -1]]
    assert [list(np.flatnonzero(row)) for row in scored] == [[1, 2], [2, 3, 4]]


@pytest.mark.long
def test_answers_follow_from_the_parameters_and_the_number_of_the_batch() -> None:
    config = reinforced(8, objective={"updates": 2})
    mesh, tokens = make_mesh(MeshConfig()), data.prepare(config.data)
    params = [init(MODEL, jax.random.key(seed)) for seed in (0, 1)]
    source = SampledAnswers(config, tokens, mesh, Checker("graded"))
    first = source(2, params[0])
    assert source(3, params[1]) is first, "the second update reads the same answers"
    later = source(4, params[0])
    same = SampledAnswers(config, tokens, mesh, Checker("graded"))(4, params[0])
    other = SampledAnswers(config, tokens, mesh, Checker("graded"))(4, params[1])
    for name, values in later.items():
        assert np.array_equal(values, same[name]), name
    assert not np.array_equal(later["tokens"], first["tokens"])
    assert not np.array_equal(later["tokens"], other["tokens"])
    groups = np.asarray(later["tokens"]).reshape(-1, 8, 33)
    assert (groups[:, :, :9] == groups[:, :1, :9]).all(), "a group has one prompt"
    assert np.asarray(later["advantage"]).reshape(-1, 8).mean(axis=1) == pytest.approx(0, abs=1e-5)
