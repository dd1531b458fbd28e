"""Official files become items, prompts and scores; the wrong ones become a sentence."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lmscale.core.errors import UserError
from lmscale.lm.eval.tasks import Item, Metric, NotFinite, Response, Shots, Task, exemplars, load, prompt, scores
from lmscale.lm.eval.tasks.scores import edits

MMLU_ROW = '"Which are even, ""2"" or 3?",2,3,"2, 3",none,A\n'
WIC_ROW = {"sentence1": "A bank holds.", "sentence2": "The bank.", "start1": 2, "end1": 6, "label": False, "idx": 7}
OWN: dict[str, Any] = {"name": "x", "metrics": ["accuracy"], "items": []}
THIRD = {"question": "?", "choices": ["a", "b"], "gold": 2}
FLAT = {"input": "", "target_scores": {"a": 0, "b": 0}}
EXAMPLE = {"input": "1 + 1 =", "target": "2", "target_scores": {"3": 0, "2": 1, "11": 0.5}}


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def bigbench(path: Path, **given: Any) -> Path:
    task = {"name": "sums", "metrics": ["multiple_choice_grade", "exact_str_match"], "examples": [EXAMPLE]}
    return write(path, {**task, **given})


def test_bigbench_is_written_as_its_own_evaluation_writes_it(tmp_path: Path) -> None:
    (task,) = load(f"bigbench:{bigbench(tmp_path / 'task.json', task_prefix='Add.')}")
    (item,) = task.items
    # The order of numpy's RandomState(42).permutation(["11", "2", "3"]), written out by hand.
    order = np.random.RandomState(42).permutation(["11", "2", "3"])
    assert item.question == "\nQ: 1 + 1 =" + "".join(f"\n  choice: {choice}" for choice in order) + "\nA: "
    assert (item.choices, item.gold, item.right, item.answers) == (("3", "2", "11"), (0.0, 1.0, 0.5), (1,), ("2",))
    assert prompt(task, item, Shots()) == ((), "Add.", item.question)
    assert task.metrics[0] == "grade" and {"exact_match", "gold_bits_per_byte"} <= set(task.metrics)


def test_bigbench_settings_change_prompt_and_answer(tmp_path: Path) -> None:
    given = {"append_choices_to_input": False, "example_input_prefix": "", "example_output_prefix": " "}
    settings = {**given, "output_regex": r"\d+", "metrics": ["exact_str_match", "bleu"], "canary": "keep"}
    (task,) = load(f"bigbench:{bigbench(tmp_path / 'task.json', **settings, examples=[EXAMPLE, EXAMPLE])}")
    assert [item.question for item in task.items] == ["1 + 1 = "]
    assert task.answer_in(" so 12, or 13") == "12" and task.answer_in("none") == ""
    assert task.left_out == ("metric bleu", "1 duplicate examples")
    (stopped,) = load(f"bigbench:{bigbench(tmp_path / 'task.json', stop_string='!')}")
    assert stopped.answer_in(" two; yes! no") == "two; yes"


def test_subtasks_are_tasks(tmp_path: Path) -> None:
    write(tmp_path / "task.json", {"name": "all"})
    for part in ("b", "a"):
        bigbench(tmp_path / part / "task.json")
    assert [task.name for task in load(f"bigbench:{tmp_path}")] == ["all:a", "all:b"]


def test_mmlu_shows_the_development_questions(tmp_path: Path) -> None:
    write(tmp_path / "test" / "some_facts_test.csv", MMLU_ROW)
    write(tmp_path / "dev" / "some_facts_dev.csv", "What?,a,b,c,d,C\nWhy?,a,b,c,d,D\n")
    (task,) = load(f"mmlu:{tmp_path}")
    (item,) = task.items
    given = prompt(task, item, Shots(1))
    assert given.opening == (
        "The following are multiple choice questions (with answers) about some facts.\n\n"
        "What?\nA. a\nB. b\nC. c\nD. d\nAnswer: C\n\n"
    )
    assert given.question == 'Which are even, "2" or 3?\nA. 2\nB. 3\nC. 2, 3\nD. none\nAnswer:'
    assert (item.choices, item.right) == (("A", "B", "C", "D"), (0,))
    with pytest.raises(UserError, match=r"has 2 other items to show, fewer than the 3 shots"):
        prompt(task, item, Shots(3))


def test_truthfulqa_has_one_truth_or_all(tmp_path: Path) -> None:
    header = "Type,Category,Question,Best Answer,Correct Answers,Incorrect Answers,Source\n"
    write(tmp_path / "TruthfulQA.csv", header + "A,B,Is it?,Yes,Yes; It is.,No; Never; No,x\n")
    one, every = load(f"truthfulqa:{tmp_path}")
    assert one.items[0].choices == ("Yes.", "No.", "Never.") and one.items[0].right == (0,)
    assert every.items[0].choices == ("Yes.", "It is.", "I have no comment.", "No.", "Never.")
    assert every.items[0].right == (0, 1, 2)
    given = prompt(one, one.items[0], Shots())
    assert given.opening.startswith("Q: What is human life") and given.question == "Q: Is it?\nA:"


def test_word_in_context_asks_for_the_word_as_written(tmp_path: Path) -> None:
    (task,) = load(f"wic:{write(tmp_path / 'val.jsonl', WIC_ROW)}")
    assert "Is the word 'bank' used" in task.items[0].question
    assert (task.items[0].name, task.items[0].choices, task.items[0].right) == ("7", ("no", "yes"), (0,))


def test_gsm8k_is_right_when_the_number_is(tmp_path: Path) -> None:
    row = {"question": "Two dozen eggs?", "answer": "2*12=24\n#### 1,024"}
    (task,) = load(f"gsm8k:{write(tmp_path / 'test.jsonl', row)}")

    def match(text: str) -> float:
        return scores(task, [Response("0", answer_logprobs=(-1.0,), generated=text)])[0].score

    answers = [" #### 1024", " so\n#### 1,024.\nQuestion: #### 7", " #### 24", " 1024"]
    assert [match(text) for text in answers] == [1, 1, 0, 0]


def test_a_language_of_tasks_brings_its_chance() -> None:
    tasks = {task.name: task for task in load('synthetic:tasks(letters=3, length=4, only="copy")')}
    copy = tasks["copy"]
    chance = dict(copy.chance)
    assert chance["exact_match"] == pytest.approx(3**-4) and chance["share_in_place"] == pytest.approx(1 / 3)
    right = [Response(item.name, answer_logprobs=(-1.0,), generated=item.answers[0]) for item in copy.items]
    assert [(score.metric, score.score, score.chance) for score in scores(copy, right)[:2]] == [
        ("exact_match", 1.0, chance["exact_match"]),
        ("share_in_place", 1.0, chance["share_in_place"]),
    ]
    documents, opening, question = prompt(copy, copy.items[0], Shots(2))
    assert len(documents) == 2 and all(text.startswith("copy ") for text in documents)
    assert (opening, question) == ("", copy.items[0].question)


def test_a_task_of_ones_own(tmp_path: Path) -> None:
    items = [
        {"question": "France:", "choices": ["Rome", "Paris"], "gold": 1},
        {"question": "Italy:", "choices": ["Rome", "Roma", "Bern"], "gold": [1, 1, 0], "name": "it"},
    ]
    (task,) = load(f"task:{write(tmp_path / 't.json', {'name': 'capitals', 'metrics': ['accuracy'], 'items': items})}")
    assert [item.right for item in task.items] == [(1,), (0, 1)] and task.items[1].name == "it"


def test_shots_are_seeded_and_never_the_question_itself() -> None:
    items = tuple(Item(str(i), f"{i}?", answers=(str(i),)) for i in range(9))
    task = Task("digits", items, ("exact_match",))
    for draw in ("shared", "each"):
        drawn = [exemplars(task, item, Shots(3, seed=1, draw=draw)) for item in items]  # type: ignore[arg-type]
        assert all(len(shown) == 3 and item not in shown for item, shown in zip(items, drawn))
        assert drawn == [exemplars(task, item, Shots(3, seed=1, draw=draw)) for item in items]  # type: ignore[arg-type]
        openings = {shown for item, shown in zip(items, drawn)}
        assert len(openings) <= 4 if draw == "shared" else len(openings) > 6
    assert exemplars(task, items[0], Shots(3, seed=1)) != exemplars(task, items[0], Shots(3, seed=2))


THREE = Item("a", "?", ("x", "long", "éé"), (1.0, 0.0, 1.0))
"""Two right choices; the last takes four bytes."""


def of(metric: str, *nats: float, item: Item = THREE) -> float:
    task = Task("t", (item,), (metric,))  # type: ignore[arg-type]
    return scores(task, [Response(item.name, choice_logprobs=nats)])[0].score


def test_scores_by_hand() -> None:
    nats = (math.log(0.1), math.log(0.15), math.log(0.25))  # of all texts; .2, .3, .5 among themselves
    assert of("accuracy", *nats) == 1 and of("grade", *nats) == 1
    assert of("gold_probability", *nats) == pytest.approx(0.7)
    assert of("brier", *nats) == pytest.approx((0.2 - 0.5) ** 2 + 0.3**2 + 0)
    assert of("accuracy", -2.0, -1.0, -3.0) == 0
    assert of("accuracy_per_character", -2.0, -2.0, -2.0) == 0  # -2, -.5, -1
    assert of("accuracy_per_byte", -2.0, -2.1, -2.0) == 1  # -2, -.525, -.5
    assert of("gold_bits_per_byte", *nats) == pytest.approx(-math.log2(0.25) / 5)  # a space and four bytes
    assert of("calibration_error", *nats) == pytest.approx(0.5)
    partial = Item("a", "?", ("x", "y"), (1.0, 0.3))
    assert of("grade", -2.0, -1.0, item=partial) == 0.3 and of("accuracy", -2.0, -1.0, item=partial) == 0


def test_standard_error_chance_and_order() -> None:
    items = tuple(
        Item(str(i), "?", ("a", "b", "c", "d")[: 2 + 2 * (i % 2)], (1.0, 0.0, 0.0, 0.0)[: 2 + 2 * (i % 2)])
        for i in range(4)
    )
    task = Task("t", items, ("accuracy", "brier"))
    logprobs = [(0.0 if i else -9.0, *(-5.0 for _ in items[i].choices[1:])) for i in range(4)]
    responses = [Response(str(i), choice_logprobs=logprobs[i]) for i in range(4)]
    accuracy, brier = scores(task, responses[::-1], shots=2)
    assert (accuracy.score, accuracy.n, accuracy.shots, accuracy.kind) == (0.75, 4, 2, "hard")
    assert accuracy.stderr == pytest.approx(np.std([0, 1, 1, 1], ddof=1) / 2)
    assert accuracy.chance == pytest.approx((1 / 2 + 1 / 4) / 2) and brier.chance == pytest.approx((1 / 2 + 3 / 4) / 2)
    assert not brier.higher_is_better
    with pytest.raises(UserError, match="1 items have no response, the first is 2"):
        scores(task, [responses[0], responses[1], responses[3]])


def test_calibration_of_a_calibrated_and_a_certain_model() -> None:
    items = tuple(Item(str(i), "?", ("a", "b"), (1.0, 0.0)) for i in range(200))
    task = Task("t", items, ("calibration_error",))
    by_confidence = {0.75: [], 1 - 1e-9: []}  # type: ignore[var-annotated]
    for sure, responses in by_confidence.items():
        for i in range(200):
            first = sure if i % 4 else 1 - sure  # three in four are right
            responses.append(Response(str(i), choice_logprobs=(math.log(first), math.log(1 - first))))
    good, bad = (scores(task, responses)[0] for responses in by_confidence.values())
    assert good.score == pytest.approx(0, abs=1e-9) and bad.score == pytest.approx(0.25, abs=1e-6)
    assert bad.stderr == pytest.approx(math.sqrt(0.25 * 0.75 / 200), rel=0.2)


@pytest.mark.parametrize(
    ("one", "other", "least"), [("", "abc", 3), ("kitten", "sitting", 3), ("ab", "ab", 0), ("é", "e", 1)]
)
def test_least_edits(one: str, other: str, least: int) -> None:
    assert edits(one, other) == edits(other, one) == least


@pytest.mark.parametrize(
    ("spec", "content", "sentence"),
    [
        ("mlu", None, r"'mlu:.*' names no tasks: write FORMAT:PATH or .*; did you mean 'mmlu'\?"),
        ("wic", None, r"there is no .*; give the benchmark's file or folder, nothing is downloaded"),
        ("wic", "{", r"f, line 1 is not JSON"),
        ("wic", "[]", r"f, line 1: a list stands where an object is expected"),
        ("wic", {**WIC_ROW, "label": 1}, r"line 1: the field 'label' is 1; it must be a bool"),
        ("wic", {"sentence1": "a"}, r"line 1: the field 'sentence2' is missing; there are 'sentence1'"),
        ("mmlu", "q,a,b,c,d,E\n", r"row 1: .* is not a question, four choices and a letter A to D"),
        ("truthfulqa", "Question\n", r"column 'Best Answer' is missing; there are Question"),
        ("gsm8k", {"question": "?", "answer": "4"}, r"the field 'answer' does not end in '#### ' and a number"),
        ("bigbench", {"name": "x"}, r"has neither examples nor subtasks"),
        ("bigbench", {"name": "x", "examples": [{"target": "1"}]}, r"example 0: the field 'input' is missing"),
        ("bigbench", {"name": "x", "examples": [FLAT]}, r"item 0: gold = \[0.0, 0.0\] makes no choice better"),
        ("task", {**OWN, "metrics": ["acc"]}, r"there is no metric 'acc'; there are accuracy"),
        ("task", OWN, r"task x has no items"),
        ("task", {**OWN, "items": [THIRD]}, r"items 0: gold = 2; the 2 choices are numbered from 0"),
        ("task", {**OWN, "items": [{"question": "?"}]}, r"item 0: neither choices nor answers"),
        ("task", {**OWN, "shots": 2}, r"there is no field 'shots'"),
    ],
)  # fmt: skip
def test_a_malformed_file_is_one_sentence(spec: str, content: Any, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "f"
    if content is not None:
        write(file, content)
    with pytest.raises(UserError, match=sentence):
        load(f"{spec}:{file}")


@pytest.mark.long
def test_official_files_whole(shared: Path) -> None:
    place = shared / "data" / "benchmarks"
    count = {
        name: (len(tasks), sum(len(task.items) for task in tasks))
        for name in ("mmlu", "truthfulqa", "wic", "gsm8k")
        for tasks in [load(f"{name}:{place / name}")]
    }
    assert count == {"mmlu": (57, 14_042), "truthfulqa": (2, 2 * 817), "wic": (1, 24), "gsm8k": (1, 1319)}
    assert len(load(f"stories:{place / 'tinystories_prompts'}")[0].items) == 44
    tasks_by_name = {path.name: load(f"bigbench:{path}") for path in sorted((place / "bigbench").iterdir())}
    assert len(tasks_by_name) == 17 and len(tasks_by_name["arithmetic"]) == 20
    for tasks in tasks_by_name.values():
        for task in tasks:
            for item in task.items[:20]:
                assert prompt(task, item, Shots(2)).question == item.question
                assert not item.answers or task.right_answers(item)


CHOICES: tuple[Metric, ...] = (
    "accuracy", "accuracy_per_byte", "accuracy_per_character", "grade", "gold_probability", "calibration_error",
)  # fmt: skip


@pytest.mark.parametrize("right", [0, 1])
@pytest.mark.parametrize("rounding", [0.0, 1e-7])
def test_a_model_that_knows_nothing_is_at_chance(right: int, rounding: float) -> None:
    """All choices equally likely, whichever stands first and whatever the last bit is."""
    gold = tuple(float(number == right) for number in range(2))
    items = tuple(Item(str(number), "q", ("good one", "evil one"), gold) for number in range(10))
    equal = [Response(item.name, (-5.0, -5.0 * (1 + rounding)), (False, False)) for item in items]
    for one in scores(Task("pairs", items, CHOICES), equal):
        expected = 0.0 if one.metric == "calibration_error" else 0.5
        assert one.score == pytest.approx(expected, abs=1e-6), one.metric
        assert one.chance in (None, 0.5)


def test_a_tie_is_shared_among_the_tied() -> None:
    """Two of three tied, one of them right; per byte and per character others tie than in sum."""
    item = Item("0", "q", ("éé", "ab", "abcd"), (1.0, 0.0, 0.5))
    task = Task("ties", (item,), ("accuracy", "grade", "accuracy_per_byte", "accuracy_per_character"))
    by_metric = {one.metric: one.score for one in scores(task, [Response("0", (-4.0, -4.0, -9.0), (False,) * 3)])}
    assert by_metric == {"accuracy": 0.5, "grade": 0.5, "accuracy_per_byte": 1.0, "accuracy_per_character": 0.5}
    by_metric = {one.metric: one.score for one in scores(task, [Response("0", (-4.0, -5.0, -4.0), (False,) * 3)])}
    assert by_metric == {"accuracy": 0.5, "grade": 0.75, "accuracy_per_byte": 0.5, "accuracy_per_character": 0.0}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_nan_is_neither_right_nor_wrong(bad: float) -> None:
    items = tuple(Item(str(number), "q", ("a", "b"), (1.0, 0.0), answers=("a",)) for number in range(3))
    task = Task("pairs", items, ("accuracy", "gold_bits_per_byte"))
    for broken in (Response("1", (bad, -1.0), (False, False), (-1.0,)), Response("1", (-2.0, -1.0), (), (bad,))):
        responses = [Response(name, (-1.0, -2.0), (True, False), (-1.0,)) for name in "02"] + [broken]
        with pytest.raises(NotFinite, match=r"task pairs: .* 1 of 3 items are not finite, first of item 1"):
            scores(task, responses)


def test_bits_per_byte_count_bytes_and_the_delimiter() -> None:
    task = Task("cb", (Item("0", "q", ("ééé", "abcde"), (1.0, 0.0)),), ("gold_bits_per_byte",))
    (one,) = scores(task, [Response("0", (-6.0, -6.5), (False, False))])
    assert one.score == pytest.approx(6 / math.log(2) / 7)
