"""One job per run for any scheduler, and what a changed plan means for a folder with runs."""

import math
import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from helpers.outcomes import OTHER, RUN, outcome_of

from lmscale.core.config import ExamConfig, MeshConfig, ModelConfig, RunConfig
from lmscale.core.counting import memory_bytes
from lmscale.core.errors import UserError
from lmscale.core.files import read_json, write_json
from lmscale.core.plans import PlannedRun, read_plan, write_plan
from lmscale.core.text import short_name
from lmscale.study.launch import changes
from lmscale.study.launch.jobs import Pod, export
from lmscale.study.launch.slurm import MEMORY_BYTES, MEMORY_FACTOR

RUNS = [PlannedRun(RUN), PlannedRun(replace(OTHER, mesh=MeshConfig(data=2)))]


def test_a_shell_job_trains_its_run_from_anywhere(tmp_path: Path) -> None:
    paths, sentence = export("two", RUNS, tmp_path / "two", "shell")
    assert [path.stem for path in paths] == [run.config.run_id for run in RUNS]
    assert sentence.startswith("2 of 2 runs have a job in")
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
    assert one["metadata"]["labels"] == {"lmscale.sweep": short_name("my_Sweep.", 63)}
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
    expected = factor * memory_bytes(config, "gpu" if gpus else "cpu") + MEMORY_BYTES
    assert container["resources"]["limits"]["memory"] == f"{math.ceil(expected / 2**20)}Mi"
    assert memory_bytes(config) != memory_bytes(config, "gpu")


def test_what_is_at_an_end_needs_no_job_and_kubernetes_needs_an_image(tmp_path: Path) -> None:
    outcome_of(RUN).write(tmp_path / "two" / RUN.run_id)
    assert export("two", RUNS, tmp_path / "two", "shell")[1].startswith("1 of 2 runs have a job")
    with pytest.raises(UserError, match="--format k8s: say which --image to run and which --claim"):
        export("two", RUNS, tmp_path / "two", "k8s")


def job_of(config: RunConfig, folder: Path, **pod: object) -> dict[str, object]:
    export("one", [PlannedRun(config)], folder, "k8s", Pod(**{"image": "img:1", "claim": "disk", **pod}))  # type: ignore[arg-type]
    return yaml.safe_load((folder / "jobs" / f"{config.run_id}.yaml").read_text())  # type: ignore[no-any-return]


def with_source(source: str, **changed: object) -> RunConfig:
    return replace(RUN, data=replace(RUN.data, source=source, **changed))  # type: ignore[arg-type]


READS = {
    "corpus": with_source("data/corpus.jsonl"),
    "component": with_source("mix: 0.5 * stdlib + 0.5 * data/corpus.jsonl"),
    "validation": with_source("stdlib", validation_source="data/held_out.txt"),
    "tokenizer": with_source("stdlib", tokenizer="data/tokenizer.json"),
    "task": replace(RUN, exam=ExamConfig(tasks=("task:data/task.json",))),
}


@pytest.mark.parametrize("config", READS.values(), ids=READS)
def test_a_job_with_relative_paths_runs_in_the_folder_that_they_begin_in(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home := tmp_path / "it's my $HOME").mkdir()
    monkeypatch.chdir(home)
    _, sentence = export("one", [PlannedRun(config)], Path("my runs/one"), "shell")
    assert f"relative paths of their data begin in {home}" in sentence
    (program := tmp_path / "lmscale").write_text('#!/bin/sh\npwd; test -f "$2" && echo "$@"\n')
    program.chmod(0o755)
    job = home / "my runs" / "one" / "jobs" / f"{config.run_id}.sh"
    done = subprocess.run([job], env={**os.environ, "LMSCALE": str(program)}, cwd="/", capture_output=True, text=True)
    path = home / "my runs" / "one" / config.run_id / "config.json"
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{home}\ntrain {path}\n", "")
    assert RunConfig.from_json(read_json(path)).run_id == config.run_id, "the same run"
    home.rename(tmp_path / "elsewhere")
    job = tmp_path / "elsewhere" / "my runs" / "one" / "jobs" / f"{config.run_id}.sh"
    assert subprocess.run([job], cwd="/", capture_output=True).returncode == 2, "its corpus is not there any more"


@pytest.mark.parametrize("config", READS.values(), ids=READS)
def test_a_pod_that_could_not_see_a_file_is_refused(config: RunConfig, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"reads the .*, which lies on this machine and in no pod; copy it into the cl"):
        job_of(config, tmp_path / "one")
    assert not (tmp_path / "one").exists()


@pytest.mark.parametrize("source", ["/data/corpus", "~/corpus", "/lmscale/../etc/corpus", "/lmscaled/corpus"])
def test_a_pod_sees_only_what_is_in_its_claim(source: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="which lies on this machine and in no pod"):
        job_of(with_source(source), tmp_path / "one")
    job_of(with_source("/lmscale/corpus.txt"), tmp_path / "two")
    job_of(with_source("tfds:ag_news_subset"), tmp_path / "three")
    job_of(with_source("/other/corpus.txt"), tmp_path / "four", mount="/other")


def test_every_text_of_a_manifest_is_quoted(tmp_path: Path) -> None:
    """Readers of YAML 1.1 and 1.2 take other words for numbers and truths: 1e3, 0o17, no."""
    for name in ("1e3", "no", "0o17", "1_000", "null", "0x1f"):
        export(name, RUNS, tmp_path / name, "k8s", Pod(image="img:1", claim="disk"))
        text = (tmp_path / name / "jobs" / f"{RUN.run_id}.yaml").read_text()
        assert f'"lmscale.sweep": "{name}"' in text
        assert yaml.load(text, yaml.BaseLoader)["metadata"] == yaml.safe_load(text)["metadata"]


LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")


def test_labels_are_valid_and_stay_different(tmp_path: Path) -> None:
    names = ["a", "x" * 63, "x" * 64, "x" * 65, "-a", "a-", "a.", "größe", "grösse", "_", "-_1", "ü" * 90]
    labels = []
    for number, name in enumerate(names):
        folder = tmp_path / str(number)
        export(name, RUNS, folder, "k8s", Pod(image="img:1", claim="disk"))
        metadata = yaml.safe_load((folder / "jobs" / f"{RUN.run_id}.yaml").read_text())["metadata"]
        labels.append(metadata["labels"]["lmscale.sweep"])
        assert LABEL.fullmatch(labels[-1]) and re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", metadata["name"])
    assert labels[:2] == names[:2] and len({*labels}) == len(names)


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ({"image": "img 1"}, "--image 'img 1': write a container image"),
        ({"image": "-img"}, "--image"),
        ({"image": "img\n"}, "--image"),
        ({"claim": "My_Disk"}, "--claim 'My_Disk': Kubernetes names are of small letters"),
        ({"claim": "a" * 254}, "--claim"),
        ({"claim": "disk\n"}, "--claim"),
        ({"mount": "lmscale"}, "write an absolute path"),
        ({"mount": "/$(HOME)"}, "write an absolute path"),
        ({"mount": "/a:b"}, "write an absolute path"),
    ],
)
def test_values_that_kubernetes_refuses_are_refused_here(setting: dict[str, str], sentence: str) -> None:
    with pytest.raises(UserError, match=re.escape(sentence)):
        Pod(**{"image": "img:1", "claim": "disk", **setting})


@pytest.mark.parametrize("part", ["a\nb", "a\x1bb", "a\u202eb", "a\rb"])
def test_a_control_character_in_a_path_is_refused_before_anything_is_written(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for form in ("shell", "k8s"):
        with pytest.raises(UserError, match=r"the folder of the runs is '.*': the character .* cannot stand"):
            export("one", RUNS, tmp_path / part, form, Pod(image="i", claim="c"))  # type: ignore[arg-type]
    with pytest.raises(UserError, match="the name of the sweep is"):
        export(part, RUNS, tmp_path / "one", "shell")
    assert not list(tmp_path.iterdir())
    (tmp_path / part).mkdir()
    monkeypatch.chdir(tmp_path / part)
    with pytest.raises(UserError, match="the folder that this is called in is"):
        export("one", [PlannedRun(READS["corpus"])], tmp_path / "one", "shell")


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
