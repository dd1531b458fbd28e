"""What one run keeps on disk while it trains: metrics, checkpoints, outcome."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import flax
import jax
import numpy as np
import optax

from lmscale.core.config import ModelConfig, RunConfig
from lmscale.core.counting import count, reference_flops
from lmscale.core.results import Outcome
from lmscale.core.run_folder import SCORING_FILE
from lmscale.lm import data
from lmscale.lm.devices import distributed, machine
from lmscale.lm.eval.validation import Validation
from lmscale.lm.train.batch_source import BatchSource
from lmscale.lm.train.checkpoint import Checkpoints
from lmscale.lm.train.checkpoint_content import Identity
from lmscale.lm.train.clock import TrainingClock
from lmscale.lm.train.logs.expert_load import LoadTotals
from lmscale.lm.train.logs.jsonl import MetricsLog
from lmscale.lm.train.logs.wandb import Tracker
from lmscale.lm.train.start import first_state
from lmscale.lm.train.step import Compiled, Metrics, TrainState
from lmscale.lm.train.training_data import check_noted, note_data


class RunRecorder:
    """Records one run: its progress, clock, metrics, checkpoints and outcome. The training loop drives it."""

    def __init__(
        self,
        config: RunConfig,
        folder: Path,
        index: int,
        tokens: data.Tokens,
        batches: BatchSource,
        clock: TrainingClock,
        wandb: str,
        reference_model: ModelConfig | None = None,
    ) -> None:
        """`index` is the run's own among those that share a program and its clock; `reference_model` is read beside."""
        self._reference_model = reference_model
        self.config, self.folder, self.index, self.tokens, self.batches = config, folder, index, tokens, batches
        self.clock = clock
        self.done = 0
        """Steps dispatched."""
        self.validation: Validation | None = None
        self.outcome: Outcome | None = None
        self.startup_seconds = 0.0
        self._seconds_before = self._paused_before = 0.0
        self._validation_steps = {round(config.steps * (i + 1) / config.validations) for i in range(config.validations)}
        self._exam_steps = config.exam.steps(config.steps)
        manifest = tokens.manifest
        self.identity = Identity(
            config.run_id, manifest.fingerprint, manifest.source, manifest.tokenizer_fingerprint or None
        )
        self.checkpoints = Checkpoints(folder, self.identity, config.kept_steps)
        if distributed.is_main():
            (folder / SCORING_FILE).unlink(missing_ok=True)  # of a process that was killed
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
    def scores_tasks(self) -> bool:
        """Whether benchmark scores are due after the last step."""
        return self.done in self._exam_steps and not self.log.diverged

    def resume(self, programs: Compiled, peak: float) -> TrainState:
        """The state of the newest checkpoint, or the one that the run starts from; opens the log."""
        state, facts, problems = self.checkpoints.restore(programs.state)
        earlier = self.folder
        for problem in problems:
            self._print(problem)
        if state is None:
            check_noted(self.identity, self.folder)
            state, facts, earlier = first_state(self.config, self.folder, programs, self.identity)
        self.done, self._seconds_before = int(state.step), facts["seconds"]
        self._paused_before = facts.get("paused_seconds", 0.0)
        if self.done:
            self._print(f"going on from step {self.done:,} of {self.config.steps:,}")
        self.log = MetricsLog(
            self.folder, self.config, self.tracker,
            clock=self.clock, peak=peak, first=self.done, earlier=earlier, open_steps=_open_steps(facts),
            open_load=LoadTotals.from_json(facts["load"]) if facts.get("load") else None,
            open_seconds=self._seconds_before - facts["row_seconds"] if "row_seconds" in facts else None,
            index=self.index, beside=self._beside(1) + self.batches.flops_per_batch / self.config.batch_tokens,
        )  # fmt: skip
        return state

    def seconds(self) -> float:
        """Seconds of training up to the last row of metrics, resumed parts included."""
        return self._seconds_before + self.log.seconds

    def add(self, metrics: Metrics) -> None:
        """Note one more step."""
        self.done += 1
        self.log.add(metrics)

    def started(self, seconds: float) -> None:
        """Note that the first step of this process is done, `seconds` after the process began."""
        self.startup_seconds = seconds
        note_data(self.identity, self.folder)

    def close_row(self, every: int) -> None:
        """Close a row of metrics where one is due: every so many steps, and with every validation."""
        if self.validates or self.done % every == 0:
            self.log.row(self.done, self.validation if self.validates else None)

    def save(self, state: TrainState) -> None:
        """Start a checkpoint, unless the run has diverged."""
        self.log.flush()
        if not self.log.diverged:
            steps = self.log.open_steps()
            columns = {name: [step[name] for step in steps] for name in (steps[0] if steps else ())}
            losses = columns.pop("loss_nats", [])
            facts: dict[str, Any] = {
                "seconds": self._seconds_before + self.clock.seconds(),
                "row_seconds": self.seconds(),
                "paused_seconds": self._paused_seconds(),
            }
            if (load := self.log.open_load()) is not None:
                facts["load"] = load.to_json()
            self.checkpoints.save(state, {**facts, "losses": losses, "reported": columns})

    def finish(self, peak: float, runs: int) -> None:
        """Write the outcome; `peak` is the matmul peak of the mesh, which `runs` runs have shared."""
        self.outcome = self._outcome(peak, runs)
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

    def _beside(self, tokens: int) -> int:
        """Forward FLOPs of the teacher or reference on so many tokens."""
        return 0 if self._reference_model is None else reference_flops(self._reference_model, self.config, tokens)

    def _paused_seconds(self) -> float:
        return self._paused_before + self.clock.paused_seconds()

    def _print(self, sentence: str) -> None:
        if distributed.is_main():
            print(sentence, flush=True)

    def _outcome(self, peak: float, runs: int) -> Outcome:
        config, log, seconds = self.config, self.log, self.seconds()
        validation = None if log.diverged else self.validation
        done = log.done if validation is None else config.steps
        tokens = done * config.batch_tokens
        counts, beside = count(config, tokens), self._beside(tokens)
        drawing = done * self.batches.flops_per_batch
        return Outcome(
            run_id=config.run_id,
            state="diverged" if validation is None else "finished",
            reason=log.reason,
            loss_nats=None if validation is None else validation.loss_nats,
            loss_stderr=None if validation is None else validation.stderr,
            bits_per_byte=None if validation is None else validation.bits_per_byte,
            loss_by_position_nats=None if validation is None else validation.by_position,
            train_loss_nats=log.last_loss,
            reported=log.reported or None,
            validation_reported=(validation and validation.reported) or None,
            experts=log.experts,
            validation_tokens=None if validation is None else validation.tokens,
            spikes=log.spikes,
            params=counts.params,
            params_non_embedding=counts.params_non_embedding,
            active_params=counts.active_params,
            active_params_non_embedding=counts.active_params_non_embedding,
            tokens=tokens,
            flops=counts.flops,
            flops_6n=counts.flops_6n,
            batch_flops=drawing,
            reference_flops=beside,
            **asdict(self.batches.usage(tokens)),
            data_fingerprint=self.tokens.manifest.fingerprint,
            seconds=seconds,
            paused_seconds=self._paused_seconds(),
            startup_seconds=self.startup_seconds,
            tokens_per_second=tokens / seconds,
            mfu=(counts.flops + beside + drawing) / seconds / peak,
            matmul_peak_flops_per_second=peak,
            device=machine.device_name() + (f", shared by {runs} runs in one program" if runs > 1 else ""),
            versions={module.__name__: module.__version__ for module in (jax, flax, optax, np)},
        )


def _open_steps(facts: Mapping[str, Any]) -> list[dict[str, float]]:
    """The inverse of how `save` keeps them: columns of numbers. Older checkpoints have losses only."""
    reported = facts.get("reported", {})
    return [
        {"loss_nats": loss, **{name: values[number] for name, values in reported.items()}}
        for number, loss in enumerate(facts["losses"])
    ]
