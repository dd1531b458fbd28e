"""`python -m lmscale.lm.devices.probe REPLY [--peak]`: what JAX sees of the devices here, in a process of its own.

A process apart, since a device that somebody else holds may be waited for without end, and since this one gives its
memory back.
"""

import os
import sys
from pathlib import Path
from typing import Any

DTYPES = ("float32", "bfloat16")


def main(reply: Path, peak: bool) -> int:
    """Write what there is; the exit status."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from lmscale.core.files import write_json
    from lmscale.core.signals import NOTHING_TO_SAVE_SECONDS, end_with_launcher

    end_with_launcher(NOTHING_TO_SAVE_SECONDS)
    write_json(reply, facts(peak))
    return 0


def facts(peak: bool) -> dict[str, Any]:
    """Kind and number of the devices of this process, their memory, and the speed of matrix products on one."""
    import jax

    from lmscale.lm.devices.machine import matmul_peak

    first = jax.local_devices()[0]
    stats = first.memory_stats() or {}
    return {
        "platform": first.platform,
        "kind": first.device_kind,
        "count": jax.local_device_count(),
        "memory_bytes": stats.get("bytes_limit"),
        "peaks": {dtype: matmul_peak(dtype) for dtype in DTYPES} if peak else {},
    }


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), "--peak" in sys.argv[2:]))
