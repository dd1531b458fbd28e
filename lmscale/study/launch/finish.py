"""One run of a planned sweep, trained to its end inside a job: what `lmscale run` does for many on one machine."""

from pathlib import Path

from lmscale.core.errors import UserError, nearest
from lmscale.core.exit_status import EXIT_INTERRUPTED
from lmscale.core.plans import read_plan
from lmscale.study.launch import slot, slurm
from lmscale.study.launch.branches import with_starts
from lmscale.study.launch.pool import Pool
from lmscale.study.launch.slot import Slot
from lmscale.study.launch.watchers import LogLines


def finish(folder: Path, wandb: str = "off") -> int:
    """Train the run in `folder`, which its sweep's plan names, on everything that this job was given; the exit status.

    Raises `UserError` where the plan beside it has no such run.
    """
    _, runs = read_plan(folder.parent)
    chosen = [planned for planned in with_starts(runs) if planned.config.run_id == folder.name]
    if not chosen:
        known = [planned.config.run_id for planned in runs]
        raise UserError(f"the plan of {folder.parent} has no run {folder.name!r}{nearest(folder.name, known)}")
    command = slurm.step_command()
    whole_job = Slot("this job") if command else slot.allocation()  # srun itself places several processes
    with slurm.requeued_at_the_limit():
        summary = Pool(chosen, folder.parent, LogLines(), [whole_job], wandb=wandb, command=command).run()
    if summary.interrupted:
        return EXIT_INTERRUPTED
    for reason in summary.failed.values():
        print(f"failed: {reason}", flush=True)
    return 1 if summary.failed else 0
