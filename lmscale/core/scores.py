"""Rows of `scores.jsonl`: what tells two measurements apart, how they are read, and which of several is used.

A row is one metric of one task, on one checkpoint, with so many worked examples. Measured again on other items, with
other examples or another version of the task, it is another row beside the first.
"""

import json
import math
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lmscale.core.errors import UserError
from lmscale.core.files import open_regular, parse_json
from lmscale.core.run_folder import SCORES_FILE

Row = Mapping[str, Any]

SCORE = ("run_id", "step", "task", "metric", "shots")
"""Columns that name a score."""
CONDITIONS = ("n", "shots_seed", "draw", "task_hash", "harness")
"""Columns that say how it was measured: the number of items, the seed and the draw of the worked examples, a hash of
the task's items and settings, and the version of an evaluation harness. Old rows have only `n`."""


def identity(row: Row) -> tuple[Any, ...]:
    """What a row measures and how: of two rows that have it in common, the later one counts."""
    return tuple(row.get(name) for name in (*SCORE, *CONDITIONS))


def conditions(row: Row) -> tuple[Any, ...]:
    """How a row was measured, whatever the model."""
    return tuple(row.get(name) for name in CONDITIONS)


def read_rows(file: Path) -> list[dict[str, Any]]:
    """The rows of a file of scores, none where it is not there. Raises `UserError` for a line that is no score."""
    try:
        with open_regular(file) as opened:
            text = opened.read().decode("utf-8")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UserError(f"the scores {file} cannot be read: {reason}") from None
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    return [_checked(line, f"{file}, line {number}") for number, line in lines]


def best_measured(rows: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[str]]:
    """One row for every score, and in sentences what is left out and what differs between the runs.

    The row over most items is used; of several, the one measured as most runs were; of those, the latest.
    """
    runs = Counter(_measurement(row) for row in rows)
    candidates: defaultdict[tuple[Any, ...], list[tuple[Any, ...]]] = defaultdict(list)
    for number, row in enumerate(rows):
        candidates[_score(row)].append((_items(row), runs[_measurement(row)], number))
    used = sorted(max(group)[-1] for group in candidates.values())
    best = [rows[number] for number in used]
    return best, [*_left_out(rows, set(used)), *_differences(best)]


def _score(row: Row) -> tuple[Any, ...]:
    return tuple(row.get(name) for name in SCORE)


def _measurement(row: Row) -> tuple[Any, ...]:
    """A score, of whichever run and step, and how it was measured."""
    return row.get("task"), row.get("metric"), row.get("shots"), *conditions(row)


def _items(row: Row) -> float:
    return row.get("n") or 0


def at_last_step(rows: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows of each run's last scored checkpoint, and which tasks were scored at earlier ones only."""
    last: dict[Any, int] = {}
    for row in rows:
        last[row.get("run_id")] = max(row.get("step") or 0, last.get(row.get("run_id"), 0))
    chosen = [row for row in rows if (row.get("step") or 0) == last[row.get("run_id")]]
    scored = {(row.get("run_id"), row["task"]) for row in chosen}
    earlier = Counter(row["task"] for row in rows if (row.get("run_id"), row["task"]) not in scored)
    return chosen, [
        f"task {task}: {number} rows of checkpoints before the last scored one are left out; score the last one too"
        for task, number in earlier.items()
    ]


def _left_out(rows: Sequence[Row], used: set[int]) -> list[str]:
    others = [row for number, row in enumerate(rows) if number not in used]
    if not others:
        return []
    most = {tuple(rows[number].get(name) for name in SCORE): rows[number]["n"] for number in sorted(used)}
    first = max(others, key=lambda row: most[tuple(row.get(name) for name in SCORE)] - row["n"])
    items = most[tuple(first.get(name) for name in SCORE)]
    why = (
        f"{first['n']:,} items where {items:,} are scored" if first["n"] < items else "measured again on as many items"
    )
    return [
        f"the best-measured score of each run is used, and {len(others)} of {len(rows)} rows are not: "
        f"{first['task']} ({first['metric']}) of run {first.get('run_id')} has {why}"
    ]


def _differences(rows: Iterable[Row]) -> list[str]:
    """Tasks that were not measured alike on all runs. What an old row does not say does not count as a difference."""
    measured: defaultdict[tuple[str, int], list[Row]] = defaultdict(list)
    for row in rows:
        measured[row["task"], row.get("shots") or 0].append(row)
    words = {"n": "numbers of items", "shots_seed": "seeds of the examples", "draw": "draws of the examples",
             "task_hash": "versions of the task", "harness": "versions of the harness"}  # fmt: skip
    sentences = []
    for (task, shots), group in measured.items():
        differing = [name for name in words if len({row.get(name) for row in group} - {None}) > 1]
        if "n" in differing and "task_hash" in differing:
            differing.remove("task_hash")  # other items are another content
        if differing:
            what = " and ".join(words[name] for name in differing)
            sentences.append(f"task {task}, {shots} shots: its scores come from different {what}; score all runs alike")
    return sentences


def _number(value: Any) -> bool:
    """Whether a value is a finite number that a float can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


def _count(value: Any) -> bool:
    return _number(value) and 0 <= value < 2**63 and value == int(value)


def _text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


RULES: tuple[tuple[tuple[str, ...], Callable[[Any], bool], str], ...] = (
    (("task", "metric", "run_id", "draw", "task_hash", "harness", "responses", "reward", "retrieval"), _text, "a text"),
    (("kind",), lambda value: value in ("hard", "graded"), "hard or graded"),
    (("step", "shots", "shots_seed", "datastore_tokens"), _count, "a whole number, 0 or more"),
    (("n", "best_of", "answers"), lambda value: _count(value) and value > 0, "a whole number above 0"),
    (("score", "chance", "bm25"), _number, "a finite number"),
    (("stderr", "params", "active_params", "tokens", "flops", "loss", "kl_nats", "kl_bound_nats",
      "datastore_flops", "retrieval_flops"),
     lambda value: _number(value) and value >= 0, "a finite number, not negative"),
    (("higher_is_better",), lambda value: isinstance(value, bool | int), "true or false"),
)  # fmt: skip
"""Fields, and what they may hold where they are there."""


def _checked(line: str, where: str) -> dict[str, Any]:
    again = "fix the line or score the run again"
    try:
        row = parse_json(line)
    except ValueError as error:
        raise UserError(f"the scores {where} are corrupt ({error}); {again}") from None
    if not isinstance(row, dict):
        raise UserError(f"the scores {where}: a {type(row).__name__} stands where a row is expected; {again}")
    if missing := [name for name in ("task", "score") if row.get(name) is None]:
        raise UserError(f"the scores {where}: {missing[0]} is missing; {again}")
    for names, holds, rule in RULES:
        for name in names:
            if (value := row.get(name)) is not None and not holds(value):
                raise UserError(f"the scores {where}: {name} = {_short(value)}; {name} is {rule}: {again}")
    correlation = str(row.get("metric")).startswith("mcc")  # which an older version called hard
    if row.get("kind") == "hard" and not correlation and not 0 <= row["score"] <= 1:
        raise UserError(
            f"the scores {where}: score = {row['score']:g}; a share of correct answers is in [0, 1]: {again}"
        )
    return row


def _short(value: Any) -> str:
    try:
        text = json.dumps(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits
        text = f"a {type(value).__name__}"
    return text if len(text) <= 40 else f"{text[:40]}..."


def scores_files(path: Path) -> list[Path]:
    """Files of scores in a run's folder, or in the folders of a sweep's runs."""
    return [path / name for name in _names_of_files(path)]


def has_scores(path: Path) -> bool:
    """Whether there is one of `scores_files`."""
    return next(_names_of_files(path), None) is not None


def _names_of_files(path: Path) -> Iterator[str]:
    """Files of scores below `path`, as names from there: thousands of folders are looked into at once."""
    try:
        folders = sorted(os.listdir(path))  # noqa: PTH208
    except OSError:
        return
    for name in (SCORES_FILE, *(f"{folder}/{SCORES_FILE}" for folder in folders)):
        if os.path.exists(f"{path}/{name}"):  # noqa: PTH110
            yield name
