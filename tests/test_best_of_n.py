"""The best of n: its expected score and its KL against sums over every draw, and as an evaluation of a run."""

import io
import itertools
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from lmscale.commands import eval as eval_verb
from lmscale.core.best_of_n import drawn_kl_nats, expected_best, kl_bound_nats, kl_with_ties_nats, tied_share
from lmscale.core.config import DataConfig, ModelConfig, OptimizerConfig, RewardModel, RunConfig
from lmscale.core.errors import UserError
from lmscale.core.run_folder import SCORES_FILE
from lmscale.core.scores import best_measured, read_rows
from lmscale.lm.devices import machine
from lmscale.lm.eval.tasks import Shots, load
from lmscale.lm.train.loop import train
from lmscale.lm.use import best_of_n, score_tasks
from lmscale.lm.use.best_of_n import Choice
from lmscale.lm.use.drawn_answers import draw_answers, item_scores
from lmscale.study.laws.reinforcement import BestOfN


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_the_expected_best_is_the_mean_over_all_choices(n: int) -> None:
    rng = np.random.default_rng(0)
    rewards = np.stack([rng.normal(size=5), np.array([1.0, 0, 1, 0, 0]), np.zeros(5)])
    scores = rng.normal(size=(3, 5))
    expected = []
    for earned, score in zip(rewards, scores):
        means = []
        for chosen in itertools.combinations(range(5), n):
            best = [index for index in chosen if earned[index] == max(earned[list(chosen)])]
            means.append(score[best].mean())
        expected.append(np.mean(means))
    np.testing.assert_allclose(expected_best(rewards, scores, n), expected, rtol=1e-12)


def test_of_right_and_wrong_answers_it_is_the_estimate_of_pass_at_k() -> None:
    right = np.array([[1.0] * 3 + [0.0] * 7])
    for k in (1, 4, 7, 8):
        assert expected_best(right, right, k) == pytest.approx(1 - math.comb(7, k) / math.comb(10, k))


@pytest.mark.parametrize("n", [1, 2, 4])
def test_the_kl_with_ties_is_that_of_all_draws(n: int) -> None:
    """Five answers, of which three earn the same: the distribution of the best, one draw of n after another."""
    p, reward = np.array([0.1, 0.25, 0.3, 0.2, 0.15]), np.array([0.0, 1, 1, 2, 1])
    best = np.zeros(5)
    for draw in itertools.product(range(5), repeat=n):
        top = [index for index in draw if reward[index] == max(reward[list(draw)])]
        for index in top:
            best[index] += p[list(draw)].prod() / len(top)
    assert best.sum() == pytest.approx(1)
    exact = (best * np.log(best / p)).sum()
    shares = np.array([p[reward == level].sum() for level in (0, 1, 2)])
    assert kl_with_ties_nats(shares, n) == pytest.approx(exact, abs=1e-12)
    assert exact <= kl_bound_nats(n) + 1e-12 and (n == 1 or exact < kl_bound_nats(n) - 0.05)


@pytest.mark.parametrize("n", [1, 2, 8, 64])
def test_without_ties_the_bound_is_exact(n: int) -> None:
    """Beirami 2024: rewards that are all different and each of which is rare."""
    many = 100_000
    assert kl_with_ties_nats(np.full(many, 1 / many), n) == pytest.approx(kl_bound_nats(n), rel=1e-3, abs=1e-9)
    assert BestOfN.kl_of(n) == kl_bound_nats(n)


def test_rewards_that_are_all_equal_choose_nothing() -> None:
    equal, half = np.ones((2, 4)), np.array([[0.0, 0, 1, 1]])
    assert drawn_kl_nats(equal, 4) == 0 and tied_share(equal) == 1
    assert tied_share(half) == pytest.approx(1 / 3) and tied_share(np.arange(4.0)[None]) == 0
    p = 0.75  # of best of two: 3/4 earn 1, 1/4 earn 0, and half did
    assert drawn_kl_nats(half, 2) == pytest.approx(p * math.log(p / 0.5) + (1 - p) * math.log((1 - p) / 0.5))


@pytest.mark.long
def test_a_jointly_gaussian_gold_reward_rises_with_the_mean_of_the_largest() -> None:
    """E of the best of n by the proxy is rho times the mean of the largest of n normal numbers: 0, 1/sqrt(pi), ..."""
    rng, rho = np.random.default_rng(3), 0.6
    proxy = rng.normal(size=(4_000, 8))
    gold = rho * proxy + math.sqrt(1 - rho**2) * rng.normal(size=proxy.shape)
    for n, largest in ((1, 0.0), (2, 1 / math.sqrt(math.pi)), (3, 1.5 / math.sqrt(math.pi)), (8, 1.4236)):
        assert expected_best(proxy, gold, n).mean() == pytest.approx(rho * largest, abs=4 * 1 / math.sqrt(4_000))


# From here on an evaluation of runs: a policy that copies two letters often, and a reward model of what is right.

LANGUAGE = 'synthetic:tasks(letters=2, length=2, only="copy")'
POLICY = RunConfig(
    model=ModelConfig(width=32, layers=1, heads=2, context=32),
    optimizer=OptimizerConfig(peak_lr=0.02, batch_sequences=16),
    data=DataConfig(source=LANGUAGE),
    tokens=50 * 16 * 32,
    validation_tokens=1024,
)
WORDS = ["".join(letters) for letters in itertools.product("ab", repeat=2)]
PAIRS = [{"prompt": f"copy {x}=", "chosen": x, "rejected": y} for x in WORDS for y in WORDS if x != y]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, compiled_programs: Path) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    pairs = folder / "pairs.jsonl"
    pairs.write_text("".join(json.dumps(pair) + "\n" for pair in PAIRS * 4), encoding="utf-8")
    preferences = {"template": "preference", "validation_fraction": 0.2, "max_epochs": 10_000}
    judge = replace(
        POLICY,
        model=replace(POLICY.model, scalar_head=True),
        data=DataConfig(source=str(pairs), rejected_field="rejected", **preferences),
        objective=RewardModel(),
        tokens=40 * 16 * 32,
        validation_tokens=256,
    )
    folders = {"policy": folder / POLICY.run_id, "judge": folder / judge.run_id}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine, "matmul_peak", lambda dtype: 1e11)
        train(POLICY, folders["policy"])
        train(judge, folders["judge"])
    return folders


def show(run: Path, choice: Choice, tasks: str = LANGUAGE, items: int = 20) -> tuple[str, list[dict[str, Any]]]:
    """What is printed, and the rows that are new."""
    before = read_rows(run / SCORES_FILE)
    console = Console(file=io.StringIO(), width=400, highlight=False)
    best_of_n.show(run, [tasks], [Shots()], items, choice, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue(), [row for row in read_rows(run / SCORES_FILE) if row not in before]


@pytest.mark.long
def test_the_best_by_a_checker_is_written_as_scores(runs: dict[str, Path]) -> None:
    printed, rows = show(runs["policy"], Choice((1, 2, 8), answers=32))
    names = [f"copy, best of {n} by checker" for n in (1, 2, 8)]
    assert [(row["task"], row["metric"]) for row in rows] == [
        (name, metric) for name in names for metric in ("exact_match", "share_in_place")
    ]
    exact = [row["score"] for row in rows if row["metric"] == "exact_match"]
    assert 0 < exact[0] < exact[1] < exact[2] <= 1
    for row in rows:
        assert row["kl_bound_nats"] == kl_bound_nats(row["best_of"]) and row["reward"] == "checker"
        assert 0 <= row["kl_nats"] < row["kl_bound_nats"] or row["best_of"] == 1
        assert (row["kind"], row["chance"], row["n"], row["answers"]) == ("graded", None, 20, 32)
        assert row["step"] == 50 and row["params"] > 0
    assert "best of 8: KL from the policy at most 1.2044 nats" in printed and "of the pairs of answers tie" in printed
    responses = [json.loads(line) for line in (runs["policy"] / rows[0]["responses"]).read_text().splitlines()]
    right = np.array([line["exact_match"] for line in responses])
    assert right.shape == (20, 32) and [len(line["answers"]) for line in responses] == [32] * 20
    for n, score in zip((1, 2, 8), exact):
        wrong = 32 - right.sum(axis=1)
        assert score == pytest.approx(np.mean([1 - math.comb(int(w), n) / math.comb(32, n) for w in wrong]))
    best, notes = best_measured(read_rows(runs["policy"] / SCORES_FILE))
    assert [row for row in best if row.get("best_of")] == rows and not notes


@pytest.mark.long
def test_any_answer_is_right_as_often_as_the_model_says(runs: dict[str, Path]) -> None:
    scorer, _ = score_tasks.newest_scorer(runs["policy"])
    (task,) = load(LANGUAGE)
    task = replace(task, items=task.items[:20])
    p = np.exp([response.answer_logprobs[0] for response in scorer.responses(task)])
    drawn = draw_answers(scorer, task, Shots(), 200, seed=4)
    right = item_scores("exact_match", task, drawn).mean(axis=1)
    assert 0.05 < p.mean() < 0.98
    assert ((right - p) ** 2 / (p * (1 - p) / 200)).sum() < 20 + 4 * math.sqrt(2 * 20)


@pytest.mark.long
def test_the_same_seed_draws_the_same_and_another_stands_beside_it(runs: dict[str, Path]) -> None:
    _, first = show(runs["policy"], Choice((4,), answers=8, seed=1))
    assert first and not show(runs["policy"], Choice((4,), answers=8, seed=1))[1]
    _, other = show(runs["policy"], Choice((4,), answers=8, seed=2))
    assert [row["metric"] for row in other] == [row["metric"] for row in first]
    assert {row["task_hash"] for row in first}.isdisjoint(row["task_hash"] for row in other)


@pytest.mark.long
def test_the_best_by_a_reward_model_earns_more_of_it(runs: dict[str, Path]) -> None:
    _, rows = show(runs["policy"], Choice((1, 4), answers=16, reward=runs["judge"]))
    name = f"{runs['judge'].name}@40"
    assert {row["reward"] for row in rows} == {name} and rows[0]["task"] == f"copy, best of 1 by {name}"
    earned, exact = ([row["score"] for row in rows if row["metric"] == metric] for metric in ("reward", "exact_match"))
    assert earned[1] > earned[0] and exact[1] > exact[0]
    responses = [json.loads(line) for line in (runs["policy"] / rows[0]["responses"]).read_text().splitlines()]
    assert len({tuple(line["reward"]) for line in responses}) > 1
    assert earned[0] == pytest.approx(np.mean([line["reward"] for line in responses]))


@pytest.mark.long
def test_what_cannot_choose_is_one_sentence(runs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a language model, which gives no reward"):
        show(runs["policy"], Choice((2,), answers=4, reward=runs["policy"]))
    with pytest.raises(UserError, match="is no run folder"):
        show(runs["policy"], Choice((2,), answers=4, reward=tmp_path))
    with pytest.raises(UserError, match="one number and no next token"):
        show(runs["judge"], Choice((2,), answers=4))
    capitals = {
        "name": "capitals",
        "metrics": ["accuracy"],
        "items": [{"question": "France:", "choices": ["Paris", "Rome"], "gold": 0}],
    }
    (tmp_path / "capitals.json").write_text(json.dumps(capitals))
    with pytest.raises(UserError, match="capitals has choices to score and no answer to generate"):
        show(runs["policy"], Choice((2,), answers=4), f"task:{tmp_path / 'capitals.json'}")
    for sizes, answers in (((8,), 4), ((0,), 4), ((2,), 10**6)):
        with pytest.raises(UserError, match="best of"):
            Choice(sizes, answers)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"reward": "runs/s/judge"}, "add --best-of N, or leave them out"),
        ({"answers": 8}, "add --best-of N, or leave them out"),
        ({"best_of": (2,), "harness": True}, "leave one of --harness and --best-of out"),
    ],
    ids=str,
)
def test_options_that_contradict_each_other(options: dict[str, Any], sentence: str) -> None:
    args = eval_verb.EvalArgs(Path("runs/s/r"), (LANGUAGE,), **options)
    with pytest.raises(UserError, match=sentence):
        eval_verb.main(args, Console(file=io.StringIO()))


@pytest.mark.long
def test_an_answer_ends_before_a_stop_of_its_task(runs: dict[str, Path]) -> None:
    scorer, _ = score_tasks.newest_scorer(runs["policy"])
    (task,) = load(LANGUAGE)
    task = replace(task, items=task.items[:3], stop=("b",), longest_answer=4)
    drawn = draw_answers(scorer, task, Shots(), 16, seed=0)
    plain = draw_answers(scorer, replace(task, stop=()), Shots(), 16, seed=0)
    assert any("b" in text for texts in plain.texts for text in texts)
    for texts, others in zip(drawn.texts, plain.texts, strict=True):
        for text, other in zip(texts, others, strict=True):
            assert text == other.split("b")[0] or (not text.strip("b") and other.startswith("b"))
