"""The script of a Slurm job array, in which no name or path can become an option, a pattern or a command."""

import os
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lmscale.core.config import check
from lmscale.core.run_folder import SLURM_FOLDER
from lmscale.core.text import checked_line

WARNING_SECONDS = 120
"""Before the time limit: long enough to save a checkpoint."""
JOB_NAME = re.compile(r"[^A-Za-z0-9_.-]")
"""What a job's name does not have; it need not be one of its own."""
WORDS = re.compile(r"[\w.,:+@/=-]+")
"""Names of partitions and accounts, also several."""
TIME = re.compile(r"(\d+-)?\d+(:\d{1,2}){0,2}|infinite|unlimited", re.IGNORECASE)
BARE = re.compile(r"[\w.,:+@/%\[\]^=-]*", re.ASCII)
"""A value that sbatch takes as it is."""
OURS = ("-a", "--array", "-o", "--output", "--wrap")
"""Options without which a job does not find its run or its log."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """What the runs are given; None is the cluster's default. Raises `UserError` for values that sbatch cannot take."""

    partition: str | None = None
    account: str | None = None
    time: str | None = None
    """Time limit of a job as Slurm writes it (2:00:00); a run that needs longer is requeued and continues."""
    cores: int = 1
    """CPU cores of each process."""
    gpus_per_node: int = 0
    """GPUs of a node that runs may use; 0 trains on CPUs."""
    at_once: int | None = None
    """Jobs of an array that run at the same time."""
    options: tuple[str, ...] = ()
    """Further options for sbatch: --qos=low."""

    def __post_init__(self) -> None:
        for name in ("partition", "account"):
            value = getattr(self, name)
            check(
                value is None or WORDS.fullmatch(value) is not None,
                f"--{name} {value!r}: Slurm's names are of letters, digits and . , : + @ / - without spaces",
            )
        check(
            self.time is None or TIME.fullmatch(self.time) is not None,
            f"--time {self.time!r}: write minutes, HOURS:MINUTES:SECONDS or DAYS-HOURS, as in 2:00:00",
        )
        check(self.cores >= 1, f"--cores {self.cores}: must be at least 1")
        check(self.gpus_per_node >= 0, f"--gpus-per-node {self.gpus_per_node}: must not be negative")
        check(self.at_once is None or self.at_once >= 1, f"--at-once {self.at_once}: must be at least 1")
        for option in self.options:
            checked_line(option, "--sbatch")
            check(
                re.match(r"--?[A-Za-z]", option) is not None,
                f"--sbatch {option!r}: write an option of sbatch, as in --sbatch=--qos=low",
            )
            name = re.split(r"[= ]", option)[0]
            check(
                name not in OURS and not re.match(r"-[ao].", name),
                f"--sbatch {option!r}: lmscale sets {name} itself, so that every job finds its run; leave it out",
            )


@dataclass(frozen=True)
class Resources:
    """The resources of one run; runs with the same share an array."""

    nodes: int
    processes: int
    gpus_per_node: int
    memory_gib: int
    """Memory per node."""


def quoted(value: str) -> str:
    """`value` as sbatch reads it back from a line #SBATCH: within quotes where it has more than letters and digits.

    sbatch takes off one level of quotes and of backslashes, and reads # as the begin of a remark. It expands nothing
    else but the patterns of file names (`file_name`).
    """
    return value if value and BARE.fullmatch(value) else '"' + re.sub(r'(["\\#])', r"\\\1", value) + '"'


def file_name(folder: Path, pattern: str) -> str:
    """A pattern of sbatch for a file in `folder`, whose own percent signs stand for themselves.

    Raises `UserError` for a folder with a backslash, which switches patterns off, or with a control character.
    """
    path = checked_line(folder, "the folder of the runs")
    check("\\" not in path, f"the folder of the runs is {path}: Slurm takes no path with a backslash; rename it")
    return quoted(f"{path.replace('%', '%%')}/{pattern}")


def _further(option: str) -> str:
    """An option of the user's: its value is quoted unless it is plain or quoted already."""
    name, equals, value = option.partition("=")
    if not equals or BARE.fullmatch(value):
        return option
    try:
        already = shlex.split(value) != value.split()
    except ValueError:  # a quotation mark without another
        already = False
    return option if already else f"{name}={quoted(value)}"


def script(name: str, runs: Sequence[str], folder: Path, needed: Resources, cluster: Cluster) -> str:
    """The text of the array that trains the planned `runs` of the sweep in `folder`.

    Raises `UserError` where a name or path has a character that cannot stand in it.
    """
    limit = f"%{cluster.at_once}" if cluster.at_once else ""
    options = [
        f"--job-name=lmscale-{JOB_NAME.sub('-', name)}",
        f"--array=0-{len(runs) - 1}{limit}",
        f"--output={file_name(folder.absolute() / SLURM_FOLDER, '%A_%a.txt')}",
        "--open-mode=append",
        "--requeue",
        f"--signal=B:USR1@{WARNING_SECONDS}",
        f"--nodes={needed.nodes}",
        f"--ntasks={needed.processes}",
        f"--cpus-per-task={cluster.cores}",
        f"--mem={needed.memory_gib}G",
        *([f"--gpus-per-node={needed.gpus_per_node}"] if needed.gpus_per_node else []),
        *([f"--partition={quoted(cluster.partition)}"] if cluster.partition else []),
        *([f"--account={quoted(cluster.account)}"] if cluster.account else []),
        *([f"--time={cluster.time}"] if cluster.time else []),
        *map(_further, cluster.options),
    ]
    cache = os.environ.get("LMSCALE_CACHE")
    here = checked_line(Path.cwd(), "the folder that this is called in")
    python = checked_line(sys.executable, "the path of Python")
    return "\n".join(
        [
            "#!/bin/bash",
            *(f"#SBATCH {option}" for option in options),
            *([f"export LMSCALE_CACHE={shlex.quote(checked_line(cache, 'LMSCALE_CACHE'))}"] if cache else []),
            *([] if needed.gpus_per_node else ["export JAX_PLATFORMS=cpu"]),
            f"runs=({' '.join(shlex.quote(run) for run in runs)})",
            f"cd {shlex.quote(here)} || exit",
            f"exec {shlex.quote(python)} -m lmscale finish {shlex.quote(str(folder.absolute()))}"
            '/"${runs[$SLURM_ARRAY_TASK_ID]}"',
            "",
        ]
    )
