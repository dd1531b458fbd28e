"""What a compiler says of a run, made up, and a program that replies it in the place of one that compiles."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from lmscale.core.compiled import CompiledProgram, CompiledRun
from lmscale.core.machines import StepBound

PROGRAM = CompiledProgram(
    fits=True,
    bytes_per_device=3 * 10**9,
    memory={"parameters": 10**9, "optimizer": 15 * 10**8, "temporaries": 5 * 10**8},
    kernels={"tpu_custom_call:splash_mha_fwd": 4},
    collectives={"all-gather": {"count": 8, "bytes": 4 * 10**8, "network_bytes": 0}},
    flops=2e12,
    traffic_bytes=1e10,
    compile_seconds=12.5,
)
COMPILED = CompiledRun(
    machine="v5e-4",
    fits=True,
    bytes_per_device=3 * 10**9,
    memory_limit_bytes=16 * 10**9,
    attention="splash",
    loss="in 4 chunks",
    train=PROGRAM,
    validation=replace(PROGRAM, bytes_per_device=10**9, collectives={}),
    bound=StepBound(compute_seconds=0.010, memory_seconds=0.012, link_seconds=0.002),
    versions={"jax": "0.10.2"},
    peak_bytes_here=10**6,
)


def compiled(**changes: Any) -> CompiledRun:
    """`COMPILED`, changed."""
    return replace(COMPILED, **changes)


def fake_worker(folder: Path, body: str = "") -> list[str]:
    """A command that answers every request with `COMPILED`, and notes the requests in `folder`/log.

    `body` is run first; it sees `request`, `log`, `width` of the model, and `reply`, a mapping that it may change.
    """
    script = folder / "worker.py"
    script.write_text(
        "import json, os, signal, sys, time\n"
        f"reply = json.loads({json.dumps(COMPILED.to_json())!r})\n"
        "request = json.load(sys.stdin)\n"
        "width = request['config']['model']['width']\n"
        f"log = {str(folder / 'log')!r}\n"
        "with open(log, 'a') as file:\n"
        "    print(width, os.environ.get('TPU_ACCELERATOR_TYPE', ''), time.monotonic(), file=file)\n"
        f"{body}\n"
        "json.dump(reply, open(sys.argv[1], 'w'))\n",
        encoding="utf-8",
    )
    return [sys.executable, "-I", str(script)]


def requests(folder: Path) -> list[int]:
    """Widths of the models that the fake was asked for, in order."""
    log = folder / "log"
    return [int(line.split()[0]) for line in log.read_text("utf-8").splitlines()] if log.exists() else []
