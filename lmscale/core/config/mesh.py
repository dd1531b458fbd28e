"""The mesh: devices along each of its axes."""

from dataclasses import dataclass

from lmscale.core.config.checks import check_types, positive


@dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """Devices along each axis of the mesh; their product is the number of devices a run takes."""

    data: int = 1
    fsdp: int = 1
    tensor: int = 1
    sequence: int = 1
    """Cuts the time axis of activations, for contexts that one device cannot hold."""
    expert: int = 1
    """Each device along it holds a share of the experts; outside of them it is one more axis of data."""

    def __post_init__(self) -> None:
        check_types(self)
        positive(self, "data", "fsdp", "tensor", "sequence", "expert")

    @property
    def devices(self) -> int:
        """Devices in all."""
        return self.batch_devices * self.tensor * self.sequence

    @property
    def batch_devices(self) -> int:
        """Devices that the sequences of a batch are divided over."""
        return self.data * self.fsdp * self.expert
