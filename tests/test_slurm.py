"""What would be submitted to Slurm, exactly."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.outcomes import OTHER, RUN, outcome_of

from lmscale.core.config import MeshConfig, ModelConfig
from lmscale.core.counting import memory_bytes
from lmscale.core.errors import UserError
from lmscale.core.plans import PlannedRun, write_plan
from lmscale.study.launch import lease, slurm
from lmscale.study.launch.slurm import Cluster, Resources, resources, submissions, to_submit

LONG = replace(RUN, tokens=2 * RUN.tokens)
PAIR = replace(RUN, seed=7, mesh=MeshConfig(data=2))


def planned(*configs: object) -> list[PlannedRun]:
    return [PlannedRun(config) for config in configs]  # type: ignore[arg-type]


def test_runs_that_want_the_same_share_an_array_the_longest_first(tmp_path: Path) -> None:
    single, pair = submissions("my sweep", planned(RUN, PAIR, LONG), tmp_path, Cluster())
    assert single.runs == (LONG.run_id, RUN.run_id) and pair.runs == (PAIR.run_id,)
    assert single.command() == ["sbatch", "--parsable", str(tmp_path / "slurm" / "array-1.sh")] and not single.depth
    assert f"runs=({LONG.run_id} {RUN.run_id})" in single.text and "--array=0-1\n" in single.text
    assert "--ntasks=1\n" in single.text and "--ntasks=2\n" in pair.text and "JAX_PLATFORMS=cpu" in pair.text
    assert "--job-name=lmscale-my-sweep\n" in single.text and "--requeue\n" in single.text
    assert subprocess.run(["bash", "-n"], input=single.text, text=True).returncode == 0


def test_branches_are_submitted_after_their_trunks(tmp_path: Path) -> None:
    runs = [PlannedRun(LONG, trunk=RUN.run_id, branch_step=500), PlannedRun(RUN)]
    first, second = submissions("s", runs, tmp_path, Cluster())
    assert first.runs == (RUN.run_id,) and second.runs == (LONG.run_id,)
    assert second.command(["5", "6"])[2] == "--dependency=afterany:5:6"


def test_every_setting_reaches_sbatch(tmp_path: Path) -> None:
    settings = Cluster(partition="p", account="a", time="1:00:00", cores=3, at_once=2, options=("--qos=low",))
    (one,) = submissions("s", planned(RUN, OTHER), tmp_path, settings)
    options = re.findall(r"^#SBATCH (.*)$", one.text, re.M)
    assert {"--partition=p", "--account=a", "--time=1:00:00", "--cpus-per-task=3", "--array=0-1%2", "--qos=low"} <= {
        *options
    }


@pytest.mark.parametrize(
    ("devices", "gpus", "expected"),
    [
        (1, 0, Resources(1, 1, 0, 4)),
        (2, 0, Resources(1, 2, 0, 8)),
        (2, 8, Resources(1, 1, 2, 4)),
        (16, 8, Resources(2, 2, 8, 4)),
    ],
)
def test_what_a_run_asks_for(devices: int, gpus: int, expected: Resources) -> None:
    config = replace(RUN, optimizer=replace(RUN.optimizer, batch_sequences=16), mesh=MeshConfig(data=devices))
    assert resources(config, Cluster(gpus_per_node=gpus)) == expected


def test_memory_is_that_of_the_kind_of_device_that_is_asked_for() -> None:
    batch, context = 32, 1024
    model = ModelConfig(width=512, layers=8, heads=8, context=context, compute_dtype="bfloat16")
    optimizer = replace(RUN.optimizer, batch_sequences=batch)
    config = replace(RUN, model=model, optimizer=optimizer, tokens=100 * batch * context)
    gpu, cpu = (memory_bytes(config, platform) / 2**30 for platform in ("gpu", "cpu"))
    assert 8 < gpu + 2 < 16 < cpu + 2 < 1.5 * cpu + 2 < 32, "else the powers of two do not tell them apart"
    assert resources(config, Cluster(gpus_per_node=1)).memory_gib == 16
    assert resources(config, Cluster()).memory_gib == 32


def test_devices_that_do_not_share_out_over_nodes_are_refused() -> None:
    config = replace(RUN, tokens=64_080, optimizer=replace(RUN.optimizer, batch_sequences=9), mesh=MeshConfig(data=9))
    config = replace(config, tokens=144 * 9 * 16)
    with pytest.raises(UserError, match="9 devices, which 2 nodes of 8 GPUs cannot share evenly"):
        resources(config, Cluster(gpus_per_node=8))


def test_only_what_is_missing_and_not_queued_is_submitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configs = [replace(RUN, seed=seed) for seed in range(5)]
    outcome_of(configs[0]).write(tmp_path / configs[0].run_id)
    (tmp_path / configs[1].run_id).mkdir()
    (tmp_path / configs[1].run_id / "failed.json").write_text('{"reason": "no"}')
    (tmp_path / "slurm").mkdir()
    job = {"job": "5", "runs": [configs[2].run_id, configs[3].run_id]}
    (tmp_path / "slurm" / "job-5.json").write_text(json.dumps(job))
    monkeypatch.setattr(slurm, "_output", lambda command: "1\n" if "squeue" in command else "")
    with lease.hold([tmp_path / configs[4].run_id], {}):
        assert [one.config.seed for one in to_submit(planned(*configs), tmp_path)] == [2]


def test_a_machine_without_slurm_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="there is no sbatch on this machine"):
        slurm.check_cluster(Cluster())
    (tmp_path / "sbatch").write_text("#!/bin/sh\necho invalid account >&2; exit 1")
    (tmp_path / "sinfo").write_text("#!/bin/sh\necho 'gpu*'\necho debug")
    for name in ("sbatch", "sinfo"):
        (tmp_path / name).chmod(0o755)
    with pytest.raises(UserError, match="--partition gpus: no such one here; did you mean 'gpu'"):
        slurm.check_cluster(Cluster(partition="gpus"))
    slurm.check_cluster(Cluster(partition="gpu"))
    jobs = submissions("s", planned(RUN), tmp_path, Cluster())
    with pytest.raises(UserError, match=r"sbatch refused .*array-1\.sh: invalid account; change it"):
        slurm.submit(jobs, planned(RUN), tmp_path)


def read_by_sbatch(line: str) -> list[str]:
    """The options of a line #SBATCH as Slurm reads them: one level of quotes and backslashes off, # begins a remark."""
    options, option, quote, started = [], "", "", False
    letters = iter(line.removeprefix("#SBATCH "))
    for letter in letters:
        if letter == "\\":
            option, started = option + next(letters), True
        elif letter == quote:
            quote = ""
        elif not quote and letter in "\"'":
            quote, started = letter, True
        elif letter == "#":
            break
        elif letter.isspace() and not quote:
            options += [option] * started
            option, started = "", False
        else:
            option, started = option + letter, True
    assert not quote, line
    return options + [option] * started


def expanded_by_slurm(pattern: str) -> str:
    return re.sub(r"%(%|A|a)", lambda match: {"%": "%", "A": "7", "a": "0"}[match[1]], pattern)


@pytest.mark.parametrize(
    "part", ["plain", "my runs", "100%", "%A", "%%", "it's", 'say "hi"', "#1", "a;b", "$(id)", "`id`", "größe", "a#b c"]
)
def test_every_path_is_the_one_that_slurm_writes_to(part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / part).mkdir()
    monkeypatch.chdir(tmp_path / part)
    monkeypatch.setenv("LMSCALE_CACHE", f"/cache/{part}")
    (one,) = submissions("s", planned(RUN), tmp_path / part / "s", Cluster())
    lines = [read_by_sbatch(line) for line in one.text.splitlines() if line.startswith("#SBATCH")]
    assert all(len(line) == 1 for line in lines), lines
    (output,) = (line[0].removeprefix("--output=") for line in lines if line[0].startswith("--output="))
    assert expanded_by_slurm(output) == f"{tmp_path / part}/s/slurm/7_0.txt"
    (tmp_path / "python").write_text('#!/bin/sh\npwd; echo "$LMSCALE_CACHE"; echo "$@"\n')
    (tmp_path / "python").chmod(0o755)
    script = one.text.replace(f"exec {sys.executable}", f"exec {tmp_path / 'python'}")
    done = subprocess.run(
        ["bash"], input=script, capture_output=True, text=True, cwd="/", env={**os.environ, "SLURM_ARRAY_TASK_ID": "0"}
    )
    home = tmp_path / part
    assert done.stdout == f"{home}\n/cache/{part}\n-m lmscale finish {home}/s/{RUN.run_id}\n" and not done.stderr


@pytest.mark.parametrize("part", ["a\ntouch owned", "a\rb", "a\x1b[2Jb", "a\u202eb", "a\udcffb", "a\u2028b"])
def test_control_characters_in_a_path_are_refused(part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"the folder of the runs is '.*': the character .* cannot stand in a script"):
        submissions("s", planned(RUN), tmp_path / part, Cluster())
    monkeypatch.setenv("LMSCALE_CACHE", part)
    with pytest.raises(UserError, match=r"LMSCALE_CACHE is '.*': the character"):
        submissions("s", planned(RUN), tmp_path, Cluster())
    monkeypatch.delenv("LMSCALE_CACHE")
    monkeypatch.setattr(sys, "executable", f"/bin/{part}")
    with pytest.raises(UserError, match=r"the path of Python is '.*': the character"):
        submissions("s", planned(RUN), tmp_path, Cluster())


def test_a_backslash_would_switch_slurms_patterns_off(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Slurm takes no path with a backslash; rename it"):
        submissions("s", planned(RUN), tmp_path / "a\\b", Cluster())


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"partition": "a b"}, "--partition 'a b': Slurm's names are of letters"),
        ({"partition": "a\n#SBATCH --uid=0"}, "--partition"),
        ({"account": ""}, "--account"),
        ({"account": "a;b"}, "--account"),
        ({"time": "two hours"}, "--time 'two hours': write minutes, HOURS:MINUTES:SECONDS"),
        ({"time": "1:00\ntouch owned"}, "--time"),
        ({"cores": 0}, "--cores 0: must be at least 1"),
        ({"gpus_per_node": -1}, "--gpus-per-node -1"),
        ({"at_once": 0}, "--at-once 0"),
        ({"options": ("--comment=a\ntouch owned",)}, r"--sbatch is '--comment=a\x0atouch owned'"),
        ({"options": ("touch owned",)}, "--sbatch 'touch owned': write an option of sbatch"),
        ({"options": ("--array=0-5",)}, "lmscale sets --array itself"),
        ({"options": ("-o/dev/null",)}, "lmscale sets -o/dev/null itself"),
        ({"options": ("--wrap=id",)}, "lmscale sets --wrap itself"),
    ],
)
def test_settings_that_sbatch_cannot_take_are_refused(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=re.escape(sentence)):
        Cluster(**settings)


@pytest.mark.parametrize("time", ["90", "1:30", "2:00:00", "1-0", "1-12:30:00", "UNLIMITED"])
def test_times_as_slurm_writes_them(time: str) -> None:
    assert Cluster(time=time).time == time


@pytest.mark.parametrize(
    ("option", "read"),
    [
        ("--qos=low", ["--qos=low"]),
        ("--comment=two words", ["--comment=two words"]),
        ("--comment='two words'", ["--comment=two words"]),
        ("--comment=it's #1", ["--comment=it's #1"]),
        ("--nodelist node[1-3,7]", ["--nodelist", "node[1-3,7]"]),
        ("--exclusive", ["--exclusive"]),
        ("-C gpu", ["-C", "gpu"]),
    ],
)
def test_further_options_reach_sbatch_as_they_were_meant(option: str, read: list[str], tmp_path: Path) -> None:
    (one,) = submissions("s", planned(RUN), tmp_path, Cluster(options=(option,)))
    line = [line for line in one.text.splitlines() if line.startswith("#SBATCH")][-1]
    assert read_by_sbatch(line) == read


@pytest.mark.parametrize(
    ("config", "sizes"),
    [
        ("MaxArraySize            = 3\nMaxJobCount = 1", [3, 3, 1]),
        ("MaxArraySize = 1", [1] * 7),
        ("MaxArraySize = 7", [7]),
        ("", [7]),
    ],
)
def test_an_array_is_no_larger_than_the_cluster_allows(
    config: str, sizes: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm, "_output", lambda command: config if "scontrol" in command else "")
    runs = [replace(RUN, seed=seed) for seed in range(7)]
    arrays = submissions("s", planned(*runs), tmp_path, Cluster())
    assert [len(array.runs) for array in arrays] == sizes
    assert {run for array in arrays for run in array.runs} == {run.run_id for run in runs}
    assert [array.script.name for array in arrays] == [f"array-{number + 1}.sh" for number in range(len(sizes))]
    for array in arrays:
        assert f"--array=0-{len(array.runs) - 1}\n" in array.text and f"runs=({' '.join(array.runs)})" in array.text


def test_by_default_an_array_has_slurms_own_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    runs = [replace(RUN, seed=seed) for seed in range(1003)]
    assert [len(array.runs) for array in submissions("s", planned(*runs), tmp_path, Cluster())] == [1001, 2]


def test_a_cluster_without_arrays_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm, "_output", lambda command: "MaxArraySize = 0")
    with pytest.raises(UserError, match=r"no job arrays \(MaxArraySize = 0\): write a job for each run"):
        submissions("s", planned(RUN), tmp_path, Cluster())


@pytest.mark.parametrize(
    "content", ["", "[]", "1", '{"job": 5}', '{"job": "5", "runs": 3}', '{"job": ["x"], "runs": []}']
)
def test_a_damaged_note_of_a_job_hides_nothing(content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slurm").mkdir()
    (tmp_path / "slurm" / "job-5.json").write_text(content)
    (tmp_path / "slurm" / "array-old.sh").touch()
    monkeypatch.setattr(slurm, "_output", lambda command: "1\n" if "squeue" in command else "")
    assert len(to_submit(planned(RUN), tmp_path)) == 1
    assert submissions("s", planned(RUN), tmp_path, Cluster())[0].script.name == "array-1.sh"


def test_finish_is_for_planned_runs(tmp_path: Path) -> None:
    from lmscale.study.launch.finish import finish

    write_plan(tmp_path, "s", planned(RUN))
    with pytest.raises(UserError, match="has no run 'absent'"):
        finish(tmp_path / "absent")


def test_several_processes_are_started_by_srun(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    assert slurm.step_command() == []
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("SLURM_NTASKS", "1")
    assert slurm.step_command() == []
    monkeypatch.setenv("SLURM_NTASKS", "2")
    assert slurm.step_command()[0] == "srun"
