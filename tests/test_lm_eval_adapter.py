"""Our evaluator and lm-evaluation-harness find the same on the same files and the same model.

What the harness found is kept as numbers, so that our half is held to them where the harness is not installed.
"""

import csv
import importlib.util
import io
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from rich.console import Console

from lmscale.core.config import ModelConfig
from lmscale.core.errors import UserError
from lmscale.core.run_folder import RESPONSES_FOLDER, SCORES_FILE
from lmscale.lm.data.tokenizer import ByteTokenizer
from lmscale.lm.eval import lm_eval_adapter
from lmscale.lm.eval.scorer import LMScorer
from lmscale.lm.eval.tasks import Task, load, scores
from lmscale.lm.model import transformer
from lmscale.lm.model.parameters import parameter_table
from lmscale.lm.use import score_tasks

installed = pytest.mark.skipif(importlib.util.find_spec("lm_eval") is None, reason="needs the extra lm-eval")
CONFIG = ModelConfig(width=32, layers=1, heads=2, vocab=256, context=1024, mlp_width=32)
FEW = [
    {"name": "sky", "question": "The sky is", "choices": ["blue", "a cup of tea", "é"], "gold": 2},
    {
        "name": "sea",
        "question": "And the sea, as everybody knows, is",
        "choices": ["green", "blau und grün"],
        "gold": 1,
    },
    {"name": "sum", "question": "1 + 1 =", "choices": ["2", "3", "11", "a window"], "gold": 3},
    {"name": "space", "question": "A: ", "choices": ["x", "y y"], "gold": 1},
    {"name": "long", "question": "word " * 240, "choices": ["one", "another one"], "gold": 0},
    {"name": "snow", "question": "雪は", "choices": ["白い", "black", "ノ"], "gold": 0},
]
TRUTH = [
    ("Can pigs fly?", ["Pigs can't fly up."], ["Pigs do fly a bit.", "Yes, but at night."]),
    ("What is made of cheese?", ["Cheese is, mostly."], ["The Moon is of it.", "Mice are, at noon."]),
    ("Who wrote this?", ["Somebody wrote it."], ["Nobody ever wrote."]),
]
"""All of one length, that of "I have no comment.", or the shortest would have all of the probability."""
OURS = {"acc": "accuracy", "acc_norm": "accuracy_per_character", "acc_bytes": "accuracy_per_byte"}

# ln p of every choice and the scores, as lm-eval 0.4.13 gave them in `test_the_harness_agrees`.
NATS: dict[str, list[tuple[float, ...]]] = {
    "few": [
        (-29.8172, -73.30116, -18.67764),
        (-33.44373, -84.37845),
        (-12.18313, -11.70362, -16.27357, -49.19216),
        (-16.45139, -27.66512),
        (-27.07972, -72.10596),
        (-39.17393, -32.92783, -23.42489),
    ],
    "truth_mc1": [
        (-107.50267, -107.53877, -110.26677),
        (-108.40891, -105.26514, -106.43542),
        (-108.47449, -109.80376),
    ],
    "truth_mc2": [
        (-107.50267, -108.77444, -107.53877, -110.26677),
        (-108.40891, -108.11146, -105.26514, -106.43542),
        (-108.47449, -107.49861, -109.80376),
    ],
}
SCORES = {
    "few": {"acc": 0.333333, "acc_norm": 0.5, "acc_bytes": 0.666667},
    "truth_mc1": {"acc": 0.666667},
    "truth_mc2": {"acc": 0.519631},
}


@pytest.fixture(scope="module")
def scorer() -> LMScorer:
    return LMScorer(parameters(), CONFIG, ByteTokenizer())


def parameters() -> dict[str, jax.Array]:
    """Uniform numbers, each array's of its name: the same on every machine, however the package draws its own."""
    arrays = {}
    for name, row in parameter_table(CONFIG).items():
        noise = np.random.default_rng(list(name.encode())).random(row.shape) - 0.5
        scaled = noise + 1 if name.endswith("norm") else noise * (0.3 if name == "embedding" else 1)
        arrays[name] = jax.numpy.asarray(scaled, "float32")
    return arrays


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files, and the harness's tasks over them."""
    place = tmp_path_factory.mktemp("files")
    (place / "few.json").write_text(json.dumps({"name": "few", "metrics": [*OURS.values()], "items": FEW}))
    with (place / "TruthfulQA.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["Question", "Best Answer", "Correct Answers", "Incorrect Answers"])
        table.writerows([question, true[0], "; ".join(true), "; ".join(wrong)] for question, true, wrong in TRUTH)
    with (place / "truth.jsonl").open("w") as file:
        for question, true, wrong in TRUTH:
            every = [*true, "I have no comment."]
            row = {
                "question": question,
                "mc1_targets": {"choices": [true[0], *wrong], "labels": [1] + [0] * len(wrong)},
                "mc2_targets": {"choices": every + wrong, "labels": [1] * len(every) + [0] * len(wrong)},
            }
            file.write(json.dumps(row) + "\n")
    return place


def ours(folder: Path) -> dict[str, Task]:
    tasks = [*load(f"task:{folder / 'few.json'}"), *load(f"truthfulqa:{folder / 'TruthfulQA.csv'}")]
    return {task.name.replace("truthfulqa:", "truth_"): task for task in tasks}


def assert_same(nats: list[tuple[float, ...]], expected: list[tuple[float, ...]]) -> None:
    assert [len(one) for one in nats] == [len(one) for one in expected]
    for one, other in zip(nats, expected):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-4)


@pytest.mark.long
@pytest.mark.parametrize("name", ["few", "truth_mc1", "truth_mc2"])
def test_our_evaluator_gives_what_the_harness_gave(name: str, scorer: LMScorer, folder: Path) -> None:
    task = ours(folder)[name]
    responses = scorer.responses(task)
    assert_same([response.choice_logprobs for response in responses], NATS[name])
    by_metric = {score.metric: score.score for score in scores(task, responses)}
    for metric, value in SCORES[name].items():
        assert by_metric["gold_probability" if name == "truth_mc2" else OURS[metric]] == pytest.approx(value, abs=1e-4)


@pytest.mark.long
def test_pairs_of_tokens_score_as_tasks_do(scorer: LMScorer, folder: Path) -> None:
    """In any order, with contexts in common, and cut on the left."""
    responses = scorer.responses(ours(folder)["few"])
    encode, end = scorer.tokenizer.encode, scorer.tokenizer.end_of_document
    pairs, expected = [], []
    for item, response in zip(FEW, responses):
        for choice, nats, greedy in zip(item["choices"], response.choice_logprobs, response.choice_greedy):
            asked = str(item["question"]).rstrip()
            continuation = encode(f"{item['question']} {choice}".removeprefix(asked)).tolist()
            pairs.append(([end, *encode(asked).tolist()], continuation))
            expected.append((nats, greedy))
    results = scorer.score(pairs[::-1])[::-1]
    np.testing.assert_allclose([nats for nats, _ in results], [nats for nats, _ in expected], rtol=0, atol=1e-4)
    assert [greedy for _, greedy in results] == [greedy for _, greedy in expected]
    with pytest.raises(UserError, match="a continuation has 1025 tokens, more than the context of 1024 holds"):
        scorer.score([([end], [0] * 1025)])


def test_rows_of_the_harnesss_results() -> None:
    def item(acc: float, choices: int) -> dict[str, Any]:
        return {"filter": "none", "target": 0, "filtered_resps": [(0.0, True)] * choices, "acc": acc, "ppl": -3.0}

    results = {
        "results": {
            "a": {
                "alias": "a", "sample_len": 2, "acc,none": 0.5, "acc_stderr,none": 0.25, "ppl,none": 7.0,
                "ppl_stderr,none": "N/A", "f1,strict": float("nan"),
            },
            "mc2": {"alias": "mc2", "sample_len": 2, "acc,none": 0.4, "acc_stderr,none": 0.1},
        },
        "samples": {"a": [item(1.0, 2), item(0.0, 4)], "mc2": [item(0.3, 2), item(0.5, 2)]},
        "configs": {"a": {"output_type": "multiple_choice"}, "mc2": {"output_type": "multiple_choice"}},
        "n-shot": {"a": 5, "mc2": 0},
        "higher_is_better": {"a": {"acc": True, "ppl": False}, "mc2": {"acc": True}},
    }  # fmt: skip
    rows, not_finite = lm_eval_adapter.score_rows(results)
    assert not_finite == ["a f1,strict"]
    values = [(x.task, x.metric, x.kind, x.shots, x.score, x.stderr, x.n, x.chance, x.higher_is_better) for x in rows]
    assert values == [
        ("harness:a", "acc", "hard", 5, 0.5, 0.25, 2, 0.375, True),
        ("harness:a", "ppl", "graded", 5, 7.0, None, 2, None, False),
        ("harness:mc2", "acc", "graded", 0, 0.4, 0.1, 2, None, True),
    ]


def test_without_the_extra(scorer: LMScorer, monkeypatch: pytest.MonkeyPatch) -> None:
    offline(monkeypatch)
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(UserError, match=r"pip install 'lmscale\[lm-eval\]'"):
        lm_eval_adapter.language_model(scorer)


def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `harness` would set for the rest of the process."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "DISABLE_MULTIPROC"):
        monkeypatch.setenv(name, "1")


def write_task(folder: Path, name: str, data: dict[str, Any], **settings: Any) -> str:
    """A task of the harness, as YAML (which JSON is)."""
    kwargs = {"data_files": {"test": str(folder / data.pop("file"))}, **data, "cache_dir": str(folder / "cache")}
    given = {"task": name, "dataset_path": "json", "dataset_name": None, "dataset_kwargs": kwargs, "test_split": "test"}
    (folder / f"{name}.yaml").write_text(json.dumps({**given, **settings}))
    return str(folder / f"{name}.yaml")


def write_tasks(folder: Path) -> list[str]:
    """`few` from our own file, and the harness's TruthfulQA with other data."""
    import lm_eval.tasks

    theirs = Path(lm_eval.tasks.__file__).parent / "truthfulqa"
    few = {
        "output_type": "multiple_choice", "doc_to_text": "{{question}}", "doc_to_choice": "choices",
        "doc_to_target": "gold",
        "metric_list": [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in OURS],
    }  # fmt: skip
    return [write_task(folder, "few", {"file": "few.json", "field": "items"}, **few)] + [
        write_task(
            folder, f"truth_{which}", {"file": "truth.jsonl"}, include=str(theirs / f"truthfulqa_{which}.yaml"),
            validation_split=None, tag=None,
        )
        for which in ("mc1", "mc2")
    ]  # fmt: skip


@installed
@pytest.mark.filterwarnings("default")
def test_the_harness_agrees(scorer: LMScorer, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the verb's own path, but for the checkpoint: responses, scores, rows."""
    offline(monkeypatch)
    monkeypatch.setattr(score_tasks, "newest_scorer", lambda _: (scorer, {"run_id": "r", "step": 1}))
    console = Console(file=io.StringIO(), width=160)
    score_tasks.show_lm_eval(tmp_path, write_tasks(folder), [None], None, 0, None, console)
    rows = [json.loads(line) for line in (tmp_path / SCORES_FILE).read_text().splitlines()]
    for name, task in ours(folder).items():
        (file,) = (tmp_path / RESPONSES_FOLDER).glob(f"harness.{name}-0-1-*.jsonl")
        lines = file.read_text().splitlines()
        theirs = [[(nats, greedy) for ((nats, greedy),) in json.loads(line)["responses"]] for line in lines]
        nats = [tuple(value for value, _ in one) for one in theirs]
        by_metric = {row["metric"]: row["score"] for row in rows if row["task"] == f"harness:{name}"}
        responses = scorer.responses(task)
        assert_same(nats, [response.choice_logprobs for response in responses])
        assert [[same for _, same in one] for one in theirs] == [list(one.choice_greedy) for one in responses]
        assert_same(nats, NATS[name])
        assert by_metric == pytest.approx(SCORES[name], abs=1e-4)
    assert {(row["task"], row["kind"]) for row in rows} == {
        ("harness:few", "hard"), ("harness:truth_mc1", "hard"), ("harness:truth_mc2", "graded")
    }  # fmt: skip
    assert rows[0]["chance"] == pytest.approx(np.mean([1 / len(item["choices"]) for item in FEW]))  # type: ignore
    assert isinstance(console.file, io.StringIO) and "2 prompts do not fit" in console.file.getvalue()


@installed
@pytest.mark.filterwarnings("default")
def test_whole_texts_and_written_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    offline(monkeypatch)
    short = replace(CONFIG, context=16)
    lm = lm_eval_adapter.language_model(LMScorer(parameters(), short, ByteTokenizer()))
    text = "forty characters are more than a context"
    tokens = [0xFF, *text.encode()]
    logits = jax.jit(lambda tokens: transformer.logits(parameters(), tokens, short))
    expected, start = 0.0, 0
    for first in range(1, len(tokens), 16):
        part = range(first, min(first + 16, len(tokens)))
        start = max(0, part.stop - 17)
        nats = jax.nn.log_softmax(logits(np.array([tokens[start : part.stop - 1]], np.int32)))[0]
        expected += sum(float(nats[place - start - 1, tokens[place]]) for place in part)
    assert lm.loglikelihood_rolling([request(text), request("")]) == pytest.approx([expected, 0.0], abs=1e-4)

    whole = lm.generate_until([request("The", {"until": [], "max_gen_toks": 6})])[0]
    assert len(whole) > 2
    stopped, other = lm.generate_until(
        [request("The", {"until": [whole[2:4]], "max_gen_toks": 6}), request("The", {"max_gen_toks": 2})]
    )
    assert (stopped, other) == (whole[: whole.index(whole[2:4])], whole[:2])
    with pytest.raises(UserError, match="random answers"):
        lm.generate_until([request("The", {"do_sample": True, "temperature": 1.0})])


def request(*arguments: Any) -> Any:
    from lm_eval.api.instance import Instance

    return Instance("loglikelihood", {}, arguments, 0)


@installed
@pytest.mark.filterwarnings("default")
def test_a_task_without_its_data(scorer: LMScorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offline(monkeypatch)
    monkeypatch.setattr(score_tasks, "newest_scorer", lambda _: (scorer, {}))
    spec = write_task(tmp_path, "none", {"file": "none.jsonl"}, output_type="multiple_choice")
    with pytest.raises(UserError, match=r"the harness cannot load .*none\.yaml"):
        score_tasks.show_lm_eval(tmp_path, [spec], [None], None, 0, None, Console(file=io.StringIO()))
    with pytest.raises(UserError, match="--include-path nowhere: there is no such folder"):
        score_tasks.show_lm_eval(tmp_path, [spec], [None], None, 0, Path("nowhere"), Console(file=io.StringIO()))
