"""Weights & Biases beside the local metrics: optional, and never able to harm a run.

`metrics.jsonl` is complete without it; whatever goes wrong here is printed once, and the run continues.
"""

from pathlib import Path
from typing import Any

from lmscale.core.config import RunConfig


class Tracker:
    """Sends the rows of one run to W&B under its run_id, one group per sweep folder; `off` sends nothing."""

    def __init__(self, mode: str, config: RunConfig, folder: Path) -> None:
        self._run: Any = None
        if mode != "off":
            self._guard(lambda: self._start(mode, config, folder))

    def _start(self, mode: str, config: RunConfig, folder: Path) -> None:
        import wandb

        self._run = wandb.init(
            project="lmscale",
            group=folder.resolve().parent.name,
            id=config.run_id,
            name=config.name or config.run_id,
            tags=list(config.tags),
            config=config.to_json(),
            dir=str(folder),
            mode=mode,  # type: ignore[arg-type]
            resume="allow",
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
            print(
                f"Weights & Biases is switched off for the rest of this run: {type(error).__name__}: {error}",
                flush=True,
            )
            self._run = None
