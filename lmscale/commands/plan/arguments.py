"""The arguments of `lmscale plan`. Importing this loads nothing heavy."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional


@dataclass(frozen=True)
class PlanArgs:
    """Print every run of a sweep with its size, length, cost and time, and what the whole can identify; start nothing.

    With --improve: the runs to add. With --optimal: the one run that a fitted law holds best for a budget.
    """

    sweep: Positional[Path | None] = None
    """A file that defines SWEEP, or a plan that --json wrote."""
    runs: Path = Path("runs")
    json: Path | None = None
    """Write the plan here as well, with all that is printed; `lmscale run` takes it."""
    device: str | None = None
    """Where it is to run: h200, h100, a100, b200, v4, v5e, v5p or v6e; unset, the sweep's own or this machine."""
    devices: int = 1
    utilisation: float | None = None
    """Share of the device's peak that training reaches; unset, 0.35 is assumed."""
    price: float | None = None
    """Of one device for an hour, in any money."""
    convention: Literal[
        "flops", "flops_6n", "flops_kaplan", "flops_with_head", "flops_full_attention", "flops_deepseek"
    ] = "flops"
    """How the column C is counted."""
    prior: str | None = None
    """Law to judge the design at: a published one by name, or a file of `lmscale fit --json`; unset, the refit of the
    published Chinchilla runs (for repeated data, Muennighoff's)."""
    noise: float = 0.01
    """Standard deviation of a run's loss about the law, in nats."""
    shared_noise: float = 0.0
    """Share of that variance which the branches of a trunk have in common."""
    target: float | None = None
    """FLOPs at which the law is to be used; unset, the largest held-out run or ten times the largest run."""
    force: bool = False
    """Accept a plan that cannot identify its law."""
    improve: bool = False
    """Propose the runs to add that say most of the target per FLOP."""
    spend: float | None = None
    """FLOPs that --improve may spend."""
    most: int = 12
    """Runs that --improve may add."""
    quantity: Literal["ratio", "params", "loss"] = "ratio"
    """What --improve is to narrow at the target: D/N, N* or the loss."""
    optimal: Path | None = None
    """A file of `lmscale fit --json`."""
    flops: float | None = None
    """Budget of the run that --optimal makes."""
    tokens_per_param: float | None = None
    """D/N of that run; unset, the law's optimum."""
