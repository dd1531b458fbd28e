"""What a verb names at its end: the command that usually comes next, with the paths of this call."""

import shlex
import sys
from pathlib import Path


def print_next(*words: object, stderr: bool = False) -> None:
    """Print a command of lmscale as the next step; on standard error where the output is for another program."""
    command = shlex.join(["lmscale", *map(str, words)])
    print(f"next: {command}", file=sys.stderr if stderr else sys.stdout)


def repeat(*more: object) -> tuple[object, ...]:
    """The words of this very call, and further ones."""
    return (*sys.argv[1:], *more)


def print_use(run: Path) -> None:
    """Print what a trained run is good for: text from its checkpoint, or its row among those of its sweep."""
    from lmscale.core.run_folder import CHECKPOINT_FOLDER, PLAN_FILE
    from lmscale.core.run_identity import read_config

    if (run / CHECKPOINT_FOLDER).is_dir() and read_config(run).model.scalar_head:
        print_next("score", run, "pairs.jsonl")
    elif (run / CHECKPOINT_FOLDER).is_dir():
        print_next("sample", run, "--prompt", "Once upon a time")
    elif (run.parent / PLAN_FILE).is_file():
        print_next("status", run.parent)


def run_again(folder: Path) -> tuple[object, ...]:
    """The words of `lmscale run` that train what a sweep's folder still lacks, from the plan that lies in it."""
    from lmscale.core.run_folder import PLAN_FILE

    elsewhere = () if folder.parent == Path("runs") else ("--runs", folder.parent)
    return ("run", folder / PLAN_FILE, *elsewhere)
