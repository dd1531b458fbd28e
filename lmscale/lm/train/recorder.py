"""What one run keeps beside its state on the device: the order of its data, metrics, checkpoints, outcome."""

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import flax
import jax
import numpy as np
import optax

from lmscale.core.config import RunConfig
from lmscale.core.counting import count
from lmscale.core.results import Outcome
from lmscale.lm import data
from lmscale.lm.devices import distributed, machine
from lmscale.lm.eval.validation import Validation
from lmscale.lm.train.checkpoint import Checkpoints
from lmscale.lm.train.logs.jsonl import MetricsLog
from lmscale.lm.train.logs.wandb import Tracker
from lmscale.lm.train.step import Metrics, TrainState


class Ledger:
    """Of the run at `place` among those that share a program; `train` tells it what happens."""

    def __init__(self, config: RunConfig, folder: Path, place: int, tokens: data.Tokens, wandb: str) -> None:
        self.config, self.folder, self.place, self.tokens = config, folder, place, tokens
        self.batches = data.Batches(tokens, config.model.context, config.optimizer.batch_sequences, config.seed)
        self.done = 0
        """Steps dispatched."""
        self.validation: Validation | None = None
        self.outcome: Outcome | None = None
        self.startup_seconds = 0.0
        self._seconds_before, self._began = 0.0, time.perf_counter()
        self._validation_steps = {round(config.steps * (i + 1) / config.validations) for i in range(config.validations)}
        self._exam_steps = config.exam.steps(config.steps)
        self.checkpoints = Checkpoints(folder, config.run_id, config.kept_steps)
        self.tracker = Tracker(wandb if distributed.is_main() else "off", config, folder)

    @property
    def over(self) -> bool:
        """Whether no step is left to do."""
        return self.log.diverged or self.done == self.config.steps

    @property
    def validates(self) -> bool:
        """Whether a validation loss is due after the last step."""
        return self.done in self._validation_steps

    @property
    def examined(self) -> bool:
        """Whether benchmark scores are due after the last step."""
        return self.done in self._exam_steps and not self.log.diverged

    def resume(self, start: Callable[[jax.Array], TrainState], like: TrainState, peak: float) -> TrainState:
        """The state to go on from, of the last checkpoint or new; opens the log."""
        state, facts, skipped = self.checkpoints.restore(like)
        for sentence in skipped:
            self._say(sentence)
        if state is None:
            state, facts = start(jax.random.key(self.config.seed)), {"seconds": 0.0, "losses": []}
        else:
            self._say(f"going on from step {int(state.step):,} of {self.config.steps:,}")
        self.done, self._seconds_before = int(state.step), facts["seconds"]
        self.log = MetricsLog(
            self.folder, self.config, self.tracker,
            peak=peak, first=self.done, losses=facts["losses"], place=self.place,
        )  # fmt: skip
        return state

    def begin(self) -> None:
        """Start the clock: everything is compiled."""
        self._began = time.perf_counter()

    def seconds(self) -> float:
        """Wall time of training so far, resumed parts included."""
        return self._seconds_before + time.perf_counter() - self._began

    def pause(self, seconds: float) -> None:
        """Leave so many seconds that have just passed out of the time of training."""
        self._began += seconds
        self.log.pause(seconds)

    def add(self, metrics: Metrics) -> None:
        """Note one more step."""
        self.done += 1
        self.log.add(metrics)

    def close_row(self, every: int) -> None:
        """Close a row of metrics where one is due: every so many steps, and with every validation."""
        if self.validates or self.done % every == 0:
            self.log.row(self.done, self.validation if self.validates else None)

    def save(self, state: TrainState) -> None:
        """Start a checkpoint, unless the run has diverged."""
        self.log.flush()
        if not self.log.diverged:
            self.checkpoints.save(state, {"seconds": self.seconds(), "losses": self.log.open_losses()})

    def finish(self, seconds: float, peak: float, runs: int) -> None:
        """Write the outcome; `peak` is the matmul peak of the mesh, which `runs` runs have shared."""
        self.outcome = self._outcome(seconds, peak, runs)
        if distributed.is_main():
            self.outcome.write(self.folder)
            self.tracker.finish(asdict(self.outcome))
        if not self.config.keep_checkpoint:
            self.checkpoints.remove()

    def close(self) -> None:
        """Wait until everything is on disk."""
        try:
            self.checkpoints.close()
        finally:
            self.tracker.close()

    def _say(self, sentence: str) -> None:
        if distributed.is_main():
            print(sentence, flush=True)

    def _outcome(self, seconds: float, peak: float, runs: int) -> Outcome:
        config, log = self.config, self.log
        validation = None if log.diverged else self.validation
        done = log.done if validation is None else config.steps
        tokens = done * config.batch_tokens
        counts = count(config, tokens)
        return Outcome(
            run_id=config.run_id,
            state="diverged" if validation is None else "finished",
            reason=log.reason,
            loss_nats=None if validation is None else validation.loss_nats,
            loss_stderr=None if validation is None else validation.stderr,
            bits_per_byte=None if validation is None else validation.bits_per_byte,
            loss_by_position_nats=None if validation is None else validation.by_position,
            train_loss_nats=log.last_loss,
            validation_tokens=None if validation is None else validation.tokens,
            spikes=log.spikes,
            params=counts.params,
            params_non_embedding=counts.params_non_embedding,
            tokens=tokens,
            flops=counts.flops,
            flops_6n=counts.flops_6n,
            **asdict(self.batches.usage(tokens)),
            data_fingerprint=self.tokens.manifest.fingerprint,
            seconds=seconds,
            startup_seconds=self.startup_seconds,
            tokens_per_second=tokens / seconds,
            mfu=counts.flops / seconds / peak,
            matmul_peak_flops_per_second=peak,
            device=machine.device_name() + (f", shared by {runs} runs in one program" if runs > 1 else ""),
            versions={module.__name__: module.__version__ for module in (jax, flax, optax, np)},
        )
