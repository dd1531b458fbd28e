"""Runs as people name them, beside their ids: "N 33.4k D 1.2M lr 0.01 s0"."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lmscale.core.config import RunConfig


def name_of(config: "RunConfig") -> str:
    """The name of a run by its configuration."""
    from lmscale.core.counting import count
    from lmscale.core.quantities import run_name

    counts = count(config)
    return run_name(counts.params, counts.active_params, counts.tokens, config.optimizer.peak_lr, config.seed)


def name_in(folder: Path) -> str:
    """The name of the run in a folder; "" where its configuration cannot be read."""
    from lmscale.core.errors import UserError
    from lmscale.core.run_identity import read_config

    try:
        return name_of(read_config(folder))
    except UserError:
        return ""


def named(folder: Path) -> str:
    """The run in a folder by its id and, where its configuration can be read, its name."""
    return f"run {folder.name}" + (f": {name}" if (name := name_in(folder)) else "")


def listed(folders: Iterable[Path]) -> list[dict[str, str]]:
    """Runs for `--json`: id and name of each."""
    return [{"run_id": folder.name, "name": name_in(folder)} for folder in folders]
