"""Training: a RunConfig goes in, an Outcome comes out.

`train` owns compilation, placement and the loop; what a step does is in `step`, what a step minimises in `objectives`,
where its batches come from in `batch_source`, what a run keeps on disk in `recorder`, what counts as time of training
in `clock`, when a checkpoint is saved in `checkpoint_cadence`, and how several runs become one program in `pack`.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import jax
from jax.sharding import Mesh

from lmscale.core.config import ModelConfig, Reinforcement, RunConfig, check
from lmscale.core.files import write_json
from lmscale.core.results import Outcome
from lmscale.core.run_folder import CONFIG_FILE
from lmscale.core.signals import second_ctrl_c_ends, stop_requested
from lmscale.lm import data
from lmscale.lm.devices import collectives, distributed, machine
from lmscale.lm.devices.sharding import make_mesh, replicated
from lmscale.lm.eval.pair_validation import make_pair_validation
from lmscale.lm.eval.validation import Validation, make_validation
from lmscale.lm.model.parameters import Params
from lmscale.lm.objectives import Batch, Objective, Reference, make_objective
from lmscale.lm.train import pack
from lmscale.lm.train.batch_source import MakeBatches, TextBatches
from lmscale.lm.train.checkpoint_cadence import CheckpointCadence
from lmscale.lm.train.clock import TrainingClock
from lmscale.lm.train.exam import TaskEvaluator
from lmscale.lm.train.logs.jsonl import LOG_ROWS
from lmscale.lm.train.optimizer import Hyperparameters
from lmscale.lm.train.recorder import RunRecorder
from lmscale.lm.train.references import load_reference, reference_model
from lmscale.lm.train.rewards import reward_model, reward_of
from lmscale.lm.train.sampled_answers import SampledAnswers
from lmscale.lm.train.step import TrainState, make_step


class Interrupted(Exception):
    """The run was asked to stop; it has saved a checkpoint and will go on from there."""


def train(
    config: RunConfig,
    folder: Path,
    wandb: str = "off",
    *,
    objective: Objective | None = None,
    reference: Reference = (),
    batches: MakeBatches | None = None,
) -> Outcome:
    """Train `config` to its end in `folder`, going on from the last checkpoint there, and write its outcome.

    Several processes that have found each other (`distributed.start`) call it alike and share the folder. `wandb` is
    off, offline or online. `objective`, `reference` and `batches` take the place of what the configuration names; the
    run_id does not know of them, so give such a run a folder of its own.

    Raises `UserError` for a corpus too small, a mesh that does not fit, too little memory, a full disk, a start that is
    not there, a folder of another run; `Interrupted` after SIGTERM or SIGINT, once a checkpoint is saved.
    """
    return train_packed([config], [folder], wandb, objective=objective, reference=reference, batches=batches)[0]


def train_packed(
    configs: Sequence[RunConfig],
    folders: Sequence[Path],
    wandb: str = "off",
    *,
    objective: Objective | None = None,
    reference: Reference = (),
    batches: MakeBatches | None = None,
) -> list[Outcome]:
    """Train several runs of one shape in one program, each in its own folder and as `train` would; their outcomes.

    A run that has an outcome is not trained again; one that stops early, or diverges, harms no other. Each may later go
    on by itself from its checkpoint, and the other way round. Raises as `train` does, and `UserError` for runs that are
    not one program (`pack.check_alike`) and for a folder given twice.
    """
    distinct = len({folder.resolve() for folder in folders})
    check(
        distinct == len(folders) == len(configs),
        f"{len(configs)} runs are given {distinct} folders; give each its own",
    )
    outcomes = [_earlier_outcome(config, folder) for config, folder in zip(configs, folders)]
    missing = [number for number, outcome in enumerate(outcomes) if outcome is None]
    if missing:
        ended = _train_to_end(
            [configs[number] for number in missing], [folders[number] for number in missing], wandb, objective,
            reference, batches,
        )  # fmt: skip
        for number, outcome in zip(missing, ended):
            outcomes[number] = outcome
    return [outcome for outcome in outcomes if outcome is not None]


def _train_to_end(
    configs: Sequence[RunConfig],
    folders: Sequence[Path],
    wandb: str,
    objective: Objective | None,
    reference: Reference,
    batches: MakeBatches | None,
) -> list[Outcome | None]:
    """Train runs that have no outcome yet; what they share is made for the first of them."""
    pack.check_alike(configs)
    first, here = configs[0], folders[0]
    with second_ctrl_c_ends(), stop_requested() as stop, ExitStack() as stack, distributed.abort_on_error(Interrupted):
        if distributed.is_main():
            for config, folder in zip(configs, folders):
                write_json(folder / CONFIG_FILE, config.to_json())
        mesh = make_mesh(first.mesh)
        machine.check_memory(first, len(configs), reference_model(first, here), reward_model(first, here))
        tokens = data.prepare(first.data)
        data.check_enough(tokens, first)
        read = load_reference(first, here, tokens.manifest, mesh) if objective is None else None
        if read is not None:
            objective, reference = make_objective(first, read.model), read.params
        make_batches = batches or _make_batches(first, here, tokens.manifest, mesh)
        runs, clock = [], TrainingClock()
        for index, (config, folder) in enumerate(zip(configs, folders)):
            source = make_batches(config, tokens, mesh)
            recorder = RunRecorder(config, folder, index, tokens, source, clock, wandb, read and read.model)
            runs.append(stack.enter_context(closing(recorder)))
        TrainLoop(runs, mesh, stop, objective, reference, read and read.model).run()
    return [run.outcome for run in runs]


def _make_batches(first: RunConfig, folder: Path, manifest: data.Manifest, mesh: Mesh) -> MakeBatches:
    """What makes the batches of runs that share a program, of which `first` in `folder` is one: their text, or answers
    that they draw and one reward function judges."""
    if not isinstance(first.objective, Reinforcement):
        return TextBatches
    reward = reward_of(first, folder, manifest, mesh)
    return lambda config, tokens, mesh: SampledAnswers(config, tokens, mesh, reward)


def _earlier_outcome(config: RunConfig, folder: Path) -> Outcome | None:
    """The outcome in `folder`. Raises `UserError` where it is that of another run."""
    outcome = Outcome.read(folder)
    check(
        outcome is None or outcome.run_id == config.run_id,
        f"{folder} holds the outcome of run {outcome and outcome.run_id}, but this configuration is run "
        f"{config.run_id}; train it in a folder of its own",
    )
    return outcome


class TrainLoop:
    """Trains the runs of one program, usually a single one, to their end."""

    def __init__(
        self,
        runs: list[RunRecorder],
        mesh: Mesh,
        stop: Callable[[], bool],
        objective: Objective | None = None,
        reference: Reference = (),
        reference_model: ModelConfig | None = None,
    ) -> None:
        self.reference_model = reference_model
        self.runs, self.mesh, self.stop, self.config = runs, mesh, stop, runs[0].config
        self.clock, self.objective, self.reference = runs[0].clock, objective, reference
        self.validation_set = data.ValidationSet(
            runs[0].tokens,
            self.config.model.context,
            self.config.validation_tokens,
            answers_only=self.config.scores_answers,
        )
        if distributed.is_main():
            for sentence in filter(None, [self.validation_set.shortfall, *runs[0].batches.notes()]):
                print(sentence, flush=True)
        self.task_evaluator = TaskEvaluator([run.config for run in runs], runs[0].tokens.manifest, mesh)
        self.steps_per_row = math.ceil(self.config.steps / LOG_ROWS)
        self.peak = self._matmul_peak()

    def run(self) -> None:
        """Train until every run has an outcome. Raises `Interrupted` once a requested stop is saved."""
        programs = make_step(self.config, self.mesh, self.objective, self.reference)
        with jax.set_mesh(self.mesh):
            state = pack.stack([run.resume(programs, self.peak) for run in self.runs])
        hyper = collectives.replicate(
            pack.stack([Hyperparameters.of(run.config) for run in self.runs]), replicated(self.mesh)
        )
        with jax.set_mesh(self.mesh):
            packed_step = pack.packed_step(programs, self.config, len(self.runs), self.objective)
            step = packed_step.lower(state, self._batch(state), hyper, self.reference).compile()
        validate = self._make_validation(programs.state.eval_params)
        for run in self.runs:
            if run.over:  # ended between its last checkpoint and its outcome
                run.validation = validate(self._state_of(run, state).eval_params)
        self.clock.start()
        cadence = CheckpointCadence(self.config, self.stop, self.runs[0].done)
        stopping = cadence.decide(self.runs).stop  # a stop can be requested while it compiles
        while active := self._active(state):
            if stopping:
                self._interrupt(active)
            state, metrics = step(state, self._batch(state), hyper, self.reference)
            if not active[0].startup_seconds:
                jax.block_until_ready(state)
                for run in active:
                    run.started(machine.seconds_alive())
            for run in active:
                run.add(metrics)
            self._validate([run for run in active if run.validates], validate, state)
            for run in active:
                run.close_row(self.steps_per_row)
            self._score_tasks([run for run in active if run.scores_tasks and not run.over], state)
            stopping, saving = cadence.decide(active)
            if saving:
                with self.clock.paused(state):
                    for run in active:
                        run.save(self._state_of(run, state))
                cadence.saved()

    def _make_validation(self, like: Params) -> Callable[[Params], Validation]:
        """The loss on held-out text, or on held-out pairs of answers."""
        if self.config.data.pairs:
            return make_pair_validation(
                self.config, self.mesh, self.validation_set, like, self.reference, self.reference_model
            )
        return make_validation(self.config, self.mesh, self.validation_set, like)

    def _batch(self, state: TrainState) -> Batch:
        """The next batch of every run; of one that is over, any."""
        return pack.stack(
            [
                run.batches(run.done, (self._state_of(run, state) if run.batches.reads_params else state).params)
                for run in self.runs
            ]
        )

    def _state_of(self, run: RunRecorder, state: TrainState) -> TrainState:
        return pack.unstack(state, run.index, len(self.runs))

    def _active(self, state: TrainState) -> list[RunRecorder]:
        """The runs that have steps to do; those that have just done their last are finished here."""
        active = [run for run in self.runs if run.outcome is None]
        if not any(run.over for run in active):
            return active
        over = [run for run in active if run.over]
        for run in over:
            run.log.flush()
        self._score_tasks([run for run in over if run.scores_tasks], state)
        with self.clock.paused(state):
            self.peak = max(self.peak, self._matmul_peak())
            for run in over:
                if run.config.keep_checkpoint:
                    run.save(self._state_of(run, state))
                    run.checkpoints.close()
                run.finish(self.peak, len(self.runs))
        return [run for run in active if run.outcome is None]

    def _validate(
        self, runs: Sequence[RunRecorder], validate: Callable[[Params], Validation], state: TrainState
    ) -> None:
        if not runs:
            return
        with self.clock.paused(state):
            for run in runs:
                run.validation = validate(self._state_of(run, state).eval_params)

    def _score_tasks(self, runs: Sequence[RunRecorder], state: TrainState) -> None:
        """Score the models as they are now, before a checkpoint of this step is saved."""
        if not runs:
            return
        for run in runs:
            run.log.flush()
        with self.clock.paused(state):
            for run in runs:
                if not run.log.diverged:
                    loss_nats = run.validation.loss_nats if run.validates and run.validation is not None else None
                    params = self._state_of(run, state).eval_params
                    self.task_evaluator.evaluate(run.config, run.folder, params, run.done, loss_nats)

    def _interrupt(self, active: list[RunRecorder]) -> None:
        for run in active:
            run.checkpoints.close()
        if not any(run.done for run in active):
            raise Interrupted("stopped before the first step")
        done = " and ".join(sorted({f"{run.done:,}" for run in active}))
        raise Interrupted(f"stopped after step {done} of {self.config.steps:,}; a checkpoint is saved")

    def _matmul_peak(self) -> float:
        """FLOP/s of all devices of the mesh together."""
        return machine.matmul_peak(self.config.model.compute_dtype) * self.config.mesh.devices
