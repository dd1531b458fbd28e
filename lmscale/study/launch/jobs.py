"""One job per run for schedulers that this package does not talk to: Kubernetes manifests, or shell scripts.

A job is `lmscale train config.json`, which any scheduler may start again after a crash: it goes on from its last
checkpoint, and two at once do no harm. What an exit status asks of the scheduler is written into the manifest.
"""

import itertools
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from lmscale.core.config import TOKENS, RunConfig, check, mixture, stdlib, synthetic
from lmscale.core.config.exam import inside_spec, retrieval_spec
from lmscale.core.config.judge import judge_spec
from lmscale.core.counting import memory_bytes
from lmscale.core.exit_status import EXIT_BUSY, EXIT_INTERRUPTED, EXIT_MEMORY, EXIT_USER_ERROR
from lmscale.core.files import expanded, write_json, write_text
from lmscale.core.plans import PlannedRun, write_plan
from lmscale.core.quantities import counted
from lmscale.core.results import outcome_or_problem
from lmscale.core.run_folder import CONFIG_FILE, JOBS_FOLDER
from lmscale.core.signals import STOP_SECONDS
from lmscale.core.text import checked_line, checked_name, short_name
from lmscale.study.launch.branches import with_starts
from lmscale.study.launch.changes import changes
from lmscale.study.launch.failures import CRASHES
from lmscale.study.launch.slurm import MEMORY_BYTES, MEMORY_FACTOR

Format = Literal["k8s", "shell"]

IMAGE = re.compile(r"[A-Za-z0-9][\w.:/@+-]*", re.ASCII)
CLAIM = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
MOUNT = re.compile(r"(/[\w.+@-]+)+", re.ASCII)
"""Without $(NAME), which Kubernetes would replace in a command, and without the colon that it refuses."""
LONGEST_CLAIM, LONGEST_LABEL = 253, 63
"""Characters of a name (RFC 1123) and of a label's value."""


class _Quoted(yaml.SafeDumper):
    """Writes every text value within quotes: "1e3", "no" and "0b1" are other things to some readers of YAML."""


_Quoted.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"'))


@dataclass(frozen=True, kw_only=True)
class Pod:
    """What a Kubernetes job needs beyond its run. Raises `UserError` for values that Kubernetes refuses."""

    image: str
    """A container image with lmscale installed."""
    claim: str
    """PersistentVolumeClaim that holds the sweep's folder, shared by all pods."""
    mount: str = "/lmscale"
    """Where the claim is mounted: the sweep lies in <mount>/runs/<sweep>, prepared corpora in <mount>/cache."""
    gpus: bool = False
    """Whether a run gets a GPU for every device of its mesh; otherwise it trains on CPUs."""

    def __post_init__(self) -> None:
        check(
            IMAGE.fullmatch(self.image) is not None,
            f"--image {self.image!r}: write a container image, as in registry/lmscale:1.0",
        )
        check(
            CLAIM.fullmatch(self.claim) is not None and len(self.claim) <= LONGEST_CLAIM,
            f"--claim {self.claim!r}: Kubernetes names are of small letters, digits, '-' and '.', with a letter or "
            f"digit at both ends, at most {LONGEST_CLAIM}",
        )
        check(MOUNT.fullmatch(self.mount) is not None, f"mount {self.mount!r}: write an absolute path, as in /lmscale")


def export(
    name: str,
    runs: Sequence[PlannedRun],
    folder: Path,
    form: Format,
    pod: Pod | None = None,
    purpose: Mapping[str, Any] | None = None,
) -> tuple[list[Path], str]:
    """Write the plan and, for every run without an outcome, its configuration and a job.

    Returns the files of the jobs, and a sentence that says where they are.

    Raises `UserError` for Kubernetes without an image and a claim or with files that pods cannot see, for the folder
    of another sweep, and for names and paths that cannot stand in a script.
    """
    check(form == "shell" or pod is not None, "--format k8s: say which --image to run and which --claim holds the runs")
    checked_name(name, "the name of the sweep")
    checked_line(folder.absolute(), "the folder of the runs")
    open_runs = [
        planned.config for planned in with_starts(runs) if outcome_or_problem(folder / planned.config.run_id)[0] is None
    ]
    if pod is not None and form == "k8s":
        for config in open_runs:
            _check_seen(config, pod)
    changes(name, runs, folder)
    write_plan(folder, name, list(runs), purpose or {})
    paths = [folder / JOBS_FOLDER / f"{config.run_id}.{'yaml' if form == 'k8s' else 'sh'}" for config in open_runs]
    for config, path in zip(open_runs, paths):
        write_json(folder / config.run_id / CONFIG_FILE, config.to_json())
        write_text(path, _manifest(name, config, pod) if pod and form == "k8s" else _script(config))
        if form == "shell":
            path.chmod(path.stat().st_mode | 0o111)
    start = "kubectl apply -f" if form == "k8s" else "each starts one run:"
    relative = any(not path.is_absolute() for config in open_runs for path in local_paths(config).values())
    where = f"; relative paths of their data begin in {Path.cwd()}, where they are to be too" if relative else ""
    later = sum(1 for config in open_runs if config.parents)
    if later:
        where += f"; {counted(later, 'run')} need others: start those when what they need has finished"
    return paths, (
        f"{len(open_runs)} of {counted(len(runs), 'run')} have a job in {folder / JOBS_FOLDER}; {start} "
        f"{folder / JOBS_FOLDER}"
        f"{where}"
    )


def local_paths(config: RunConfig) -> dict[str, Path]:
    """The files and folders that a run reads from where it is trained: what each is, and its path, ~ expanded."""
    named = filter(None, (config.data.source, config.data.validation_source))
    paths = {
        f"the corpus {source!r}": source.removeprefix(TOKENS).strip()
        for _, source in itertools.chain.from_iterable(map(mixture.components, named))
        if not _made_anywhere(source)
    }
    if config.data.tokenizer.endswith(".json"):
        paths[f"the tokenizer {config.data.tokenizer!r}"] = config.data.tokenizer
    for spec in config.exam.tasks:
        paths |= _paths_of_task(spec)
    return {what: expanded(path) for what, path in paths.items()}


def _paths_of_task(spec: str) -> dict[str, str]:
    """What a task of an exam reads that is not made by lmscale itself, and its path."""
    if (judge := judge_spec(spec)) is not None:
        return {f"the rubric {judge.rubric!r}": judge.rubric} if judge.rubric.endswith((".toml", ".json")) else {}
    if (retrieval := retrieval_spec(spec)) is not None:
        is_file = retrieval.source and not _made_anywhere(retrieval.source)
        return {f"the datastore {retrieval.source!r}": retrieval.source} if is_file else {}
    paths, inside = {}, inside_spec(spec)
    if inside is not None and inside.source and not _made_anywhere(inside.source):
        paths[f"the text {inside.source!r}"] = inside.source
    task = spec if inside is None else inside.tasks
    if task and not task.startswith("synthetic:"):
        paths[f"the task {task!r}"] = task.partition(":")[2]
    return paths


def _made_anywhere(source: str) -> bool:
    """Whether a source of text is no path: it is the same wherever a run is trained."""
    return stdlib.is_stdlib(source) or source.startswith("tfds:") or synthetic.is_synthetic(source)


def _check_seen(config: RunConfig, pod: Pod) -> None:
    """Raise `UserError` for a file of this machine that a pod does not see: the claim's alone are there."""
    for what, path in local_paths(config).items():
        check(
            path.is_relative_to(pod.mount) and ".." not in path.parts,
            f"run {config.run_id} reads {what}, which lies on this machine and in no pod; copy it into the claim "
            f"{pod.claim}, and name it in the sweep by its path there, {pod.mount}/{path.name}",
        )


def _script(config: RunConfig) -> str:
    """A shell script that trains a run from wherever it is called, and wherever its sweep's folder lies by then.

    Relative paths of the configuration are part of the run's identity, so they stay, and the script goes to the folder
    that they begin in.
    """
    file = f"{config.run_id}/{CONFIG_FILE}"
    start = ['cd "$(dirname "$0")/.." || exit 2', f'exec "${{LMSCALE:-lmscale}}" train {shlex.quote(file)} "$@"']
    if any(not path.is_absolute() for path in local_paths(config).values()):
        here = shlex.quote(checked_line(Path.cwd(), "the folder that this is called in"))
        start = [
            'sweep=$(cd "$(dirname "$0")/.." && pwd) || exit 2',
            f"cd {here} || exit 2  # the paths of its corpus, tokenizer or tasks begin here",
            f'exec "${{LMSCALE:-lmscale}}" train "$sweep"/{shlex.quote(file)} "$@"',
        ]
    return "\n".join(
        [
            "#!/bin/sh",
            f"# {config.mesh.devices} devices, about {math.ceil(memory_bytes(config) / 2**20):,} MiB for a step.",
            "# Exit status 0: at an end; 75: stopped, start it again; 74: the disk, later; 71: more memory; 2: no use.",
            *start,
            "",
        ]
    )


def _manifest(name: str, config: RunConfig, pod: Pod) -> str:
    devices = config.mesh.devices
    host = (1 if pod.gpus else MEMORY_FACTOR) * memory_bytes(config, "gpu" if pod.gpus else "cpu") + MEMORY_BYTES
    limits = {"memory": f"{math.ceil(host / 2**20)}Mi", **({"nvidia.com/gpu": devices} if pod.gpus else {})}
    folder = f"{pod.mount}/runs/{name}/{config.run_id}"
    variables = {"LMSCALE_CACHE": f"{pod.mount}/cache", **({} if pod.gpus else {"JAX_PLATFORMS": "cpu"})}
    container = {
        "name": "train",
        "image": pod.image,
        "command": ["lmscale", "train", f"{folder}/{CONFIG_FILE}"],
        "env": [{"name": key, "value": value} for key, value in variables.items()],
        "resources": {"requests": {"cpu": str(devices), **limits}, "limits": limits},
        "volumeMounts": [{"name": "lmscale", "mountPath": pod.mount}],
    }
    job: dict[str, Any] = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": f"lmscale-{config.run_id}", "labels": {"lmscale.sweep": short_name(name, LONGEST_LABEL)}},
        "spec": {
            "backoffLimit": CRASHES,
            "podFailurePolicy": {  # the first rule that fits counts
                "rules": [
                    _rule("FailJob", EXIT_USER_ERROR, EXIT_MEMORY),
                    _rule("Ignore", EXIT_INTERRUPTED, EXIT_BUSY),
                    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                ]
            },
            "template": {
                "spec": {
                    "restartPolicy": "Never",
                    "terminationGracePeriodSeconds": int(STOP_SECONDS),
                    "containers": [container],
                    "volumes": [{"name": "lmscale", "persistentVolumeClaim": {"claimName": pod.claim}}],
                }
            },
        },
    }
    return str(yaml.dump(job, Dumper=_Quoted, sort_keys=False))


def _rule(action: str, *statuses: int) -> dict[str, Any]:
    return {"action": action, "onExitCodes": {"operator": "In", "values": sorted(statuses)}}
