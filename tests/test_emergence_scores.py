"""Scores from files and from the folders of runs: which are read and used, and what is refused in one sentence."""

import json
import math
import re
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from helpers.outcomes import RUN, outcome_of
from helpers.scores import SIZES, graded, hinge, scores
from rich.console import Console

from lmscale.cli import VERBS
from lmscale.commands import emergence as command
from lmscale.core.errors import UserError
from lmscale.core.plans import PlannedRun, write_plan
from lmscale.study import emergence
from lmscale.study.emergence.folder import read_scores

BAD = {
    "fewer than five scales": (lambda t: t.head(4), "5 or more different values of params"),
    "no chance": (lambda t: t.drop(columns="chance"), "no chance"),
    "n of 1": (lambda t: t.assign(n=1, correct=1), "n = 1 and 9 more rows: a rate over fewer than two examples"),
    "duplicate scales": (lambda t: pd.concat([t, t.head(1)]), "2 rows at params = 1e+06"),
    "a percentage": (lambda t: t.assign(correct=np.nan, score=40.0), r"divide percentages by 100"),
    "more correct than asked": (lambda t: t.assign(correct=2000), "correct answers lie between 0 and n"),
    "no task": (lambda t: t.drop(columns="task"), "no column 'task'"),
    "an unknown kind": (lambda t: t.assign(kind="soft"), "holds 'soft'"),
    "no kind": (lambda t: t.assign(correct=np.nan, score=0.4).drop(columns="kind"), "no column 'kind'"),
    "words for numbers": (lambda t: t.assign(n="many"), "holds 'many', which is no number"),
    "no axis": (lambda t: t.drop(columns="params"), "no values of 'params'"),
    "a scale of zero": (lambda t: t.assign(params=[0.0, *SIZES[1:]]), "an axis of scales is positive"),
    "neither n nor error": (lambda t: t.assign(score=0.4).drop(columns=["n", "correct"]), "a hard metric needs n"),
    "several chances": (lambda t: t.assign(chance=np.linspace(0, 0.5, 10)), "several values of chance"),
}


@pytest.mark.parametrize("spoil, message", BAD.values(), ids=BAD)
def test_bad_input_is_refused_in_a_sentence(spoil, message):
    with pytest.raises(UserError) as error:
        emergence.detect(spoil(scores(hinge(0.6, 0.8))), "params")
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "setting", [{"resamples": 10**9}, {"resamples": -1}, {"seed": -1}, {"q": math.nan}, {"rho": 1}]
)
def test_a_setting_out_of_range_is_refused_in_a_sentence(setting):
    (name,) = setting
    with pytest.raises(UserError, match=f"{name} = "):
        emergence.detect(scores(hinge(0.6, 0.8)), "params", **setting)


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".parquet", ".jsonl"])
def test_the_verb_reads_a_file_and_writes_json(tmp_path, capsys, suffix):
    table = pd.concat([scores(hinge(0.6, 0.8, 0.25), chance=0.25), graded(np.linspace(0.3, 0.9, 10))])
    path = tmp_path / f"scores{suffix}"
    match suffix:
        case ".parquet":
            table.to_parquet(path)
        case ".jsonl":
            table.to_json(path, orient="records", lines=True)
        case _:
            table.to_csv(path, index=False)
    command.main(command.EmergenceArgs(str(path), axis="params", resamples=20, json=tmp_path / "e.json"), Console())
    hard, soft = json.loads((tmp_path / "e.json").read_text())
    assert set(hard) == {"task", "metric", "kind", "axis", "class", "verdict", "threshold", "interval", "evidence"}
    assert (hard["class"], hard["verdict"], soft["class"]) == ("emergent", "metric-induced", "smooth")
    output = capsys.readouterr().out
    assert "2 curves over params (parameters): 1 emergent, 1 smooth" in output
    assert "metric-induced (token accuracy smooth)" in output and "0.250 to 0.800" in output


def test_the_verb_takes_other_names_and_conditions(tmp_path, capsys):
    table = scores(hinge(0.6, 0.8)).rename(columns={"params": "size", "correct": "hits"})
    table = pd.concat([table, table.assign(task="other")])
    table.to_csv(tmp_path / "s.csv", index=False)
    args = command.EmergenceArgs(
        str(tmp_path / "s.csv"), columns="params=size,correct=hits", where="task == 't'", resamples=0
    )
    command.main(args, Console())
    assert "1 curve over params (parameters): 1 emergent" in capsys.readouterr().out
    assert VERBS["emergence"].load() is command
    with pytest.raises(UserError, match="without a source column"):
        command.parse_columns("params")
    with pytest.raises(UserError, match="did you mean 'hits'"):
        emergence.detect(str(tmp_path / "s.csv"), columns={"correct": "hitz"})


def test_the_scores_of_a_sweeps_runs_are_one_table(tmp_path):
    table = scores(hinge(0.6, 0.8, 0.25), chance=0.25).assign(run_id=[f"r{i}" for i in range(10)], step=100)
    table["score"] = table["correct"] / table["n"]
    earlier = table.assign(step=50, score=0.25)
    for run, rows in pd.concat([earlier, table]).drop(columns="correct").groupby("run_id"):
        (tmp_path / run).mkdir()
        rows.to_json(tmp_path / run / "scores.jsonl", orient="records", lines=True)
    result = emergence.detect(str(tmp_path), "params")
    (finding,) = result.findings
    assert finding.cls == "emergent" and len(finding.curve.x_S) == 10
    assert len(emergence.detect(str(tmp_path), "params", where="params > 1e7").findings[0].curve.x_S) == 8
    (tmp_path / "r0" / "scores.jsonl").write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match="are corrupt"):
        emergence.detect(str(tmp_path), "params")


def score_rows(run, n=500, task="t", **more):
    return {
        "run_id": run, "step": 100, "params": 10.0 ** (6 + int(run[1:])), "task": task, "metric": "accuracy",
        "kind": "hard", "shots": 0, "score": 0.25, "n": n, "chance": 0.25, "higher_is_better": True, **more,
    }  # fmt: skip


def write_scores(folder, rows):
    for row in rows:
        (folder / row["run_id"]).mkdir(exist_ok=True)
        with (folder / row["run_id"] / "scores.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def test_of_several_measurements_the_best_is_used_and_reported(tmp_path):
    """Whichever was made last; what `where` leaves is chosen from; and runs that were measured otherwise are named."""
    write_scores(tmp_path, [score_rows(f"r{i}") for i in range(6)])
    write_scores(tmp_path, [score_rows("r0", n=20, score=0.9), score_rows("r1", shots_seed=3, shots=1)])
    result = emergence.detect(str(tmp_path), "params", resamples=0)
    assert result.findings[0].curve.n_S.tolist() == [500] * 6
    assert any("1 of 8 rows are not: t (accuracy) of run r0 has 20 items where 500" in note for note in result.notes)
    few = read_scores(tmp_path, where="n == 20")
    assert few["score"].tolist() == [0.9] and few.attrs["notes"] == []
    write_scores(tmp_path, [score_rows("r0", n=1000), score_rows("r2", task="other", step=50)])
    table = read_scores(tmp_path)
    assert table.set_index("run_id")["n"].to_dict()["r0"] == 1000 and "other" not in set(table["task"])
    notes = " ".join(table.attrs["notes"])
    assert "task t, 0 shots: its scores come from different numbers of items" in notes
    assert "task other: 1 rows of checkpoints before the last scored one" in notes
    assert set(read_scores(tmp_path, every_step=True)["task"]) == {"t", "other"}


def test_scores_of_fine_tuned_runs_are_no_points_of_pretraining(tmp_path):
    """Each size twice, at chance before and perfect after: both together would be no curve."""
    bases = [replace(RUN, seed=seed) for seed in range(6)]
    tuned = [replace(base, init_from=base.run_id) for base in bases]
    write_plan(tmp_path, "life", [PlannedRun(config) for config in [*bases, *tuned]])
    for score, configs in ((0.25, bases), (1.0, tuned)):
        sizes = [
            {"run_id": one.run_id, "params": 10.0 ** (6 + number), "step": one.steps}
            for number, one in enumerate(configs)
        ]
        write_scores(tmp_path, [{**score_rows("r0", score=score), **size} for size in sizes])
    result = emergence.detect(str(tmp_path), "params", resamples=0)
    assert result.findings[0].curve.score_S.tolist() == [0.25] * 6
    assert any("6 scores of other stages than pretrain are left out" in note for note in result.notes)
    after = emergence.detect(str(tmp_path), "params", where="stage == 'fine-tune'", resamples=0)
    assert after.findings[0].curve.score_S.tolist() == [1.0] * 6
    assert set(read_scores(tmp_path)["stage"]) == {"pretrain", "fine-tune"}


def test_of_equally_many_items_those_that_most_runs_share_are_used(tmp_path):
    write_scores(tmp_path, [score_rows(f"r{i}", task_hash="a", score=0.3) for i in range(4)])
    write_scores(tmp_path, [score_rows("r0", task_hash="b", score=0.9), score_rows("r4", task_hash="b")])
    table = read_scores(tmp_path)
    assert table["task_hash"].tolist() == ["a"] * 4 + ["b"]
    assert "different versions of the task" in " ".join(table.attrs["notes"])


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ({"score": math.nan}, "NaN is no number"),
        ({"score": math.inf}, "Infinity is no number"),
        ({"score": 10**400}, "score = 1000"),
        ({"score": 87.5}, "score = 87.5; a share of correct answers is in"),
        ({"score": "0.5"}, 'score = "0.5"'),
        ({"score": None}, "score is missing"),
        ({"score": True}, "score = true"),
        ({"params": 10**400}, "params = 1000"),
        ({"n": 10**5000}, "corrupt"),
        ({"n": 0.5}, "n = 0.5; n is a whole number above 0"),
        ({"stderr": -1.0}, "stderr = -1.0"),
        ({"task": ["t"]}, 'task = ["t"]; task is a text'),
        ({"kind": {"a": 1}}, "kind is hard or graded"),
        ("[" * 100_000, "nested too deeply"),
        ("[1]", "a list stands where a row is expected"),
        (b"\xff\xfe", "not UTF-8"),
    ],
)
def test_a_damaged_row_of_scores_is_one_sentence(tmp_path, line, sentence):
    write_scores(tmp_path, [score_rows(f"r{i}") for i in range(6)])
    if isinstance(line, dict):
        limit = sys.get_int_max_str_digits()
        sys.set_int_max_str_digits(0)
        line = json.dumps(score_rows("r2", **line))
        sys.set_int_max_str_digits(limit)
    with (tmp_path / "r2" / "scores.jsonl").open("ab") as file:
        file.write(line if isinstance(line, bytes) else line.encode())
    with pytest.raises(UserError, match=re.escape(sentence)) as caught:
        emergence.detect(str(tmp_path), "params")
    assert "r2/scores.jsonl" in str(caught.value) and len(str(caught.value)) < 600


def test_a_folder_without_scores_says_what_to_run(tmp_path):
    with pytest.raises(UserError, match=r"no run in .* has scores; .*`lmscale eval .*/RUN FORMAT:PATH`"):
        emergence.detect(str(tmp_path))


@pytest.mark.parametrize("column", ["score", "stderr", "params"])
def test_a_table_with_an_infinite_value_is_one_sentence(column):
    table = graded(np.linspace(0.1, 0.9, 10))
    table.loc[3, column] = math.inf
    with pytest.raises(UserError, match=f"has {column} = inf"):
        emergence.detect(table)


def test_scales_that_may_count_millions_are_doubted():
    table = scores(hinge(0.6, 0.8))
    (doubt,) = emergence.detect(table.assign(params=table["params"] / 1e9), "params", resamples=0).notes
    assert doubt.startswith("the largest params is") and "millions or billions, so do the thresholds" in doubt
    assert not emergence.detect(table, "params", resamples=0).notes


def test_scores_of_runs_that_are_not_trained_to_the_end_are_no_points(tmp_path):
    """A run that was killed on its way has scores of a half-trained model; one that ended early has its own."""
    configs = [replace(RUN, seed=seed) for seed in range(8)]
    write_plan(tmp_path, "ladder", [PlannedRun(config) for config in configs])
    for number, config in enumerate(configs):
        step = config.steps if number < 6 else 50
        write_scores(tmp_path, [score_rows("r0") | {"run_id": config.run_id, "step": step, "params": 10.0**number}])
    outcome_of(configs[7]).write(tmp_path / configs[7].run_id)
    table = read_scores(tmp_path)
    assert set(table["run_id"]) == {config.run_id for config in configs} - {configs[6].run_id}
    (note,) = table.attrs["notes"]
    assert note.startswith(f"1 run not trained to the end: their scores are no points (first: {configs[6].run_id} at")
    assert set(read_scores(tmp_path, where="step == 50")["run_id"]) == {one.run_id for one in configs[6:]}
    outcome_of(configs[7], state="diverged", loss_nats=None).write(tmp_path / configs[7].run_id)
    with pytest.raises(UserError, match="2 runs not trained to the end"):
        read_scores(tmp_path, where="params >= 1e6")


def test_scores_of_crashed_runs_are_left_out_of_a_table():
    table = scores(hinge(0.6, 0.8))
    lost = table.iloc[[-1]].assign(params=1e12, correct=0)
    states = pd.concat([table.assign(state="finished"), lost.assign(state="crashed")])
    result = emergence.detect(states, "params", resamples=0)
    assert result.to_json() == emergence.detect(table, "params", resamples=0).to_json()
    assert result.notes == ("left out: 1 row of runs that did not finish (crashed)",)
    with pytest.raises(UserError, match="only 1 row of runs that did not finish"):
        emergence.detect(states[states["state"] == "crashed"], "params")
