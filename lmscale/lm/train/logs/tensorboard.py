"""The metrics of a sweep's runs as TensorBoard's event files, written anew from `metrics.jsonl`."""

import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lmscale.core.errors import UserError
from lmscale.core.files import own_folder, storage_error
from lmscale.core.run_folder import EVENTS_FOLDER, METRICS_FILE, read_metrics


def write_events(folder: Path) -> int:
    """Write the metrics of every run in `folder` to `<run>/tensorboard`, replacing what is there; the number of runs.

    Raises `UserError` without the extra `tensorboard`, where no run has metrics yet, and on a full disk.
    """
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise UserError("--to tensorboard needs tensorboardX: pip install 'lmscale[tensorboard]'") from None
    runs = sorted(path.parent for path in folder.glob(f"*/{METRICS_FILE}"))
    if not runs:
        raise UserError(f"no run in {folder} has metrics yet; give runs/<sweep> of a sweep that `lmscale run` trains")
    for run in runs:
        _write_run(run, SummaryWriter)
    return len(runs)


def _write_run(run: Path, writer_to: Callable[[str], Any]) -> None:
    """Write the metrics of one run with what `writer_to` opens in a folder. Raises `UserError` on a full disk."""
    new = run / f".{uuid.uuid4().hex}.partial"
    try:
        with writer_to(str(new)) as writer:
            for row in read_metrics(run)[0]:
                step = row.pop("step")
                for name, value in row.items():
                    if isinstance(value, int | float):
                        writer.add_scalar(name, value, step)
        shutil.rmtree(own_folder(run / EVENTS_FOLDER))
        new.rename(run / EVENTS_FOLDER)
    except OSError as error:
        raise storage_error(run / EVENTS_FOLDER, error) from error
    finally:
        shutil.rmtree(new, ignore_errors=True)
