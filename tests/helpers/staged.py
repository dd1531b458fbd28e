"""A sweep with all that a page holds: a law, repeats beside it, fine-tuned runs, exam scores, a run of two attempts."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from helpers.outcomes import outcome_of
from helpers.simulated import TRUTH, write_sweep
from lmscale.core.config import RunConfig
from lmscale.core.counting import count, flops_per_token
from lmscale.core.files import write_json
from lmscale.core.plans import PlannedRun, read_plan, write_plan
from lmscale.core.run_folder import SCORES_FILE
from lmscale.study.laws import Chinchilla

TUNED = Chinchilla(E=0.9, A=40.0, B=120.0, alpha=0.42, beta=0.38)
"""The law of the fine-tuned runs."""
TEXTS = 4
"""Shares of the text, each half of the one before, on which the repeated runs are trained."""
SCORED = 3e12
"""The budget whose runs took the exam."""
FOOT = 6e4
"""Parameters at which the ability appears."""
IDLE_SECONDS = 1800
TEXT = "5f0c9a7e21"
"""The corpus of every run."""


def write_staged(folder: Path) -> Path:
    """Write the folder and return it: 28 runs of a law, two of them without a loss, 4 repeated and 28 fine-tuned."""
    write_sweep(folder, points=20)
    name, planned = read_plan(folder)
    rng = np.random.default_rng(1)
    more = [*_repeated(folder, planned[8].config), *_tuned(folder, planned, rng)]
    write_plan(folder, name, [*planned, *more])
    for run in planned:
        if run.flops_budget == SCORED:
            _score(folder / run.config.run_id, run.config, rng)
    first = folder / planned[0].config.run_id / "attempts"
    at = "2026-01-01T{}:00+00:00".format
    write_json(
        first / "0001.json", {"began": at("10:00"), "end": {"status": 75, "reason": "stopped", "at": at("10:10")}}
    )
    write_json(first / "0002.json", {"began": at("10:40"), "end": {"status": 0, "reason": "", "at": at("10:50")}})
    return folder


def _repeated(folder: Path, config: RunConfig) -> list[PlannedRun]:
    """One size and length on ever shorter texts, each pass worth less."""
    runs = []
    counts = count(config)
    for halvings in range(TEXTS):
        passes = 2.0**halvings
        one = replace(config, data=replace(config.data, unique_tokens=round(config.tokens / passes)))
        loss = float(TRUTH.loss(counts.params, counts.tokens)) * (1 + 0.01 * halvings**2)
        outcome_of(
            one, loss_nats=loss, unique_tokens=one.data.unique_tokens, epochs=passes, data_fingerprint=TEXT
        ).write(folder / one.run_id)
        runs.append(PlannedRun(one))
    return runs


def _tuned(folder: Path, planned: list[PlannedRun], rng: np.random.Generator) -> list[PlannedRun]:
    """Every pretrained run fine-tuned to a tenth of its budget."""
    runs = []
    for run in planned:
        budget = (run.flops_budget or 0) / 10
        tokens = max(1, round(budget / flops_per_token(run.config.model) / 2048)) * 2048
        one = replace(run.config, init_from=run.config.run_id, tokens=tokens)
        counts = count(one)
        loss = float(TUNED.loss(counts.params, counts.tokens)) + 0.004 * rng.standard_normal()
        outcome_of(one, loss_nats=loss, data_fingerprint=TEXT).write(folder / one.run_id)
        runs.append(PlannedRun(one, held_out=run.held_out, flops_budget=budget))
    return runs


def _score(folder: Path, config: RunConfig, rng: np.random.Generator) -> None:
    """Scores on two tasks: one appears at `FOOT`, one is there from the first size on."""
    counts = count(config)
    params = counts.params
    late = 0.25 + 0.6 * max(0.0, np.log(params / FOOT)) / np.log(3)
    early = 0.3 + 0.05 * np.log(params / 1e3)
    rows = []
    for task, probability in (("copy", min(late, 0.95)), ("count", min(early, 0.95))):
        n = 2000
        correct = int(rng.binomial(n, probability))
        rows.append(
            {"run_id": config.run_id, "model": "m", "step": config.steps, "params": params, "flops": counts.flops,
             "task": task, "metric": "exact_match", "kind": "hard", "shots": 0, "score": correct / n, "stderr": 0.02,
             "n": n, "chance": 0.25}
        )  # fmt: skip
    (folder / SCORES_FILE).write_text("".join(json.dumps(row) + "\n" for row in rows))
