"""What `lmscale doctor` looks at, one function each; every one ends within its time."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lmscale.commands.doctor.arguments import DoctorArgs
from lmscale.commands.doctor.finding import Finding
from lmscale.commands.doctor.hosts import hosts
from lmscale.core.accelerators import by_jax_kind
from lmscale.core.errors import UserError
from lmscale.core.extras import COMPILER_PACKAGES, FOR_DEVELOPERS, compiler_versions, extras, installed
from lmscale.core.files import cache_dir, read_json
from lmscale.core.host import available_memory_bytes, machine_cores, usable_cores
from lmscale.core.signals import LIFELINE_VARIABLE, lifeline

PROBE = (sys.executable, "-m", "lmscale.lm.devices.probe")
LEAST_MEMORY, LEAST_DISK = 2**31, 2**30
"""Below these a small run on a CPU, or its checkpoints and text, find no room."""
SLOW = 0.5
"""A device whose measured products reach a smaller share of its data sheet is shared, throttled or not set up."""
SLURM_SECONDS = 10


def findings(args: DoctorArgs) -> Iterator[Finding]:
    """Everything that was looked at, in the order in which it is printed."""
    yield software()
    facts, problem = probe(args)
    yield devices(facts, problem)
    if facts.get("peaks"):
        yield peak(facts)
    yield memory()
    for name, folder in {"disk of runs": args.runs, "disk of prepared data": cache_dir()}.items():
        yield disk(name, folder)
    yield from optional_packages()
    yield slurm()
    yield from hosts(args)


def software() -> Finding:
    """Versions of what every run needs."""
    names = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    versions = {name: installed(name) for name in names}
    text = ", ".join(f"{name} {number or 'missing'}" for name, number in versions.items())
    absent = [name for name, number in versions.items() if not number]
    python = ".".join(map(str, sys.version_info[:3]))
    text, facts = f"Python {python}, {text}", {"python": python, **versions}
    if absent:
        return Finding("software", "wrong", text, f"pip install {' '.join(absent)}", facts)
    return Finding("software", "ok", text, facts=facts)


def probe(args: DoctorArgs) -> tuple[dict[str, Any], str]:
    """What a process of its own sees of the devices, and why it sees nothing: JAX may wait for ever for a device."""
    with tempfile.TemporaryDirectory() as folder:
        reply, errors = Path(folder) / "reply.json", Path(folder) / "errors"
        command = [*PROBE, str(reply), *["--peak"] * args.peak]
        with errors.open("wb") as stderr, lifeline() as held_open:
            try:
                status = subprocess.run(
                    command, stdout=subprocess.DEVNULL, stderr=stderr, timeout=args.wait_seconds, check=False,
                    env={**os.environ, LIFELINE_VARIABLE: str(held_open)}, pass_fds=(held_open,),
                ).returncode  # fmt: skip
            except subprocess.TimeoutExpired:
                return {}, f"the devices did not answer within {args.wait_seconds} s"
        if status == 0 and reply.is_file():
            try:
                return read_json(reply, "reply"), ""
            except UserError as error:
                return {}, str(error)
        lines = errors.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return {}, lines[-1][:300] if lines else f"the process that asks for them ended with status {status}"


def devices(facts: dict[str, Any], problem: str) -> Finding:
    """What JAX computes on, and whether hardware is here that it does not see."""
    if problem:
        return Finding(
            "devices", "wrong", problem,
            "end the process that holds them (`nvidia-smi` lists those on a GPU), or take JAX_PLATFORMS=cpu",
        )  # fmt: skip
    text = f"{facts['count']} x {facts['kind']}"
    if facts.get("memory_bytes"):
        text += f", {facts['memory_bytes'] / 1e9:.0f} GB each for arrays"
    unseen = unseen_hardware()
    if facts["platform"] == "cpu" and unseen:
        extra = "cuda" if "NVIDIA" in unseen else "tpu"
        return Finding("devices", "wrong", f"{text}, while {unseen}", _install(extra), facts)
    return Finding("devices", "ok", text, facts=facts)


def unseen_hardware() -> str:
    """Accelerators that the system shows, as a clause; empty where there are none."""
    gpus = len(list(Path("/dev").glob("nvidia[0-9]*")))
    chips = len(list(Path("/dev").glob("accel[0-9]*"))) or len(list(Path("/dev/vfio").glob("[0-9]*")))
    if gpus:
        return f"{gpus} NVIDIA GPU{'s are' if gpus > 1 else ' is'} in this machine"
    return f"{chips} TPU chip{'s are' if chips > 1 else ' is'} in this machine" if chips else ""


def _install(extra: str) -> str:
    """How to get JAX for an accelerator, or why the one that is installed does not find it."""
    if not any(installed(name) for name in COMPILER_PACKAGES[extra]):
        return f"pip install 'lmscale[{extra}]'"
    try:
        compiler_versions(extra, "JAX for it")
    except UserError as error:
        return str(error)
    return "unset JAX_PLATFORMS" if os.environ.get("JAX_PLATFORMS") else "see to the driver: `nvidia-smi` must list it"


def peak(facts: dict[str, Any]) -> Finding:
    """Matrix products, beside the data sheet where the device has one."""
    measured = facts["peaks"]
    parts = [f"{rate / 1e12:.3g} TFLOP/s in {dtype}" for dtype, rate in measured.items()]
    accelerator = by_jax_kind(facts["kind"])
    shares = {} if accelerator is None else {
        dtype: rate / accelerator.flops_per_second(dtype) for dtype, rate in measured.items()
    }  # fmt: skip
    if not shares:
        return Finding("matrix products", "ok", ", ".join(parts), facts=measured)
    text = ", ".join(f"{part} ({share:.0%} of the data sheet)" for part, share in zip(parts, shares.values()))
    if shares["bfloat16"] >= SLOW:
        return Finding("matrix products", "ok", text, facts=measured)
    return Finding(
        "matrix products", "wrong", text,
        "another process computes on it, it is throttled (`nvidia-smi -q -d PERFORMANCE`), or it is a part of a device",
        measured,
    )  # fmt: skip


def memory() -> Finding:
    """Main memory and cores, within the limits of a container."""
    free, cores, whole = available_memory_bytes(), len(usable_cores()), machine_cores()
    text = f"{cores} of {whole} cores, " + ("memory unknown" if free is None else f"{free / 1e9:.1f} GB free")
    facts = {"cores": cores, "cores_of_machine": whole, "free_bytes": free}
    if free is not None and free < LEAST_MEMORY:
        return Finding("memory", "wrong", text, "end other programs, or ask the scheduler for more memory", facts)
    return Finding("memory", "ok", text, facts=facts)


def disk(name: str, folder: Path) -> Finding:
    """Room on the disk of a folder that may not be there yet, and whether it may be written to."""
    place = folder.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    option = "--runs" if name == "disk of runs" else "LMSCALE_CACHE"
    try:
        free = shutil.disk_usage(place).free
    except OSError as error:
        return Finding(name, "wrong", f"{place}: {error.strerror}", f"choose another folder with {option}")
    facts = {"folder": str(folder), "free_bytes": free}
    text = f"{free / 1e9:.1f} GB free at {place}"
    if not os.access(place, os.W_OK):
        return Finding(name, "wrong", f"{text}, which you may not write to", f"choose another with {option}", facts)
    if free < LEAST_DISK:
        return Finding(name, "wrong", text, f"free some space, or choose another folder with {option}", facts)
    return Finding(name, "ok", text, facts=facts)


def optional_packages() -> Iterator[Finding]:
    """The extras: what each brings and whether it is there."""
    for extra, packages in extras().items():
        if extra in FOR_DEVELOPERS:
            continue
        versions = {package.name: package.installed for package in packages}
        compilers = COMPILER_PACKAGES.get(extra)
        if compilers:
            versions = {name: installed(name) for name in compilers if installed(name)} or {compilers[0]: ""}
        absent = [name for name, text in versions.items() if not text]
        text = ", ".join(f"{name} {text}" if text else f"{name} is not installed" for name, text in versions.items())
        if absent:
            yield Finding(f"extra {extra}", "missing", text, f"pip install 'lmscale[{extra}]'", versions)
            continue
        try:
            if compilers:
                compiler_versions(extra, f"the extra {extra}")
        except UserError as error:
            yield Finding(f"extra {extra}", "wrong", text, str(error), versions)
            continue
        yield Finding(f"extra {extra}", "ok", text, facts=versions)


def slurm() -> Finding:
    """Whether `lmscale run --launcher slurm` finds a cluster that answers."""
    if shutil.which("sbatch") is None:
        return Finding(
            "Slurm", "missing", "no sbatch here", "only `lmscale run --launcher slurm` needs it: call that on a node"
        )
    try:
        answer = subprocess.run(
            ["sinfo", "--noheader", "--format=%P %D %t"], capture_output=True, text=True, timeout=SLURM_SECONDS,
            check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return Finding("Slurm", "wrong", f"sinfo did not answer within {SLURM_SECONDS} s", "see to slurmctld")
    lines = answer.stdout.strip().splitlines()
    if answer.returncode:
        problem = (answer.stderr.strip().splitlines() or ["no reason given"])[-1]
        return Finding("Slurm", "wrong", f"sinfo: {problem}", "see to slurmctld")
    inside = os.environ.get("SLURM_JOB_ID")
    text = "; ".join(lines) + (f"; inside job {inside}" if inside else "")
    return Finding("Slurm", "ok", text or "no partitions", facts={"partitions": lines, "job": inside})
