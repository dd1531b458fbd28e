"""Stages as axes of a sweep: points that name their parents, what a plan counts, and what it refuses."""

import re
from dataclasses import replace
from typing import Any

import pytest
from helpers.outcomes import RUN
from helpers.stages import ANSWERS, BASE, RECIPE, STAGES, planned

from lmscale.commands.plan.dependencies import dependencies
from lmscale.core.config import Completion, DataConfig, Distillation, Preference, RunConfig
from lmscale.core.counting import count, flops_per_token_forward
from lmscale.core.errors import UserError
from lmscale.core.plans import PlannedRun
from lmscale.study import prices
from lmscale.study.launch.branches import with_starts
from lmscale.study.sweep import chain, distil, fine_tune, prefer, reward


def test_a_sweep_holds_a_ladder_and_what_follows() -> None:
    tuned = fine_tune(BASE, tokens=[640, 1280], peak_lr=[0.001])
    students = distil(BASE[2:3], [2_000, {"params": 4_000, "seed": 3}], tokens=6400)
    sweep = planned(chain(BASE, tuned, students))
    runs = {stage: [run for run in sweep.runs if run.stage == stage] for stage in ("pretrain", "fine-tune", "distil")}
    assert [len(members) for members in runs.values()] == [4, 8, 2]
    by_id = {run.config.run_id: run for run in sweep.runs}
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
    assert sweep.flops == sum(count(run.config).flops for run in sweep.runs) + teaching == sweep.flops_apart
    assert sweep.reference_flops == teaching and f"FLOPs, {teaching:.3g} of them to read teachers" in str(sweep)
    lines = str(sweep).splitlines()
    assert [line.split()[1] for line in lines[1:16]] == ["stage", *(run.stage for run in sweep.runs)]
    assert " stage " not in str(planned(BASE)) and "teachers" not in str(planned(BASE))
    assert [PlannedRun.from_json(run.to_json()) for run in sweep.runs] == sweep.runs


def test_parents_are_named_by_point_by_name_and_by_id() -> None:
    parent = {"params": 2_000, "tokens": 20_480, "name": "base"}
    run_id = planned([parent], RECIPE).runs[0].config.run_id
    for start in (parent, {**parent, "held_out": True}, "base", run_id, "base@7"):
        points = [parent, {"params": 2_000, "tokens": 640, "init_from": start, "stage": "more"}]
        child = planned(points, RECIPE).runs[1]
        assert child.config.init_from == run_id + ("@7" if start == "base@7" else "")
        assert child.stage == "more" and child.parent_tokens == (7 * 64 if start == "base@7" else 20_480)
    all_runs = with_starts(planned(points, RECIPE).runs)
    assert [run.config.kept_steps for run in all_runs] == [(7,), ()]
    elsewhere = planned([{"params": 2_000, "tokens": 640, "init_from": "0123456789ab"}], RECIPE).runs[0]
    assert (elsewhere.config.init_from, elsewhere.parent_tokens, elsewhere.stage) == ("0123456789ab", None, "fine-tune")


def test_preferences_and_rewards_start_from_a_run_and_count_both_answers() -> None:
    tuned = fine_tune(BASE[:1], tokens=[640])
    sweep = planned(chain(BASE, tuned, prefer(tuned, tokens=[1280], peak_lr=[0.001]), reward(tuned, tokens=1280)))
    runs = {stage: [run for run in sweep.runs if run.stage == stage] for stage in ("fine-tune", "prefer", "reward")}
    [parent], [policy], [rewards] = runs.values()
    assert policy.config.init_from == policy.config.reference == parent.config.run_id == rewards.config.init_from
    assert policy.config.objective == Preference(beta=0.2) and policy.config.optimizer.peak_lr == 0.001
    assert policy.config.tokens == rewards.config.tokens == 1280
    assert policy.config.batch_examples * 2 == policy.config.optimizer.batch_sequences
    assert policy.parent_tokens == parent.parent_tokens + parent.config.tokens
    forward = flops_per_token_forward(parent.config.model)
    assert policy.reference_flops == forward * 1280 and policy.reference_bytes > 0
    assert rewards.config.model == replace(parent.config.model, scalar_head=True) and rewards.reference_flops == 0
    drawn = "\n".join(dependencies(sweep.runs))
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
