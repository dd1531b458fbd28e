"""Stages as axes of a sweep: points that name their parents, what a plan refuses, when a run starts, and tables."""

import json
import math
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.outcomes import outcome_of
from helpers.stand_in import REAL_PYTHON, RUN, Watcher, a_trainer, journal, none_left_behind  # noqa: F401

from lmscale.commands.plan.dependencies import dependencies
from lmscale.core.config import Completion, DataConfig, Distillation, Preference, RewardModel, RunConfig
from lmscale.core.counting import count, flops_per_token_forward
from lmscale.core.errors import UserError
from lmscale.core.plans import PlannedRun, write_plan
from lmscale.core.results import collect
from lmscale.study import fits, launch, laws, prices, recipes
from lmscale.study.launch import slurm
from lmscale.study.launch.branches import with_starts
from lmscale.study.launch.sbatch import Cluster
from lmscale.study.sweep import Plan, Sweep, chain, distil, fine_tune, ladder, plan, prefer, reward
from lmscale.study.tables import read_table

FAMILY = recipes.Family(width_multiple=4, aspect_ratio=None, head_width=8, base=replace(RUN.model, heads=1))
RECIPE = recipes.Recipe(
    name="tests",
    source="these tests",
    family=FAMILY,
    lr=recipes.constant(0.01, "these tests"),
    batch_sequences=recipes.constant(4, "these tests"),
    run={"keep_checkpoint": True},
)
ANSWERS = DataConfig(source="pairs.jsonl", prompt_field="prompt")
PAIRS = DataConfig(source="pairs.jsonl", template="preference", rejected_field="rejected")
STAGES = recipes.by_stage(
    pretrain=RECIPE,
    fine_tune=RECIPE(data=ANSWERS, objective=Completion(), optimizer={"final_lr_fraction": 0.5}),
    distil=RECIPE(objective=Distillation(temperature=2.0)),
    prefer=RECIPE(data=PAIRS, objective=Preference(beta=0.2)),
    reward=RECIPE(data=PAIRS, objective=RewardModel()),
)
BASE = ladder([2_000, 8_000], [10, 20])


def planned(points: Any, recipe: Any = STAGES, **changes: Any) -> Plan:
    return plan(Sweep(name="stages", points=points, recipe=recipe, law="", **changes))


def test_a_sweep_holds_a_ladder_and_what_follows() -> None:
    tuned = fine_tune(BASE, tokens=[640, 1280], peak_lr=[0.001])
    students = distil(BASE[2:3], [2_000, {"params": 4_000, "seed": 3}], tokens=6400)
    found = planned(chain(BASE, tuned, students))
    runs = {stage: [run for run in found.runs if run.stage == stage] for stage in ("pretrain", "fine-tune", "distil")}
    assert [len(members) for members in runs.values()] == [4, 8, 2]
    by_id = {run.config.run_id: run for run in found.runs}
    for number, run in enumerate(runs["fine-tune"]):
        parent = by_id[run.config.init_from or ""]
        assert parent is runs["pretrain"][number // 2] and parent.config.model == run.config.model
        assert run.config.tokens == [640, 1280][number % 2] and run.parent_tokens == parent.config.tokens
        assert run.config.objective == Completion() and run.config.optimizer.peak_lr == 0.001
        assert run.reference_flops == 0
    teacher = runs["pretrain"][2].config
    for run in runs["distil"]:
        assert run.config.objective == Distillation(teacher=teacher.run_id, temperature=2.0)
        assert run.parent_tokens == 0 and run.config.parents["teacher"].run_id == teacher.run_id
        assert run.reference_flops == flops_per_token_forward(teacher.model) * run.config.tokens
    assert [run.config.seed for run in runs["distil"]] == [0, 3]
    teaching = sum(run.reference_flops for run in runs["distil"])
    assert found.flops == sum(count(run.config).flops for run in found.runs) + teaching == found.flops_apart
    assert found.reference_flops == teaching and f"FLOPs, {teaching:.3g} of them to read teachers" in str(found)
    lines = str(found).splitlines()
    assert [line.split()[1] for line in lines[1:16]] == ["stage", *(run.stage for run in found.runs)]
    assert " stage " not in str(planned(BASE)) and "teachers" not in str(planned(BASE))
    assert [PlannedRun.from_json(run.to_json()) for run in found.runs] == found.runs


def test_parents_are_named_by_point_by_name_and_by_id() -> None:
    parent = {"params": 2_000, "tokens": 20_480, "name": "base"}
    run_id = planned([parent], RECIPE).runs[0].config.run_id
    for start in (parent, {**parent, "held_out": True}, "base", run_id, "base@7"):
        points = [parent, {"params": 2_000, "tokens": 640, "init_from": start, "stage": "more"}]
        child = planned(points, RECIPE).runs[1]
        assert child.config.init_from == run_id + ("@7" if start == "base@7" else "")
        assert child.stage == "more" and child.parent_tokens == (7 * 64 if start == "base@7" else 20_480)
    kept = with_starts(planned(points, RECIPE).runs)
    assert [run.config.kept_steps for run in kept] == [(7,), ()]
    elsewhere = planned([{"params": 2_000, "tokens": 640, "init_from": "0123456789ab"}], RECIPE).runs[0]
    assert (elsewhere.config.init_from, elsewhere.parent_tokens, elsewhere.stage) == ("0123456789ab", None, "fine-tune")


def test_preferences_and_rewards_start_from_a_run_and_count_both_answers() -> None:
    tuned = fine_tune(BASE[:1], tokens=[640])
    found = planned(chain(BASE, tuned, prefer(tuned, tokens=[1280], peak_lr=[0.001]), reward(tuned, tokens=1280)))
    runs = {stage: [run for run in found.runs if run.stage == stage] for stage in ("fine-tune", "prefer", "reward")}
    [parent], [policy], [rewards] = runs.values()
    assert policy.config.init_from == policy.config.reference == parent.config.run_id == rewards.config.init_from
    assert policy.config.objective == Preference(beta=0.2) and policy.config.optimizer.peak_lr == 0.001
    assert policy.config.tokens == rewards.config.tokens == 1280
    assert policy.config.batch_examples * 2 == policy.config.optimizer.batch_sequences
    assert policy.parent_tokens == parent.parent_tokens + parent.config.tokens
    forward = flops_per_token_forward(parent.config.model)
    assert policy.reference_flops == forward * 1280 and policy.reference_bytes > 0
    assert rewards.config.model == replace(parent.config.model, scalar_head=True) and rewards.reference_flops == 0
    drawn = "\n".join(dependencies(found.runs))
    assert "prefer" in drawn and "is compared with" in drawn
    with pytest.raises(UserError, match=r"cannot start from run .*, a reward model"):
        planned(chain(BASE, tuned, reward(tuned, tokens=1280), fine_tune(reward(tuned, tokens=1280), tokens=640)))


def test_stages_follow_one_another() -> None:
    tuned = fine_tune(BASE[:1], tokens=640)
    more = fine_tune(tuned, tokens=1280)
    runs = planned(chain(BASE[:1], tuned, more)).runs
    assert [run.parent_tokens for run in runs] == [0, runs[0].config.tokens, runs[0].config.tokens + 640]
    lines = dependencies(runs)
    assert [re.sub(r"[0-9a-f]{12}", "ID", line) for line in lines[1:]] == [
        "  ID pretrain, 4 x 2, D 15.6k", "  └ ID fine-tune, 4 x 2, D 640, starts from it",
        "    └ ID fine-tune, 4 x 2, D 1.28k, starts from it",
    ]  # fmt: skip
    assert dependencies(runs[:1]) == []


def function(point: Any) -> RunConfig:
    """A recipe of one's own, which takes what its points name."""
    teacher = point.get("teacher")
    objective = {"objective": Distillation(teacher=teacher)} if teacher else {}
    return replace(
        RUN, seed=point["seed"], tokens=point.get("tokens", 6400), init_from=point.get("init_from"), **objective
    )


@pytest.mark.parametrize(
    ("points", "recipe", "sentence"),
    [
        ([{"seed": 0, "name": "a", "init_from": "b"}, {"seed": 1, "name": "b", "init_from": "a"}], function,
         "the points need each other in a circle: a needs b needs a; let one of them start from nothing"),
        ([{"seed": 0, "name": "a", "teacher": "a"}], function, "in a circle: a needs a"),
        ([{"seed": 0, "init_from": {"seed": 5}}], function,
         "the init_from of point(seed=0, init_from=point(of seed)) is a point that the sweep does not hold; add it"),
        ([{"seed": 0, "init_from": "basis"}, {"seed": 1, "name": "base"}], function,
         "init_from = 'basis' is neither the name of a point nor the id of a run; did you mean 'base'"),
        ([{"seed": 0, "init_from": 3}], function, "init_from is a point, the name of one or the id of a run, not int"),
        ([{"seed": 0, "name": "a"}, {"seed": 1, "name": "a"}], function, "two points are named 'a'"),
        ([{"seed": 0, "name": "a"}, {"seed": 1, "init_from": "a@500000"}], function,
         "takes its init_from from step 500000 of run"),
        ([{"seed": 0, "name": "a"}, {"seed": 1, "teacher": "a"}],
         lambda point: replace(function({**point, "teacher": None})),
         "has a teacher, and the recipe gave its run none; take point['teacher'] in the recipe"),
        ([{"seed": 0, "name": "a"}, {"seed": 1, "init_from": "a"}],
         lambda point: replace(function(point), keep_checkpoint=False), "which keeps no checkpoint; give its recipe"),
        ([{"params": 2_000, "tokens": 6400, "name": "a"}, {"params": 8_000, "tokens": 640, "init_from": "a"}], RECIPE,
         "parameters) cannot start from run"),
        ([{"params": 2_000, "tokens": 6400, "name": "a"}, {"params": 2_000, "tokens": 6400, "teacher": "a"}],
         RECIPE(objective=Completion(), data=ANSWERS), "a teacher, which the objective 'completion' has not"),
        ([{"params": 2_000, "tokens": 6400, "stage": "finetune"}], STAGES,
         "no recipe for the stage 'finetune'; did you"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_sentence_before_anything_runs(points: Any, recipe: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=re.escape(sentence)):
        planned(points, recipe)


@pytest.mark.parametrize(
    ("model", "tokenizers", "sources", "sentence"),
    [
        ({"vocab": 256}, ("a.json", "bytes"), None, "which has 300 ids, and its own are 256; give both one tokenizer"),
        ({"context": 32}, ("a.json", "a.json"), None, "reads at most 16 tokens, and its own context is 32; take a con"),
        ({}, ("bpe:300", "bytes"), None, "whose tokenizer is 'bpe:300', and its own is 'bytes'; give both one"),
        ({}, ("bpe:300", "bpe:299"), None, "whose tokenizer is 'bpe:300', and its own is 'bpe:299'; give both one"),
        ({}, ("bpe:300", "bpe:300"), "ab", "'bpe:300' is trained on a, and its own on b, so an id would mean other"),
        ({}, ("bpe:300", "bpe:300"), "aa", None),
        ({}, ("bpe:300", "a.json"), "ab", None),
        ({}, ("a.json", "b.json"), "ab", None),
    ],
    ids=str,
)
@pytest.mark.parametrize("role", ["teacher", "init_from"])
def test_a_parent_with_another_vocabulary_or_a_shorter_context_is_refused(
    role: str, model: dict[str, Any], tokenizers: tuple[str, str], sources: str | None, sentence: str | None
) -> None:
    """What a file holds is known when a run starts."""
    base = replace(RUN, model=replace(RUN.model, vocab=300))
    datas = [DataConfig(source=source, tokenizer=name) for name, source in zip(tokenizers, sources or "aa")]

    def of_point(point: Any) -> RunConfig:
        if role not in point:
            return replace(base, data=datas[0])
        child = replace(base, data=datas[1], model=replace(base.model, **model))
        if role == "init_from":
            return replace(child, init_from=point["init_from"])
        return replace(child, objective=Distillation(teacher=point["teacher"]))

    points = [{"name": "a"}, {role: "a"}]
    if sentence is None:
        assert len(planned(points, of_point).runs) == 2
    elif not model or role == "teacher":
        with pytest.raises(UserError, match=sentence):
            planned(points, of_point)


def test_a_distillation_without_a_teacher_is_refused() -> None:
    with pytest.raises(UserError, match=r"names no teacher: give Distillation\(teacher="):
        replace(RUN, objective=Distillation())


def test_a_student_that_starts_as_its_teacher_is_refused() -> None:
    student = replace(RUN, init_from="0123456789ab")
    with pytest.raises(
        UserError, match=r"run 0123456789ab, is also what the student starts from, .*\(text_weight=\.\.\.\)"
    ):
        replace(student, objective=Distillation(teacher="0123456789ab"))
    for other in ({"teacher": "0123456789ab@5"}, {"teacher": "0123456789ab", "text_weight": 0.5}):
        assert replace(student, objective=Distillation(**other)).parents["teacher"].run_id == "0123456789ab"


def test_a_plan_waits_for_parents_in_its_time() -> None:
    runs = planned(chain(BASE[:1], fine_tune(BASE[:1], tokens=[6400, 12800]))).runs
    priced = [prices.Price(seconds, seconds, 0, "assumed", True) for seconds in (5.0, 9.0, 7.0)]
    assert prices.elapsed(runs, priced, prices.Hardware("here", at_once=3)) == 14.0
    assert prices.elapsed(runs, priced, prices.Hardware("here", at_once=1)) == 21.0


def family(folder: Path, tokens: int = 6400) -> tuple[list[PlannedRun], Path]:
    """A parent, its child and a grandchild; the stand-in has the outcomes of all, and each has a checkpoint."""
    parent = replace(RUN, tokens=tokens, seed=11)
    child = replace(parent, init_from=parent.run_id, tokens=64_000)
    grandchild = replace(child, init_from=child.run_id, tokens=128_000)
    for config in (parent, child, grandchild):
        outcome_of(config).write(folder / "trainer" / config.run_id)
        (folder / "trainer" / config.run_id / "outcome.json").rename(folder / "trainer" / f"{config.run_id}.json")
        (folder / "runs" / config.run_id / "checkpoints" / "100").mkdir(parents=True)
    return [PlannedRun(config) for config in (grandchild, child, parent)], folder / "runs"


@pytest.mark.long
def test_a_run_starts_when_what_it_needs_has_finished(trainer: Path, tmp_path: Path) -> None:
    runs, folder = family(tmp_path)
    summary = launch.run("three", runs, folder, Watcher(), workers=3)
    assert summary.finished == 3 and not summary.failed
    begun = [words[0] for words in journal(trainer) if words[1] == "begun"]
    assert begun == [run.config.run_id for run in reversed(runs)]


@pytest.mark.long
def test_a_run_whose_parent_cannot_be_had_is_not_started(trainer: Path, tmp_path: Path) -> None:
    runs, folder = family(tmp_path)
    grandchild, child, parent = (run.config for run in runs)
    (folder / parent.run_id / "config.json").write_text(json.dumps(parent.to_json()))
    outcome_of(parent, state="diverged", loss_nats=None, reason="the loss was not finite").write(folder / parent.run_id)
    summary = launch.run("three", runs, folder, Watcher(), workers=3)
    assert summary.failed[child.run_id] == (
        f"not started: it starts from run {parent.run_id}, which has diverged (the loss was not finite)"
    )
    assert f"run {child.run_id}, which has failed (not started" in summary.failed[grandchild.run_id]
    assert journal(trainer) == [] and not (folder / child.run_id / "failed.json").exists()
    outcome_of(parent).write(folder / parent.run_id)
    (folder / parent.run_id / "checkpoints" / "100").rmdir()
    assert "which has no checkpoint; train it with" in launch.run("three", runs, folder, Watcher()).failed[child.run_id]
    (folder / parent.run_id / "checkpoints" / "100").mkdir()
    assert launch.run("three", runs, folder, Watcher()).finished == 3, "a later launch finds what is there then"


@pytest.mark.usefixtures("trainer")
def test_a_parent_of_another_sweep_is_looked_for_before_anything_starts(tmp_path: Path) -> None:
    runs, folder = family(tmp_path)
    child, parent = runs[1], runs[2].config
    with pytest.raises(UserError, match=r"which cannot be found: there is no run .*"):
        launch.run("two", [child], tmp_path / "other" / "two", Watcher())
    (folder / parent.run_id / "config.json").write_text(json.dumps(parent.to_json()))
    with pytest.raises(UserError, match=r"run \w+ is not started: it starts from run \w+, which has not finished"):
        launch.run("two", [child], folder.parent / "two", Watcher())
    outcome_of(parent).write(folder / parent.run_id)
    named = [PlannedRun(replace(child.config, init_from=f"{parent.run_id}@50"))]
    with pytest.raises(UserError, match="which has no checkpoint of step 50, but of 100"):
        launch.run("two", named, folder.parent / "two", Watcher())


def test_slurm_submits_each_stage_after_the_one_it_needs(tmp_path: Path) -> None:
    runs, _ = family(tmp_path)
    arrays = slurm.submissions("s", runs, tmp_path, Cluster())
    assert [one.runs for one in arrays] == [(run.config.run_id,) for run in reversed(runs)]
    assert [one.depth for one in arrays] == [0, 1, 2] and arrays[2].command(["5", "6"])[2].endswith(":5:6")


def test_slurm_waits_for_what_an_earlier_submission_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs, folder = family(tmp_path)
    grandchild, child, parent = runs
    branch = PlannedRun(replace(parent.config, tokens=12_800), trunk=parent.config.run_id, branch_step=50)
    (folder / "slurm").mkdir()
    (folder / "slurm" / "job-41.json").write_text(json.dumps({"job": "41", "runs": [parent.config.run_id]}))
    monkeypatch.setattr(slurm, "_output", lambda command: "0\n" if "squeue" in command else "")
    missing, left_out = slurm.ready([grandchild, child, branch], folder)
    assert len(missing) == 3 and left_out == []
    commands: list[list[str]] = []

    def sbatch(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        return subprocess.CompletedProcess(command, 0, stdout=str(50 + len(commands)), stderr="")

    monkeypatch.setattr(subprocess, "run", sbatch)
    arrays = slurm.submissions("s", missing, folder, Cluster())
    assert [one.runs for one in arrays] == [(child.config.run_id, branch.config.run_id), (grandchild.config.run_id,)]
    assert slurm.jobs_before(arrays[0], missing, folder) == ["41"]
    assert slurm.jobs_before(arrays[1], missing, folder) == []
    assert slurm.jobs_before(slurm.submissions("s", [branch], folder, Cluster())[0], [branch], folder) == ["41"]
    slurm.submit(arrays, missing, folder)
    assert [command[2] for command in commands] == ["--dependency=afterany:41", "--dependency=afterany:51"]


def test_slurm_leaves_out_a_run_whose_parent_will_not_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs, folder = family(tmp_path)
    grandchild, child, parent = runs
    monkeypatch.setattr(slurm, "_output", lambda command: "")
    (folder / parent.config.run_id / "config.json").write_text(json.dumps(parent.config.to_json()))
    (folder / parent.config.run_id / "failed.json").write_text('{"reason": "the disk is full"}')
    missing, left_out = slurm.ready(slurm.to_submit(runs, folder), folder)
    assert missing == [] and left_out[0] == (
        f"run {child.config.run_id} is not started: it starts from run {parent.config.run_id}, which has failed (the "
        f"disk is full)"
    )
    assert left_out[1].startswith(f"run {grandchild.config.run_id} is not started: it starts from run")
    (folder / parent.config.run_id / "failed.json").unlink()
    assert slurm.ready(slurm.to_submit(runs, folder), folder) == (list(runs), [])


def test_tables_say_the_stage_and_fits_take_one(tmp_path: Path) -> None:
    found = planned(
        chain(ladder([2e3, 4e3, 8e3], [10, 20, 40]), fine_tune(BASE[:1], tokens=640), fine_tune(BASE[1:2], tokens=1280))
    )
    for run in found.runs:
        counts = count(run.config)
        loss = 1.5 + 40 / counts.params**0.4 + 90 / counts.tokens**0.4 - (run.stage == "fine-tune")
        data = "aa" if run.stage == "pretrain" else "bb"
        outcome_of(run.config, loss_nats=loss, data_fingerprint=data).write(tmp_path / run.config.run_id)
    write_plan(tmp_path, "stages", found.runs, {})
    table = collect(tmp_path)
    tuned = table[table["stage"] == "fine-tune"]
    assert list(tuned["stage_tokens"]) == [640, 1280] and table["parent"].notna().sum() == 2
    assert list(tuned["parent_tokens"]) == [run.config.tokens for run in found.runs[:2]]
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
    found = planned(chain(BASE[:2], distil([*BASE[:2], BASE[0]], [2_000, 8_000], tokens=[1280, 6400])))
    losses = {run.config.run_id: 3.0 - 0.1 * number for number, run in enumerate(found.runs)}
    for run in found.runs[1:]:
        outcome_of(run.config, loss_nats=losses[run.config.run_id]).write(tmp_path / run.config.run_id)
    write_plan(tmp_path, "stages", found.runs, {})
    table = read_table(tmp_path, inputs=laws.form("distillation").INPUTS).set_index("run")
    for run in found.runs:
        teacher = run.config.parents.get("teacher")
        known = teacher is not None and teacher.run_id != found.runs[0].config.run_id
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
    command = [REAL_PYTHON, "-m", "lmscale"]
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
