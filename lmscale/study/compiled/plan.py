"""Which programs a plan has, and what the compiler said of each: from the cache, or compiled now."""

from collections.abc import Callable, Sequence
from typing import Any

from lmscale.core.compiled import CompiledRun, Effort, program_key
from lmscale.core.config import READ_ROLES, ModelConfig
from lmscale.core.config.packable import pack_sizes
from lmscale.core.counting import params_total
from lmscale.core.extras import compiler_versions
from lmscale.core.machines import Machine
from lmscale.core.plans import PlannedRun
from lmscale.study.compiled.cache import Cache
from lmscale.study.compiled.pool import Job, compile_jobs

Progress = Callable[[int, int, CompiledRun], None]
"""Called with the number of programs that are compiled, that of all, and the newest."""


def compile_runs(
    runs: Sequence[PlannedRun],
    machine: Machine,
    progress: Progress = lambda *_: None,
    effort: Effort = "low",
    pack: int = 1,
) -> list[CompiledRun]:
    """What the compiler says of each run on `machine`; runs that share their programs share the outcome.

    Where up to `pack` runs share a program, the outcome of a run is that of the largest program that it may be in. With
    little effort a program is compiled with full effort too where that leaves open whether it fits, and for GPUs.

    Raises `UserError` where the compiler is not installed or does not match JAX, where a mesh does not fit, and where
    the compiler refuses a program for another reason than its size.
    """
    versions = compiler_versions(machine.extra, f"compiling for {machine.name}")
    for run in runs:
        machine.check_mesh(run.config.mesh.devices, f"of run {run.config.run_id}")
    by_id = {run.config.run_id: run for run in runs}
    sizes = pack_sizes([run.config for run in runs], pack)
    every = [Job(run.config, _reference(run, by_id), effort, packed) for run, packed in zip(runs, sizes)]
    keys = [program_key(job.config, job.reference, job.packed) for job in every]
    jobs = dict(zip(reversed(keys), reversed(every)))  # of runs that share a program the first stands for all
    cache = Cache(machine, versions, effort)
    compiled = {key: outcome for key in jobs if (outcome := cache.read(key)) is not None}
    missing = {key: job for key, job in jobs.items() if key not in compiled}

    def finished(key: str, outcome: CompiledRun) -> None:
        compiled[key] = outcome
        cache.write(key, outcome)
        progress(len(compiled), len(jobs), outcome)

    compile_jobs(_largest_first(missing), machine, finished)
    return [compiled[key] for key in keys]


def _reference(run: PlannedRun, by_id: dict[str, PlannedRun]) -> ModelConfig | None:
    """The shape of the model that a run reads; where the plan does not hold it, that of the run itself."""
    name = next((run.config.parents[role] for role in READ_ROLES if role in run.config.parents), None)
    if name is None:
        return None
    return by_id[name.run_id].config.model if name.run_id in by_id else run.config.model


def _largest_first(jobs: dict[str, Job]) -> dict[str, Job]:
    """The first tells how much memory of this machine the others need at most."""

    def size(item: tuple[str, Job]) -> Any:
        job = item[1]
        return -job.packed * params_total(job.config.model) * (job.config.model.layers + 1), item[0]

    return dict(sorted(jobs.items(), key=size))
