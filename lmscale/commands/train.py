"""What `lmscale train` does around a training: it holds the leases on its runs, and notes how the attempt ended."""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from lmscale.core.config import RunConfig, from_json
from lmscale.core.errors import MemoryShortage, UserError
from lmscale.core.exit_status import EXIT_INTERRUPTED, exit_status
from lmscale.core.files import read_json
from lmscale.core.signals import end_with_launcher
from lmscale.lm.devices import cluster, machine
from lmscale.study.launch import lease

REFUSED = ("RESOURCE_EXHAUSTED", "out of memory", "bad_alloc")
"""What XLA says when it cannot allocate."""


def main(
    files: Sequence[Path],
    wandb: str = "off",
    coordinator: str | None = None,
    processes: int | None = None,
    place: int | None = None,
    wait_seconds: int = 300,
) -> None:
    """Train the runs whose configurations are `files`, each in its file's folder, as process `place` of `processes`.

    Raises `UserError` as `train.train_packed` does, `attempts.Busy` where another process trains one of them, and
    `SystemExit` with `EXIT_INTERRUPTED` for a run that was asked to stop.
    """
    configs = [from_json(RunConfig, read_json(file, "run configuration"), where=str(file)) for file in files]
    folders = [file.parent for file in files]
    end_with_launcher()
    alone = coordinator is None and processes in (None, 1) and cluster.detect(os.environ) is None
    with ExitStack() as stack:
        if alone:  # before JAX is loaded: who comes second has lost no time
            stack.enter_context(_attempt(configs, folders))
        machine.set_up()
        from lmscale.lm.devices import distributed
        from lmscale.lm.train.loop import Interrupted, train_packed

        distributed.start(coordinator, processes, place, wait_seconds)
        if not alone and distributed.is_main():
            stack.enter_context(_attempt(configs, folders))
        try:
            outcomes = train_packed(configs, folders, wandb=wandb)
        except Interrupted as stop:
            print(stop)
            raise SystemExit(EXIT_INTERRUPTED) from None
    for outcome in outcomes:
        print(f"{outcome.state}: {outcome.reason or f'validation loss {outcome.loss_nats:.4f} nats per token'}")


@contextmanager
def _attempt(configs: list[RunConfig], folders: list[Path]) -> Iterator[None]:
    """Hold the leases and write down how the block ended. What XLA is refused becomes a `MemoryShortage`."""
    first = configs[0]  # runs of one program are cut alike
    notes = {"micro_batches": first.optimizer.micro_batches, "remat": first.model.remat, "together": len(configs)}
    with lease.held(folders, notes) as paths:

        def ended(status: int, reason: str = "") -> None:
            for path in paths:
                lease.finish(path, status, reason)

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
            said = str(error).splitlines()[0] if str(error) else type(error).__name__
            if not isinstance(error, MemoryError) and not any(words in str(error) for words in REFUSED):
                ended(1, f"{type(error).__name__}: {said}")
                raise
            shortage = MemoryShortage(
                f"the run was refused memory ({said}): give it more, raise optimizer.micro_batches, or set "
                f"model.remat = 'full'"
            )
            ended(exit_status(shortage), str(shortage))
            raise shortage from error
