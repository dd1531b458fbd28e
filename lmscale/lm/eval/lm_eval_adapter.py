"""Tasks of lm-evaluation-harness (Gao 2021) on a run's checkpoint, prompted and scored by the harness itself.

    lmscale eval runs/isoflop/3f2a --harness arc_easy                # a task that comes with the harness
    lmscale eval runs/isoflop/3f2a --harness capitals.yaml           # one of your own

The harness asks the model of `lm_eval_model`; its results become rows of our scores. Nothing is downloaded unless
HF_HUB_OFFLINE=0.
"""

import difflib
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from lmscale.core.config import check
from lmscale.core.errors import UserError
from lmscale.core.quantities import finite_number
from lmscale.lm.eval import score_files, task_eval
from lmscale.lm.eval.lm_eval_model import check_installed, language_model
from lmscale.lm.eval.scorer import LMScorer
from lmscale.lm.eval.tasks import Score

if TYPE_CHECKING:
    from rich.console import Console

PREFIX = "harness:"
"""Stands before the names of its tasks in our tables."""
HARD_METRICS = {"acc", "acc_norm", "acc_bytes", "acc_mutual_info", "acc_all", "exact_match", "em"}
"""All or nothing per item, unless a task gives items values in between under such a name, as TruthfulQA's mc2 does."""
CHOSEN_METRICS = {"acc", "acc_norm", "acc_bytes"}
"""Hard metrics on which a guess scores one over the number of choices."""
RESAMPLES = 1000
"""Bootstrap resamples for the standard errors of scores that are not means over items."""


def show(
    scorer: LMScorer,
    model_columns: dict[str, Any],
    folder: Path,
    specs: Sequence[str],
    manager: Any,
    shots: Sequence[int | None],
    most_items: int | None,
    seed: int,
    console: "Console",
) -> None:
    """Score a model on the harness's tasks `specs`, write the rows into `folder` and print a table.

    `manager` is the `task_manager` of `specs`; a number of shots of None is the task's own; `model_columns` stand in
    every row.
    """
    model = language_model(scorer)
    task_eval.print_header(console)
    for count in shots:
        results = evaluate(model, specs, manager, count, most_items, seed)
        rows, not_finite = score_rows(results)
        for score in rows:
            task_eval.print_score(score, console)
        for name in not_finite:
            console.print(f"  left out: {name} is not a finite number", markup=False)
        for task in dict.fromkeys(score.task for score in rows):
            samples = results["samples"].get(task.removeprefix(PREFIX), [])
            for sentence in _ties(task, samples):
                console.print(f"  {sentence}", markup=False)
            scores = [score for score in rows if score.task == task]
            measured = _conditions(results, task.removeprefix(PREFIX), seed if scores[0].shots else None)
            task_rows = [{**model_columns, **asdict(score), **measured} for score in scores]
            score_files.write_results(folder, task_rows, _responses(samples))
    if model.cut:
        console.print(f"  {model.cut:,} prompts do not fit the context and lost their left end")


def evaluate(
    model: Any, specs: Sequence[str], manager: Any, shots: int | None, most_items: int | None, seed: int
) -> dict[str, Any]:
    """The results of the harness's `simple_evaluate`, with every item's responses under `samples`."""
    import lm_eval

    return lm_eval.simple_evaluate(
        model=model,
        tasks=list(specs),
        task_manager=manager,
        num_fewshot=shots,
        limit=most_items,
        bootstrap_iters=RESAMPLES,
        fewshot_random_seed=seed,
    )


def score_rows(results: dict[str, Any]) -> tuple[list[Score], list[str]]:
    """A row for every metric of every task and group in the harness's results, and the metrics that are not finite.

    A filter of answers other than the harness's `none` stands behind the metric's name: `exact_match,strict-match`.
    """
    rows, not_finite = [], []
    for task, values in results["results"].items():
        for key, value in values.items():
            metric, comma, answers = key.partition(",")
            if not comma or metric.endswith("_stderr"):
                continue
            if (score := finite_number(value)) is None:
                not_finite.append(f"{task} {key}")
                continue
            items = [item for item in results["samples"].get(task, []) if item["filter"] == answers and metric in item]
            hard = metric in HARD_METRICS and all(isinstance(x[metric], tuple) or x[metric] in (0, 1) for x in items)
            chosen = hard and metric in CHOSEN_METRICS
            chosen = chosen and results["configs"].get(task, {}).get("output_type") == "multiple_choice"
            rows.append(
                Score(
                    task=PREFIX + task,
                    metric=cast(Any, metric if answers == "none" else key),
                    kind="hard" if hard else "graded",
                    shots=int(results["n-shot"].get(task) or 0),
                    score=score,
                    stderr=finite_number(values.get(f"{metric}_stderr,{answers}")),
                    n=values["sample_len"],
                    chance=_chance(items) if chosen else None,
                    higher_is_better=results["higher_is_better"].get(task, {}).get(metric) is not False,
                )
            )
    return rows, not_finite


def _chance(items: list[dict[str, Any]]) -> float | None:
    """Expected score of choosing at random, where every item has one right choice and no further requests."""
    if not items or any(not isinstance(item["target"], int) or "acc_mutual_info" in item for item in items):
        return None
    return float(np.mean([1 / len(item["filtered_resps"]) for item in items]))


def _conditions(results: dict[str, Any], task: str, seed: int | None) -> dict[str, Any]:
    """How a task was measured (`core.scores.CONDITIONS`): its version, and what was asked, by the harness's hashes."""
    asked = [[item.get(f"{part}_hash") for part in ("doc", "prompt", "target")] for item in _samples(results, task)]
    versions = {"lm-eval": results.get("lm_eval_version"), "task": results.get("versions", {}).get(task)}
    return {
        "shots_seed": seed,
        "draw": None,
        "task_hash": hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16] if asked else None,
        "harness": ", ".join(f"{name} {version}" for name, version in versions.items() if version is not None) or None,
    }


def _samples(results: dict[str, Any], task: str) -> list[dict[str, Any]]:
    """A task's items once, however many filters its answers went through."""
    samples = results["samples"].get(task, [])
    return [item for item in samples if item["filter"] == samples[0]["filter"]]


def _ties(task: str, samples: list[dict[str, Any]]) -> Iterator[str]:
    """Whether the model preferred no choice of some items: the harness then takes the first of them."""
    answers = [item["filtered_resps"] for item in samples if "acc" in item]
    chosen = [[one[0] for one in choices] for choices in answers if all(isinstance(one, tuple) for one in choices)]
    if tied := sum(len(nats) > 1 and len(set(nats)) == 1 for nats in chosen):
        yield f"{task}: all choices of {tied:,} items are equally likely, and the harness takes the first as the answer"


def _responses(samples: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Per item the answer to each request: ln p and whether it is greedy, or ln p, or a text."""
    for item in samples:
        if item["filter"] == samples[0]["filter"]:
            yield {"item": str(item["doc_id"]), "responses": item["resps"]}


def task_manager(specs: Sequence[str], include: Path | None) -> Any:
    """A `TaskManager` of the harness that knows `specs`; its thousands of own tasks are listed only where one is named.

    Raises `UserError` without the extra, and for tasks and folders that do not exist.
    """
    check_installed()
    from lm_eval.tasks import TaskManager

    check(include is None or include.is_dir(), f"--include-path {include}: there is no such folder")

    class Tasks(TaskManager):
        def load(self, task_list: Any) -> Any:
            try:
                return super().load(task_list)
            except (
                Exception
            ) as error:  # from the harness, from `datasets`, or from Python code that a task brings along
                raise UserError(
                    f"the harness cannot load {', '.join(specs)} ({type(error).__name__}: {error}); nothing is "
                    "downloaded unless HF_HUB_OFFLINE=0"
                ) from error

    folders = [str(include)] if include else None
    own = Tasks(include_path=folders, include_defaults=False)
    if all(Path(spec).is_file() or spec in own.all_tasks for spec in specs):
        return own
    manager = Tasks(include_path=folders)
    unknown = [spec for spec in specs if not Path(spec).is_file() and spec not in manager.all_tasks]
    check(
        not unknown,
        f"the harness has no task {', '.join(unknown)}, and there is no such file; `lm-eval ls tasks` lists what it "
        f"has, and --include-path FOLDER adds yours{_nearest_task(unknown, manager.all_tasks)}",
    )
    return manager


def _nearest_task(unknown: Sequence[str], known: Sequence[str]) -> str:
    """A clause that names the closest task of the harness, which has thousands, to the first unknown one."""
    close = difflib.get_close_matches(unknown[0], known, n=1) if unknown else []
    return f"; did you mean {close[0]!r}?" if close else ""
