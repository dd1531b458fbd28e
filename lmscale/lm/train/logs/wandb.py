"""Weights & Biases beside the local metrics: optional, and never able to harm a run.

`metrics.jsonl` is complete without it. Whatever goes wrong here is printed once and switches W&B off for this run and,
by a file in the sweep's folder, for every run of the sweep that begins later; the launcher tells its terminal.
"""

import os
import socket
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from lmscale.core.config import RunConfig
from lmscale.core.errors import UserError
from lmscale.core.files import write_text
from lmscale.core.run_folder import PLAN_FILE, WANDB_OFF_FILE

CONNECT_SECONDS = 5.0
"""How long a server may take to accept a connection before W&B is started."""
INIT_SECONDS = 15.0
"""How long W&B may take to begin a run; its own default is 90 s."""
FINISH_SECONDS = 60.0
"""How long it may take to send what is waiting at the end of a run; by default it tries for days."""


class Tracker:
    """Sends the rows of one run to W&B under its run_id, one group per sweep folder; `off` sends nothing."""

    def __init__(self, mode: str, config: RunConfig, folder: Path) -> None:
        self._run: Any = None
        self._folder = folder
        if mode != "off" and not _off_file(folder).exists():
            self._guard(lambda: self._start(mode, config, folder))

    def _start(self, mode: str, config: RunConfig, folder: Path) -> None:
        self._run = begin(
            group=folder.resolve().parent.name,
            id=config.run_id,
            name=config.name or config.run_id,
            tags=list(config.tags),
            config=config.to_json(),
            dir=str(folder),
            mode=mode,
            reinit="create_new",  # runs that share a program are several in one process
        )

    def log(self, row: dict[str, Any]) -> None:
        """Send one row of metrics."""
        self._guard(lambda: self._run and self._run.log(row, step=row["step"]))

    def finish(self, summary: dict[str, Any]) -> None:
        """Send the outcome."""
        self._guard(lambda: self._run and self._run.summary.update(summary))

    def close(self) -> None:
        """Send what is still waiting; afterwards nothing can be logged."""
        run, self._run = self._run, None
        self._guard(lambda: run and run.finish())

    def _guard(self, action: Any) -> None:
        try:
            action()
        except Exception as error:
            self._run = None
            cause = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            print(f"Weights & Biases is switched off for the rest of this run: {' '.join(cause.split())}", flush=True)
            self._switch_off_sweep(cause)

    def _switch_off_sweep(self, cause: str) -> None:
        """Spare later runs of the sweep the same wait. A folder that cannot be written costs them that, and no more."""
        file = _off_file(self._folder)
        if not (file.parent / PLAN_FILE).exists() or file.exists():
            return
        try:
            write_text(file, " ".join(cause.split()) + "\n")
        except UserError as error:
            print(f"the other runs of the sweep cannot be told: {error}", flush=True)


def begin(**settings: Any) -> Any:
    """A run of W&B in our project, begun within seconds or not at all. Raises `UserError` and whatever W&B raises."""
    try:
        import wandb
    except ImportError as error:
        raise UserError(f"it cannot be imported ({error}); pip install wandb") from error
    if settings.get("mode", os.environ.get("WANDB_MODE", "online")) == "online":
        _check_server(wandb)
    return wandb.init(project="lmscale", resume="allow", settings=_time_outs(wandb), **settings)


def _off_file(folder: Path) -> Path:
    return folder.absolute().parent / WANDB_OFF_FILE


def _time_outs(wandb: Any) -> dict[str, Any]:
    """The time limits among W&B's settings, as far as this version has them."""
    settings = {"init_timeout": INIT_SECONDS, "finish_timeout": FINISH_SECONDS, "finish_timeout_raises": True}
    known = getattr(getattr(wandb, "Settings", None), "model_fields", settings)
    return {name: value for name, value in settings.items() if name in known}


def _check_server(wandb: Any) -> None:
    """Raise `UserError` where W&B's server does not answer: `wandb.init` would retry for minutes.

    Behind a proxy only W&B itself can tell.
    """
    if urllib.request.getproxies() or not hasattr(wandb, "setup"):
        return
    address = urllib.parse.urlsplit(wandb.setup().settings.base_url)
    port = address.port or (80 if address.scheme == "http" else 443)
    try:
        socket.create_connection((address.hostname or "", port), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise UserError(
            f"{address.hostname}:{port} does not answer ({error.strerror or error}); without a network take --wandb "
            f"offline, and `wandb sync` later"
        ) from error
