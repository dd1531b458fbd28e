"""Bad input gives one sentence with the nearest fix, exit status 2, no traceback, and nothing half-written."""

import json
from pathlib import Path

import pytest
from helpers.command_line import call

from lmscale.core.config import ModelConfig, OptimizerConfig, RunConfig
from lmscale.core.errors import UserError, nearest
from lmscale.core.plans import PlannedRun, write_plan

RUN = RunConfig(
    model=ModelConfig(width=16, layers=1, heads=2, context=16),
    optimizer=OptimizerConfig(peak_lr=0.01, batch_sequences=4),
    tokens=64_000,
)


def test_nearest_names_the_closest_or_all() -> None:
    assert nearest("widht", ["width", "layers"]) == "; did you mean 'width'?"
    assert nearest("zzz", ["width", "layers"]) == "; known: layers, width"


def test_a_user_error_is_a_value_error() -> None:
    assert issubclass(UserError, ValueError)


def sweep_file(points: str, recipe: str = "lambda point: RUN") -> str:
    """A sweep file with the given points; `RUN` is the run above."""
    return (
        "from lmscale.core.config import RunConfig\nfrom lmscale.study.sweep import Sweep\n"
        f"RUN = RunConfig.from_json({json.loads(json.dumps(RUN.to_json()))!r})\n"
        f"SWEEP = Sweep(name='one', points={points}, recipe={recipe})\n"
    )


def prepare(folder: Path) -> None:
    """Files with one mistake each."""
    (folder / "no_sweep.py").write_text("POINTS = []\n")
    (folder / "other_name.py").write_text(sweep_file("[{}]").replace("SWEEP =", "STUDY ="))
    (folder / "breaks.py").write_text("\nvalue = 1 / 0\n")
    (folder / "short.py").write_text(sweep_file("[{}]").replace("recipe=", "tokens_per_param=(20, 40), recipe="))
    (folder / "field.json").write_text(json.dumps({**RUN.to_json(), "sead": 1}))
    (folder / "cut.json").write_text(json.dumps(RUN.to_json())[:-20])
    (folder / "table.csv").write_text("params,tokens,loss_nats\n1e6,2e7,low\n2e6,4e7,3.1\n")
    (folder / "columns.csv").write_text("size,quality\n1,2\n")
    for kind in ("outcome", "mistyped", "plan"):
        write_plan(folder / kind, kind, [PlannedRun(RUN)])
        (folder / kind / RUN.run_id).mkdir()
    (folder / "outcome" / RUN.run_id / "outcome.json").write_text('{"run_id": ')
    numbers = dict.fromkeys(("params", "params_non_embedding", "tokens", "flops", "flops_6n", "unique_tokens"), 1)
    times = dict.fromkeys(("epochs", "seconds", "startup_seconds"), 1.0)
    texts = {"run_id": RUN.run_id, "state": "finished", "data_fingerprint": "", "device": "", "versions": {}}
    mistyped = {**numbers, **times, **texts, "loss_nats": "low"}
    (folder / "mistyped" / RUN.run_id / "outcome.json").write_text(json.dumps(mistyped))
    (folder / "plan" / "plan.json").write_text("[]")


BAD = {
    ("plan", "absent.py"): "there is no sweep file absent.py",
    ("plan", "no_sweep.py"): "defines no SWEEP",
    ("plan", "other_name.py"): "call that SWEEP",
    ("plan", "breaks.py"): "breaks.py, line 2: ZeroDivisionError",
    ("plan", "short.py"): "outside 20 to 40",
    ("train", "field.json"): "did you mean 'seed'?",
    ("train", "cut.json"): "cut.json is corrupt",
    ("status", "absent"): "there is no folder absent",
    ("table", "outcome"): "outcome.json is corrupt",
    ("table", "mistyped"): "loss_nats",
    ("table", "plan"): "plan.json is corrupt",
    ("fit", "absent.csv"): "absent.csv",
    ("fit", "columns.csv"): "column",
    ("fit", "table.csv"): "loss_nats",
}


@pytest.fixture(scope="module")
def mistakes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mistakes")
    prepare(folder)
    return folder


@pytest.mark.parametrize(("verb", "file"), BAD, ids=[" ".join(case) for case in BAD])
def test_bad_input_gives_one_sentence(
    mistakes: Path, verb: str, file: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(mistakes)
    before = sorted(mistakes.rglob("*"))
    assert call(verb, file) == 2
    output = capsys.readouterr()
    assert output.out == "" and BAD[verb, file] in output.err
    assert output.err.startswith("lmscale: ") and output.err.count("\n") == 1, output.err
    assert sorted(mistakes.rglob("*")) == before
