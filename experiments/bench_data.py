"""How fast does text come: batches from disk, batches of made languages, and tokens out of text?

    python experiments/bench_data.py                     # about two minutes
    python experiments/bench_data.py --rounds 3          # fewer repeats

Batches: tokens per second of one process that takes batch after batch, and batches in random order, of the standard
library as bytes, prepared before the clock starts. Beside them the training rate of the smallest and the largest model
of `sweeps/isoflop_cpu.py`, measured in the same process by `lm.train.bench`; the goals are 5M tokens/s and 20 times the
training rate of the largest. Languages: the same for text made on the device. Tokenizing: megabytes of text per second
that `data.prepare` brings from the stored documents to checked tokens, with one and with two processes, their start
included. Every figure is the median of several rounds. For batches and languages a second is one of processor time, of
all threads of the process together, so that a busy machine does not matter; elsewhere it is one on the clock.

Outcome (2026-11, two nearly idle cores of an AMD EPYC, --rounds 3), million tokens per second:

    batch                      16 x 128    64 x 256  32 x 2,048
    stdlib, in order            245         717       2,272       goal 5
    stdlib, at random            18.9       100         558       goal 5
    zipf-facts                   11.0        37          65
    hidden-markov                 4.7        13          12
    tasks                         4.8        14          12

On the clock and placed on the device: 13.0 beside the .0123 that the largest model (691k parameters) trains on, 1,058
times; 17.7 beside .136 for the smallest (10.8k), 131 times: goal 20. Tokenizing, million bytes per second with one and
with two processes: BPE of 4,096 1.6 and 3.2; bytes 37.8 and 21.5, which end before a second process has started.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from lmscale.lm.devices import machine
from lmscale.study import sweep

SWEEP = Path(__file__).resolve().parents[1] / "sweeps" / "isoflop_cpu.py"
SHAPES = ((128, 16), (256, 64), (2048, 32))
"""Context and sequences of a batch."""
LANGUAGES = ("zipf-facts", "hidden-markov", "tasks")
SECONDS = 0.5
"""How long a round lasts."""
BPE = "bpe:4096"


def rate(amount: int, work: Callable[[int], object], rounds: int) -> float:
    """`amount` per second of processor time of `work(t)`, t = 0, 1, ...: the median of so many rounds."""
    rates, t = [], 0
    for _ in range(rounds + 1):
        start, before = time.process_time(), t
        while (spent := time.process_time() - start) < SECONDS:
            work(t)
            t += 1
        rates.append(amount * (t - before) / spent)
    return statistics.median(rates[1:])  # the first also compiles and brings the file into memory


def batches(source: str, rounds: int) -> Iterator[str]:
    """Rows for one source: batches in their order, and in any."""
    import jax

    from lmscale.core.config import DataConfig
    from lmscale.lm import data

    tokens = data.prepare(DataConfig(source=source))
    anywhere = np.random.default_rng(0).integers(0, 10**6, 10**5).tolist()
    for context, sequences in SHAPES:
        order, amount = data.Batches(tokens, context, sequences, seed=0), context * sequences

        def take(t: int, order: data.Batches = order) -> None:
            jax.block_until_ready(order[t])

        following = rate(amount, take, rounds)
        random = rate(amount, lambda t: take(anywhere[t % len(anywhere)]), rounds)
        shape = f"{sequences} x {context:,}"
        yield f"{source:<24} {shape:>12} {following / 1e6:>12.1f} {random / 1e6:>12.1f}"


def training() -> Iterator[str]:
    """Rows for the smallest and the largest model of the sweep: how fast they train, and their batches come."""
    from lmscale.core.counting import params_total
    from lmscale.lm.train import bench

    models = {params_total(run.config.model): run.config for run in sweep.plan(sweep.load(SWEEP)).runs}
    for params in (min(models), max(models)):
        speed = bench.measure(models[params])
        shape = f"{models[params].optimizer.batch_sequences} x {models[params].model.context}"
        ratio = speed.data_tokens_per_second / speed.tokens_per_second
        yield (
            f"N = {params:>9,} {shape:>10} {speed.tokens_per_second / 1e6:>12.4f} "
            f"{speed.data_tokens_per_second / 1e6:>12.2f} {ratio:>8.0f}"
        )


def tokenizing(rounds: int) -> Iterator[str]:
    """Rows for both kinds of tokenizer: megabytes per second with one and two processes."""
    from lmscale.core.config import DataConfig
    from lmscale.lm import data
    from lmscale.lm.data import corpora, parallel

    for name in ("bytes", BPE):
        config = DataConfig(tokenizer=name)
        corpus, tokenizer = corpora.prepare(config), data.load_tokenizer(data.prepare(config).manifest)
        cells = []
        for workers in (1, 2):
            seconds = []
            for _ in range(rounds):
                start = time.perf_counter()
                tokens = sum(len(part) for part, _ in parallel.encode_split(corpus, "train", tokenizer, workers))
                seconds.append(time.perf_counter() - start)
            cells.append(corpus.train_bytes / statistics.median(seconds) / 1e6)
        yield f"{name:<10} {cells[0]:>12.1f} {cells[1]:>12.1f} {corpus.train_bytes / tokens:>16.2f}"


def main() -> None:
    """Print one table after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    machine.set_up()
    print("batches, million tokens per second of processor time")
    print(f"{'source':<24} {'batch':>12} {'in order':>12} {'at random':>12}")
    for source in ("stdlib", *(f"synthetic:{name}" for name in LANGUAGES)):
        for line in batches(source, rounds):
            print(line, flush=True)
    print("\ntraining beside its batches, placed on the device, million tokens per second")
    print(f"{'model':<13} {'batch':>10} {'trains':>12} {'batches':>12} {'ratio':>8}")
    for line in training():
        print(line, flush=True)
    print("\ntokenizing, million bytes per second")
    print(f"{'tokenizer':<10} {'1 process':>12} {'2 processes':>12} {'bytes per token':>16}")
    for line in tokenizing(max(1, rounds // 2)):
        print(line, flush=True)


if __name__ == "__main__":
    main()
