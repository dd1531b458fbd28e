"""Benchmark files of every format."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from helpers.readers.reader import Reader
from lmscale.lm.data.tokenizer import ByteTokenizer
from lmscale.lm.eval.tasks import Response, Shots, load, prompt, scores
from lmscale.lm.eval.tasks.formats import FORMATS
from lmscale.lm.inspect.pairs import pair_tokens, read_pairs

BIGBENCH = {
    "name": "sums", "metrics": ["multiple_choice_grade", "exact_str_match"], "output_regex": "[0-9]+",
    "stop_string": None, "task_prefix": "p", "example_input_prefix": "i", "append_choices_to_input": True,
    "examples": [{"input": "1 + 1 =", "target": ["2"], "target_scores": {"3": 0, "2": 1}}],
}  # fmt: skip
OWN = {
    "name": "own", "metrics": ["accuracy", "exact_match"], "stop": ["."], "extract": "[a-z]+", "longest_answer": 9,
    "separator": None,
    "items": [{"name": "a", "question": "?", "choices": ["x", "y"], "gold": [1, 0], "answers": ["x"]},
              {"question": "!", "choices": ["x", "y"], "gold": 0, "answers": ["y"]}],
}  # fmt: skip
WIC = {"sentence1": "A bank.", "sentence2": "The bank.", "start1": 2, "end1": 6, "label": False, "idx": 7}
GSM8K = {"question": "1 + 1?", "answer": "Two. #### 2"}
FILES: dict[str, tuple[str, str, str]] = {
    "bigbench": ("task.json", json.dumps(BIGBENCH), "json"),
    "task": ("own.json", json.dumps(OWN), "json"),
    "wic": ("val.jsonl", "".join(json.dumps({**WIC, "idx": number}) + "\n" for number in range(3)), "lines"),
    "gsm8k": ("test.jsonl", f"{json.dumps(GSM8K)}\n" * 3, "lines"),
    "stories": ("stories.yaml", '- "Once"\n- |\n  Twice\n  upon\n- Thrice\n', "text"),
    "mmlu": ("math_test.csv", "q,1,2,3,4,A\nr,1,2,3,4,B\n", "text"),
    "truthfulqa": (
        "TruthfulQA.csv", "Question,Best Answer,Correct Answers,Incorrect Answers\nq,Yes,Yes;No,Never\n", "text",
    ),
}  # fmt: skip
"""Format -> name, content and form of a file."""
assert FILES.keys() == FORMATS.keys(), "a new format of benchmark files needs a valid file here"


def _writes(name: str, content: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).write_text(content, "utf-8")
        return folder / name

    return write


def _reads(form: str) -> Callable[[Path], Any]:
    """The tasks that a file holds, and every metric of them for one model."""

    def read(path: Path) -> Any:
        tasks = load(f"{form}:{path}")
        values = []
        for task in tasks:
            prompts = [prompt(task, item, Shots(0)) for item in task.items]
            task.answer_in("some text. 42")
            answers = [
                Response(item.name, (-1.0,) * len(item.choices), (), (-1.0,) * len(item.answers), (), "x")
                for item in task.items
            ]
            values.append((prompts, scores(task, answers)))
        return values

    return read


PAIR = {"prompt": "copy ab=", "answer": "ab", "other_prompt": "copy ac=", "other_answer": "ac"}


def _read_pairs(path: Path) -> Any:
    """The pairs of prompts that a file holds, as tokens."""
    return pair_tokens(read_pairs(path), ByteTokenizer(), 32)


READERS = (
    *(
        Reader(f"task {name}", _writes(file, content), _reads(name), form, finite=False)
        for name, (file, content, form) in FILES.items()
    ),
    Reader("pairs of prompts", _writes("pairs.jsonl", f"{json.dumps(PAIR)}\n" * 3), _read_pairs, "lines"),
)
