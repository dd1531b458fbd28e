"""One run: model, data, optimizer, length; its name is its content."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

from lmscale.core.config.checks import check, check_types, from_json, not_negative, positive
from lmscale.core.config.data import DataConfig
from lmscale.core.config.exam import ExamConfig
from lmscale.core.config.identity import identity
from lmscale.core.config.mesh import MeshConfig
from lmscale.core.config.model import ModelConfig
from lmscale.core.config.objective import (
    Completion,
    Distillation,
    NextToken,
    ObjectiveConfig,
    Preference,
    Reinforcement,
    RewardModel,
)
from lmscale.core.config.objective_checks import check_objective
from lmscale.core.config.optimizer import OptimizerConfig
from lmscale.core.config.start import CheckpointName
from lmscale.core.config.synthetic import is_tasks, longest_prompt
from lmscale.core.config.synthetic import parse as synthetic_language
from lmscale.core.errors import UserError

RUN_ID_LENGTH = 12
PRETRAIN, FINE_TUNE, DISTIL, PREFER, REWARD, REINFORCE = (
    "pretrain", "fine-tune", "distil", "prefer", "reward", "reinforce",
)  # fmt: skip
"""Stages of a model's life, as points, plans and tables name them."""
LOSS_UNITS = {PREFER: "per pair of answers", REWARD: "per pair of answers"}
"""What the loss of a stage is counted in, where it is not nats per token."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One training run, from nothing to an `Outcome`."""

    model: ModelConfig
    optimizer: OptimizerConfig
    tokens: int
    """D: training tokens, repeats counted; a whole number of global batches."""
    data: DataConfig = field(default_factory=DataConfig)
    objective: ObjectiveConfig = field(default_factory=NextToken)
    """What a step minimises."""
    init_from: str | None = None
    """`run_id[@step]` of a run whose parameters this one starts from, after its last step unless one is named; None
    starts from random numbers. The optimizer starts anew."""
    reference: str | None = None
    """`run_id[@step]` of the run that the objectives `Preference` and `Reinforcement` compare the policy with, as a
    rule the one that it starts from; it is read and never trained."""
    continue_from: str | None = field(default=None, metadata={"identity": False})
    """`run_id@step` of a run that is the same as this one up to that step: the whole state is taken from it where it is
    there, so that a branch pays for its own steps only and ends as it would from its first step."""
    seed: int = 0
    """Seeds both the initial parameters and the order of the data."""
    validation_tokens: int = 131_072
    """Tokens of the fixed validation set that are scored, fewer where the split is smaller."""
    validations: int = 8
    """Validation losses along a run, evenly spaced; the last is at its end."""
    divergence_nats: float = 2.0
    """A run whose training loss, smoothed over some 20 steps, is this far above its lowest has diverged."""
    checkpoint_seconds: float = field(default=60.0, metadata={"identity": False})
    """Time between checkpoints; an interrupted run loses at most this much."""
    keep_checkpoint: bool = field(default=True, metadata={"identity": False})
    """Keep the last parameters when the run has finished, for evaluation and sampling."""
    kept_steps: tuple[int, ...] = field(default=(), metadata={"identity": False})
    """Steps after which a checkpoint is saved and kept for good: where branches leave their trunk."""
    exam: ExamConfig = field(default_factory=ExamConfig, metadata={"identity": False})
    """Benchmark tasks that the model is scored on."""
    mesh: MeshConfig = field(default_factory=MeshConfig, metadata={"identity": False})
    name: str = field(default="", metadata={"identity": False})
    tags: tuple[str, ...] = field(default=(), metadata={"identity": False})

    def __post_init__(self) -> None:
        check_types(self)
        positive(self, "tokens", "validation_tokens", "validations", "divergence_nats", "checkpoint_seconds")
        not_negative(self, "seed")
        if self.tokens % self.batch_tokens:
            raise UserError(
                f"tokens = {self.tokens:,} is not a whole number of global batches of "
                f"{self.optimizer.batch_sequences} x {self.model.context} = {self.batch_tokens:,} tokens; "
                f"the nearest is {_nearest_multiple(self.tokens, self.batch_tokens):,}"
            )
        self._check_mesh()
        self._check_start()
        check_objective(self)
        check(
            self.model.lora is None or self.init_from is not None,
            "ModelConfig.lora trains adapters of a model whose own parameters stay as they are, and random ones are of "
            "no use: give RunConfig(init_from=...) the run that it starts from",
        )
        check(
            self.data.sequences != "packed" or self.model.document_end is not None,
            "DataConfig.layout = 'packed' puts several documents into a sequence, which must not see each other: give "
            "ModelConfig(document_end=...) the id that ends a document (255 for bytes), or take layout = 'padded'",
        )
        check(
            self.model.parametrization == "standard" or self.optimizer.kind not in ("sgd", "adafactor"),
            f"parametrization = {self.model.parametrization!r} is defined for optimizers whose update has the size of "
            f"the learning rate, which {self.optimizer.kind!r} does not have; take 'adamw', 'lion' or 'muon'",
        )

    def _check_start(self) -> None:
        if self.init_from is not None:
            CheckpointName.parse(self.init_from, "RunConfig.init_from")
        if self.continue_from is not None:
            name = CheckpointName.parse(self.continue_from, "RunConfig.continue_from")
            check(
                name.step is not None and 0 < name.step < self.steps,
                f"RunConfig.continue_from = {self.continue_from!r}: name a step after the first and before the last of "
                f"this run's {self.steps:,}",
            )

    def _check_mesh(self) -> None:
        rows, micro_batches = self.mesh.batch_devices, self.optimizer.micro_batches
        sequences, context, experts = self.optimizer.batch_sequences, self.model.context, self.model.experts
        # Sentences are written only where they are needed: a plan has ten thousand configurations.
        whole = rows * micro_batches * self.example_sequences
        if sequences % whole:
            raise UserError(
                f"batch_sequences = {sequences} does not divide over data x fsdp{' x expert' * (self.mesh.expert > 1)} "
                f"= {rows} devices"
                + (f" and {micro_batches} micro-batches" if micro_batches > 1 else "")
                + (" in pairs, of two sequences each" if self.data.pairs else "")
                + f"; the nearest batch is {_nearest_multiple(sequences, whole)}"
            )
        if context % self.mesh.sequence:
            raise UserError(
                f"context = {context} does not divide over sequence = {self.mesh.sequence} devices; the nearest "
                f"context is {_nearest_multiple(context, self.mesh.sequence)}"
            )
        over = self.mesh.expert
        if over > 1 and not self.model.sparse:
            raise UserError(
                f"mesh.expert = {over} divides experts, of which a dense model has none; take mesh.data = "
                f"{self.mesh.data * over} and mesh.expert = 1"
            )
        if experts % over:
            raise UserError(
                f"experts = {experts} does not divide over expert = {over} devices; take expert = "
                f"{max(devices for devices in range(1, over + 1) if experts % devices == 0)}"
            )

    @property
    def scores_answers(self) -> bool:
        """Whether prompts are read and not scored, in training and in validation."""
        if isinstance(self.objective, Distillation | Reinforcement):
            return self.data.prompts
        return isinstance(self.objective, Completion | Preference | RewardModel)

    @property
    def parents(self) -> dict[str, CheckpointName]:
        """The runs that must have finished before this one starts, by what it takes from each."""
        named = {
            "init_from": self.init_from,
            "teacher": getattr(self.objective, "teacher", None),
            "reference": self.reference,
            "reward": getattr(self.objective, "reward", None),
        }
        return {role: CheckpointName.parse(text, role) for role, text in named.items() if text}

    @property
    def stage(self) -> str:
        """Which part of a model's life the run is: losses of several stages belong to different laws."""
        of_objective: dict[type[Any], str] = {
            Distillation: DISTIL,
            Preference: PREFER,
            RewardModel: REWARD,
            Reinforcement: REINFORCE,
        }
        if (stage := of_objective.get(type(self.objective))) is not None:
            return stage
        return PRETRAIN if self.init_from is None else FINE_TUNE

    @property
    def spread_by(self) -> str:
        """The axes of the mesh that divide parameters and optimizer state, as a sentence names them."""
        return "mesh.fsdp or mesh.expert" if self.model.sparse else "mesh.fsdp"

    @property
    def example_sequences(self) -> int:
        """Sequences that one example has: two where examples are pairs of answers."""
        return 2 if self.data.pairs else 1

    @property
    def batch_examples(self) -> int:
        """Examples per update."""
        return self.optimizer.batch_sequences // self.example_sequences

    @property
    def steps_per_batch(self) -> int:
        """Updates from one batch: a run is saved only where the next begins, since its answers are in no checkpoint."""
        return self.objective.updates if isinstance(self.objective, Reinforcement) else 1

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the longest prompt that answers are drawn to, the end of document before it included."""
        settings = self.objective
        assert isinstance(settings, Reinforcement)
        if is_tasks(self.data.source):
            return 1 + longest_prompt(synthetic_language(self.data.source))
        return settings.prompt_tokens or self.model.context + 1 - settings.answer_tokens

    @property
    def batch_tokens(self) -> int:
        """Tokens per update."""
        return self.optimizer.batch_sequences * self.model.context

    @property
    def steps(self) -> int:
        """Updates in the run."""
        return self.tokens // self.batch_tokens

    @property
    def warmup_steps(self) -> int:
        """Updates during which the learning rate rises."""
        steps = self.optimizer.warmup_steps
        return round(self.optimizer.warmup_fraction * self.steps) if steps is None else min(steps, self.steps)

    @property
    def cooldown_steps(self) -> int:
        """Updates at the end during which a `wsd` schedule cools down."""
        return round(self.optimizer.cooldown_fraction * self.steps)

    @cached_property
    def run_id(self) -> str:
        """Twelve hexadecimal digits of the SHA-256 of the fields that differ from their defaults."""
        text = json.dumps(identity(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:RUN_ID_LENGTH]

    def to_json(self) -> dict[str, Any]:
        """Every field, as JSON values; `from_json` reads it back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """The `RunConfig` of a mapping from `to_json`. Raises `UserError` naming a wrong or unknown field."""
        return from_json(cls, value)


def _nearest_multiple(number: int, of: int) -> int:
    """The whole multiple of `of`, one at least, that lies nearest to `number`."""
    return max(1, round(number / of)) * of


def loss_unit(stages: Iterable[Any]) -> str:
    """What the losses of runs of some stages are counted in, for sentences and axes."""
    return " or ".join(sorted({LOSS_UNITS.get(stage, "nats per token") for stage in stages})) or "nats per token"
