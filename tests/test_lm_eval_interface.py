"""What lmscale asks of lm-evaluation-harness and answers to it, with a stand-in for the library and for the model."""

import io
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from lmscale.core.errors import UserError
from lmscale.core.run_folder import RESPONSES_FOLDER, SCORES_FILE
from lmscale.lm.data.tokenizer import ByteTokenizer
from lmscale.lm.eval import lm_eval_adapter, lm_eval_model

CONTEXT, END = 8, ByteTokenizer().end_of_document


@dataclass
class StandInScorer:
    """Scores a continuation by its length and generates a fixed text, keeping what it was asked."""

    tokenizer: ByteTokenizer = field(default_factory=ByteTokenizer)
    config: Any = field(default_factory=lambda: SimpleNamespace(context=CONTEXT))
    scored: list[tuple[list[int], list[int]]] = field(default_factory=list)
    generated: list[tuple[list[bytes], int, tuple[str, ...]]] = field(default_factory=list)

    def score(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[tuple[float, bool]]:
        self.scored += pairs
        return [(-float(len(continuation)), len(continuation) == 1) for _, continuation in pairs]

    def generate(self, prompts: list[np.ndarray], most: int, stop: Sequence[str]) -> list[str]:
        self.generated.append(([bytes(prompt.tolist()) for prompt in prompts], most, tuple(stop)))
        return ["two. three; four"] * len(prompts)


class TemplateLM:
    """Turns texts into tokens and leaves the scoring to the model, as the harness's class of this name does."""

    @property
    def prefix_token_id(self) -> int:
        return self.eot_token_id  # type: ignore[attr-defined, no-any-return]

    def loglikelihood(self, requests: Any, disable_tqdm: bool) -> Any:
        encode: Callable[..., list[int]] = self.tok_encode  # type: ignore[attr-defined]
        pairs = [(texts, encode(texts[0]), encode(texts[1], add_special_tokens=False)) for texts in requests]
        return self._loglikelihood_tokens(pairs)  # type: ignore[attr-defined]


class TaskManager:
    """Knows the task `known`, the tasks of a folder that is included, and `arc` among its own."""

    def __init__(self, include_path: list[str] | None = None, include_defaults: bool = True) -> None:
        self.all_tasks = ["known"] * bool(include_path) + ["arc"] * include_defaults

    def load(self, tasks: Any) -> Any:
        if tasks == ["broken"]:
            raise FileNotFoundError("no such data")
        return tasks


def windows(tokens: list[int], prefix: int, most: int, context_len: int) -> Iterator[tuple[list[int], list[int]]]:
    """Every token once: the first window after the prefix, each other after the token before it."""
    assert context_len == 1
    for start in range(0, len(tokens), most):
        yield ([tokens[start - 1] if start else prefix], tokens[start : start + most])


def generation_settings(given: dict[str, Any]) -> dict[str, Any]:
    return {"do_sample": False, "until": [], "max_gen_toks": 256, **given}


@pytest.fixture(autouse=True)
def library(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A stand-in for the package `lm_eval`, offline."""
    contents: dict[str, dict[str, Any]] = {
        "lm_eval": {},
        "lm_eval.api": {},
        "lm_eval.api.model": {"TemplateLM": TemplateLM},
        "lm_eval.models": {},
        "lm_eval.models.utils": {"normalize_gen_kwargs": generation_settings},
        "lm_eval.tasks": {"TaskManager": TaskManager},
        "lm_eval.utils": {"get_rolling_token_windows": windows, "make_disjoint_window": lambda window: window},
    }
    for name, values in contents.items():
        module = ModuleType(name)
        module.__dict__.update(values)
        monkeypatch.setitem(sys.modules, name, module)
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "DISABLE_MULTIPROC"):
        monkeypatch.setenv(name, "1")
    return sys.modules["lm_eval"]


def request(*arguments: Any) -> Any:
    return SimpleNamespace(args=arguments, task_name="sums")


def test_texts_begin_with_the_end_of_a_document_and_long_ones_are_counted() -> None:
    scorer = StandInScorer()
    model = lm_eval_model.language_model(scorer)  # type: ignore[arg-type]
    assert model.loglikelihood([("1 + 1 =", " 2"), ("whole", "fit"), ("a", "b")]) == [
        (-2.0, False), (-3.0, False), (-1.0, True)
    ]  # fmt: skip
    assert scorer.scored[::2] == [([END, *b"1 + 1 ="], [*b" 2"]), ([END, *b"a"], [*b"b"])]
    assert model.cut == 1  # 8 + 2 tokens, where 6 + 3 fit


def test_whole_texts_are_sums_of_their_windows() -> None:
    scorer = StandInScorer()
    model = lm_eval_model.language_model(scorer)  # type: ignore[arg-type]
    assert model.loglikelihood_rolling([request("twelve bytes"), request(""), request("abc")]) == [-12.0, 0.0, -3.0]
    assert scorer.scored == [([END], [*b"twelve b"]), ([*b"b"], [*b"ytes"]), ([END], [*b"abc"])]


def test_answers_end_before_a_stop_and_are_generated_by_equal_settings() -> None:
    scorer = StandInScorer()
    model = lm_eval_model.language_model(scorer)  # type: ignore[arg-type]
    stops = {"until": [";", "", "."], "max_gen_toks": 3}
    requests = [request("four", stops), request("a long one", {}), request("other", stops)]
    assert model.generate_until(requests) == ["two", "two. three; four", "two"]
    end = bytes([END])
    assert scorer.generated == [
        ([end + b"four", end + b"other"], 3, (";", ".")),
        ([end + b"a long one"], CONTEXT // 2, ()),
    ]
    assert model.cut == 2  # "other", 6 tokens where the 5 of "four" fit, and the long one
    with pytest.raises(UserError, match=r"task sums asks for random answers .*set do_sample: false"):
        model.generate_until([request("one", {"do_sample": True})])


def test_tasks_are_looked_for_in_files_then_included_then_the_harnesss_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("")
    assert lm_eval_adapter.task_manager([str(file)], None).all_tasks == []
    assert lm_eval_adapter.task_manager([str(file), "known"], tmp_path).all_tasks == ["known"]
    assert lm_eval_adapter.task_manager(["arc"], None).all_tasks == ["arc"]
    assert lm_eval_adapter.task_manager(["known", "arc"], tmp_path).all_tasks == ["known", "arc"]
    with pytest.raises(UserError, match="the harness has no task brc, and there is no such file"):
        lm_eval_adapter.task_manager(["arc", "brc"], None)
    with pytest.raises(UserError, match="--include-path nowhere: there is no such folder"):
        lm_eval_adapter.task_manager(["arc"], Path("nowhere"))


def test_a_task_that_cannot_be_loaded_is_a_sentence(tmp_path: Path) -> None:
    manager = lm_eval_adapter.task_manager(["arc"], None)
    assert manager.load(["arc"]) == ["arc"]
    with pytest.raises(UserError, match=r"the harness cannot load arc \(FileNotFoundError: no such data\); nothing is"):
        manager.load(["broken"])


def test_nothing_is_downloaded_unless_the_user_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "DISABLE_MULTIPROC"):
        monkeypatch.delenv(name)
    lm_eval_model.language_model(StandInScorer())  # type: ignore[arg-type]
    assert (os.environ["HF_HUB_OFFLINE"], os.environ["HF_DATASETS_OFFLINE"]) == ("1", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.delenv("HF_DATASETS_OFFLINE")
    lm_eval_model.language_model(StandInScorer())  # type: ignore[arg-type]
    assert os.environ["HF_DATASETS_OFFLINE"] == "0"


def test_results_are_printed_and_written(library: ModuleType, tmp_path: Path) -> None:
    """A task whose answers are filtered in two ways, a group without items of its own, a value that is no number."""
    asked: list[dict[str, Any]] = []
    answers = [
        {"filter": name, "target": "4", "doc_id": n, "resps": [["4"]], "filtered_resps": ["4"], "exact_match": 1.0}
        for name in ("strict", "loose")
        for n in (0, 1)
    ]

    version = 1

    def evaluate(**arguments: Any) -> dict[str, Any]:
        asked.append({name: value for name, value in arguments.items() if name not in ("model", "task_manager")})
        arguments["model"].cut += 1
        values = {"alias": "sums", "sample_len": 2, "exact_match,strict": 1.0, "exact_match_stderr,strict": 0.0}
        return {
            "lm_eval_version": "0.4.13",
            "versions": {"sums": version},
            "results": {"sums": values, "all": {"sample_len": 2, "acc,none": 0.5, "f1,none": "unknown"}},
            "samples": {"sums": answers},
            "configs": {"sums": {"output_type": "generate_until"}},
            "n-shot": {"sums": 3},
            "higher_is_better": {"sums": {"exact_match": True}},
        }

    library.simple_evaluate = evaluate  # type: ignore[attr-defined]
    console = Console(file=io.StringIO(), width=160)
    scorer: Any = StandInScorer()
    lm_eval_adapter.show(scorer, {"run_id": "r", "step": 7}, tmp_path, ["sums"], None, [3, None], 5, 1, console)
    settings = {"tasks": ["sums"], "limit": 5, "bootstrap_iters": lm_eval_adapter.RESAMPLES, "fewshot_random_seed": 1}
    assert asked == [{**settings, "num_fewshot": 3}, {**settings, "num_fewshot": None}]
    rows = [json.loads(line) for line in (tmp_path / SCORES_FILE).read_text().splitlines()]
    assert [(row["task"], row["metric"], row["score"], row["stderr"], row["shots"], row["kind"]) for row in rows] == [
        ("harness:sums", "exact_match,strict", 1.0, 0.0, 3, "hard"),
        ("harness:all", "acc", 0.5, None, 0, "hard"),
    ]
    assert all((row["run_id"], row["step"], row["chance"]) == ("r", 7, None) for row in rows)
    (file,) = (tmp_path / RESPONSES_FOLDER).glob("harness.sums-3-7-*.jsonl")
    assert {row["responses"] for row in rows if row["task"] == "harness:sums"} == {f"{RESPONSES_FOLDER}/{file.name}"}
    lines = file.read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"item": n, "responses": [["4"]]} for n in ("0", "1")]
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "left out: all f1,none is not a finite number" in printed and "2 prompts do not fit the context" in printed
    version = 2  # other answers may count as right
    lm_eval_adapter.show(scorer, {"run_id": "r", "step": 7}, tmp_path, ["sums"], None, [3], 5, 1, console)
    rows = [json.loads(line) for line in (tmp_path / SCORES_FILE).read_text().splitlines()]
    assert [row["harness"] for row in rows if row["task"] == "harness:sums"] == [
        "lm-eval 0.4.13, task 1", "lm-eval 0.4.13, task 2",
    ]  # fmt: skip
    assert {row["shots_seed"] for row in rows if row["shots"]} == {1}


def test_items_without_a_preference_are_counted() -> None:
    """The harness itself takes the first of equal choices."""
    items = [{"acc": 1.0, "filter": "none", "filtered_resps": [(-2.0, False), (nats, False)]} for nats in (-2.0, -3.0)]
    (sentence,) = lm_eval_adapter._ties("harness:arc", items)
    assert sentence.startswith("harness:arc: all choices of 1 items are equally likely")
    assert not list(lm_eval_adapter._ties("harness:arc", items[1:]))
