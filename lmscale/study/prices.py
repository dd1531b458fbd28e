"""What a plan costs: seconds, memory and money, and where each figure comes from."""

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lmscale.core.accelerators import Accelerator
from lmscale.core.config import RunConfig, check
from lmscale.core.counting import Platform, flops_per_token, memory_bytes, validation_flops
from lmscale.core.measured_speeds import MeasuredSpeed
from lmscale.core.plans import PlannedRun

UTILISATION = 0.35
"""Share of a device's peak that training is assumed to reach by default: a usual figure, not a promise."""
STARTUP_SECONDS = 5.0
"""From the start of a process to its first step, without compilation."""
COMPILE_SECONDS = 3.0
"""Assumed where nothing was measured."""


@dataclass(frozen=True)
class SpeedEstimate:
    """FLOP/s of one run while others run beside it, and where that figure comes from."""

    flops_per_second: float
    compile_seconds: float
    source: str
    """A word for the line of a run: "h100", "bench", "measured" (by finished runs of the sweep), "assumed"."""


@dataclass(frozen=True)
class Hardware:
    """The hardware that a plan is priced for, and what is known of its speed."""

    title: str
    """A sentence on where times come from."""
    at_once: int
    """Runs side by side."""
    device: Accelerator | None = None
    count: int = 1
    utilisation: float = UTILISATION
    price_per_hour: float | None = None
    """Price of one device for an hour, in any currency."""
    figures: tuple[MeasuredSpeed, ...] = ()
    """Measured speeds; the nearest shapes give the speed of a run."""
    figures_source: str = ""
    assumed: float = 0.0
    """FLOP/s where neither a device nor a measurement is known."""

    @cached_property
    def _known_kn(self) -> np.ndarray:
        return _coordinates([figure.config for figure in self.figures])

    def speed(self, config: RunConfig) -> SpeedEstimate:
        """The speed of one run like `config`."""
        if self.device is not None:
            peak = self.device.flops_per_second(config.model.compute_dtype) * config.mesh.devices
            return SpeedEstimate(self.utilisation * peak, COMPILE_SECONDS, self.device.name)
        if self.figures:
            return SpeedEstimate(*_interpolated(self._known_kn, self.figures, config), self.figures_source)
        return SpeedEstimate(self.assumed, COMPILE_SECONDS, "assumed")


def on_devices(device: Accelerator, count: int, utilisation: float | None, price_per_hour: float | None) -> Hardware:
    """`count` devices of a kind. Raises `UserError` for an impossible number."""
    utilisation = UTILISATION if utilisation is None else utilisation
    check(count >= 1, f"--devices {count}: must be at least 1")
    check(0 < utilisation <= 1, f"--utilisation {utilisation:g}: a share of the peak, above 0 and at most 1; try 0.35")
    check(price_per_hour is None or price_per_hour >= 0, f"--price {price_per_hour}: must not be negative")
    title = (
        f"{count} x {device.title}, {utilisation:.0%} of {device.bfloat16 / 1e12:.4g} TFLOP/s in bfloat16 "
        f"({device.float32 / 1e12:.4g} in float32) assumed; {device.source}"
    )
    return Hardware(title, count, device, count, utilisation, price_per_hour)


def between(figures: Sequence[MeasuredSpeed], config: RunConfig) -> tuple[float, float]:
    """FLOP/s and seconds to compile of a shape, interpolated between measured ones in logarithms, weighted by nearness.

    Two shapes are near if their FLOPs per token and tokens per update are similar: these set how well matrix products
    fill the machine, and how much of a step is overhead; a dense shape says little of one with experts.
    """
    return _interpolated(_coordinates([figure.config for figure in figures]), figures, config)


def _interpolated(known_kn: np.ndarray, figures: Sequence[MeasuredSpeed], config: RunConfig) -> tuple[float, float]:
    """`between`, where the coordinates of the figures are known."""
    squares_n = ((known_kn - _coordinates([config])) ** 2).sum(axis=0)
    weights_n = 1 / (1e-6 + squares_n)
    rates_n, compiling_n = np.array([(figure.flops_per_second, figure.compile_seconds) for figure in figures]).T
    return (
        float(np.exp(np.average(np.log(rates_n), weights=weights_n))),
        float(np.average(compiling_n, weights=weights_n)),
    )


def _coordinates(configs: Sequence[RunConfig]) -> np.ndarray:
    """Where shapes lie among others, (5, n): by the size of a token's work, of a batch, by depth, by precision, and by
    experts, which cut a batch into smaller matrix products."""
    return np.array(
        [
            (
                math.log(flops_per_token(config.model)),
                0.5 * math.log(config.batch_tokens),
                0.5 * math.log(config.model.layers),
                2.0 * (config.model.compute_dtype == "bfloat16"),
                math.log(config.model.experts / config.model.experts_per_token) + 2.0 * (config.model.experts > 1),
            )
            for config in configs
        ]
    ).T


@dataclass(frozen=True)
class Price:
    """What one run takes in time and memory."""

    seconds: float
    """Start-up, training and validation."""
    device_seconds: float
    """Seconds times the devices that the run takes."""
    memory_bytes: int
    """Estimated peak of its program, over all its devices together."""
    source: str
    fits: bool
    """Whether its share fits into the memory of a device; True where that memory is unknown."""


def price(run: PlannedRun, hardware: Hardware, packed: int = 1) -> Price:
    """Time and memory of one run; a branch pays only for the steps after it leaves its trunk. The memory is that of a
    program of `packed` runs like it."""
    config, speed = run.config, hardware.speed(run.config)
    flops = run.paid_flops + validation_flops(config)
    seconds = STARTUP_SECONDS + speed.compile_seconds + flops / speed.flops_per_second
    platform: Platform = "cpu" if hardware.device is None else hardware.device.platform
    needed = packed * memory_bytes(config, platform) + run.reference_bytes
    limit = None if hardware.device is None else hardware.device.memory_bytes * config.mesh.devices
    return Price(seconds, seconds * config.mesh.devices, needed, speed.source, limit is None or needed <= limit)


def elapsed(runs: Sequence[PlannedRun], prices: Sequence[Price], hardware: Hardware) -> float:
    """Seconds until the last run ends if as many as fit run side by side, the longest first.

    A run starts when what it needs has ended.
    """
    free = [0.0] * max(1, hardware.at_once)
    waiting = sorted(zip(runs, prices), key=lambda pair: -pair[1].seconds)
    ends: dict[str, float] = {}
    while waiting:
        unplaced = {run.config.run_id for run, _ in waiting}
        run, one = next(pair for pair in waiting if not unplaced & _needed(pair[0]))
        waiting.remove((run, one))
        devices = min(run.config.mesh.devices if hardware.device is not None else 1, len(free))
        starts = [heapq.heappop(free) for _ in range(devices)]
        end = max(*starts, *(ends[name] for name in _needed(run) if name in ends), 0.0) + one.seconds
        ends[run.config.run_id] = end
        for _ in starts:
            heapq.heappush(free, end)
    return max(free)


def _needed(run: PlannedRun) -> set[str]:
    """The runs that must have ended before this one starts."""
    return {name.run_id for name in run.config.parents.values()}


def money(prices: Sequence[Price], hardware: Hardware) -> float | None:
    """What the runs cost; None where no price is known."""
    if hardware.price_per_hour is None:
        return None
    return hardware.price_per_hour * sum(one.device_seconds for one in prices) / 3600
