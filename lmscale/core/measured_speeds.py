"""How fast shapes were measured to train: written by `lmscale bench`, read by `lmscale plan`, kept in the cache folder.

One file per shape, machine and number of cores; a newer measurement takes the place of an older one.
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

    def __post_init__(self) -> None:
        check_types(self)

    def write(self) -> Path:
        """Write it into the cache folder, in place of an older measurement of the same shape; the file's path."""
        model, settings = self.config.model, self.config.optimizer
        identity = [asdict(model), settings.batch_sequences, settings.micro_batches, settings.kind]
        text = json.dumps([identity, self.device, self.cores, self.machine], sort_keys=True)
        path = _folder() / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
        write_json(path, asdict(self))
        return path


def record(config: RunConfig, flops_per_second: float, compile_seconds: float, device: str) -> Path:
    """Write a measurement that was just made in this process; the file's path."""
    return MeasuredSpeed(
        config=config, flops_per_second=flops_per_second, compile_seconds=compile_seconds, device=device,
        cores=len(usable_cores()),
        machine=platform.node(),
    ).write()  # fmt: skip


def of_this_machine() -> Iterator[MeasuredSpeed]:
    """The speeds that were measured on this machine; files of another version are skipped: measuring again is quick."""
    for path in sorted(_folder().glob("*.json")):
        try:
            speed = from_json(MeasuredSpeed, read_json(path, "measured speed"))
        except (UserError, TypeError):
            continue
        if speed.machine == platform.node():
            yield speed


def _folder() -> Path:
    return cache_dir() / "bench"
