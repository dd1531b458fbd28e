"""`lmscale plan --compile`: what the compiler says, in the table and in --json, in the place of estimates."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.command_line import call
from helpers.compiled import COMPILED, compiled
from helpers.outcomes import RUN
from helpers.plans import own_cache  # noqa: F401

import lmscale
from lmscale.commands.plan import compiled as compiled_plan
from lmscale.core.compiled import CompiledRun, Effort
from lmscale.core.config import MeshConfig
from lmscale.core.counting import memory_bytes
from lmscale.core.errors import UserError
from lmscale.core.machines import Machine, machine
from lmscale.core.plans import PlannedRun
from lmscale.study import sweep

SWEEP = """
from dataclasses import replace
from lmscale import ModelConfig, OptimizerConfig, RunConfig, Sweep

RUN = RunConfig(
    model=ModelConfig(width=16, layers=1, heads=2, context=16, compute_dtype="bfloat16"),
    optimizer=OptimizerConfig(peak_lr=0.01, batch_sequences=4),
    tokens=64_000,
)
SWEEP = Sweep("two", [{"seed": 0}, {"seed": 1}], lambda point: replace(RUN, seed=point["seed"]), law="")
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "two.py").write_text(SWEEP, "utf-8")
    return tmp_path / "two.py"


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[Machine]:
    """The machines that were compiled for; every run gets `COMPILED`."""
    asked: list[Machine] = []

    def compile_runs(
        runs: list[PlannedRun], target: Machine, progress: Any, effort: Effort, pack: int
    ) -> list[CompiledRun]:
        asked.append(target)
        outcome = compiled(machine=target.name, train=replace(COMPILED.train, effort=effort), packed=pack)
        progress(1, 1, outcome)
        return [outcome] * len(runs)

    monkeypatch.setattr(compiled_plan, "compile_runs", compile_runs)
    return asked


def test_the_table_and_the_file(file: Path, answers: list[Machine], capsys: pytest.CaptureFixture[str]) -> None:
    assert call("plan", file, "--compile", "v5e-4", "--json", "p.json") == 0
    printed = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert answers == [machine("v5e-4")]
    assert "compiled 1 of 1 shape: fits, 3.0 GB per device of 16.0" in printed
    assert "2,862 compiled" in printed and ">= 12 ms" in printed and "attention by splash" in printed
    assert "Compiled for v5e-4: 2 of 2 runs fit" in printed and "0.4 GB in 8 all-gathers" in printed
    assert "at least 12 ms by the peaks of TPU v5e (products 10 ms, memory traffic 12 ms, links 2 ms)" in printed
    assert "4 x TPU v5e, 35% of 197 TFLOP/s" in printed, "priced for that machine too"
    written = json.loads(Path("p.json").read_text("utf-8"))
    for run, row in zip(written["runs"], written["rows"]):
        assert run["compiled"]["fits"] is True and run["compiled"]["bytes_per_device"] == 3 * 10**9
        assert run["compiled"]["attention"] == "splash" and run["compiled"]["machine"] == "v5e-4"
        assert row["memory_source"] == "compiled" and row["memory_bytes"] == 3 * 10**9


def test_a_plan_that_was_compiled_is_a_plan(file: Path, answers: list[Machine]) -> None:
    assert call("plan", file, "--compile", "v5e-4", "--json", "p.json") == 0
    assert [run.config.run_id for run in sweep.read("p.json").runs] == [
        run.config.run_id for run in sweep.read(file).runs
    ]


def test_the_compile_effort_is_reported(file: Path, answers: list[Machine], capsys: pytest.CaptureFixture[str]) -> None:
    for words, effort in (((), "low"), (("--compile-effort", "full"), "full")):
        assert call("plan", file, "--compile", "v5e-4", "--json", "p.json", *words) == 0
        printed = re.sub(r"\s+", " ", capsys.readouterr().out)
        assert ("2 of 2 runs compiled with little effort" in printed) == (effort == "low")
        assert [run["compiled"]["effort"] for run in json.loads(Path("p.json").read_text("utf-8"))["runs"]] == [
            effort
        ] * 2


def test_runs_that_share_a_program(file: Path, answers: list[Machine], capsys: pytest.CaptureFixture[str]) -> None:
    """The memory of both together, compiled or estimated."""
    assert call("plan", file, "--compile", "v5e-4", "--pack", "2", "--json", "p.json") == 0
    printed = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert "fits, 3.0 GB per device of 16.0 for 2 runs in one program" in printed
    assert "MiB: compiled peak memory over all devices of the program that a run shares with those like it" in printed
    written = json.loads(Path("p.json").read_text("utf-8"))
    assert [run["compiled"]["packed"] for run in written["runs"]] == [2, 2]
    for pack, packed in ((1, 1), (2, 2), (8, 2)):
        assert call("plan", file, "--device", "h100", "--pack", str(pack), "--json", "p.json") == 0
        rows = json.loads(Path("p.json").read_text("utf-8"))["rows"]
        assert [row["packed"] for row in rows] == [packed] * 2
        assert [row["memory_bytes"] for row in rows] == [
            packed * memory_bytes(sweep.read(file).runs[0].config, "gpu")
        ] * 2
    capsys.readouterr()
    assert call("plan", file, "--pack", "0") == 2 and "--pack 0: must be at least 1" in capsys.readouterr().err


def test_a_program_of_several_runs_that_does_not_fit(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    large = compiled(fits=False, bytes_per_device=20 * 10**9, packed=2)
    monkeypatch.setattr(compiled_plan, "compile_runs", lambda runs, target, progress, effort, pack: [large] * len(runs))
    assert call("run", file, "--check-compiled", "v5e-4", "--pack", "2") == 2
    refused = capsys.readouterr().err
    assert "20 GB of 16 GB per device for 2 runs in one program, compiled): take less than --pack 2" in refused
    wide = "width=16, layers=1, heads=2, context=16", "width=16384, layers=16, heads=2, context=16"
    file.write_text(SWEEP.replace(*wide).replace("64_000", "10_000_000_000"), "utf-8")
    assert call("plan", file, "--device", "h100", "--pack", "2") == 0
    printed = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert "2 of 2 runs need more than the 80 GB of one H100" in printed
    assert "for 2 runs in one program): take less than --pack 2, raise" in printed


def test_without_it_nothing_is_compiled(file: Path, answers: list[Machine], capsys: pytest.CaptureFixture[str]) -> None:
    assert call("plan", file, "--json", "p.json") == 0
    assert not answers and "compiled" not in capsys.readouterr().out
    written = json.loads(Path("p.json").read_text("utf-8"))
    assert all("compiled" not in run for run in written["runs"])
    assert all(row["memory_source"] == "estimated" for row in written["rows"])


def test_one_configuration_is_a_plan_of_one_run(
    tmp_path: Path, answers: list[Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config.json").write_text(json.dumps(RUN.to_json()), "utf-8")
    assert call("plan", "config.json", "--compile", "h100", "--json", "p.json") == 0
    (run,) = json.loads(Path("p.json").read_text("utf-8"))["runs"]
    assert run["run_id"] == RUN.run_id and run["compiled"]["machine"] == "h100x1"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--compile", "h100-8"), "no machine is called 'h100-8'; did you mean 'h100x8'?"),
        (("--compile", "v5e-12"), "the nearest are v5e-8 and v5e-16"),
        (("--compile", "nowhere.txtpb"), "nowhere.txtpb cannot be used"),
        (("--compile", "v5e-4", "--devices", "8"), "--compile v5e-4 has 4 devices"),
    ],
)
def test_what_cannot_be_compiled_for(
    words: tuple[str, ...], sentence: str, file: Path, answers: list[Machine], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("plan", file, *words) == 2
    assert sentence in capsys.readouterr().err and not answers


def test_a_plan_in_python_is_compiled_too(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Machine] = []

    def compile_runs(runs: list[PlannedRun], target: Machine, pack: int) -> list[CompiledRun]:
        asked.append(target)
        return [compiled(machine=target.name, packed=pack)] * len(runs)

    monkeypatch.setattr("lmscale.study.compiled.compile_runs", compile_runs)
    plain = lmscale.plan(file)
    assert not plain.compiled and not asked
    plan = lmscale.plan(plain, compile="v5e-4")
    assert asked == [machine("v5e-4")] and list(plan.compiled) == [run.config.run_id for run in plan.runs]
    assert f"{plan.runs[0].config.run_id} on v5e-4: fits, 3.0 GB per device of 16.0" in str(plan)
    assert [one.packed for one in lmscale.plan(plain, compile="v5e-4", pack=2).compiled.values()] == [2, 2]
    with pytest.raises(UserError, match="did you mean 'h100x8'"):
        lmscale.plan(plain, compile="h100-8")


@pytest.mark.parametrize("words", [("run",), ("export-jobs",)], ids=" ".join)
def test_nothing_is_started_that_does_not_fit(
    words: tuple[str, ...], file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    large = compiled(fits=False, bytes_per_device=20 * 10**9)
    monkeypatch.setattr(compiled_plan, "compile_runs", lambda runs, *_: [large] * len(runs))
    assert call(*words, file, "--check-compiled", "v5e-4") == 2
    assert "2 of 2 runs do not fit v5e-4" in capsys.readouterr().err and not Path("runs").exists()


def test_jobs_that_fit_are_written(file: Path, answers: list[Machine]) -> None:
    assert call("export-jobs", file, "--check-compiled", "v5e-4") == 0
    assert answers == [machine("v5e-4")] and Path("runs").exists()


def test_what_is_worth_a_note() -> None:
    def notes(target: str, outcome: CompiledRun, **changes: Any) -> str:
        run = PlannedRun(replace(RUN, **changes))
        return " ".join(compiled_plan.notes([(run, outcome)], machine(target)))

    assert notes("v5e-4", COMPILED) == ""
    large = compiled(fits=False, bytes_per_device=20 * 10**9)
    assert re.search(
        r"1 of 1 run does not fit v5e-4 \(run \w+: 20 GB of 16 GB per device, compiled\)", notes("v5e-4", large)
    )
    assert "take 1 of the 16 devices of v5e-16, whose 4 hosts" in notes("v5e-16", COMPILED)
    assert "compile for v5e-1" in notes("v5e-16", COMPILED)
    plain = compiled(attention="plain")
    dropped = replace(RUN.model, attention_dropout=0.1)
    assert "attention_dropout = 0.1" in notes("v5e-4", plain, model=dropped)
    assert "float32" in notes("h100", plain)
    cut = replace(RUN, mesh=MeshConfig(sequence=4))
    assert "x mesh.sequence = 4 devices share the heads" in notes("v5e-4", plain, mesh=cut.mesh)


@pytest.mark.parametrize(
    ("change", "device", "words"),
    [
        ("attention_dropout=0.1", "h100", "2 of 2 runs compute attention without a fused kernel"),
        ("attention_dropout=0.1", "v5e", "attention_dropout = 0.1, which no kernel has"),
        ("compute_dtype='float32'", "h100", "compute_dtype = 'float32', which no kernel of a GPU takes"),
        ("context=64", "v5e", "context 64, heads of 8 features"),
        ("context=128", "v5e", None),
        ("context=128", "h100", None),
        ("attention_dropout=0.1", "", None),
    ],
)
def test_a_plan_for_a_device_tells_of_attention_without_a_kernel(
    change: str, device: str, words: str | None, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    defaults = {"context": "64", "compute_dtype": "'bfloat16'"}
    name, _, value = change.partition("=")
    options = ", ".join(f"{key}={text}" for key, text in {**defaults, name: value}.items())
    file.write_text(SWEEP.replace('context=16, compute_dtype="bfloat16"', options), "utf-8")
    assert call("plan", file, *(["--device", device] if device else [])) == 0
    printed = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert (words in printed) if words else ("fused kernel" not in printed)
