"""Policies that answer the prompts of a corpus: which, how often, cut where, and what a run on them counts."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.reinforced import (
    ANSWER,
    FIRST,
    MODEL,
    first_run,  # noqa: F401
    reinforced,
    reward_model_run,
)
from helpers.tiny_runs import assert_same, rows, train_interrupted

from lmscale.core.config import DataConfig, RunConfig
from lmscale.core.counting import count, drawing_flops
from lmscale.core.errors import UserError
from lmscale.lm import data
from lmscale.lm.data.prompts import Prompts
from lmscale.lm.train import bench
from lmscale.lm.train.loop import train
from lmscale.lm.train.questions import questions_of

WORDS = [first + second for first in "abc" for second in "abc"] + list("abc")


def written(path: Path, words: list[str]) -> Path:
    """Words to be copied, as records of a prompt and a text."""
    path.write_text("".join(json.dumps({"prompt": f"copy {word}=", "text": word}) + "\n" for word in words))
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return written(tmp_path / "words.jsonl", WORDS)


def corpus(file: Path, **changed: Any) -> DataConfig:
    settings = {"source": str(file), "prompt_field": "prompt", "layout": "padded", "validation_fraction": 0.3}
    return DataConfig(**{**settings, "max_epochs": 1000, **changed})


def asked(config: RunConfig, batches: int) -> list[tuple[str, str]]:
    """(prompt, answer) of the questions of the leading batches."""
    questions = questions_of(config, data.prepare(config.data))
    several = [question for number in range(batches) for question in questions(number)]
    assert all(question.prompt[0] == questions.tokenizer.end_of_document for question in several)
    return [(questions.tokenizer.decode(question.prompt[1:]), question.answer) for question in several]


@pytest.mark.parametrize("tokenizer", ["bytes", "bpe:270"])
def test_every_prompt_is_asked_once_an_epoch_in_an_order_of_the_seed(file: Path, tokenizer: str) -> None:
    config = reinforced(8, data=corpus(file, tokenizer=tokenizer), model=replace(MODEL, vocab=270))
    documents = data.prepare(config.data).manifest.train_documents
    assert config.optimizer.batch_sequences == 4 * 8, "four groups"
    several = asked(config, 3 * documents)
    assert all(prompt == f"copy {answer}=" for prompt, answer in several)
    epochs = [several[start : start + documents] for start in range(0, len(several), documents)]
    assert len(epochs) == 12 and len({tuple(sorted(epoch)) for epoch in epochs}) == 1
    assert len(set(epochs[0])) == documents and len({tuple(epoch) for epoch in epochs}) > 6
    assert asked(replace(config, seed=1), 3 * documents) != several == asked(config, 3 * documents)


def test_a_long_prompt_loses_its_beginning_and_is_counted(file: Path) -> None:
    config = reinforced(8, data=corpus(file), objective={"prompt_tokens": 5})
    several = asked(config, 3)
    assert all(prompt == f"copy {answer}="[-4:] for prompt, answer in several)
    tokens = data.prepare(config.data)
    usage = questions_of(config, tokens).usage(config.tokens)
    answers = {answer for _, answer in several}
    assert len(answers) == tokens.manifest.train_documents
    assert usage.cut_tokens == sum(len(f"copy {answer}=") - 4 for answer in answers)
    [sentence] = questions_of(config, tokens).notes()
    assert sentence.endswith(f"; {len(answers)} longer than 5 tokens lost {usage.cut_tokens} at the beginning")
    whole = questions_of(reinforced(8, data=corpus(file)), tokens)
    assert whole.usage(config.tokens).cut_tokens == 0 and whole.notes()[0].endswith("; nothing is cut")


def test_the_last_answer_of_a_conversation_is_drawn_anew(tmp_path: Path) -> None:
    talks = [[("user", f"{n}?"), ("assistant", "Well."), ("user", "So?"), ("assistant", f"{n}.")] for n in range(9)]
    lines = [{"messages": [{"role": role, "content": text} for role, text in talk]} for talk in talks]
    (tmp_path / "talks.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    source = DataConfig(
        source=str(tmp_path / "talks.jsonl"), template="chat", layout="padded", validation_fraction=0.3, max_epochs=99
    )
    tokens = data.prepare(source)
    prompts = Prompts(tokens, longest=200, seed=0)
    assert len(prompts) == tokens.manifest.train_documents
    for one in prompts.asked(0, len(prompts)):
        prompt, answer = bytes(one.asked[1:].astype(np.uint8)).decode(), bytes(one.answer.astype(np.uint8)).decode()
        number = answer[0]
        assert prompt.count(f"{number}?") == prompt.count("Well.") == prompt.count("So?") == 1
        assert answer.strip().startswith(f"{number}.") and f"{number}." not in prompt


def test_usage_is_that_of_prompts(file: Path) -> None:
    config = reinforced(8, data=corpus(file), objective={"updates": 2})
    tokens = data.prepare(config.data)
    usage, documents = questions_of(config, tokens).usage(3 * config.batch_tokens), tokens.manifest.train_documents
    prompts = 2 * 4  # the third step begins the second batch of four groups
    assert usage.epochs == prompts / documents == usage.epochs_by_source[tokens.manifest.source]
    assert usage.repeats_mean == prompts / documents and usage.repeats_max == 1 + (prompts > documents)
    assert usage.unique_tokens == 3 * config.batch_tokens // 2


@pytest.mark.long
@pytest.mark.usefixtures("known_peak")
def test_a_policy_learns_from_answers_to_the_prompts_of_a_corpus(runs: Path, file: Path, stop_after: Any) -> None:
    known = corpus(written(file.parent / "known.jsonl", ["aa", "ab", "ba", "bb"]), validation_source=str(file))
    config = reinforced(
        30, FIRST.run_id, data=known, optimizer={"peak_lr": 0.01}, objective={"prompt_tokens": 9, "updates": 2}
    )
    result = train(config, runs / "prompts" / config.run_id)
    earned = [row["reward"] for row in rows(runs / "prompts" / config.run_id)]
    assert sum(earned[-6:]) / 6 > sum(earned[:6]) / 6 + 0.05
    assert result.epochs == 15 and result.cut_tokens == 0, "every batch asks all four"
    assert result.flops == count(config).flops and result.batch_flops == drawing_flops(config) * config.steps
    assert result.validation_tokens == sum(len(word) + 1 for word in WORDS), "answers alone"

    again = runs / "again" / config.run_id
    train_interrupted(config, again, stop_after, 5, match=r"after step 6 of 30")
    assert_same(config, again, runs / "prompts" / config.run_id)


@pytest.mark.long
@pytest.mark.usefixtures("known_peak")
def test_a_reward_model_judges_answers_to_the_prompts_that_it_was_taught_on(runs: Path, tmp_path: Path) -> None:
    judge = reward_model_run(tmp_path)
    train(judge, runs / "judge" / judge.run_id)
    prompts = replace(judge.data, rejected_field=None, layout="padded")
    config = reinforced(2, FIRST.run_id, data=prompts, objective={"reward": judge.run_id})
    result = train(config, runs / "judged" / config.run_id)
    assert result.state == "finished" and result.reported is not None
    assert result.reported["reward"] not in (0, 1)


@pytest.mark.long
@pytest.mark.usefixtures("known_peak")
def test_a_bench_asks_the_prompts_of_the_corpus(file: Path) -> None:
    speed = bench.measure(reinforced(4, data=corpus(file)), steps=2)
    assert speed.data == data.prepare(corpus(file)).manifest.source


def test_answers_without_a_number_are_one_sentence(file: Path) -> None:
    config = reinforced(8, data=corpus(file), objective={"checker": "number"})
    documents = data.prepare(config.data).manifest.train_documents
    with pytest.raises(UserError, match=rf"compares numbers, and {documents} of the {documents} answers of .* have no"):
        questions_of(config, data.prepare(config.data))


def test_prompts_that_are_repeated_too_often_are_refused(file: Path) -> None:
    few, many = (reinforced(steps, data=corpus(file, max_epochs=2)) for steps in (2, 200))
    tokens = data.prepare(few.data)
    data.check_enough(tokens, few)
    assert data.epochs_of(tokens.manifest, few) == 2 * 4 / tokens.manifest.train_documents
    with pytest.raises(UserError, match=r"800 prompts would be \d+\.?\d* epochs of the \d+ of .*, more than data.max_"):
        data.check_enough(tokens, many)


@pytest.mark.parametrize(
    ("source", "objective", "sentence"),
    [
        ({"source": "mix: 0.5 * a.jsonl + 0.5 * b.jsonl"}, {}, "is a mixture; put the records of all into one folder"),
        ({"unique_tokens": 4096}, {}, "unique_tokens = 4096 limits text, .* give fewer records for fewer prompts"),
        ({}, {"prompt_tokens": 30}, "prompts of up to 30 tokens and answers of 4 do not fit .* at least 33"),
        ({}, {"prompt_tokens": 1}, r"prompt_tokens = 1: .* take at least 2"),
        ({}, {"answer_tokens": 32}, "answers of 32 tokens leave no room for a prompt in context = 32; .* at most 31"),
        (None, {"prompt_tokens": 9}, "prompt_tokens = 9 is for the prompts of a corpus; of tasks .*: leave it out"),
        (None, {"checker": "number"}, "checker = 'number' is for the prompts of a corpus; of tasks .*: leave it out"),
        ({"rejected_field": "no", "layout": None}, {}, "makes pairs of answers, which objective = Reinforcement"),
    ],
    ids=str,
)
def test_prompts_that_cannot_be_asked_are_one_sentence(
    source: dict[str, Any] | None, objective: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        given = FIRST.data if source is None else corpus(Path("a.jsonl"), **source)
        reinforced(8, data=given, objective=objective)


def test_a_prompt_takes_what_the_answer_leaves() -> None:
    whole = reinforced(8, data=corpus(Path("a.jsonl")))
    assert whole.prompt_tokens == MODEL.context + 1 - ANSWER
    short = reinforced(8, data=corpus(Path("a.jsonl")), objective={"prompt_tokens": 9})
    assert (short.prompt_tokens, reinforced(8).prompt_tokens) == (9, 9)
    assert drawing_flops(short) == drawing_flops(reinforced(8)) < drawing_flops(whole)
    assert whole.scores_answers and not reinforced(8).scores_answers
    assert re.fullmatch(r"[0-9a-f]{12}", short.run_id) and short.run_id != whole.run_id
