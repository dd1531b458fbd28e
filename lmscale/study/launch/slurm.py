"""Runs as Slurm jobs: arrays of `lmscale finish FOLDER`, one array for all runs that need the same resources.

Plain `sbatch` scripts and not submitit: a run is a command, so there is no Python function to pickle and none to
unpickle on a node with other packages; the script can be read, changed and submitted by hand; and submitit asks
`sacct` for states, which it does not know without an accounting database, while a run's folder has all of them.

A run that Slurm preempts is requeued by Slurm; before the time limit Slurm sends SIGUSR1, the run saves a checkpoint,
and its job requeues itself. A node that dies or is drained loses its job, which Slurm requeues too.
"""

import math
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from lmscale.core.config import RunConfig, check
from lmscale.core.counting import count, memory_bytes
from lmscale.core.errors import UserError, nearest
from lmscale.core.files import parse_json, read_bytes, write_json, write_text
from lmscale.core.plans import PlannedRun
from lmscale.core.quantities import counted
from lmscale.core.results import outcome_or_problem
from lmscale.core.run_folder import CONFIG_FILE, SLURM_FOLDER, STOP_FILE, failure_reason
from lmscale.study.launch import parents, sbatch
from lmscale.study.launch.lease import Observer
from lmscale.study.launch.sbatch import Cluster, Resources

MEMORY_FACTOR, MEMORY_BYTES = 1.5, 2**31
"""Host memory of a job: this multiple of the estimate for a step, and what Python, JAX and the data take."""
ARRAY_SIZE = 1001
"""Slurm's own default of MaxArraySize: indices of an array are less."""


@dataclass(frozen=True)
class Submission:
    """One job array."""

    script: Path
    text: str
    runs: tuple[str, ...]
    depth: int = 0
    """How many arrays must end one after the other before this one; see `parents.depths`."""

    def command(self, earlier: Sequence[str] = ()) -> list[str]:
        """The call of sbatch; its runs wait for the jobs `earlier`, which train those that they need."""
        wait = [f"--dependency=afterany:{':'.join(earlier)}"] if earlier else []
        return ["sbatch", "--parsable", *wait, str(self.script)]


def resources(config: RunConfig, cluster: Cluster) -> Resources:
    """The resources of a run: on GPUs a process per node, which drives all of them; on CPUs one per mesh device.

    Raises `UserError` for devices that nodes cannot share evenly.
    """
    devices, gpus = config.mesh.devices, cluster.gpus_per_node
    nodes = math.ceil(devices / gpus) if gpus else 1
    check(
        not gpus or devices % nodes == 0,
        f"run {config.run_id} is spread over {devices} devices, which {nodes} nodes of {gpus} GPUs cannot share evenly",
    )
    step = (1 if gpus else MEMORY_FACTOR) * memory_bytes(config, "gpu" if gpus else "cpu")
    need = step / nodes + MEMORY_BYTES * (1 if gpus else devices)
    return Resources(nodes, nodes if gpus else devices, devices // nodes if gpus else 0, _power(need / 2**30))


def _power(value: float) -> int:
    """The next power of two: few distinct amounts make few arrays."""
    return int(2 ** math.ceil(math.log2(max(1.0, value))))


def submissions(name: str, runs: Sequence[PlannedRun], folder: Path, cluster: Cluster) -> list[Submission]:
    """The arrays that train `runs`, those with the longest runs first, each after those that it needs.

    No array is larger than the cluster allows. Raises `UserError` where a name or path cannot stand in a script.
    """
    groups: dict[tuple[int, Resources], list[str]] = {}
    depth_of = parents.depths(runs)
    for planned in sorted(runs, key=lambda one: (depth_of[one.config.run_id], -count(one.config).flops)):
        group = depth_of[planned.config.run_id], resources(planned.config, cluster)
        groups.setdefault(group, []).append(planned.config.run_id)
    most = largest_array()
    arrays: list[Submission] = []
    paths = (folder / SLURM_FOLDER).glob("array-*.sh")
    number = 1 + max((int(path.stem[6:]) for path in paths if path.stem[6:].isdecimal()), default=0)
    for (depth, needed), members in groups.items():
        for names in (tuple(members[at : at + most]) for at in range(0, len(members), most)):
            path = folder / SLURM_FOLDER / f"array-{number + len(arrays)}.sh"
            arrays.append(Submission(path, sbatch.script(name, names, folder, needed, cluster), names, depth))
    return arrays


def largest_array() -> int:
    """Jobs that an array of this cluster may hold; Slurm's default where there is none. Raises `UserError` for none."""
    match = re.search(r"^\s*MaxArraySize\s*=\s*(\d+)", _output(["scontrol", "show", "config"]), re.MULTILINE)
    most = int(match[1]) if match else ARRAY_SIZE
    check(most > 0, "this cluster has no job arrays (MaxArraySize = 0): write a job for each run with export-jobs")
    return most


def to_submit(runs: Sequence[PlannedRun], folder: Path) -> list[PlannedRun]:
    """The runs that are not at an end, not at work, and not in the queue already."""
    queued = _queued(folder)
    return [
        planned
        for planned in runs
        if (run_id := planned.config.run_id) not in queued
        and outcome_or_problem(folder / run_id)[0] is None
        and failure_reason(folder / run_id) is None
        and not Observer(folder / run_id).at_work()
    ]


def ready(missing: Sequence[PlannedRun], folder: Path) -> tuple[list[PlannedRun], list[str]]:
    """The `missing` runs whose parents have finished, are queued or are among them; a sentence for each other one."""
    queued, chosen, sentences = _queued(folder), list(missing), list[str]()
    while True:
        coming = {*queued, *(planned.config.run_id for planned in chosen)}
        problems = {planned.config.run_id: _problem(planned, folder, coming) for planned in chosen}
        if not any(problems.values()):
            return chosen, sentences
        sentences += [f"run {run_id} is {sentence}" for run_id, sentence in problems.items() if sentence]
        chosen = [planned for planned in chosen if not problems[planned.config.run_id]]


def _problem(planned: PlannedRun, folder: Path, coming: Collection[str]) -> str:
    """Why a run would find no parent when its job starts, although the runs `coming` end before; else ""."""
    others = {name.run_id for name in planned.config.parents.values()}.difference(coming)
    reasons = {run_id: failure_reason(folder / run_id) for run_id in others}
    return parents.problem(planned, folder, {run_id: reason for run_id, reason in reasons.items() if reason}, others)


def _queued(folder: Path) -> dict[str, str]:
    """The job of every run of the sweep in `folder` that is in the queue."""
    queued: dict[str, str] = {}
    for path in (folder / SLURM_FOLDER).glob("job-*.json"):
        with suppress(OSError, ValueError, KeyError, TypeError, IndexError):
            value = parse_json(read_bytes(path))
            listed = _output(["squeue", "--noheader", "--array", f"--jobs={value['job']}", "--format=%K"])
            queued |= {value["runs"][int(index)]: value["job"] for index in listed.split() if index.isdigit()}
    return queued


def _output(command: Sequence[str]) -> str:
    """What a command of Slurm prints; nothing where it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout if done.returncode == 0 else ""


def check_cluster(cluster: Cluster) -> None:
    """Raise `UserError` where there is no Slurm here or it has no such partition."""
    if shutil.which("sbatch") is None:
        raise UserError("--launcher slurm: there is no sbatch on this machine; call this where jobs are submitted from")
    partitions = [name.rstrip("*") for name in _output(["sinfo", "--noheader", "--format=%R"]).split()]
    if cluster.partition and partitions and cluster.partition not in partitions:
        raise UserError(f"--partition {cluster.partition}: no such one here{nearest(cluster.partition, partitions)}")


def submit(arrays: Sequence[Submission], runs: Sequence[PlannedRun], folder: Path) -> list[str]:
    """Write the runs' configurations and the scripts, and submit them; a sentence for each array.

    Raises `UserError` with the message of sbatch where it refuses one.
    """
    by_id = {planned.config.run_id: planned for planned in runs}
    (folder / STOP_FILE).unlink(missing_ok=True)
    sentences: list[str] = []
    queued = _queued(folder)
    jobs: list[tuple[int, str]] = []
    for one in arrays:
        for run_id in one.runs:
            (folder / run_id / STOP_FILE).unlink(missing_ok=True)
            if not (folder / run_id / CONFIG_FILE).exists():
                write_json(folder / run_id / CONFIG_FILE, by_id[run_id].config.to_json())
        write_text(one.script, one.text)
        earlier = [job for depth, job in jobs if depth < one.depth] + _jobs_before(one, by_id, queued)
        done = subprocess.run(one.command(earlier), capture_output=True, text=True, check=False)
        if done.returncode:
            raise UserError(f"sbatch refused {one.script}: {' '.join(done.stderr.split())}; change it or the options")
        job = done.stdout.strip().split(";")[0]
        jobs.append((one.depth, job))
        write_json(folder / SLURM_FOLDER / f"job-{job}.json", {"job": job, "runs": list(one.runs)})
        sentences.append(f"job {job}: {counted(len(one.runs), 'run')}, {one.script}")
    return sentences


def jobs_before(one: Submission, runs: Sequence[PlannedRun], folder: Path) -> list[str]:
    """The jobs of earlier submissions, still queued, that train what the runs of an array need."""
    return _jobs_before(one, {planned.config.run_id: planned for planned in runs}, _queued(folder))


def _jobs_before(one: Submission, by_id: Mapping[str, PlannedRun], queued: Mapping[str, str]) -> list[str]:
    needed = set().union(*(parents.needed(by_id[run_id]) for run_id in one.runs))
    return sorted({str(queued[run_id]) for run_id in needed if run_id in queued})


@contextmanager
def requeued_at_the_limit() -> Iterator[None]:
    """Stop this process cleanly at SIGUSR1, which announces the end of the job's time, and requeue the job."""
    near = False

    def stop(number: int, frame: object) -> None:
        nonlocal near
        near = True
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.signal(signal.SIGUSR1, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)
        if near and (job := os.environ.get("SLURM_JOB_ID")):
            print("the time of this job ends: it is requeued, and continues from the checkpoint", flush=True)
            _output(["scontrol", "requeue", job])


def step_command() -> list[str]:
    """The prefix of a worker's command where the job has several processes for one run."""
    processes = int(os.environ.get("SLURM_NTASKS", "1") or 1)
    return ["srun", "--kill-on-bad-exit=0"] if "SLURM_JOB_ID" in os.environ and processes > 1 else []
