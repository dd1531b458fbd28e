"""How long does `lmscale status` take on a sweep of ten thousand runs?

    python experiments/bench_status.py                  # makes 10,000 run folders, reads them, removes them: a minute
    python experiments/bench_status.py --runs 1000

The folders are made as a sweep half done leaves them: 60 % finished, 2 % diverged, 1 % failed, 7 % interrupted with
metrics and an ended attempt, 30 % not begun. Timed is the whole command, from the start of Python to its last line,
the median of five, with the folders in the system's cache; over a network the reading of files adds its round trips.
Cost: 1 CPU core. Outcome (2026-11, two idle cores of an AMD EPYC): 10,000 runs in .80 s (.78 to .83); goal 2 s.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from lmscale.core.config import ModelConfig, OptimizerConfig, RunConfig
from lmscale.core.counting import count
from lmscale.core.plans import PlannedRun, write_plan

RUN = RunConfig(
    model=ModelConfig(width=64, layers=4, heads=4, context=128),
    optimizer=OptimizerConfig(peak_lr=0.01, batch_sequences=8),
    tokens=8 * 128 * 10_000,
)


def make(folder: Path, number: int) -> None:
    """A sweep of `number` runs in `folder`, half done."""
    runs = [PlannedRun(replace(RUN, seed=seed)) for seed in range(number)]
    write_plan(folder, "many", runs)
    counts = count(RUN)
    outcome = {
        "state": "finished", "reason": "", "loss_nats": 2.5, "loss_stderr": 0.01, "params": counts.params,
        "tokens": counts.tokens, "flops": counts.flops, "seconds": 100.0, "startup_seconds": 5.0,
        "tokens_per_second": 1e5, "mfu": 0.3, "device": "cpu", "loss_by_position_nats": [3.0] * 8,
    }  # fmt: skip
    row = {"step": 1, "tokens": 1024, "flops": 1e9, "loss_nats": 3.0, "tokens_per_second": 1e5, "mfu": 0.3}
    attempt = {"holder": None, "end": {"status": 75, "reason": "stopped", "at": ""}}
    for place, run in enumerate(runs):
        at, home = place % 100, folder / run.config.run_id
        if at >= 70:
            continue
        home.mkdir()
        (home / "config.json").write_text(json.dumps(run.config.to_json()))
        (home / "metrics.jsonl").write_text("".join(json.dumps({**row, "step": step}) + "\n" for step in range(200)))
        (home / "attempts").mkdir()
        (home / "attempts" / "0001.json").write_text(json.dumps(attempt))
        if at < 62:
            state = "finished" if at < 60 else "diverged"
            (home / "outcome.json").write_text(json.dumps({**outcome, "run_id": run.config.run_id, "state": state}))
        elif at < 63:
            (home / "failed.json").write_text(json.dumps({"reason": "exit status 3", "log": []}))


def main() -> None:
    """Make, time, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=10_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "many"
        make(folder, arguments.runs)
        times, used = [], []
        for _ in range(5):
            began = time.perf_counter()
            command = ["bash", "-c", f'TIMEFORMAT="%U %S"; time {sys.executable} -m lmscale status {folder}']
            status = subprocess.run(command, capture_output=True, text=True, check=True)
            times.append(time.perf_counter() - began)
            used.append(sum(map(float, status.stderr.split()[-2:])))
        print("\n".join(status.stdout.splitlines()[-4:]))
        print(
            f"{arguments.runs:,} runs: {statistics.median(times):.2f} s ({min(times):.2f} to {max(times):.2f}), "
            f"{statistics.median(used):.2f} s of a core"
        )


if __name__ == "__main__":
    main()
