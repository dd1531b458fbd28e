"""The least time of a training step by the peaks of a machine: a bound, not a promise.

A step takes at least as long as the slowest of three, were each at its peak and hidden behind the others: its
floating-point operations, its traffic with the device's memory, and what it sends (the roofline of Williams 2009, with
links as a third roof). Real steps take longer: kernels do not reach the peak, and not everything overlaps. Traffic that
a cache serves counts as traffic with the memory, so that the step of a very small model may be faster.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from lmscale.core.accelerators import Accelerator
from lmscale.core.config import check_types


@dataclass(frozen=True, kw_only=True)
class StepBound:
    """Seconds of a step on every device, at peaks."""

    compute_seconds: float
    memory_seconds: float
    """Every array that the compiled operations read or write outside of fusions, once each time."""
    link_seconds: float
    """What a device sends, over the links or the network that it takes."""

    def __post_init__(self) -> None:
        check_types(self)

    @property
    def seconds(self) -> float:
        """The least time of a step."""
        return max(self.compute_seconds, self.memory_seconds, self.link_seconds)

    @property
    def limit(self) -> str:
        """What sets it: "compute", "memory" or "links"."""
        parts = {"compute": self.compute_seconds, "memory": self.memory_seconds, "links": self.link_seconds}
        return max(parts, key=lambda name: parts[name])

    def mfu(self, needed_flops: float, accelerator: Accelerator, dtype: str) -> float:
        """The largest model FLOPs utilisation that the bound leaves, of `needed_flops` on each device."""
        return needed_flops / self.seconds / accelerator.flops_per_second(dtype)


def step_bound(
    accelerator: Accelerator,
    dtype: str,
    flops: float,
    memory_bytes: float,
    collectives: Mapping[str, Mapping[str, int]],
) -> StepBound:
    """The bound of a step that computes `flops` in `dtype`, moves `memory_bytes` and sends `collectives` on a device.

    `collectives` maps a kind to "bytes", sent by a device in a step, and to "network_bytes", those of them that leave
    the devices which fast links join.
    """
    network = sum(one["network_bytes"] for one in collectives.values())
    linked = sum(one["bytes"] for one in collectives.values()) - network
    return StepBound(
        compute_seconds=flops / accelerator.flops_per_second(dtype),
        memory_seconds=memory_bytes / accelerator.memory_bytes_per_second,
        link_seconds=max(linked / accelerator.link_bytes_per_second, network / accelerator.network_bytes_per_second)
        if network
        else linked / accelerator.link_bytes_per_second,
    )
