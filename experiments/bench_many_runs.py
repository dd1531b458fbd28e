"""How long does each verb take on a sweep of ten thousand runs?

    python experiments/bench_many_runs.py                            # 2,000 and 10,000 runs: ten minutes
    python experiments/bench_many_runs.py --runs 10000 --verbs status table fit report plan plan-finished
    python experiments/bench_many_runs.py --runs --verbs fit-rows import-line      # one table of 200,000 rows, one line
    python experiments/bench_many_runs.py --runs 2000 --verbs table fit
    python experiments/bench_many_runs.py --runs 2000 --keep FOLDER  # makes the runs in FOLDER, or finds them there

Nothing is trained: a folder holds the files that a sweep leaves (its plan, and config, metrics, attempt, outcome and
scores of every run), with losses by a known law and noise of .004 nats. Twenty sizes and five seeds at each of RUNS /
100 budgets; 96 % of the runs have finished, 2 % diverged, 1 % failed, 1 % were not begun; the largest budget is held
out.
`plan` prices a sweep of 500 runs, not begun and finished. `fit-rows` fits a table of 200,000 rows, `import-line` reads
a JSON table with one line of 400 MB. Timed is the whole command, from the start of Python to its last line, once, with
the folders in the system's cache and Python's compiled files on disk.

Outcome (29 November 2026, two idle cores of an AMD EPYC; seconds on the clock, seconds of a core, peak memory):

    10,000 runs  status          0.9    0.9   .10 GB     wanted: 1 s
                 table           3.7    3.8   .24 GB     wanted: 5 s
                 fit             8.2    9.6   .35 GB     wanted: 10 s
                 emergence      11.5   11.7   .45 GB
                 report         29.8   31.1   .70 GB     wanted: 30 s
    500 runs     plan            0.9    1.1   .14 GB     wanted: 2 s
                 plan-finished   1.2    1.3   .14 GB
    400 MB line  import-line    10.0   10.0  1.61 GB     in linear time: 100 MB take a quarter

A second and third time, two hours later: status 1.0 s, table 2.7, fit 8.4, emergence 13.4, report 35.8 and 26.3. At a
load of 2 on the same day they took nearly twice as long. 200,000 rows are fitted in .61 GB, wanted: 1 GB (367 s,
548 of a core, at a load of 1).
"""

import argparse
import compileall
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

import numpy as np

import lmscale
from lmscale import Sweep, isoflop
from lmscale.core.config import DataConfig, ModelConfig, OptimizerConfig, RunConfig
from lmscale.core.counting import Counts, count, flops_per_token
from lmscale.core.plans import write_plan
from lmscale.core.results import Outcome
from lmscale.study.sweep.runs import whole_batches

SIZES, SEEDS, PLANNED = 20, 5, 500
NOISE_NATS = 0.004
METRICS_ROWS = 64
TASKS, ITEMS = ("copy", "sort", "add"), 500
SWEEP_FILE = """from bench_many_runs import sweep

SWEEP = sweep({name!r}, {runs})
"""
VERBS = {
    "status": ("status", "{runs}"),
    "table": ("table", "{runs}", "--output", "{place}/table.csv"),
    "fit": ("fit", "{runs}"),
    "emergence": ("emergence", "{runs}"),
    "report": ("report", "{runs}", "--output", "{place}/report"),
    "plan": ("plan", "{place}/planned.py", "--runs", "{place}/none"),
    "plan-finished": ("plan", "{place}/planned.py", "--runs", "{place}"),
}
ROWS, LINE_MB = 200_000, 400
TABLES = {
    "fit-rows": ("fit", "{place}/rows.csv"),
    "import-line": ("import", "{place}/line.jsonl", "--output", "{place}/line.csv"),
}
"""Verbs that read one table, whatever the number of runs."""


def sweep(name: str, runs: int) -> Sweep:
    """`runs` points, at as many budgets as that takes."""
    budgets = np.geomspace(1e13, 1e16, runs // (SIZES * SEEDS))
    points = isoflop(budgets, centre=lambda flops: 1e5 * (flops / 2e12) ** 0.45, sizes=SIZES, seeds=range(SEEDS))
    return Sweep(name=name, points=points, recipe=recipe, held_out=lambda point: point["flops"] >= budgets[-1])


def recipe(point: dict[str, float]) -> RunConfig:
    """A shape whose width makes N, trained on the tokens that its budget buys."""
    width = 2 * max(1, round((point["params"] / 48) ** 0.5 / 2))
    model = ModelConfig(width=width, layers=4, heads=1, context=128)
    optimizer = OptimizerConfig(peak_lr=0.01, batch_sequences=8)
    tokens = whole_batches(point["flops"] / flops_per_token(model), optimizer.batch_sequences * model.context)
    data = DataConfig(max_epochs=1e6)
    return RunConfig(model=model, optimizer=optimizer, tokens=tokens, data=data, seed=int(point["seed"]))


def law(params: float, tokens: float) -> float:
    """Nats per token."""
    return 1.7 + 400 / params**0.34 + 410 / tokens**0.28


def make(folder: Path, number: int) -> None:
    """The files of a sweep whose `number` runs have ended."""
    runs = lmscale.plan(sweep(folder.name, number)).runs
    write_plan(folder, folder.name, runs)
    random = np.random.default_rng(0)
    for place, run in enumerate(runs):
        if place % 100 == 99:
            continue
        home, counts = folder / run.config.run_id, count(run.config)
        home.mkdir()
        write(home / "config.json", run.config.to_json())
        loss = law(counts.params, counts.tokens) + NOISE_NATS * random.standard_normal()
        rows = [metrics(counts, loss, step, run.config.steps) for step in steps(run.config.steps)]
        (home / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (home / "attempts").mkdir()
        write(home / "attempts" / "0001.json", {"holder": None, "end": {"status": 0, "reason": "", "at": ""}})
        if place % 100 == 98:
            write(home / "failed.json", {"reason": "exit status 3", "log": []})
            continue
        write(home / "outcome.json", asdict(outcome(run.config, counts, loss, diverged=place % 100 >= 96)))
        scores = [row for task in TASKS for row in task_scores(task, run.config, counts, loss, random)]
        (home / "scores.jsonl").write_text("".join(json.dumps(row) + "\n" for row in scores))


def write(path: Path, value: object) -> None:
    """As `lmscale.core.files` writes it, without waiting for the disk."""
    path.write_text(json.dumps(value, indent=1) + "\n")


def steps(last: int) -> list[int]:
    """Steps with a row of metrics."""
    return sorted({max(1, last * place // METRICS_ROWS) for place in range(1, METRICS_ROWS + 1)})


def metrics(counts: Counts, loss: float, step: int, last: int) -> dict[str, float]:
    """A row of a run's metrics, with a validation in every eighth."""
    done = step / last
    row = {
        "step": step, "tokens": int(counts.tokens * done), "flops": int(counts.flops * done),
        "loss_nats": loss + 3 * (1 - done) ** 3, "learning_rate": 0.01 * done, "grad_norm": 0.5,
        "tokens_per_second": 1e5, "mfu": 0.3,
    }  # fmt: skip
    if step * 8 % last == 0:
        row |= {"validation_loss_nats": row["loss_nats"], "validation_stderr": 0.004}
    return row


def outcome(config: RunConfig, counts: Counts, loss: float, diverged: bool) -> Outcome:
    """What a run achieved."""
    return Outcome(
        run_id=config.run_id, state="diverged" if diverged else "finished", reason="its loss rose" * diverged,
        loss_nats=loss, loss_stderr=0.004, bits_per_byte=loss / 0.7, loss_by_position_nats=(loss,) * 7,
        train_loss_nats=loss, validation_tokens=131_072, params=counts.params,
        params_non_embedding=counts.params_non_embedding, tokens=counts.tokens, flops=counts.flops,
        flops_6n=counts.flops_6n, unique_tokens=counts.tokens, epochs=0.5, data_fingerprint="5f0c9a7e21",
        seconds=counts.flops / 6e10, startup_seconds=5.0, tokens_per_second=1e5, mfu=0.3,
        matmul_peak_flops_per_second=2e11, device="cpu", versions={"jax": "0", "lmscale": "0", "python": "3"},
    )  # fmt: skip


def task_scores(task: str, config: RunConfig, counts: Counts, loss: float, random: np.random.Generator) -> list[dict]:
    """A hard and a graded score that rise with scale."""
    share = 1 / (1 + np.exp(-2 * (np.log10(counts.flops) - 14 - TASKS.index(task) / 2)))
    correct = int(random.binomial(ITEMS, 0.25 + 0.75 * share))
    common = {
        "run_id": config.run_id, "step": config.steps, "params": counts.params, "tokens": counts.tokens,
        "flops": float(counts.flops), "loss": loss, "task": task, "shots": 0, "n": ITEMS, "higher_is_better": True,
    }  # fmt: skip
    error = float(np.sqrt(correct * (ITEMS - correct) / ITEMS**3))
    graded = float(0.25 + 0.75 * share + 0.01 * random.standard_normal())
    return [
        {**common, "metric": "exact_match", "kind": "hard", "score": correct / ITEMS, "stderr": error, "chance": 0.25},
        {**common, "metric": "probability", "kind": "graded", "score": graded, "stderr": 0.01, "chance": 0.25},
    ]


def write_rows(path: Path) -> None:
    """A table of `ROWS` rows, each of another N and D."""
    random = np.random.default_rng(0)
    params, tokens = (np.exp(random.uniform(*np.log(ends), ROWS)).round() for ends in ((1e6, 1e9), (1e8, 1e11)))
    losses = law(params, tokens) + NOISE_NATS * random.standard_normal(ROWS)
    with path.open("w") as file:
        file.write("run,params,tokens,loss_nats\n")
        file.writelines(f"r{i},{n:.0f},{d:.0f},{loss}\n" for i, (n, d, loss) in enumerate(zip(params, tokens, losses)))


def write_line(path: Path) -> None:
    """A table of two rows, of which one has a text of `LINE_MB`."""
    with path.open("w") as file:
        for run, note in (("a", 1), ("b", LINE_MB * 10**6)):
            file.write(f'{{"run": "{run}", "params": 1e6, "tokens": 1e8, "loss_nats": 3, "note": "')
            file.writelines("x" * 10**6 for _ in range(note // 10**6))
            file.write('"}\n')


def timed(words: list[str]) -> tuple[float, float, float]:
    """Seconds on the clock and of a core, and the peak of memory in GB, of a call of `lmscale`."""
    search = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment, command = {**os.environ, "PYTHONPATH": search}, [sys.executable, "-m", "lmscale", *words]
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # a user's Python compiles lmscale once, and not at every start
    began = time.perf_counter()
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as call:
        _, status, usage = os.wait4(call.pid, 0)
        call.returncode = os.waitstatus_to_exitcode(status)
    if call.returncode:
        raise SystemExit(f"lmscale {' '.join(words)} ended with status {call.returncode}")
    return time.perf_counter() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**20


def main() -> None:
    """Make, time, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, nargs="*", default=[2_000, 10_000])
    parser.add_argument("--verbs", nargs="+", choices=[*VERBS, *TABLES], default=[*VERBS, *TABLES])
    parser.add_argument("--keep", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() if arguments.keep is None else nullcontext(arguments.keep) as place:
        Path(place).mkdir(parents=True, exist_ok=True)
        print(f"{'runs':>7}  {'verb':13}  {'clock':>8}  {'core':>8}  {'memory':>8}", flush=True)
        (Path(place) / "planned.py").write_text(SWEEP_FILE.format(name="planned", runs=PLANNED))
        for number, name in [(PLANNED, "planned"), *((number, f"runs_{number}") for number in arguments.runs)]:
            if not (folder := Path(place) / name).exists():
                with ProcessPoolExecutor(1) as apart:  # the peak of this process counts as its children's
                    apart.submit(make, folder, number).result()
        compileall.compile_dir(Path(lmscale.__file__).parent, quiet=1)
        if "fit-rows" in arguments.verbs:
            write_rows(Path(place) / "rows.csv")
        if "import-line" in arguments.verbs:
            write_line(Path(place) / "line.jsonl")
        cases = [(number, verb, VERBS[verb]) for number in arguments.runs for verb in VERBS if verb in arguments.verbs]
        cases += [(rows, verb, TABLES[verb]) for rows, verb in zip((ROWS, 2), TABLES) if verb in arguments.verbs]
        for number, verb, words in cases:
            folder = Path(place) / f"runs_{number}"
            clock, core, memory = timed([word.format(runs=folder, place=place) for word in words])
            print(f"{number:7,}  {verb:13}  {clock:6.1f} s  {core:6.1f} s  {memory:5.2f} GB", flush=True)


if __name__ == "__main__":
    main()
