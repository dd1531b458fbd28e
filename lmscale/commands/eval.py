"""`lmscale eval`: benchmark tasks, scored on a run's checkpoint."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tyro.conf import Positional, UseAppendAction

from lmscale.commands.next_step import print_next

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class EvalArgs:
    """Score benchmark tasks on the checkpoint of a run."""

    run: Positional[Path]
    """The folder of a run, runs/<sweep>/<run_id>."""
    tasks: Positional[tuple[str, ...]]
    """FORMAT:PATH, with FORMAT one of bigbench, mmlu, truthfulqa, wic, gsm8k, stories or task (a JSON file of your
    own); or synthetic:tasks(...). Nothing is downloaded. inside:heads, inside:context and inside:neurons(TASKS) measure
    induction heads, what the context saves, and the share of neurons that each of TASKS uses. With --harness: the
    harness's tasks by name, or YAML files."""
    harness: bool = False
    """Let lm-evaluation-harness ask and score its tasks: pip install 'lmscale[lm-eval]'."""
    include_path: Path | None = None
    """Folder of further tasks for the harness."""
    shots: UseAppendAction[tuple[int, ...]] = ()
    """Worked examples before every question, one table row for each number; by default none, or with --harness as many
    as the task says."""
    draw: Literal["shared", "each"] = "shared"
    """Use the same examples for all questions of a task, or draw them for each."""
    seed: int = 0
    """Seed for drawing the examples."""
    items: int | None = None
    """Score only this many items of every task, from the first on."""


def main(args: EvalArgs, console: "Console") -> None:
    """Score and print. Raises `UserError` for a run without a checkpoint and for a task that cannot be read."""
    from lmscale.lm.devices import machine

    machine.set_up()
    from lmscale.core.run_folder import PLAN_FILE, SCORES_FILE
    from lmscale.lm.eval.tasks import Shots
    from lmscale.lm.use import score_tasks

    if args.harness:
        shots = args.shots or (None,)
        score_tasks.show_lm_eval(args.run, args.tasks, shots, args.items, args.seed, args.include_path, console)
    else:
        drawn = [Shots(count, args.seed, args.draw) for count in args.shots or (0,)]
        score_tasks.show(args.run, args.tasks, drawn, args.items, console)
    if (args.run.parent / PLAN_FILE).is_file():
        print_next("table", args.run.parent, "--scores")
    else:
        print_next("emergence", args.run / SCORES_FILE)
