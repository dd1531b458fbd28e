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
class Figure:
    """One measurement of one shape."""

    config: RunConfig
    """What was trained; its length does not count."""
    flops_per_second: float
    """Exact training FLOP/s of the run, all its devices together."""
    compile_seconds: float
    device: str
    cores: int
    """Processors that the process was allowed to use."""
    machine: str = ""

    def __post_init__(self) -> None:
        check_types(self)

    def remember(self) -> Path:
        """Write it into the cache folder."""
        model, settings = self.config.model, self.config.optimizer
        identity = [asdict(model), settings.batch_sequences, settings.micro_batches, settings.kind]
        text = json.dumps([identity, self.device, self.cores, self.machine], sort_keys=True)
        path = _folder() / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
        write_json(path, asdict(self))
        return path


def keep(config: RunConfig, flops_per_second: float, compile_seconds: float, device: str) -> Path:
    """Write down what was just measured here."""
    return Figure(
        config=config, flops_per_second=flops_per_second, compile_seconds=compile_seconds, device=device,
        cores=len(usable_cores()),
        machine=platform.node(),
    ).remember()  # fmt: skip


def here() -> Iterator[Figure]:
    """What was measured on this machine. A file of another version is passed over: a figure is soon made again."""
    for path in sorted(_folder().glob("*.json")):
        try:
            figure = from_json(Figure, read_json(path, "figure"))
        except (UserError, TypeError):
            continue
        if figure.machine == platform.node():
            yield figure


def _folder() -> Path:
    return cache_dir() / "bench"
