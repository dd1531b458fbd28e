"""A trained run as files that other programs read."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmscale.core.files import whole_folder
from lmscale.core.results import Outcome
from lmscale.lm.use.hf.weights import SHARD_BYTES
from lmscale.lm.use.hf.write import write_hf
from lmscale.lm.use.load import Opened, open_run


@dataclass(frozen=True)
class ExportOptions:
    """What a format may be asked for."""

    architecture: str | None = None
    """Class of transformers; None takes the first that computes what the model computes."""
    shard_bytes: int = SHARD_BYTES


Writer = Callable[[Path, Opened, dict[str, Any], ExportOptions], str]
"""(folder, opened run, record, options) -> a sentence on what was written."""


def export(run: Path, output: Path, format: str, step: int | None = None, options: ExportOptions | None = None) -> str:
    """Write the model of the run folder into the folder `output`, which must not exist; a sentence on what it is.

    Nothing is left there unless all of it was written. Raises `UserError` for a run without that checkpoint and for an
    option of the model that the format has no counterpart for.
    """
    opened = open_run(run, step)
    with whole_folder(output) as folder:
        return FORMATS[format](folder, opened, record(run, opened), options or ExportOptions())


def record(run: Path, opened: Opened) -> dict[str, Any]:
    """What an exported model says of its run."""
    outcome, config = Outcome.read(run), opened.run.config
    at_end = outcome is not None and opened.step == config.steps
    tokens = outcome.tokens if outcome is not None and at_end else opened.step * config.batch_tokens
    return {"run_id": config.run_id, "step": opened.step, "tokens": tokens or None}


def _hf(folder: Path, opened: Opened, facts: dict[str, Any], options: ExportOptions) -> str:
    name = write_hf(folder, opened.run, facts, options.architecture, options.shard_bytes)
    return f"transformers loads it as {name}"


FORMATS: dict[str, Writer] = {"hf": _hf}
"""Name of a format -> who writes it."""
