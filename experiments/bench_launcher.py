"""What does the launcher add to every run, and where does a short run's time go?

    python experiments/bench_launcher.py                # eight runs of seconds, one after the other: two minutes
    python experiments/bench_launcher.py --runs 30

The launcher that `lmscale run` uses trains tiny models in one place, and a shell script around every process notes when
it begins and ends. What the launcher adds is the time that no process lived, over the number of runs: reading and
writing the runs' folders, and noticing that a process has ended. The rest is the process's own: up to its first
finished step (start of Python, imports, compilation or reading the compiled program), training with validation, and
what follows (matmul peak, last checkpoint, outcome, end of the process). Cost: 2 CPU cores.

Outcome (2026-11, two idle cores of an AMD EPYC): the launcher adds .08 s to each of eight runs (.16 where others keep
the cores busy); goal 1 s. A run's process takes 2.4 s to its first step, 2.8 s of training and 1.0 s for the rest.
"""

import argparse
import shlex
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from lmscale.core.config import DataConfig, ModelConfig, OptimizerConfig, RunConfig
from lmscale.core.plans import PlannedRun
from lmscale.core.results import Outcome
from lmscale.lm import data
from lmscale.study import launch
from lmscale.study.launch.watchers import RaiseOnFailure

STEPS = 100


def timed_python(folder: Path) -> tuple[str, Path]:
    """A program that runs Python and notes in a file, a line per process, when it began and ended."""
    program, notes = folder / "python", folder / "notes"
    program.write_text(
        f'#!/bin/sh\nbegan=$(date +%s.%N)\n{shlex.quote(sys.executable)} "$@"\nstatus=$?\n'
        f"echo $began $(date +%s.%N) >> {shlex.quote(str(notes))}\nexit $status\n"
    )
    program.chmod(0o755)
    return str(program), notes


def main(arguments: argparse.Namespace) -> None:
    """Print the launcher's share and a run's parts."""
    config = RunConfig(
        model=ModelConfig(width=32, layers=2, heads=2, context=64),
        optimizer=OptimizerConfig(peak_lr=0.01, batch_sequences=8),
        data=DataConfig(source="stdlib"),
        tokens=STEPS * 8 * 64,
    )
    runs = [PlannedRun(replace(config, seed=seed)) for seed in range(arguments.runs + 1)]
    data.prepare(config.data)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        # The first one compiles, which the others then do not.
        launch.run("first", runs[:1], folder / "first", RaiseOnFailure(), workers=1)
        python, notes = timed_python(folder)
        before, sys.executable = sys.executable, python
        try:
            start = time.time()
            launch.run("bench", runs[1:], folder / "runs", RaiseOnFailure(), workers=1)
            seconds = time.time() - start
        finally:
            sys.executable = before
        lives = [end - began for began, end in (map(float, line.split()) for line in notes.read_text().splitlines())]
        outcomes = [Outcome.read(folder / "runs" / planned.config.run_id) for planned in runs[1:]]
    starting = statistics.median(outcome.startup_seconds for outcome in outcomes if outcome)
    training = statistics.median(outcome.seconds for outcome in outcomes if outcome)
    life = statistics.median(lives)
    print(
        f"{len(lives)} runs in {seconds:.1f} s; the launcher adds {(seconds - sum(lives)) / len(lives):.2f} s to each"
    )
    print(
        f"a run's process: {life:.2f} s = {starting:.2f} to the first step + {training:.2f} training with validation",
        end="",
    )
    print(f" + {life - starting - training:.2f} the rest")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=8)
    main(parser.parse_args())
