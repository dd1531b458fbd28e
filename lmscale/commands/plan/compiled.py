"""`lmscale plan --compile MACHINE`: what the compiler says of every run on a machine that is not here."""

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.markup import escape

from lmscale.commands.plan.attention import plain_note
from lmscale.core.accelerators import Accelerator
from lmscale.core.compiled import CompiledRun, Effort
from lmscale.core.config import RunConfig
from lmscale.core.counting import flops_per_token
from lmscale.core.errors import UserError
from lmscale.core.machines import Machine, StepBound, machine
from lmscale.core.plans import PlannedRun
from lmscale.core.quantities import counted, duration, in_one_program
from lmscale.study.compiled import compile_runs

Rows = Sequence[tuple[PlannedRun, CompiledRun]]


def compile_plan(
    runs: Sequence[PlannedRun], name: str | None, console: Console, effort: Effort = "low", pack: int = 1
) -> dict[str, CompiledRun]:
    """run_id -> what the compiler says on the machine called `name`, printed as it comes; nothing without a name. Up to
    `pack` runs share a program.

    Raises `UserError` as `machine` and `compile_runs` do.
    """
    if name is None:
        return {}

    def progress(done: int, programs: int, newest: CompiledRun) -> None:
        console.print(f"compiled {done} of {counted(programs, 'shape')}: {escape(newest.sentence())}")

    outcomes = compile_runs(runs, machine(name), progress, effort, pack)
    return {run.config.run_id: outcome for run, outcome in zip(runs, outcomes)}


def check_compiled(runs: Sequence[PlannedRun], name: str | None, console: Console, pack: int = 1) -> None:
    """Raise `UserError` where a run, or `pack` in one program, does not fit the machine called `name`, and as
    `compile_plan` does."""
    outcomes = compile_plan(runs, name, console, pack=pack)
    large = [(run, outcome) for run in runs if outcomes and not (outcome := outcomes[run.config.run_id]).fits]
    if large and name is not None:
        raise UserError(_too_large(large, len(runs), machine(name)))


def lines(rows: Rows, target: Machine) -> Iterator[str]:
    """Sentences for below the table: how many fit, what the largest needs, what is sent."""
    fitting = sum(compiled.fits for _, compiled in rows)
    shapes = {repr(compiled): compiled for _, compiled in rows}  # runs of one shape share their outcome
    seconds = sum(compiled.compile_seconds for compiled in shapes.values())
    yield (
        f"Compiled for {target.name}: {fitting} of {counted(len(rows), 'run')} fit; {counted(len(shapes), 'shape')}, "
        f"{duration(seconds)} of compilation"
    )
    run, largest = max(rows, key=lambda row: row[1].bytes_per_device)
    yield f"The largest, run {run.config.run_id}: {_memory(largest)}"
    if sent := _sent(largest):
        yield f"A device sends in a step of it {sent}"
    if quick := [compiled for _, compiled in rows if compiled.effort == "low"]:
        yield (
            f"{len(quick)} of {counted(len(rows), 'run')} compiled with little effort, which is enough to say whether "
            f"they fit: with full effort, as in training, they take somewhat less (--compile-effort full)"
        )
    if largest.bound is not None and target.accelerator is not None:
        yield _least_time(run.config, largest.bound, target.accelerator)


def _least_time(config: RunConfig, bound: StepBound, accelerator: Accelerator) -> str:
    """The bound of a step, its three parts, and the largest utilisation that it leaves."""
    needed = flops_per_token(config.model) * config.batch_tokens / config.mesh.devices
    parts = {
        "products": bound.compute_seconds,
        "memory traffic": bound.memory_seconds,
        "links": bound.link_seconds,
    }
    times = ", ".join(f"{name} {1e3 * seconds:.3g} ms" for name, seconds in parts.items())
    return (
        f"A step of it takes at least {1e3 * bound.seconds:.3g} ms by the peaks of {accelerator.title} ({times}): an "
        f"MFU of at most {bound.mfu(needed, accelerator, config.model.compute_dtype):.2g}"
    )


def less_memory(config: RunConfig, packed: int) -> str:
    """What to do where a run, or a program of `packed` runs, does not fit."""
    fewer = f"take less than --pack {packed}, " if packed > 1 else ""
    return f"{fewer}raise optimizer.micro_batches, set model.remat, or spread the run with {config.spread_by}"


def _memory(compiled: CompiledRun) -> str:
    program = max((compiled.train, compiled.validation), key=lambda one: one.bytes_per_device)
    parts = [f"{_size(size)} {kind}" for kind, size in program.memory.items() if size]
    limit = "" if compiled.memory_limit_bytes is None else f" of {_size(compiled.memory_limit_bytes)}"
    of_validation = "" if program is compiled.train else " in validation"
    of_runs = in_one_program(compiled.packed)
    return f"{_size(program.bytes_per_device)}{limit} per device{of_runs}{of_validation} ({', '.join(parts)})"


def _sent(compiled: CompiledRun) -> str:
    kinds = [
        f"{_size(one['bytes'])} in {counted(one['count'], kind)}" for kind, one in compiled.train.collectives.items()
    ]
    return ", ".join(kinds)


def _size(size: float) -> str:
    return f"{size / 1e9:.3g} GB" if size >= 1e8 else f"{size / 1e6:.3g} MB"


def notes(rows: Rows, target: Machine) -> Iterator[str]:
    """Sentences about runs that do not fit, take too few devices, or compute attention by its formula."""
    if large := [row for row in rows if not row[1].fits]:
        yield _too_large(large, len(rows), target)
    part = [run for run, _ in rows if target.hosts > 1 and run.config.mesh.devices != target.devices]
    if part:
        devices = part[0].config.mesh.devices
        yield (
            f"{len(part)} of {len(rows)} runs take {devices} of the {target.devices} devices of {target.name}, whose "
            f"{target.hosts} hosts a run must take whole: spread them over {target.devices} devices, or compile for "
            f"{target.at_least(devices)}"
        )
    plain = [run for run, compiled in rows if compiled.attention not in ("cudnn", "splash")]
    yield from plain_note(plain, len(rows), target.platform)


def _too_large(large: Rows, runs: int, target: Machine) -> str:
    """How many of `runs` runs do not fit, what the largest needs, and what to do."""
    run, compiled = max(large, key=lambda row: row[1].bytes_per_device)
    limit = "" if compiled.memory_limit_bytes is None else f" of {_size(compiled.memory_limit_bytes)}"
    verb = "does" if len(large) == 1 else "do"
    return (
        f"{len(large)} of {counted(runs, 'run')} {verb} not fit {target.name} (run {run.config.run_id}: "
        f"{_size(compiled.bytes_per_device)}{limit} per device{in_one_program(compiled.packed)}, compiled): "
        f"{less_memory(run.config, compiled.packed)}"
    )
