"""The environment of a process that compiles: no device of this machine, and what each plugin asks for."""

from collections.abc import Mapping

from lmscale.core.accelerators import OVERLAP_FLAG
from lmscale.core.machines import Machine

TPU_TYPES = {"v5e": "v5litepod"}
"""Google Cloud's name of an accelerator type where it is another than that of its machines."""
OF_ANOTHER_SLICE = (
    "TPU_TOPOLOGY", "TPU_CHIPS_PER_HOST_BOUNDS", "TPU_HOST_BOUNDS", "TPU_PROCESS_BOUNDS", "TPU_PROCESS_ADDRESSES",
    "TPU_WORKER_ID", "TPU_VISIBLE_CHIPS", "TPU_VISIBLE_DEVICES", "MEGASCALE_NUM_SLICES", "MEGASCALE_SLICE_ID",
    "MEGASCALE_COORDINATOR_ADDRESS",
)  # fmt: skip
"""What a TPU host knows of the slice that it belongs to."""


def environment(machine: Machine, present: Mapping[str, str]) -> dict[str, str]:
    """The variables of a process that compiles for `machine`, from those of this one."""
    variables = {**present, "JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3"}
    if machine.platform == "gpu":
        if machine.devices > 1 and OVERLAP_FLAG not in variables.get("XLA_FLAGS", ""):
            variables["XLA_FLAGS"] = f"{variables.get('XLA_FLAGS', '')} {OVERLAP_FLAG}=true".strip()
        return variables
    for name in OF_ANOTHER_SLICE:
        variables.pop(name, None)
    kind, _, number = machine.name.partition("-")
    return {
        **variables,
        "TPU_ACCELERATOR_TYPE": f"{TPU_TYPES.get(kind, kind)}-{number}",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_SKIP_MDS_QUERY": "1",  # there is no metadata server to ask
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # several processes compile at once; none holds a chip
    }
