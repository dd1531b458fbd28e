"""One job per run for any scheduler, and what a changed plan means for a folder with runs."""

import math
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from helpers.outcomes import OTHER, RUN, outcome_of

from lmscale.core.config import MeshConfig, ModelConfig, RunConfig
from lmscale.core.counting import memory_bytes
from lmscale.core.errors import UserError
from lmscale.core.files import read_json, write_json
from lmscale.core.plans import PlannedRun, read_plan, write_plan
from lmscale.study.launch import changes
from lmscale.study.launch.jobs import Pod, export
from lmscale.study.launch.slurm import MEMORY_BYTES, MEMORY_FACTOR

RUNS = [PlannedRun(RUN), PlannedRun(replace(OTHER, mesh=MeshConfig(data=2)))]


def test_a_shell_job_trains_its_run_from_anywhere(tmp_path: Path) -> None:
    said = export("two", RUNS, tmp_path / "two", "shell")
    assert said.startswith("2 of 2 runs have a job in")
    assert read_plan(tmp_path / "two")[0] == "two"
    program = tmp_path / "lmscale"
    program.write_text('#!/bin/sh\necho "$@"; test -f "$2"\n')
    program.chmod(0o755)
    job = tmp_path / "two" / "jobs" / f"{RUN.run_id}.sh"
    done = subprocess.run(
        [job, "--wandb", "offline"],
        env={**os.environ, "LMSCALE": str(program)},
        cwd="/",
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, f"train {RUN.run_id}/config.json --wandb offline\n")
    assert RunConfig.from_json(read_json(tmp_path / "two" / RUN.run_id / "config.json")) == RUN


def test_a_kubernetes_job_says_what_an_exit_status_asks_for(tmp_path: Path) -> None:
    export("my_Sweep.", RUNS, tmp_path / "two", "k8s", Pod(image="img:1", claim="disk", gpus=True))
    one, two = (yaml.safe_load((tmp_path / "two" / "jobs" / f"{run.config.run_id}.yaml").read_text()) for run in RUNS)
    assert (one["apiVersion"], one["kind"], one["metadata"]["name"]) == ("batch/v1", "Job", f"lmscale-{RUN.run_id}")
    assert one["metadata"]["labels"] == {"lmscale.sweep": "my_Sweep"}
    rules = one["spec"]["podFailurePolicy"]["rules"]
    by_status = {status: rule["action"] for rule in rules for status in rule.get("onExitCodes", {}).get("values", [])}
    assert by_status == {2: "FailJob", 71: "FailJob", 69: "Ignore", 75: "Ignore"}
    pod = one["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"] == ["lmscale", "train", f"/lmscale/runs/my_Sweep./{RUN.run_id}/config.json"]
    assert pod["restartPolicy"] == "Never" and pod["volumes"][0]["persistentVolumeClaim"] == {"claimName": "disk"}
    gpus = [
        job["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] for job in (one, two)
    ]
    assert gpus == [1, 2]


@pytest.mark.parametrize(("gpus", "factor"), [(True, 1), (False, MEMORY_FACTOR)])
def test_a_pod_gets_the_memory_of_the_device_that_it_asks_for(tmp_path: Path, gpus: bool, factor: float) -> None:
    model = ModelConfig(width=512, layers=8, heads=8, context=1024, compute_dtype="bfloat16")
    config = replace(RUN, model=model, tokens=4 * 1024 * 100)
    export("one", [PlannedRun(config)], tmp_path / "one", "k8s", Pod(image="img:1", claim="disk", gpus=gpus))
    job = yaml.safe_load((tmp_path / "one" / "jobs" / f"{config.run_id}.yaml").read_text())
    (container,) = job["spec"]["template"]["spec"]["containers"]
    expected = factor * memory_bytes(config, accelerator=gpus) + MEMORY_BYTES
    assert container["resources"]["limits"]["memory"] == f"{math.ceil(expected / 2**20)}Mi"
    assert memory_bytes(config) != memory_bytes(config, accelerator=True)


def test_what_is_at_an_end_needs_no_job_and_kubernetes_needs_an_image(tmp_path: Path) -> None:
    outcome_of(RUN).write(tmp_path / "two" / RUN.run_id)
    assert export("two", RUNS, tmp_path / "two", "shell").startswith("1 of 2 runs have a job")
    with pytest.raises(UserError, match="--format k8s: say which --image to run and which --claim"):
        export("two", RUNS, tmp_path / "two", "k8s")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Runs 0 to 3 were planned; 0 is finished, 1 was begun."""
    configs = [replace(RUN, seed=seed) for seed in range(4)]
    write_plan(tmp_path, "four", [PlannedRun(config) for config in configs])
    for config in configs[:2]:
        write_json(tmp_path / config.run_id / "config.json", config.to_json())
    outcome_of(configs[0]).write(tmp_path / configs[0].run_id)
    return tmp_path


def planned(*seeds: int) -> list[PlannedRun]:
    return [PlannedRun(replace(RUN, seed=seed)) for seed in seeds]


def test_a_changed_sweep_says_which_runs_stay_are_new_or_orphaned(folder: Path) -> None:
    assert changes("four", planned(0, 1, 2, 3), folder) == changes("four", planned(0), folder / "new") == []
    assert changes("four", planned(0, 2, 3, 8, 9), folder) == [
        "the sweep has changed: 3 runs stay, 1 of them with an outcome; 2 are new",
        f"no longer planned, so in no table, but still in {folder}: {planned(1)[0].config.run_id}",
    ]


def test_the_folder_of_another_sweep_is_left_alone(folder: Path) -> None:
    with pytest.raises(UserError, match="holds the sweep 'four'; give this one another name, or another folder"):
        changes("five", planned(0), folder)
    with pytest.raises(UserError, match="holds a sweep of this name with 4 runs, none of them here"):
        changes("four", planned(7, 8), folder)
    (folder / "plan.json").write_text("[]")
    with pytest.raises(UserError, match=r"plan\.json is corrupt"):
        changes("four", planned(0), folder)


def test_a_plan_whose_runs_were_never_begun_is_replaced(tmp_path: Path) -> None:
    write_plan(tmp_path, "four", planned(0, 1))
    assert changes("four", planned(7), tmp_path) == [
        "the sweep has changed: 0 runs stay, 0 of them with an outcome; 1 are new"
    ]
