"""`metrics.jsonl`: what a run says of itself while it trains."""

import json
import math
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from lmscale.core.config import RunConfig
from lmscale.core.counting import flops_per_token
from lmscale.core.files import storage_error, write_text
from lmscale.core.run_folder import METRICS_FILE, read_metrics
from lmscale.lm.devices.distributed import is_main
from lmscale.lm.eval.validation import Validation
from lmscale.lm.train.health import trouble
from lmscale.lm.train.logs.wandb import Tracker
from lmscale.lm.train.step import Metrics

LOG_ROWS = 200
"""Rows of metrics that a run writes, at least where it has as many steps."""


class MetricsLog:
    """`metrics.jsonl`: a row for every interval. A row waits for the device only when the next one is due."""

    def __init__(
        self,
        folder: Path,
        config: RunConfig,
        tracker: Tracker,
        *,
        peak: float,
        first: int,
        losses: list[float],
        place: int = 0,
    ) -> None:
        """Keep the rows up to step `first`; `losses` are those of the steps after the last of them.

        `place` is the run's own in metrics that are stacked.
        """
        self.path, self.config, self.peak, self._tracker = folder / METRICS_FILE, config, peak, tracker
        self.done, self.diverged, self.reason, self.spikes = first, False, "", 0
        kept = [row for row in read_metrics(folder)[0] if row["step"] <= first]
        if is_main():
            write_text(self.path, "".join(json.dumps(row) + "\n" for row in kept))
        self.last_loss: float | None = kept[-1]["loss_nats"] if kept else None
        self._place = place
        self._losses: list[jax.Array | float] = [*losses]
        self._newest: Metrics | None = None
        self._waiting: tuple[int, list[jax.Array | float], Metrics, Validation | None] | None = None
        self._timed, self._clock = first, time.perf_counter()

    def add(self, metrics: Metrics) -> None:
        """Remember one step's metrics, still on the device."""
        self._losses.append(metrics.loss_nats)
        self._newest = metrics

    def row(self, done: int, validation: Validation | None) -> None:
        """Close an interval that ends after `done` steps; write the interval before it."""
        self.flush()
        assert self._newest is not None
        self._waiting = (done, self._losses, self._newest, validation)
        self._losses = []

    def open_losses(self) -> list[float]:
        """Losses of the steps since the last closed interval."""
        return [float(self._own(loss)) for loss in self._losses]

    def _own(self, values: jax.Array | float) -> Any:
        """This run's number of those that all runs of its program have put there, on the host."""
        found = np.asarray(values)
        return found[self._place] if found.ndim else found

    def pause(self, seconds: float) -> None:
        """Leave so many seconds that have just passed out of the rates."""
        self._clock += seconds

    def flush(self) -> None:
        """Write what is waiting."""
        if self._waiting is None:
            return
        done, on_device, newest, validation = self._waiting
        self._waiting = None
        losses = [float(self._own(loss)) for loss in on_device]
        newest = jax.tree.map(self._own, newest)
        grad_norm = float(newest.grad_norm)
        now = time.perf_counter()
        rate = (done - self._timed) * self.config.batch_tokens / (now - self._clock)
        self._timed, self._clock = done, now
        self.spikes = int(newest.health.spikes)
        if found := trouble(newest.health, self.config.divergence_nats):
            self.diverged, self.done, self.reason = True, found.step, f"{found.reason} at step {found.step:,}"
            return
        if validation is not None and not math.isfinite(validation.loss_nats):
            self.diverged, self.done = True, done
            self.reason = f"the validation loss was {validation.loss_nats} at step {done:,}"
            return
        per_token = flops_per_token(self.config.model)
        self.done, self.last_loss = done, float(np.mean(losses))
        row: dict[str, Any] = {
            "step": done,
            "tokens": done * self.config.batch_tokens,
            "flops": done * self.config.batch_tokens * per_token,
            "loss_nats": self.last_loss,
            "learning_rate": float(newest.learning_rate),
            "grad_norm": grad_norm,
            "tokens_per_second": rate,
            "mfu": rate * per_token / self.peak,
        }
        if validation is not None:
            row |= {"validation_loss_nats": validation.loss_nats, "validation_stderr": validation.stderr}
        if not is_main():
            return
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row, allow_nan=False) + "\n")
        except OSError as error:
            raise storage_error(self.path, error) from error
        self._tracker.log(row)
