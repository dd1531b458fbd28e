"""`lmscale clean`: what a folder of runs and the cache hold, and what of it is freed on demand."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tyro.conf import Positional

from lmscale.commands.answer import write_answer
from lmscale.core.errors import UserError
from lmscale.core.quantities import quantity

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class CleanArgs:
    """Say what a folder of runs and the cache hold; free what you name.

    Without an option nothing is deleted. Configurations, metrics, outcomes and scores are never deleted: the table and
    every fit stay what they are.
    """

    runs: Positional[Path] = Path("runs")
    """Folder that holds one folder per sweep, or the folder of one sweep."""
    checkpoints: bool = False
    """Delete the checkpoints of finished and diverged runs, but of those that another run starts or learns from."""
    logs: bool = False
    """Delete the logs and TensorBoard files of finished and diverged runs."""
    corpora: bool = False
    """Delete prepared text and tokens from the cache: the next run prepares them again, and downloads what it must."""
    programs: bool = False
    """Delete compiled programs from the cache: the next run compiles again."""
    json: Path | None = None
    """Write the bytes of every part, and whether it was deleted here (- or no file: to standard output, alone)."""


class Part(NamedTuple):
    """Files and folders of one kind, and the option that frees them; "" where nothing does."""

    name: str
    paths: list[Path]
    option: str


def main(args: CleanArgs, console: "Console") -> None:
    """Print the parts and delete the named ones. Raises `UserError` for a folder that is not there."""
    if not args.runs.is_dir():
        raise UserError(f"{args.runs} is no folder: give the one that holds a folder per sweep, runs by default")
    parts = [*_of_runs(args.runs), *_of_cache()]
    sizes = {part.name: sum(map(size_bytes, part.paths)) for part in parts}
    width = max(map(len, sizes))
    deleted = [part.name for part in parts if part.option and getattr(args, part.option)]
    for part in parts:
        chosen = part.name in deleted
        if chosen:
            _delete(part.paths)
        fate = "deleted" if chosen else f"--{part.option} frees it" if part.option and sizes[part.name] else ""
        print(f"{part.name:{width}}  {quantity(sizes[part.name]) + 'B':>8}  {fate}".rstrip())
    if deleted:
        print(f"freed {quantity(sum(sizes[name] for name in deleted))}B")
    write_answer(args.json, {name: {"bytes": size, "deleted": name in deleted} for name, size in sizes.items()})


def _of_runs(runs: Path) -> Iterator[Part]:
    """What lies in the folders of sweeps."""
    from lmscale.core.run_folder import CHECKPOINT_FOLDER, EVENTS_FOLDER, LOG_FILE

    ended, needed, others = _ended(runs)
    spare = [folder / CHECKPOINT_FOLDER for folder in ended if folder.name not in needed]
    logs = [folder / name for folder in ended for name in (LOG_FILE, EVENTS_FOLDER)]
    yield Part("checkpoints of ended runs", spare, "checkpoints")
    checkpoints = [folder / CHECKPOINT_FOLDER for folder in (*ended, *others)]
    yield Part("checkpoints that are needed", [path for path in checkpoints if path not in set(spare)], "")
    yield Part("logs of ended runs", logs, "logs")
    taken = {*spare, *checkpoints, *logs}
    yield Part("everything else in " + str(runs), [path for path in _below([runs]) if not _under(path, taken)], "")


def _ended(runs: Path) -> tuple[list[Path], set[str], list[Path]]:
    """Folders of runs at an end, the ids of runs that others start or learn from, and folders of all other runs."""
    from lmscale.core.plans import read_plan
    from lmscale.core.run_folder import PLAN_FILE
    from lmscale.study.launch.states import read_states

    ended: list[Path] = []
    others: list[Path] = []
    needed: set[str] = set()
    plans = [runs / PLAN_FILE] if (runs / PLAN_FILE).is_file() else sorted(runs.glob(f"*/{PLAN_FILE}"))
    for folder in (path.parent for path in plans):
        needed |= {name.run_id for run in read_plan(folder)[1] for name in run.config.parents.values()}
        for run in read_states(folder)[1]:
            at_end = run.state in ("finished", "diverged")
            (ended if at_end else others).append(folder / run.run_id)
    return ended, needed, others


def _of_cache() -> Iterator[Part]:
    """What lies in the cache, which all sweeps share."""
    from lmscale.core.files import cache_dir

    cache = cache_dir()
    yield Part("corpora and tokens in the cache", [cache / "corpora", cache / "tokens"], "corpora")
    yield Part("compiled programs in the cache", [cache / "xla"], "programs")


def _below(folders: list[Path]) -> Iterator[Path]:
    """Every file below the folders; links are not followed."""
    for folder in folders:
        yield from (path for path in folder.rglob("*") if path.is_symlink() or path.is_file())


def _under(path: Path, parents: set[Path]) -> bool:
    return path in parents or any(parent in parents for parent in path.parents)


def size_bytes(path: Path) -> int:
    """Bytes of a file, or of all files of a folder; 0 for what is not there."""
    files = _below([path]) if path.is_dir() and not path.is_symlink() else [path]
    return sum(file.lstat().st_size for file in files if file.exists() or file.is_symlink())


def _delete(paths: list[Path]) -> None:
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.exists() or path.is_symlink():
            path.unlink()
