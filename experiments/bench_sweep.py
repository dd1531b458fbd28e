"""How much of the machine does a whole sweep use: useful FLOP/s over the matmul peak, everything included?

    python experiments/bench_sweep.py                             # all of sweeps/isoflop_cpu.py, two mixes: 40 minutes
    python experiments/bench_sweep.py --workers 2                 # what the launcher does by itself: 16 minutes
    python experiments/bench_sweep.py --budgets 2.5e11            # its smallest budget only: a minute
    python experiments/bench_sweep.py --runs 3 --workers 2        # its three longest runs, one mix

Each mix of workers (runs at once) and cores per worker trains the sweep from nothing by the launcher that `lmscale run`
uses, in a folder of its own and with an empty cache of compiled programs, the corpus prepared. Useful FLOPs are the
exact training FLOPs of the finished runs; the time is the launcher's, with the start of every process, imports,
compilation, validation and the outcome. The peak is that of a float32 matrix product on all cores, the best of what was
measured before and after each mix. Cost: 2 CPU cores.

Outcome (2026-11, two idle cores of an AMD EPYC): with a run on each core 28 runs, 7.0e13 FLOPs, in 940 s: .349 of the
peak of 2.14e11 FLOP/s, 87 % of the time in steps and validation, 7.9 s of start-up per run; goal .30. `lmscale plan`
had predicted 1,147 s from `lmscale bench --sweep sweeps/isoflop_cpu.py`, 22 % too much. One run at a time on both cores
was stopped after 13 minutes, at the seventh of the 28.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from lmscale.core.files import cache_dir
from lmscale.core.plans import PlannedRun
from lmscale.core.results import Outcome
from lmscale.lm import data
from lmscale.study import launch, sweep
from lmscale.study.launch.watchers import RaiseOnFailure

SWEEP = "sweeps/isoflop_cpu.py"


def peak() -> float:
    """FLOP/s of a float32 matrix product on all cores of this process."""
    from lmscale.lm.devices import machine

    return machine.matmul_peak()


def fresh_cache(folder: Path) -> None:
    """Point LMSCALE_CACHE to `folder`, with the prepared corpora and tokens of the cache before and no programs."""
    before = cache_dir().resolve()
    for name in ("corpora", "tokens", "tokenizers"):
        if (before / name).is_dir():
            (folder / name).symlink_to(before / name)
    os.environ["LMSCALE_CACHE"] = str(folder)


def mix(runs: Sequence[PlannedRun], workers: int) -> tuple[float, list[Outcome]]:
    """Wall time of training `runs` by so many workers, and their outcomes."""
    cache = os.environ.get("LMSCALE_CACHE")
    with tempfile.TemporaryDirectory() as place:
        folder, programs = Path(place) / "runs", Path(place) / "cache"
        programs.mkdir()
        try:
            fresh_cache(programs)
            start = time.perf_counter()
            launch.run("bench", runs, folder, RaiseOnFailure(), workers=workers)
            seconds = time.perf_counter() - start
        finally:
            os.environ.pop("LMSCALE_CACHE")
            if cache is not None:
                os.environ["LMSCALE_CACHE"] = cache
        outcomes = [Outcome.read(folder / planned.config.run_id) for planned in runs]
    return seconds, [outcome for outcome in outcomes if outcome is not None]


def chosen(file: Path, budgets: Sequence[float] | None, count: int | None) -> list[PlannedRun]:
    """The runs of a sweep's plan that were asked for, the longest `count` of them."""
    runs = [run for run in sweep.plan(sweep.load(file)).runs if budgets is None or run.flops_budget in budgets]
    if not runs:
        sys.exit(f"{file} has no run of these budgets: {budgets}")
    return sorted(runs, key=lambda run: -run.config.tokens * run.config.model.width)[:count]


def main(arguments: argparse.Namespace) -> None:
    """Print a row for every mix."""
    runs = chosen(arguments.sweep, arguments.budgets, arguments.runs)
    data.prepare(runs[0].config.data)
    rows, peaks = [], [peak()]
    for workers in arguments.workers:
        rows.append((workers, *mix(runs, workers)))
        peaks.append(peak())
        print(f"{workers} workers: {rows[-1][1]:.0f} s", file=sys.stderr, flush=True)
    cores = len(launch.slots())
    flops = sum(outcome.flops for outcome in rows[0][2])
    print(f"{len(runs)} runs, {flops:.3g} useful FLOPs, matmul peak {max(peaks):.3g} FLOP/s on {cores} cores")
    print("workers x cores   seconds   useful/peak   in steps and validation   starting, per run")
    for workers, seconds, outcomes in rows:
        inside = sum(outcome.seconds for outcome in outcomes) / workers / seconds
        startup = sum(outcome.startup_seconds for outcome in outcomes) / len(outcomes)
        shared = f"{workers} x {cores / workers:g}"
        print(
            f"{shared:15}   {seconds:7.0f}   {flops / seconds / max(peaks):11.3f}   {inside:23.0%}   {startup:12.1f} s"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweep", type=Path, default=Path(SWEEP))
    parser.add_argument("--budgets", type=float, nargs="+", help="only the runs of these compute budgets")
    parser.add_argument("--runs", type=int, help="only so many, the longest")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="runs at once, one mix for each number")
    main(parser.parse_args())
