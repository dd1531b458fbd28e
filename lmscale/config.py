"""What one run is: frozen, complete, checked at birth, written as JSON and named by its content.

A `RunConfig` is the only thing that goes into a training run. `run_id` hashes the fields that differ from their
defaults, so a new setting whose default keeps the old behaviour leaves every old result valid. Name, tags and mesh are
not part of it: they do not change what is learned.
"""

import dataclasses
import hashlib
import json
import math
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Literal, Self, TypeVar

from lmscale.errors import UserError, nearest

T = TypeVar("T")

RUN_ID_LENGTH = 12


def check(condition: bool, message: str) -> None:
    """Raise `UserError(message)` unless `condition` holds."""
    if not condition:
        raise UserError(message)


def _positive(config: Any, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        check(math.isfinite(value) and value > 0, f"{type(config).__name__}.{name} = {value!r}: must be positive")


def _fraction(config: Any, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        check(0.0 <= value <= 1.0, f"{type(config).__name__}.{name} = {value!r}: must lie between 0 and 1")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A decoder-only transformer with RMSNorm and rotary positions (Vaswani 2017; Touvron 2023)."""

    width: int
    """d_model: size of the residual stream."""
    layers: int
    heads: int
    vocab: int = 256
    """Size of the token table; 256 is the byte tokenizer."""
    context: int = 128
    """Tokens a prediction can see, itself included; the length of a training sequence."""
    mlp: Literal["swiglu", "gelu"] = "swiglu"
    mlp_width: int | None = None
    """Hidden units of the MLP; None takes 4 x width for GELU and 8/3 x width, rounded up to 8, for SwiGLU."""
    tied_embeddings: bool = True
    rope_base: float = 10_000.0
    norm_epsilon: float = 1e-6
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    param_dtype: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        check_types(self)
        _positive(self, "width", "layers", "heads", "vocab", "context", "rope_base", "norm_epsilon")
        if self.mlp_width is not None:
            _positive(self, "mlp_width")
        fitting = [heads for heads in range(1, self.width // 2 + 1) if self.width % (2 * heads) == 0]
        check(bool(fitting), f"width = {self.width}: rotary positions turn pairs, so take {self.width + 1}")
        check(
            self.heads in fitting,
            f"heads = {self.heads} must cut width = {self.width} into equal parts of an even size (rotary positions "
            f"turn pairs); the nearest is {min(fitting, key=lambda heads: abs(heads - self.heads), default=1)}",
        )

    @property
    def head_width(self) -> int:
        """Features of one attention head."""
        return self.width // self.heads

    @property
    def hidden(self) -> int:
        """Hidden units of the MLP, the default resolved."""
        if self.mlp_width is not None:
            return self.mlp_width
        return 4 * self.width if self.mlp == "gelu" else 8 * math.ceil(self.width / 3)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which text, cut how. One epoch is one pass over the unique training tokens."""

    source: str = "stdlib"
    """`stdlib` (source code of the running Python's standard library), a path to a text or JSONL file or folder,
    or `tfds:NAME[/CONFIG][:VERSION]`."""
    text_field: str = "text"
    """Where a record of a JSONL file or a TFDS data set keeps its text."""
    tokenizer: Literal["bytes"] = "bytes"
    validation_fraction: float = 0.05
    """Share of the documents held out, chosen by a hash of their text."""
    max_epochs: float = 4.0
    """Refuse a run that would repeat its data more often (Muennighoff 2023: up to 4 epochs are nearly fresh data)."""

    def __post_init__(self) -> None:
        check_types(self)
        check(bool(self.source.strip()), "DataConfig.source is empty; try 'stdlib'")
        check(
            0.0 < self.validation_fraction < 1.0,
            f"DataConfig.validation_fraction = {self.validation_fraction!r}: must lie strictly between 0 and 1",
        )
        _positive(self, "max_epochs")


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW (Loshchilov and Hutter 2019) with warmup, decay and clipping by the global norm."""

    peak_lr: float
    batch_sequences: int
    """Global batch: sequences of `context` tokens per update."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    final_lr_fraction: float = 0.0
    """Learning rate at the last step, as a share of the peak."""
    warmup_fraction: float = 0.1
    """Share of the steps over which the learning rate rises linearly from zero."""
    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-8
    weight_decay: float = 0.1
    """Decoupled, multiplied by the learning rate; on matrices only."""
    clip_norm: float | None = 1.0
    """Largest global gradient norm; None does not clip."""

    def __post_init__(self) -> None:
        check_types(self)
        _positive(self, "peak_lr", "batch_sequences", "epsilon")
        _fraction(self, "final_lr_fraction", "warmup_fraction")
        for name in ("beta1", "beta2"):
            value = getattr(self, name)
            check(0 <= value < 1, f"OptimizerConfig.{name} = {value!r}: must be at least 0 and below 1")
        check(
            0 <= self.weight_decay < math.inf,
            f"OptimizerConfig.weight_decay = {self.weight_decay!r}: must not be negative or infinite",
        )
        if self.clip_norm is not None:
            _positive(self, "clip_norm")


@dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """Devices along each axis of the mesh; their product is the number of devices a run takes."""

    data: int = 1
    fsdp: int = 1
    tensor: int = 1

    def __post_init__(self) -> None:
        check_types(self)
        _positive(self, "data", "fsdp", "tensor")

    @property
    def devices(self) -> int:
        """Devices in all."""
        return self.data * self.fsdp * self.tensor


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One training run, from nothing to an `Outcome`."""

    model: ModelConfig
    optimizer: OptimizerConfig
    tokens: int
    """D: training tokens, repeats counted; a whole number of global batches."""
    data: DataConfig = field(default_factory=DataConfig)
    seed: int = 0
    """Seeds both the initial parameters and the order of the data."""
    validation_tokens: int = 131_072
    """Tokens of the fixed validation set that are scored, fewer where the split is smaller."""
    validations: int = 8
    """Validation losses along a run, evenly spaced; the last is at its end."""
    checkpoint_seconds: float = field(default=60.0, metadata={"identity": False})
    """Time between checkpoints; an interrupted run loses at most this much."""
    keep_checkpoint: bool = field(default=True, metadata={"identity": False})
    """Keep the last parameters when the run has finished, for evaluation and sampling."""
    mesh: MeshConfig = field(default_factory=MeshConfig, metadata={"identity": False})
    name: str = field(default="", metadata={"identity": False})
    tags: tuple[str, ...] = field(default=(), metadata={"identity": False})

    def __post_init__(self) -> None:
        check_types(self)
        _positive(self, "tokens", "validation_tokens", "validations", "checkpoint_seconds")
        check(self.seed >= 0, f"RunConfig.seed = {self.seed}: must not be negative")
        if self.tokens % self.batch_tokens:
            near = max(1, round(self.tokens / self.batch_tokens)) * self.batch_tokens
            raise UserError(
                f"tokens = {self.tokens:,} is not a whole number of global batches of "
                f"{self.optimizer.batch_sequences} x {self.model.context} = {self.batch_tokens:,} tokens; "
                f"the nearest is {near:,}"
            )
        rows = self.mesh.data * self.mesh.fsdp
        check(
            self.optimizer.batch_sequences % rows == 0,
            f"batch_sequences = {self.optimizer.batch_sequences} does not divide over data x fsdp = {rows} devices; "
            f"the nearest batch is {max(1, round(self.optimizer.batch_sequences / rows)) * rows}",
        )

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
        return round(self.optimizer.warmup_fraction * self.steps)

    @property
    def run_id(self) -> str:
        """Twelve hexadecimal digits of the SHA-256 of the fields that differ from their defaults."""
        text = json.dumps(_identity(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:RUN_ID_LENGTH]

    def to_json(self) -> dict[str, Any]:
        """Every field, as JSON values; `from_json` reads it back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """A `RunConfig` of the mapping that `to_json` made. Raises `UserError` naming a wrong or unknown field."""
        return from_json(cls, value)


def _identity(config: Any) -> dict[str, Any]:
    """The fields that make a run what it is and differ from their defaults, nested alike."""
    kept: dict[str, Any] = {}
    for item in dataclasses.fields(config):
        if not item.metadata.get("identity", True):
            continue
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            if inner := _identity(value):
                kept[item.name] = inner
        elif value != item.default:
            kept[item.name] = value
    return kept


def from_json(cls: type[T], value: Any, where: str = "") -> T:
    """An instance of the dataclass `cls` from JSON values; the inverse of `dataclasses.asdict`.

    Raises `UserError` that names the field for an unknown or missing field or a value of the wrong type.
    """
    where = where or cls.__name__
    check(isinstance(value, dict), f"{where} must be a mapping of fields, not {type(value).__name__}")
    known = {item.name: item for item in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for name in value:
        check(name in known, f"{where} has no field {name!r}{nearest(str(name), known)}")
    for name, item in known.items():
        required = item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
        check(name in value or not required, f"{where} lacks the field {name!r}")
    hints = typing.get_type_hints(cls)
    arguments: dict[str, Any] = {}
    for name, given in value.items():
        hint = hints[name]
        if dataclasses.is_dataclass(hint) and not isinstance(given, hint):  # type: ignore[arg-type]
            arguments[name] = from_json(hint, given, f"{where}.{name}")  # type: ignore[arg-type]
        elif typing.get_origin(hint) is tuple and isinstance(given, list):
            arguments[name] = tuple(given)
        else:
            arguments[name] = given
    return cls(**arguments)


def check_types(config: Any) -> None:
    """Refuse a field whose value is not of its annotated type; whole numbers are taken where a float is meant."""
    for name, hint in typing.get_type_hints(type(config)).items():
        value = getattr(config, name)
        kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        if type(value) is int and float in kinds and int not in kinds:
            object.__setattr__(config, name, float(value))
        elif not _fits(value, hint):
            raise UserError(f"{type(config).__name__}.{name} = {value!r}: must be {_said(hint, value)}")


def _fits(value: Any, hint: Any) -> bool:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, option) for option in typing.get_args(hint))
    if origin is Literal:
        return value in typing.get_args(hint)
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(item, typing.get_args(hint)[0]) for item in value)
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, origin or hint)


def _said(hint: Any, value: Any) -> str:
    if typing.get_origin(hint) is Literal:
        choices = [str(choice) for choice in typing.get_args(hint)]
        return f"one of {', '.join(map(repr, choices))}{nearest(str(value), choices) if isinstance(value, str) else ''}"
    return f"of type {getattr(hint, '__name__', hint)}"
