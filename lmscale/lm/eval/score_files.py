"""Scores and responses in the folder of a run: a measurement under other conditions stands beside the earlier ones."""

import fcntl
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lmscale.core.files import own_folder, write_text
from lmscale.core.run_folder import RESPONSES_FOLDER, SCORES_FILE, SCORING_FILE
from lmscale.core.scores import conditions, identity, read_rows
from lmscale.lm.eval.tasks import Shots, Task

LONGEST_NAME = 80
"""Characters of a task's name in the name of a file."""


def conditions_of(task: Task, shots: Shots) -> dict[str, Any]:
    """The columns of a score that say how it was measured. What draws no examples depends on no seed."""
    drawn = shots.count > 0 and not task.exemplars
    content = json.dumps(asdict(task) | {"name": "", "left_out": ()}, sort_keys=True)
    return {
        "shots_seed": shots.seed if drawn else None,
        "draw": shots.draw if drawn else None,
        "task_hash": hashlib.sha256(content.encode()).hexdigest()[:16],
    }


_in_this_block: list[list[dict[str, Any]]] = []
"""The lists of `rows_written`, the innermost last."""


@contextmanager
def rows_written() -> Iterator[list[dict[str, Any]]]:
    """The rows that are written in the block, in their order, as they stand in the files of scores."""
    rows: list[dict[str, Any]] = []
    _in_this_block.append(rows)
    try:
        yield rows
    finally:
        _in_this_block.remove(rows)


def write_results(folder: Path, rows: list[dict[str, Any]], responses: Iterable[dict[str, Any]]) -> None:
    """Write the rows of one task under one set of conditions, and the responses that they come from.

    Earlier rows that measure the same in the same way are replaced, all others stay; each row names its responses.
    Raises `UserError` where the file of scores is damaged or cannot be written.
    """
    if not rows:
        return
    name = responses_name(rows[0])
    _write_lines(own_folder(folder / RESPONSES_FOLDER) / name, responses)
    rows = [{**row, "responses": f"{RESPONSES_FOLDER}/{name}"} for row in rows]
    replaced = {identity(row) for row in rows}
    with _locked(folder):
        earlier = [row for row in read_rows(folder / SCORES_FILE) if identity(row) not in replaced]
        _write_lines(folder / SCORES_FILE, earlier + rows)
    for block in _in_this_block:
        block.extend(rows)


def responses_name(row: dict[str, Any]) -> str:
    """TASK-SHOTS-STEP-HASH.jsonl, whose hash tells conditions apart, and tasks whose names a file cannot hold."""
    key = json.dumps([row["task"], row["step"], row["shots"], *conditions(row)])
    task = re.sub(r"[^A-Za-z0-9_+-]", ".", row["task"])[:LONGEST_NAME]
    return f"{task}-{row['shots']}-{row['step']}-{hashlib.sha256(key.encode()).hexdigest()[:8]}.jsonl"


@contextmanager
def being_scored(folder: Path, task: str, number: int, of: int) -> Iterator[None]:
    """Let `lmscale status` and the launcher's bars see which task of how many a run at work is scored on."""
    file = folder / SCORING_FILE
    write_text(file, json.dumps({"task": task, "number": number, "of": of}) + "\n")
    try:
        yield
    finally:
        with suppress(OSError):
            file.unlink()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one process at a time change the scores; a file system without locks lets all."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write_lines(file: Path, rows: Iterable[dict[str, Any]]) -> None:
    write_text(file, "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows))
