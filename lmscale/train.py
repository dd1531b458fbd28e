"""One training run: a RunConfig goes in, an Outcome comes out.

`train_step` is pure; `train` owns compilation, placement, donation, logging, checkpoints and the outcome.
"""

import math
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from functools import partial
from pathlib import Path

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from lmscale import data, machine
from lmscale.checkpoint import Checkpoints, abstract
from lmscale.config import RunConfig, check
from lmscale.counting import count, flops_per_token
from lmscale.evaluate import Validation, make_validation
from lmscale.files import write_json
from lmscale.metrics import LOG_ROWS, Metrics, MetricsLog
from lmscale.model import Params, init, token_losses
from lmscale.optimizer import Schedule, make_optimizer
from lmscale.process import stop_requested
from lmscale.results import CONFIG_FILE, Outcome
from lmscale.sharding import batch_sharding, make_mesh, parameter_shardings, replicated
from lmscale.track import Tracker


@flax.struct.dataclass
class TrainState:
    """All that a step changes."""

    step: jax.Array
    """Updates done, int32."""
    params: Params
    opt_state: optax.OptState


class Interrupted(Exception):
    """The run was asked to stop; it has saved a checkpoint and will go on from there."""


def init_state(config: RunConfig, optimizer: optax.GradientTransformation, key: jax.Array) -> TrainState:
    """The state before the first step."""
    params = init(config.model, key)
    return TrainState(jnp.int32(0), params, optimizer.init(params))


def train_step(
    config: RunConfig,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    tokens_BS: jax.Array,
    schedule: Schedule,
) -> tuple[TrainState, Metrics]:
    """One update from one global batch of token windows [B, context + 1]. Pure."""

    def mean_loss(params: Params) -> jax.Array:
        return token_losses(params, tokens_BS, config.model).mean()

    loss_nats, grads = jax.value_and_grad(mean_loss)(state.params)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    learning_rate = schedule.at(state.step)
    params = optax.apply_updates(state.params, jax.tree.map(lambda update: -learning_rate * update, updates))
    metrics = Metrics(loss_nats, optax.tree.norm(grads), learning_rate)
    return TrainState(state.step + 1, params, opt_state), metrics


def state_shardings(config: RunConfig, optimizer: optax.GradientTransformation, mesh: Mesh) -> TrainState:
    """Where each array of the state lives: moments with their parameter, the rest everywhere."""
    shapes = jax.eval_shape(partial(init_state, config, optimizer), jax.random.key(0))
    params = parameter_shardings(config.model, mesh)
    everywhere = replicated(mesh)
    opt_state = optax.tree_utils.tree_map_params(
        optimizer, lambda _, sharding: sharding, shapes.opt_state, params, transform_non_params=lambda _: everywhere
    )
    return TrainState(everywhere, params, opt_state)  # type: ignore[arg-type]


def make_step(config: RunConfig, mesh: Mesh) -> tuple[jax.stages.Wrapped, jax.stages.Wrapped]:
    """The jitted initialisation (key -> state) and step (state, tokens, schedule -> state, metrics) on a mesh.

    The state given to the step is donated: its memory becomes that of the new state.
    """
    optimizer = make_optimizer(config)
    placed = state_shardings(config, optimizer, mesh)
    everywhere = replicated(mesh)
    start = jax.jit(partial(init_state, config, optimizer), out_shardings=placed)
    step = jax.jit(
        partial(train_step, config, optimizer),
        in_shardings=(placed, batch_sharding(mesh), everywhere),
        out_shardings=(placed, everywhere),
        donate_argnums=0,
    )
    return start, step


def train(config: RunConfig, folder: Path, wandb: str = "off") -> Outcome:
    """Train `config` to its end in `folder`, going on from the last checkpoint there, and write its outcome.

    Raises `UserError` for a corpus too small, a mesh that does not fit, a full disk, a folder of another run;
    `Interrupted` after SIGTERM or SIGINT, once a checkpoint is saved. `wandb` is off, offline or online.
    """
    if (outcome := Outcome.read(folder)) is not None:
        check(
            outcome.run_id == config.run_id,
            f"{folder} holds the outcome of run {outcome.run_id}, but this configuration is run {config.run_id}; "
            f"train it in a folder of its own",
        )
        return outcome
    write_json(folder / CONFIG_FILE, config.to_json())
    with stop_requested() as stop, closing(Checkpoints(folder, config.run_id)) as checkpoints:
        return _Run(config, folder, stop, checkpoints, Tracker(wandb, config, folder)).to_the_end()


class _Run:
    """What one call of `train` holds on to."""

    def __init__(
        self,
        config: RunConfig,
        folder: Path,
        stop: Callable[[], bool],
        checkpoints: Checkpoints,
        tracker: Tracker,
    ) -> None:
        self.config, self.folder, self.stop = config, folder, stop
        self.checkpoints, self.tracker = checkpoints, tracker
        self.tokens = data.prepare(config.data)
        data.check_enough(self.tokens, config)
        self.batches = data.Batches(self.tokens, config.model.context, config.optimizer.batch_sequences, config.seed)
        self.mesh = make_mesh(config.mesh)
        self.peak = self._matmul_peak()
        self.windows = data.ValidationSet(self.tokens, config.model.context, config.validation_tokens)
        self.seconds_before = 0.0
        self.startup_seconds = 0.0

    def to_the_end(self) -> Outcome:
        config = self.config
        start, step_function = make_step(config, self.mesh)
        state, losses = self._resume(start)
        first, schedule, sharding = int(state.step), Schedule.of(config), batch_sharding(self.mesh)
        every = math.ceil(config.steps / LOG_ROWS)
        validation_steps = {round(config.steps * (i + 1) / config.validations) for i in range(config.validations)}
        compiled = step_function.lower(state, jax.device_put(self.batches[first], sharding), schedule).compile()
        validate = make_validation(config, self.mesh, self.windows, state.params)
        log = MetricsLog(self.folder, config, self.tracker, peak=self.peak, first=first, losses=losses)
        self.began = saved = time.perf_counter()
        validation = validate(state.params) if first == config.steps else None
        for step in range(first, config.steps):
            state, metrics = compiled(state, jax.device_put(self.batches[step], sharding), schedule)
            log.add(metrics)
            if step == first:
                jax.block_until_ready(state)
                self.startup_seconds = machine.seconds_alive()
            done = step + 1
            if done in validation_steps:
                validation = validate(state.params)
            if done % every == 0 or done in validation_steps:
                log.row(done, validation if done in validation_steps else None)
            stopping = self.stop()
            if done < config.steps and (stopping or time.perf_counter() - saved > config.checkpoint_seconds):
                log.flush()
                self._save(state, log)
                saved = time.perf_counter()
            if log.diverged:
                break
            if stopping and done < config.steps:
                self.checkpoints.close()
                raise Interrupted(f"stopped after step {done:,} of {config.steps:,}; a checkpoint is saved")
        log.flush()
        seconds = self._seconds()
        self.peak = max(self.peak, self._matmul_peak())
        if config.keep_checkpoint:
            self._save(state, log)
            self.checkpoints.close()
        outcome = self._finish(log, None if log.diverged else validation, seconds)
        if not config.keep_checkpoint:
            self.checkpoints.remove()
        return outcome

    def _save(self, state: TrainState, log: MetricsLog) -> None:
        """Start a checkpoint, unless the run has diverged."""
        if not log.diverged:
            self.checkpoints.save(state, {"seconds": self._seconds(), "losses": log.open_losses()})

    def _resume(self, start: Callable[[jax.Array], TrainState]) -> tuple[TrainState, list[float]]:
        """The state to go on from, and the losses of its steps that no row of the metrics covers yet."""
        fresh = start(jax.random.key(self.config.seed))
        state, facts, skipped = self.checkpoints.restore(abstract(fresh))
        for sentence in skipped:
            print(sentence, flush=True)
        if state is None:
            return fresh, []
        self.seconds_before = facts["seconds"]
        print(f"going on from step {int(state.step):,} of {self.config.steps:,}", flush=True)
        return state, facts["losses"]

    def _matmul_peak(self) -> float:
        """Of all devices of the mesh together."""
        return machine.matmul_peak(self.config.model.compute_dtype) * self.config.mesh.devices

    def _seconds(self) -> float:
        return self.seconds_before + time.perf_counter() - self.began

    def _finish(self, log: MetricsLog, validation: Validation | None, seconds: float) -> Outcome:
        config, counts = self.config, count(self.config)
        done = log.done if validation is None else config.steps
        tokens = done * config.batch_tokens
        flops = flops_per_token(config.model) * tokens
        outcome = Outcome(
            run_id=config.run_id,
            state="diverged" if validation is None else "finished",
            reason=log.reason,
            loss_nats=None if validation is None else validation.loss_nats,
            loss_stderr=None if validation is None else validation.stderr,
            bits_per_byte=None if validation is None else validation.bits_per_byte,
            train_loss_nats=log.last_loss,
            validation_tokens=None if validation is None else validation.tokens,
            params=counts.params,
            params_non_embedding=counts.params_non_embedding,
            tokens=tokens,
            flops=flops,
            flops_6n=6 * counts.params * tokens,
            unique_tokens=min(tokens, self.batches.unique_tokens),
            epochs=self.batches.epochs(tokens),
            data_fingerprint=self.tokens.manifest.fingerprint,
            seconds=seconds,
            startup_seconds=self.startup_seconds,
            tokens_per_second=tokens / seconds,
            mfu=flops / seconds / self.peak,
            matmul_peak_flops_per_second=self.peak,
            device=machine.device_name(),
            versions={module.__name__: module.__version__ for module in (jax, flax, optax, np)},
        )
        outcome.write(self.folder)
        self.tracker.finish(asdict(outcome))
        return outcome
