"""One job per run for schedulers that this package does not talk to: Kubernetes manifests, or shell scripts.

A job is `lmscale train config.json`, which any scheduler may start again after a crash: it goes on from its last
checkpoint, and two at once do no harm. What an exit status asks of the scheduler is written into the manifest.
"""

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from lmscale.core.config import RunConfig, check
from lmscale.core.counting import memory_bytes
from lmscale.core.exit_status import EXIT_BUSY, EXIT_INTERRUPTED, EXIT_MEMORY, EXIT_USER_ERROR
from lmscale.core.files import write_json, write_text
from lmscale.core.plans import PlannedRun, write_plan
from lmscale.core.results import Outcome
from lmscale.core.run_folder import CONFIG_FILE, JOBS_FOLDER
from lmscale.core.signals import STOP_SECONDS
from lmscale.study.launch.branches import with_starts
from lmscale.study.launch.changes import changes
from lmscale.study.launch.failures import CRASHES
from lmscale.study.launch.slurm import MEMORY_BYTES, MEMORY_FACTOR

Format = Literal["k8s", "shell"]


@dataclass(frozen=True, kw_only=True)
class Pod:
    """What a Kubernetes job needs beyond its run."""

    image: str
    """A container image with lmscale installed."""
    claim: str
    """PersistentVolumeClaim that holds the sweep's folder, shared by all pods."""
    mount: str = "/lmscale"
    """Where the claim is mounted: the sweep lies in <mount>/runs/<sweep>, prepared corpora in <mount>/cache."""
    gpus: bool = False
    """Whether a run gets a GPU for every device of its mesh; otherwise it trains on CPUs."""


def export(name: str, runs: Sequence[PlannedRun], folder: Path, form: Format, pod: Pod | None = None) -> str:
    """Write the plan and, for every run without an outcome, its configuration and a job; a sentence that says where.

    Raises `UserError` for Kubernetes without an image and a claim, and for the folder of another sweep.
    """
    check(form == "shell" or pod is not None, "--format k8s: say which --image to run and which --claim holds the runs")
    changes(name, runs, folder)
    write_plan(folder, name, list(runs))
    paths = []
    for config in [planned.config for planned in with_starts(runs)]:
        if Outcome.read(folder / config.run_id) is not None:
            continue
        write_json(folder / config.run_id / CONFIG_FILE, config.to_json())
        path = folder / JOBS_FOLDER / f"{config.run_id}.{'yaml' if form == 'k8s' else 'sh'}"
        write_text(path, _manifest(name, config, pod) if pod and form == "k8s" else _script(config, folder))
        if form == "shell":
            path.chmod(path.stat().st_mode | 0o111)
        paths.append(path)
    start = "kubectl apply -f" if form == "k8s" else "each starts one run:"
    return f"{len(paths)} of {len(runs)} runs have a job in {folder / JOBS_FOLDER}; {start} {folder / JOBS_FOLDER}"


def _script(config: RunConfig, folder: Path) -> str:
    return "\n".join(
        [
            "#!/bin/sh",
            f"# {config.mesh.devices} devices, about {math.ceil(memory_bytes(config) / 2**20):,} MiB for a step.",
            "# Exit status 0: at an end; 75: stopped, start it again; 74: the disk, later; 71: more memory; 2: no use.",
            'cd "$(dirname "$0")/.."',
            f'exec "${{LMSCALE:-lmscale}}" train {shlex.quote(config.run_id)}/{CONFIG_FILE} "$@"',
            "",
        ]
    )


def _manifest(name: str, config: RunConfig, pod: Pod) -> str:
    devices = config.mesh.devices
    host = (1 if pod.gpus else MEMORY_FACTOR) * memory_bytes(config, accelerator=pod.gpus) + MEMORY_BYTES
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
        "metadata": {"name": f"lmscale-{config.run_id}", "labels": {"lmscale.sweep": _label(name)}},
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
    return str(yaml.safe_dump(job, sort_keys=False))


def _rule(action: str, *statuses: int) -> dict[str, Any]:
    return {"action": action, "onExitCodes": {"operator": "In", "values": sorted(statuses)}}


def _label(name: str) -> str:
    """A valid label: at most 63 characters, letters and digits at both ends."""
    return name[:63].strip("-_.")
