"""Tables of several stages, and a sweep of them from its plan to its table."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.outcomes import outcome_of
from helpers.stages import BASE, planned

from lmscale.core.counting import count
from lmscale.core.errors import UserError
from lmscale.core.plans import write_plan
from lmscale.core.results import collect
from lmscale.study import fits, laws
from lmscale.study.sweep import chain, distil, fine_tune, ladder
from lmscale.study.tables import read_table


def test_tables_say_the_stage_and_fits_take_one(tmp_path: Path) -> None:
    sweep = planned(
        chain(ladder([2e3, 4e3, 8e3], [10, 20, 40]), fine_tune(BASE[:1], tokens=640), fine_tune(BASE[1:2], tokens=1280))
    )
    for run in sweep.runs:
        counts = count(run.config)
        loss = 1.5 + 40 / counts.params**0.4 + 90 / counts.tokens**0.4 - (run.stage == "fine-tune")
        data = "aa" if run.stage == "pretrain" else "bb"
        outcome_of(run.config, loss_nats=loss, data_fingerprint=data).write(tmp_path / run.config.run_id)
    write_plan(tmp_path, "stages", sweep.runs, {})
    table = collect(tmp_path)
    tuned = table[table["stage"] == "fine-tune"]
    assert list(tuned["stage_tokens"]) == [640, 1280] and table["parent"].notna().sum() == 2
    assert list(tuned["parent_tokens"]) == [run.config.tokens for run in sweep.runs[:2]]
    assert table.attrs["notes"] == [], "two stages on two corpora are no mixture"
    law = fits.loss_law(tmp_path, resamples=0, check=False)
    dropped = {item.run: item.reason for item in law.dropped}
    assert dropped == dict.fromkeys(tuned["run"], "of the stage fine-tune, and the fit is of pretrain")
    with pytest.raises(
        UserError, match=r"stage = 'finetune': the table holds 9 of pretrain, 2 of fine-tune; did you mean"
    ):
        fits.loss_law(tmp_path, stage="finetune")
    other = table[table["stage"] == "fine-tune"].assign(stage=["fine-tune", "distil"])
    with pytest.raises(UserError, match=r"runs of several stages \(.*\), and losses of different stages belong to"):
        fits.loss_law(other)


def test_a_table_has_the_losses_of_teachers(tmp_path: Path) -> None:
    """So that the law of distillation is fitted to a sweep's folder as it is."""
    sweep = planned(chain(BASE[:2], distil([*BASE[:2], BASE[0]], [2_000, 8_000], tokens=[1280, 6400])))
    losses = {run.config.run_id: 3.0 - 0.1 * number for number, run in enumerate(sweep.runs)}
    for run in sweep.runs[1:]:
        outcome_of(run.config, loss_nats=losses[run.config.run_id]).write(tmp_path / run.config.run_id)
    write_plan(tmp_path, "stages", sweep.runs, {})
    table = read_table(tmp_path, inputs=laws.form("distillation").INPUTS).set_index("run")
    for run in sweep.runs:
        teacher = run.config.parents.get("teacher")
        known = teacher is not None and teacher.run_id != sweep.runs[0].config.run_id
        loss = table["teacher_loss"][run.config.run_id]
        assert loss == losses[teacher.run_id] if known and teacher else math.isnan(loss)
    assert list(read_table(tmp_path, inputs=["finetuning_tokens"])["finetuning_tokens"]) == list(table["stage_tokens"])


@pytest.mark.slow
def test_a_fine_tuning_sweep_from_a_pretrained_run_end_to_end(tmp_path: Path) -> None:
    """As a user types it: the ladder, then instructions as a completion corpus, each from its parent's parameters."""
    records = [
        {"instruction": f"Say {word} twice.", "input": "", "output": f"{word} {word}"}
        for word in ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    ]
    (tmp_path / "alpaca.json").write_text(json.dumps(records))
    (tmp_path / "text.jsonl").write_text(
        "".join(json.dumps({"text": f"{n} {n + 1} {n * n} " * 20}) + "\n" for n in range(80))
    )
    (tmp_path / "sweep.py").write_text(SWEEP)
    command = [sys.executable, "-m", "lmscale"]
    for words, sentences in (
        (["plan", "sweep.py"], ["Which run needs which:", "starts from it", "learns from it"]),
        (["run", "sweep.py"], ["5 of 5 runs to train"]),
        (["table", "runs/life"], ["fine-tune", "distil"]),
        (["status", "runs/life"], ["5 finished"]),
    ):
        done = subprocess.run([*command, *words], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert all(sentence in done.stdout for sentence in sentences), done.stdout
    table = collect(tmp_path / "runs" / "life").set_index("run")
    assert set(table["state"]) == {"finished"}
    assert table["answer_tokens"].notna().sum() == 2 and (table["padding_tokens"].dropna() > 0).all()
    assert (table["reference_flops"] > 0).sum() == 1


SWEEP = """
from dataclasses import replace
import lmscale
from lmscale import Completion, DataConfig, Distillation, ModelConfig, Sweep, chain, distil, fine_tune, grid, recipes

BASE = grid(params=[2_000, 6_000], tokens=[32_768])
FAMILY = recipes.Family(width_multiple=4, aspect_ratio=None, head_width=8,
                        base=ModelConfig(width=8, layers=1, heads=1, context=256, document_end=255))
TEXT = recipes.Recipe(name="life", source="a test", family=FAMILY, lr=recipes.constant(.01, "a test"),
                      batch_sequences=recipes.constant(8, "a test"),
                      data=DataConfig(source="text.jsonl", max_epochs=100, validation_fraction=.2),
                      run={"keep_checkpoint": True, "validations": 2})
ANSWERS = DataConfig(source="alpaca.json", template="alpaca", max_epochs=1000, validation_fraction=.3)
SWEEP = Sweep(
    name="life", law="", tokens_per_param=(0, 1e6),
    points=chain(BASE, fine_tune(BASE, tokens=8192), distil(BASE[1:], [2_000], tokens=16_384)),
    recipe=recipes.by_stage(pretrain=TEXT, fine_tune=TEXT(data=ANSWERS, objective=Completion()),
                            distil=TEXT(objective=Distillation())),
)
"""
