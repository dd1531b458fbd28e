"""Training: a RunConfig goes in, an Outcome comes out.

`train` owns compilation, placement, the loop and the clock; what a step does is in `step`, what a run keeps in
`ledger`, and how several runs become one program in `pack`.
"""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh
from numpy.typing import NDArray

from lmscale.core.config import RunConfig, check
from lmscale.core.files import write_json
from lmscale.core.results import Outcome
from lmscale.core.run_folder import CONFIG_FILE
from lmscale.core.signals import second_ctrl_c_ends, stop_requested
from lmscale.lm import data
from lmscale.lm.devices import collectives, distributed, machine
from lmscale.lm.devices.sharding import batch_sharding, make_mesh, replicated
from lmscale.lm.eval.task_eval import TaskEvaluator
from lmscale.lm.eval.validation import make_validation
from lmscale.lm.train import pack
from lmscale.lm.train.logs.jsonl import LOG_ROWS
from lmscale.lm.train.optimizer import Hyperparameters
from lmscale.lm.train.recorder import Ledger
from lmscale.lm.train.step import TrainState, make_step


class Interrupted(Exception):
    """The run was asked to stop; it has saved a checkpoint and will go on from there."""


def train(config: RunConfig, folder: Path, wandb: str = "off") -> Outcome:
    """Train `config` to its end in `folder`, going on from the last checkpoint there, and write its outcome.

    Several processes that have found each other (`distributed.start`) call it alike and share the folder. Raises
    `UserError` for a corpus too small, a mesh that does not fit, too little memory, a full disk, a folder of another
    run; `Interrupted` after SIGTERM or SIGINT, once a checkpoint is saved. `wandb` is off, offline or online.
    """
    return train_packed([config], [folder], wandb)[0]


def train_packed(configs: Sequence[RunConfig], folders: Sequence[Path], wandb: str = "off") -> list[Outcome]:
    """Train several runs of one shape in one program, each in its own folder and as `train` would; their outcomes.

    A run that has an outcome is not trained again; one that stops early, or diverges, harms no other. Each may later go
    on by itself from its checkpoint, and the other way round. Raises as `train` does, and `UserError` for runs that are
    not one program (`pack.check_alike`) and for a folder given twice.
    """
    check(
        len({folder.resolve() for folder in folders}) == len(folders) == len(configs),
        f"{len(configs)} runs are given {len({folder.resolve() for folder in folders})} folders; give each its own",
    )
    outcomes = [_known(config, folder) for config, folder in zip(configs, folders)]
    missing = [place for place, outcome in enumerate(outcomes) if outcome is None]
    if missing:
        pack.check_alike([configs[place] for place in missing])
        with (
            second_ctrl_c_ends(),
            stop_requested() as stop,
            ExitStack() as closed_at_the_end,
            distributed.abort_on_error(Interrupted),
        ):
            for place in missing:
                if distributed.is_main():
                    write_json(folders[place] / CONFIG_FILE, configs[place].to_json())
            first = configs[missing[0]]
            mesh = make_mesh(first.mesh)
            machine.check_memory(first, len(missing))
            tokens = data.prepare(first.data)
            data.check_enough(tokens, first)
            runs = [
                closed_at_the_end.enter_context(closing(Ledger(configs[place], folders[place], number, tokens, wandb)))
                for number, place in enumerate(missing)
            ]
            _Together(runs, mesh, stop).to_the_end()
        for run, place in zip(runs, missing):
            outcomes[place] = run.outcome
    return [outcome for outcome in outcomes if outcome is not None]


def _known(config: RunConfig, folder: Path) -> Outcome | None:
    """The outcome in `folder`. Raises `UserError` where it is that of another run."""
    outcome = Outcome.read(folder)
    check(
        outcome is None or outcome.run_id == config.run_id,
        f"{folder} holds the outcome of run {outcome and outcome.run_id}, but this configuration is run "
        f"{config.run_id}; train it in a folder of its own",
    )
    return outcome


class _Together:
    """The runs of one program on their way to the end, usually a single one."""

    def __init__(self, runs: list[Ledger], mesh: Mesh, stop: Callable[[], bool]) -> None:
        self.runs, self.mesh, self.stop, self.config = runs, mesh, stop, runs[0].config
        self.windows = data.ValidationSet(runs[0].tokens, self.config.model.context, self.config.validation_tokens)
        if self.windows.shortfall and distributed.is_main():
            print(self.windows.shortfall, flush=True)
        self.task_evaluator = TaskEvaluator([run.config for run in runs], runs[0].tokens.manifest, mesh)
        self.every = math.ceil(self.config.steps / LOG_ROWS)
        self.peak = self._matmul_peak()
        self.saved = time.perf_counter()

    def to_the_end(self) -> None:
        programs = make_step(self.config, self.mesh)

        def start(key: jax.Array) -> TrainState:
            with jax.set_mesh(self.mesh):
                return programs.start(key)

        state = pack.stack([run.resume(start, programs.state, self.peak) for run in self.runs])
        hyper = collectives.replicate(
            pack.stack([Hyperparameters.of(run.config) for run in self.runs]), replicated(self.mesh)
        )
        with jax.set_mesh(self.mesh):
            step = pack.packed_step(programs, self.config, len(self.runs))
            step_function = step.lower(state, self._batch(), hyper).compile()
        validate = make_validation(self.config, self.mesh, self.windows, programs.state.validated)
        for run in self.runs:
            run.begin()
            if run.over:  # ended between its last checkpoint and its outcome
                run.validation = validate(self._part(state, run).validated)
        self.saved = time.perf_counter()
        self.any_process = collectives.AnyProcessPoll(self.runs[0].done)
        stopping, _ = self._wanted(self.runs)  # asked to while it compiled
        while active := self._active(state):
            if stopping:
                self._interrupt(active)
            state, metrics = step_function(state, self._batch(), hyper)
            if not active[0].startup_seconds:
                jax.block_until_ready(state)
                for run in active:
                    run.startup_seconds = machine.seconds_alive()
            for run in active:
                run.add(metrics)
                if run.validates:
                    run.validation = validate(self._part(state, run).validated)
                run.close_row(self.every)
                if run.examined and not run.over:
                    self._examine(run, state)
            stopping, saving = self._wanted(active)
            if saving:
                for run in active:
                    run.save(self._part(state, run))
                self.saved = time.perf_counter()

    def _batch(self) -> jax.Array:
        """The next batch of every run; of one that is over, any."""

        def rows(start: int, stop: int) -> NDArray[np.int32]:
            return pack.stack([run.batches.rows(run.done, start, stop) for run in self.runs])

        shape = (self.config.optimizer.batch_sequences, self.config.model.context + 1)
        return collectives.make_global_array(rows, shape, batch_sharding(self.mesh))

    def _part(self, state: TrainState, run: Ledger) -> TrainState:
        return pack.part(state, run.place, len(self.runs))

    def _active(self, state: TrainState) -> list[Ledger]:
        """The runs that have steps to do; those that have just done their last are finished here."""
        active = [run for run in self.runs if run.outcome is None]
        if not any(run.over for run in active):
            return active
        over = [run for run in active if run.over]
        for run in over:
            run.log.flush()
        for run in over:
            if run.examined:
                self._examine(run, state)
        seconds = [run.seconds() for run in over]
        self.peak = max(self.peak, self._matmul_peak())
        for run, spent in zip(over, seconds):
            if run.config.keep_checkpoint:
                run.save(self._part(state, run))
                run.checkpoints.close()
            run.finish(spent, self.peak, len(self.runs))
        return [run for run in active if run.outcome is None]

    def _examine(self, run: Ledger, state: TrainState) -> None:
        """Score the model as it is now, off the clock of training; before a checkpoint of this step is saved."""
        run.log.flush()
        if run.log.diverged:
            return
        start = time.perf_counter()
        loss_nats = run.validation.loss_nats if run.validates and run.validation is not None else None
        self.task_evaluator.evaluate(run.config, run.folder, self._part(state, run).validated, run.done, loss_nats)
        run.pause(time.perf_counter() - start)

    def _wanted(self, active: list[Ledger]) -> tuple[bool, bool]:
        """Whether to stop, and whether to save; several processes agree on it about once a second."""
        if all(run.over for run in active):
            return False, False
        due = time.perf_counter() - self.saved > self.config.checkpoint_seconds
        stopping, saving = self.any_process(active[0].done, self.stop(), due)
        kept = any(run.done in run.config.kept_steps for run in active)
        return stopping, stopping or saving or kept

    def _interrupt(self, active: list[Ledger]) -> None:
        for run in active:
            run.checkpoints.close()
        if not any(run.done for run in active):
            raise Interrupted("stopped before the first step")
        done = " and ".join(sorted({f"{run.done:,}" for run in active}))
        raise Interrupted(f"stopped after step {done} of {self.config.steps:,}; a checkpoint is saved")

    def _matmul_peak(self) -> float:
        """Of all devices of the mesh together."""
        return machine.matmul_peak(self.config.model.compute_dtype) * self.config.mesh.devices
