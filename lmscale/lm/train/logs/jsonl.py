"""`metrics.jsonl`: the metrics of a run while it trains.

The rates in a row, `tokens_per_second` and `mfu`, are those of the steps since the row before, on the `TrainingClock`:
weighted by their tokens, the rates of all rows give that of the outcome.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from lmscale.core.config import Preference, RunConfig
from lmscale.core.counting import flops_per_token
from lmscale.core.files import open_append, storage_error, write_text
from lmscale.core.run_folder import METRICS_COLUMNS, METRICS_FILE, read_metrics
from lmscale.lm.devices.distributed import is_main
from lmscale.lm.eval.validation import Validation
from lmscale.lm.objectives import ExpertLoad
from lmscale.lm.train.clock import TrainingClock
from lmscale.lm.train.health import trouble
from lmscale.lm.train.logs.expert_load import LoadTotals
from lmscale.lm.train.logs.wandb import Tracker
from lmscale.lm.train.step import Metrics

LOG_ROWS = 200
"""Rows of metrics that a run writes, at least where it has as many steps."""
SHORTEST_ROW = 1e-9
"""Seconds that a row is taken to last at least: one tick of the clock."""


class _Interval(NamedTuple):
    """The steps of one row, whose metrics are still on the device."""

    done: int
    """Steps of the run when it ended."""
    steps: list[Mapping[str, jax.Array | float]]
    loads: list[ExpertLoad]
    earlier: LoadTotals | None
    """The load of the row's steps that an earlier process made."""
    newest: Metrics
    validation: Validation | None
    ended: Callable[[], float]
    """The clock's seconds when the device had finished the last step."""


class MetricsLog:
    """`metrics.jsonl`: a row for every interval. A row waits for the device only when the next one is due.

    What the objective reports besides the loss stands in the row under its own names, as a mean over the interval.
    """

    def __init__(
        self,
        folder: Path,
        config: RunConfig,
        tracker: Tracker,
        *,
        clock: TrainingClock,
        peak: float,
        first: int,
        earlier: Path,
        open_steps: Sequence[Mapping[str, float]] = (),
        open_load: LoadTotals | None = None,
        open_seconds: float | None = None,
        index: int = 0,
        beside: float = 0,
    ) -> None:
        """Begin with the rows up to step `first` in the run folder `earlier`, which is this one or a trunk's.

        `open_steps` are the means of the steps after the last of those rows, `open_load` what their experts did,
        `open_seconds` how long they took (None where an old checkpoint does not say); `index` is the run's own in
        metrics that are stacked. `beside` are the FLOPs per token that MFU counts besides those of training: of reading
        a teacher or reference, and of drawing answers.
        """
        self.path, self.config, self.peak, self._tracker = folder / METRICS_FILE, config, peak, tracker
        self.done, self.diverged, self.reason, self.spikes = first, False, "", 0
        run_id = config.run_id if earlier == folder else None  # a trunk's rows are those of this run too
        rows = [
            {**row, "run_id": config.run_id} if "run_id" in row else row
            for row in read_metrics(earlier, run_id)[0]
            if row["step"] <= first
        ]
        if is_main():
            write_text(self.path, "".join(json.dumps(row) + "\n" for row in rows))
        self.last_loss: float | None = rows[-1].get("loss_nats") if rows else None
        self.reported: dict[str, float | None] = {}
        """What the objective reported in the newest row, and the worst figures of its experts."""
        self.experts: dict[str, list[Any]] | None = None
        """What the experts of each layer did in the newest row (`LoadTotals.by_layer`)."""
        self._loads: list[ExpertLoad] = []
        self._earlier_load = open_load
        self._stacked = False
        self._index, self._beside = index, beside
        self._interval: list[Mapping[str, jax.Array | float]] = [*open_steps]
        self._newest: Metrics | None = None
        self._waiting: _Interval | None = None
        self.seconds = -(open_seconds or 0.0)
        """When the last closed row ended, on the clock of this process: before 0 where it was an earlier one's."""
        self._timed = first if open_seconds is None else first - len(open_steps)
        self._clock = clock

    def add(self, metrics: Metrics) -> None:
        """Remember one step's metrics, still on the device."""
        self._interval.append({"loss_nats": metrics.loss_nats, **metrics.reported})
        if metrics.load is not None:
            self._loads.append(metrics.load)
        self._newest, self._stacked = metrics, metrics.loss_nats.ndim > 0

    def row(self, done: int, validation: Validation | None) -> None:
        """Close an interval that ends after `done` steps; write the interval before it."""
        self.flush()
        assert self._newest is not None
        ended = self._clock.when_ready(self._newest.loss_nats)
        self._waiting = _Interval(
            done, self._interval, self._loads, self._earlier_load, self._newest, validation, ended
        )
        self._interval, self._loads, self._earlier_load = [], [], None

    def open_steps(self) -> list[dict[str, float]]:
        """The means of each step since the last closed interval: a checkpoint keeps them."""
        return [self._on_host(step) for step in self._interval]

    def open_load(self) -> LoadTotals | None:
        """What the experts did in those steps; None in a dense model."""
        return self._total(self._loads, self._earlier_load)

    def _total(self, loads: list[ExpertLoad], earlier: LoadTotals | None) -> LoadTotals | None:
        total = LoadTotals.of(jax.tree.map(self._own, load) for load in loads)
        return earlier if total is None else total + earlier

    def _on_host(self, step: Mapping[str, jax.Array | float]) -> dict[str, float]:
        return {name: float(self._own(value)) for name, value in step.items()}

    def _own(self, values: jax.Array | float) -> Any:
        """This run's number of those that all runs of its program share an array for, on the host."""
        on_host = np.asarray(values)
        return on_host[self._index] if self._stacked and on_host.ndim else on_host

    def flush(self) -> None:
        """Write what is waiting."""
        if self._waiting is None:
            return
        done, interval, loads, earlier, newest, validation, ended = self._waiting
        self._waiting = None
        steps = [self._on_host(step) for step in interval]
        newest = jax.tree.map(self._own, newest)
        seconds = ended()
        rate = (done - self._timed) * self.config.batch_tokens / max(seconds - self.seconds, SHORTEST_ROW)
        self._timed, self.seconds = done, seconds
        self.spikes = int(newest.health.spikes)
        if problem := trouble(newest.health, self.config.divergence_nats):
            self.diverged, self.done, self.reason = True, problem.step, f"{problem.reason} at step {problem.step:,}"
            return
        if validation is not None and not math.isfinite(validation.loss_nats):
            self.diverged, self.done = True, done
            self.reason = f"the validation loss was {validation.loss_nats} at step {done:,}"
            return
        if validation is not None and (sentence := exploded(self.config, validation)):
            self.diverged, self.done, self.reason = True, done, f"{sentence}, at step {done:,}"
            return
        self.done, self.last_loss = done, float(np.mean([step["loss_nats"] for step in steps]))
        self.reported = {name: _mean([step[name] for step in steps]) for name in newest.reported}
        if (load := self._total(loads, earlier)) is not None:
            self.reported |= load.summary(self.config.model)
            self.experts = load.by_layer(self.config.model)
        if is_main():
            self._write(self._row(done, newest, rate, validation))

    def _row(self, done: int, newest: Metrics, rate: float, validation: Validation | None) -> dict[str, Any]:
        flops = flops_per_token(self.config.model)
        row: dict[str, Any] = {
            "run_id": self.config.run_id,
            "step": done,
            "tokens": done * self.config.batch_tokens,
            "flops": done * self.config.batch_tokens * flops,
            "loss_nats": self.last_loss,
            "learning_rate": float(newest.learning_rate),
            "grad_norm": float(newest.grad_norm),
            "tokens_per_second": rate,
            "mfu": rate * (flops + self._beside) / self.peak,
        }
        if validation is not None:
            row |= {"validation_loss_nats": validation.loss_nats, "validation_stderr": validation.stderr}
            row |= {f"validation_{name}": value for name, value in validation.reported.items()}
        assert not set(METRICS_COLUMNS) & self.reported.keys(), "an objective reports under names of its own"
        return row | self.reported | ({} if self.experts is None else {"experts": self.experts})

    def _write(self, row: dict[str, Any]) -> None:
        try:
            with open_append(self.path) as file:
                file.write(f"{json.dumps(row, allow_nan=False)}\n".encode())
        except OSError as error:
            raise storage_error(self.path, error) from error
        self._tracker.log({name: value for name, value in row.items() if name not in ("run_id", "experts")})


def exploded(config: RunConfig, validation: Validation) -> str:
    """How far a policy is from its reference on held-out answers, where that is too far; else ""."""
    if not isinstance(config.objective, Preference):
        return ""
    kl, limit = validation.reported["kl"], config.objective.kl_limit_nats
    if kl is not None and kl <= limit:
        return ""
    much = "not finite" if kl is None else f"{kl:.4g} nats, above Preference.kl_limit_nats = {limit:g}"
    return f"the KL of held-out answers to the reference was {much}"


def _mean(values: list[float]) -> float | None:
    """None where it is not finite: JSON has no such number."""
    mean = float(np.mean(values))
    return mean if math.isfinite(mean) else None
