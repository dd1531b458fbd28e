"""`lmscale train`: one training, while its process holds the leases on the runs and notes how the attempt ended."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tyro.conf import Positional

from lmscale.commands.answer import write_answer
from lmscale.commands.next_step import print_next, print_use, repeat
from lmscale.core.errors import MemoryShortage, UserError
from lmscale.core.exit_status import EXIT_INTERRUPTED, exit_status

if TYPE_CHECKING:
    from rich.console import Console

    from lmscale.core.config import RunConfig

REFUSED = ("RESOURCE_EXHAUSTED", "out of memory", "bad_alloc")
"""What XLA says when it cannot allocate."""


@dataclass(frozen=True)
class TrainArgs:
    """Train one run, as `lmscale run` does for each; or several of one shape in one program, for accelerators."""

    config: Positional[Path]
    """A RunConfig as JSON; metrics, checkpoints and the outcome go beside it."""
    more: Positional[tuple[Path, ...]] = ()
    """Further configurations, each in its own folder, that differ in seed, learning rate, schedule or weight decay."""
    wandb: Literal["off", "offline", "online"] = "off"
    """Send metrics to Weights & Biases as well."""
    coordinator: str | None = None
    """HOST:PORT of process 0, where several processes train one run; by default Slurm, Open MPI or Cloud TPU say."""
    processes: int | None = None
    """Number of these processes; 1 asks no launcher."""
    process: int | None = None
    """Number of this process, from 0."""
    wait_seconds: int = 300
    """How long the processes wait for each other at the start."""
    json: Path | None = None
    """Write the outcomes here (- or no file: to standard output, alone)."""


def main(args: TrainArgs, console: "Console") -> None:
    """Train the runs, each in its file's folder.

    Raises `UserError` as `train_packed` does, `Busy` where another process trains one of them, and `SystemExit` with
    `EXIT_INTERRUPTED` for a run that was asked to stop.
    """
    from lmscale.core.config import RunConfig, from_json, loss_unit
    from lmscale.core.files import read_json
    from lmscale.core.run_identity import check_config
    from lmscale.core.signals import end_with_launcher
    from lmscale.lm.devices import cluster, machine

    files = [args.config, *args.more]
    configs = [
        check_config(from_json(RunConfig, read_json(file, "run configuration"), where=str(file)), file.parent)
        for file in files
    ]
    folders = [file.parent for file in files]
    launched = end_with_launcher()
    alone = args.coordinator is None and args.processes in (None, 1) and cluster.detect(os.environ) is None
    with ExitStack() as stack:
        if alone:  # before JAX is loaded: the loser of a race has lost no time
            stack.enter_context(_attempt(configs, folders))
        machine.set_up()
        from lmscale.lm.devices import distributed
        from lmscale.lm.train.loop import Interrupted, train_packed

        distributed.start(args.coordinator, args.processes, args.process, args.wait_seconds)
        if not alone and distributed.is_main():
            stack.enter_context(_attempt(configs, folders))
        try:
            outcomes = train_packed(configs, folders, wandb=args.wandb)
        except Interrupted as stop:
            print(stop)
            if not launched:
                print_next(*repeat())
            raise SystemExit(EXIT_INTERRUPTED) from None
    unit = loss_unit([configs[0].stage])
    for outcome in outcomes:
        print(f"{outcome.state}: {outcome.reason or f'validation loss {outcome.loss_nats:.4f} {unit}'}")
    write_answer(args.json, {"outcomes": [asdict(outcome) for outcome in outcomes]})
    if not launched:
        print_use(folders[0])


@contextmanager
def _attempt(configs: "list[RunConfig]", folders: list[Path]) -> Iterator[None]:
    """Hold the leases and note how the block ended. An allocation that XLA is refused becomes a `MemoryShortage`."""
    from lmscale.study.launch import lease

    first = configs[0]  # runs of one program use memory alike
    notes = {"micro_batches": first.optimizer.micro_batches, "remat": first.model.remat, "together": len(configs)}
    with lease.hold(folders, notes) as paths:

        def ended(status: int, reason: str = "") -> None:
            for path in paths:
                lease.record_end(path, status, reason)

        try:
            yield
            ended(0)
        except SystemExit as end:
            ended(int(end.code or 0), "stopped")
            raise
        except UserError as error:
            ended(exit_status(error), str(error))
            raise
        except Exception as error:
            message = str(error).splitlines()[0] if str(error) else type(error).__name__
            if not isinstance(error, MemoryError) and not any(words in str(error) for words in REFUSED):
                ended(1, f"{type(error).__name__}: {message}")
                raise
            shortage = MemoryShortage(
                f"the run was refused memory ({message}): give it more, raise optimizer.micro_batches, or set "
                f"model.remat = 'full'"
            )
            ended(exit_status(shortage), str(shortage))
            raise shortage from error
