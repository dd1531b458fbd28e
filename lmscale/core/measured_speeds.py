"""How fast shapes were measured to train: written by `lmscale bench`, read by `lmscale plan`, kept in the cache folder.

One file per shape, machine, number of cores and number of steps; a newer measurement takes the place of an older one of
as many steps. Of several, the one over most steps is used.
"""

import hashlib
import json
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from lmscale.core.config import RunConfig, check_types, from_json
from lmscale.core.errors import UserError
from lmscale.core.files import cache_dir, read_json, write_json
from lmscale.core.host import usable_cores


@dataclass(frozen=True, kw_only=True)
class MeasuredSpeed:
    """How fast one shape was measured to train, where and on what."""

    config: RunConfig
    """The shape that was trained; its number of tokens is of no meaning here."""
    flops_per_second: float
    """Exact training FLOP/s of the run, all its devices together."""
    compile_seconds: float
    device: str
    cores: int
    """Processors that the measuring process could use."""
    machine: str = ""
    steps: int = 0
    """How many steps were timed; 0 where an older version did not say."""

    def __post_init__(self) -> None:
        check_types(self)

    @property
    def measured(self) -> str:
        """What was measured and where, as text: the shape, the batch, the mesh, the machine and its cores."""
        settings = self.config.optimizer
        shape = [asdict(self.config.model), settings.batch_sequences, settings.micro_batches, settings.kind]
        mesh = asdict(self.config.mesh)
        return json.dumps([shape, mesh, self.device, self.cores, self.machine], sort_keys=True)

    def write(self) -> Path:
        """Write it into the cache folder, in place of an older measurement over as many steps; the file's path."""
        text = f"{self.measured} {self.steps}"
        path = _folder() / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
        write_json(path, asdict(self))
        return path


def record(config: RunConfig, flops_per_second: float, compile_seconds: float, device: str, steps: int) -> Path:
    """Write a measurement that was just made in this process; the file's path."""
    return MeasuredSpeed(
        config=config, flops_per_second=flops_per_second, compile_seconds=compile_seconds, device=device,
        cores=len(usable_cores()),
        machine=platform.node(), steps=steps,
    ).write()  # fmt: skip


def of_this_machine() -> Iterator[MeasuredSpeed]:
    """The speeds that were measured on this machine, one of each shape: that over most steps.

    Files of another version are skipped: measuring again is quick.
    """
    best: dict[str, MeasuredSpeed] = {}
    for path in sorted(_folder().glob("*.json")):
        try:
            speed = from_json(MeasuredSpeed, read_json(path, "measured speed"))
        except (UserError, TypeError):
            continue
        if speed.machine == platform.node() and speed.steps >= best.get(speed.measured, speed).steps:
            best[speed.measured] = speed
    yield from best.values()


def _folder() -> Path:
    return cache_dir() / "bench"
