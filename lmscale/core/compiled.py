"""What the compiler says of a run's programs on a machine that is not here: `CompiledRun`, and when two runs share one.

Bytes are those of one device.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from lmscale.core.config import ModelConfig, RunConfig, check_types, from_json
from lmscale.core.config.packable import OPTIMIZER_MAY_DIFFER
from lmscale.core.machines import StepBound
from lmscale.core.quantities import duration, in_one_program

VALUES_ONLY = (
    "tokens", "validations", "divergence_nats", "checkpoint_seconds", "keep_checkpoint", "kept_steps", "seed",
    "init_from", "continue_from", "reference", "exam", "name", "tags",
)  # fmt: skip
"""Fields of a `RunConfig` that no compiled program depends on: they are numbers that it is given, or are read by the
loop around it."""
Effort = Literal["low", "full"]
"""How hard a compiler tries to make a program fast: as little as it can, or as in training. Only a TPU's compiler takes
much less time for it."""
DATA_SHAPES = ("pairs", "sequences", "prompts")
"""Properties of a `DataConfig` that shape a batch."""


@dataclass(frozen=True, kw_only=True)
class CompiledProgram:
    """One program, a training step or a batch of validation, as the compiler made it."""

    fits: bool
    bytes_per_device: int
    """Arguments, results and temporaries; where the compiler refuses the program, what it says that it needs."""
    memory: dict[str, int] = field(default_factory=dict)
    """Kind -> bytes: parameters, optimizer, averaged weights, batch, temporaries, code."""
    kernels: dict[str, int] = field(default_factory=dict)
    """Name of a hand-written kernel -> calls in the compiled text; one in a loop over layers is called for each."""
    collectives: dict[str, dict[str, int]] = field(default_factory=dict)
    """Kind -> "count", "bytes" that a device sends and "network_bytes" of these that leave the linked devices, each in
    one execution."""
    flops: float = 0.0
    """Floating-point operations of matrix products and attention, on one device, what is computed twice included."""
    traffic_bytes: float = 0.0
    """Bytes that the operations read and write outside of fusions."""
    compile_seconds: float = 0.0
    effort: Effort = "full"
    problem: str = ""
    """What the compiler said where it refused the program."""

    def __post_init__(self) -> None:
        check_types(self)


@dataclass(frozen=True, kw_only=True)
class CompiledRun:
    """The programs of a run on a machine."""

    machine: str
    fits: bool
    """Whether every program takes at most `memory_limit_bytes`."""
    bytes_per_device: int
    """Memory that the largest program takes."""
    memory_limit_bytes: int | None
    """What a program may take on a device; None for a device that is not listed."""
    attention: str
    """The kernel of attention in the training step: "cudnn", "splash" or "plain"."""
    loss: str
    """How the logits are computed: "at once" or "in 4 chunks"."""
    train: CompiledProgram
    validation: CompiledProgram
    bound: StepBound | None = None
    """The least time of a training step; None where the peaks are not known or the program was refused."""
    devices: int = 1
    """Devices that the run takes of the machine."""
    packed: int = 1
    """Runs that the training step moves on together."""
    versions: dict[str, str] = field(default_factory=dict)
    """Package -> version, of those that compiled."""
    peak_bytes_here: int = 0
    """The most memory of this machine that compiling took."""

    def __post_init__(self) -> None:
        check_types(self)

    @property
    def compile_seconds(self) -> float:
        """Time that all programs took to compile."""
        return self.train.compile_seconds + self.validation.compile_seconds

    @property
    def effort(self) -> Effort:
        """How much work the compiler put into the training step."""
        return self.train.effort

    def sentence(self) -> str:
        """The outcome in one line."""
        size = f"{self.bytes_per_device / 1e9:.1f} GB per device"
        limit = "" if self.memory_limit_bytes is None else f" of {self.memory_limit_bytes / 1e9:.1f}"
        time = "" if self.bound is None else f", a step at least {1e3 * self.bound.seconds:.3g} ms ({self.bound.limit})"
        verdict = "fits" if self.fits else "does not fit"
        effort = " with little effort" if self.effort == "low" else ""
        return (
            f"{verdict}, {size}{limit}{in_one_program(self.packed)}; attention {self.attention}, "
            f"logits {self.loss}{time}; compiled in {duration(self.compile_seconds)}{effort}"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, with what follows from them."""
        more = {} if self.bound is None else {"step_seconds_at_least": self.bound.seconds, "limit": self.bound.limit}
        return {**asdict(self), "compile_seconds": self.compile_seconds, "effort": self.effort, **more}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "CompiledRun":
        """The inverse of `to_json`. Raises `UserError` for what another version wrote."""
        derived = ("compile_seconds", "effort", "step_seconds_at_least", "limit")
        return from_json(cls, {name: item for name, item in value.items() if name not in derived})


def program_fields(config: RunConfig, reference: ModelConfig | None, packed: int = 1) -> dict[str, Any]:
    """All of a run that its compiled programs depend on, which move on `packed` runs like it; runs that differ in
    nothing of it share them."""
    fields = {name: value for name, value in config.to_json().items() if name not in (*VALUES_ONLY, "data")}
    optimizer = {name: value for name, value in fields["optimizer"].items() if name not in OPTIMIZER_MAY_DIFFER}
    objective = {name: value for name, value in fields["objective"].items() if name not in ("teacher", "reward")}
    data = {name: getattr(config.data, name) for name in DATA_SHAPES}
    return {
        **fields,
        "optimizer": optimizer,
        "objective": objective,
        "data": data,
        "reads": None if reference is None else asdict(reference),
        "packed": packed,
    }


def program_key(config: RunConfig, reference: ModelConfig | None, packed: int = 1) -> str:
    """A name for the programs of a run, or of `packed` runs like it: equal for runs that share them."""
    text = json.dumps(program_fields(config, reference, packed), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:20]
