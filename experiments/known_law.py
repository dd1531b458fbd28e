"""Does a sweep find the scaling law of languages whose law is known?

    python experiments/known_law.py                     # trains what is missing in runs/, then fits, prints and draws
    python experiments/known_law.py --output figures    # the same; the figure goes there

Zipf facts (`lm.data.languages.zipf_facts`): each fact is a rank x with p(x) ~ x^-1.5 and its one answer. In theory the
excess loss falls as N^-(gamma - 1) = N^-1/2 where the model is what is short and as D^-(1 - 1/gamma) = D^-1/3 where the
data are (Hutter 2021, Michaud 2023, Cabannes 2024). Six model sizes times five lengths, all text fresh. The law L = E +
A/N^alpha + B/D^beta is fitted twice: with all five parameters free, and with E held at what this very validation sample
costs a model that knows everything. Is 1/2 in the 95 % interval of alpha, 1/3 in that of beta, the true E in that of E?
And do facts of one frequency become known at a scale of their own while the mean loss falls smoothly?

Hidden Markov chain (8 states, 16 symbols): four sizes times three lengths. Is the exact entropy in the 95 % interval of
the fitted E?

Rate and batch are one rule for all runs, .006 (N / 1e5)^-1/2 and .56 D^1/2 tokens. It and the ranges of N and D come
from a pilot of 18 runs, whose losses were held against the theory by eye. Intervals: bootstrap over runs.

Cost: 42 runs, 7.7e12 FLOPs: minutes with one process on each of two idle cores, 40 on the two busy ones of the outcome.
Outcome (2026-11, two cores of an AMD EPYC), with 95 % intervals:

    facts, all free   E 0.638 [0.168, 0.649]  alpha 0.29 [0.02, 0.64]  beta 0.64 [0.22, 1.33]   all truths inside
    facts, E held     E 0.642, the truth      alpha 0.35 [0.21, 0.65]  beta 0.64 [0.41, 1.23]   1/2 inside, 1/3 OUTSIDE
    chain, all free   E 2.000 [1.496, 2.022]  the truth is 2.009: inside

With E free this sweep says little: 30 runs over a factor 26 in N and 16 in D. With E known the theory's model exponent
stands and its data exponent does not: the curves are steeper, most at their beginning. The largest model's excess falls
as D^-0.41 over all four doublings of D and as D^-0.32 over the last two; longer runs would have to show whether that is
the theory's 1/3. Two runs of 7.8k parameters lie well above their neighbours, for the rate or by chance.

Facts become known as predicted, each band at a scale of its own. At 59k parameters those of rank 64 to 255 go from 34 %
at 2.5e5 tokens to 96 % at 1e6 and those of rank 256 to 1023 from 3 % at 5e5 to 70 % at 4e6; rarer ones stay at chance,
3 %. The mean excess falls from .068 to .022 meanwhile. Figure: `experiments/outcomes/known_law.svg`.
"""

import argparse
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import lmscale
from lmscale.core.config import DataConfig, ModelConfig, OptimizerConfig, RunConfig, synthetic
from lmscale.core.counting import params_total
from lmscale.core.errors import UserError
from lmscale.study.sweep import Point, Sweep, grid, plan, whole_batches

FACTS = "synthetic:zipf-facts(gamma=1.5, facts=1048576, base=32, answers=32)"
MARKOV = "synthetic:hidden-markov(states=8, symbols=16)"
CONTEXT = {FACTS: 40, MARKOV: 64}
"""Eight facts of four digits and an answer; a chain whose memory has long faded."""
WIDTHS, TOKENS = (8, 12, 16, 24, 32, 48), (2.5e5, 5e5, 1e6, 2e6, 4e6)
BANDS = 4 ** np.arange(9)
"""Ranks at which bands of frequency begin; the last ends there."""


def recipe(source: str, point: Point) -> RunConfig:
    """Two layers, one head for every 16 features, a cosine to zero."""
    spec, context = synthetic.parse(source), CONTEXT[source]
    width, tokens = int(point["width"]), float(point["tokens"])
    model = ModelConfig(width=width, layers=2, heads=max(1, width // 16), vocab=spec.vocab, context=context)
    sequences = max(1, round(0.56 * tokens**0.5 / context))
    rate = 0.006 * (params_total(model) / 1e5) ** -0.5
    return RunConfig(
        model=model,
        data=DataConfig(source=source),
        optimizer=OptimizerConfig(peak_lr=rate, batch_sequences=sequences, beta2=0.98),
        tokens=whole_batches(tokens, sequences * context),
        validation_tokens=320_000,
        validations=1,
    )


SWEEP = Sweep(
    name="known_law_facts",
    question="Does a sweep find the exponents of a language whose law is known?",
    points=grid(width=WIDTHS, tokens=TOKENS),
    recipe=lambda point: recipe(FACTS, point),
)
CHAIN = Sweep(
    name="known_law_chain",
    question="Does a sweep find the entropy of a hidden Markov chain?",
    points=grid(width=(8, 16, 24, 32), tokens=(2.5e5, 1e6, 4e6)),
    recipe=lambda point: recipe(MARKOV, point),
)


def sample(config: RunConfig) -> NDArray[np.int32]:
    """The validation windows [n, C + 1] that every run of a sweep is scored on."""
    from lmscale.lm import data

    return data.ValidationSet(data.prepare(config.data), config.model.context, config.validation_tokens).windows


def floor_nats(windows: NDArray[np.int32]) -> float:
    """What these windows of facts cost, per token, a model that knows everything: the digits of their ranks."""
    from lmscale.lm.data.languages import zipf_facts

    spec = synthetic.parse(FACTS)
    ranks = zipf_facts.ranks(spec, windows)
    return float(-np.log(zipf_facts.probabilities(spec)[ranks - 1]).mean() / (spec.digits + 1))


def known(config: RunConfig, folder: Path, windows: NDArray[np.int32]) -> NDArray[np.float64]:
    """The share of answers, in each of `BANDS`, that the run's last parameters give as the likeliest symbol."""
    import jax

    from lmscale.lm.data.languages import zipf_facts
    from lmscale.lm.devices.sharding import make_mesh
    from lmscale.lm.model.transformer import logits
    from lmscale.lm.train.checkpoint import Checkpoints
    from lmscale.lm.train.step import make_step

    spec = synthetic.parse(FACTS)
    checkpoints = Checkpoints(folder, config.run_id)
    state, _, _ = checkpoints.restore(make_step(config, make_mesh(config.mesh)).state)
    checkpoints.close()
    if state is None:
        raise UserError(f"{folder} holds no checkpoint; delete it, and this script trains the run again")
    best = jax.jit(lambda params, tokens: logits(params, tokens, config.model).argmax(axis=-1))
    answers = np.concatenate([np.asarray(best(state.params, part[:, :-1])) for part in np.split(windows, 8)])
    place = np.arange(spec.digits + 1, windows.shape[1], spec.digits + 1)
    right, ranks = answers[:, place - 1] == windows[:, place], zipf_facts.ranks(spec, windows)
    band = np.digitize(ranks.ravel(), BANDS) - 1
    counted = np.bincount(band, minlength=len(BANDS))
    return (np.bincount(band, weights=right.ravel(), minlength=len(BANDS)) / np.maximum(counted, 1))[: len(BANDS) - 1]


def judged(name: str, fit: Any, quantity: str, truth: float) -> str:
    """One line: the fitted value, its interval, the truth, and whether it lies inside."""
    low, high = fit.interval(quantity, 0.95)
    inside = "inside" if low <= truth <= high else "OUTSIDE"
    return f"{name:<34} {getattr(fit.law, quantity):>8.4f}  [{low:.4f}, {high:.4f}]  {truth:>8.4f}  {inside}"


def facts(runs: Path, folder: Path) -> Iterator[str]:
    """Fit the sweep on facts, draw it, and yield the results line by line."""
    from lmscale.lm.data.languages import zipf_facts
    from lmscale.study import fits
    from lmscale.study.tables import read_table

    table, planned = read_table(runs / SWEEP.name), plan(SWEEP)
    windows = sample(planned.runs[0].config)
    truth, (alpha, beta) = floor_nats(windows), zipf_facts.exponents(synthetic.parse(FACTS))
    free, fixed = fits.loss_law(table), fits.loss_law(table, fixed={"E": truth})
    yield judged("facts, all free: E", free, "E", truth)
    for what, fit in (("all free", free), ("E held", fixed)):
        yield judged(f"facts, {what}: model exponent", fit, "alpha", alpha)
        yield judged(f"facts, {what}: data exponent", fit, "beta", beta)
    yield f"{free}\n\n{fixed}\n"
    yield "loss above the entropy, by parameters (rows) and training tokens (columns)"
    yield " " * 9 + " ".join(f"{tokens:>9,.0f}" for tokens in sorted(table["tokens"][table["width"] == WIDTHS[-1]]))
    for params, rows in table.sort_values("tokens").groupby("params"):
        yield f"{params:>8,.0f} " + " ".join(f"{loss - truth:>9.4f}" for loss in rows["loss_nats"])
    yield "\nanswers known, by rank, of the widest model and of the longest runs"
    yield "width     tokens " + " ".join(f"{f'{low}-{high - 1}':>11}" for low, high in itertools.pairwise(BANDS))
    accuracy = {}
    for run in planned.runs:
        width, tokens = run.config.model.width, run.config.tokens
        if width == WIDTHS[-1] or tokens > 0.9 * TOKENS[-1]:
            shares = known(run.config, runs / SWEEP.name / run.config.run_id, windows)
            yield f"{width:>5} {tokens:>10,} " + " ".join(f"{share:>11.3f}" for share in shares)
            if width == WIDTHS[-1]:
                accuracy[tokens] = shares
    yield str(draw(table, fixed.law, truth, accuracy, folder))


def draw(table: Any, law: Any, truth: float, accuracy: dict[int, NDArray[np.float64]], folder: Path) -> Path:
    """Left: excess loss against D, a line per size. Right: answers known of each band, widest model, against D."""
    from lmscale.study import plots
    from lmscale.study.plots.axes import log_axis

    with plots.style():
        figure, (left, right) = plots.canvas(10, 4.2, panels=2)
        sizes = sorted(table["params"].unique())
        for colour, size in zip(plots.SEQUENCE[::2] + plots.SEQUENCE[-1:], sizes):
            rows = table[table["params"] == size].sort_values("tokens")
            left.plot(rows["tokens"], rows["loss_nats"] - truth, "o", ms=4, color=colour)
            span = np.geomspace(rows["tokens"].min(), rows["tokens"].max(), 50)
            left.plot(span, law.loss(size, span) - truth, "-", lw=1.2, color=colour, label=plots.compact(size))
        left.legend(title="N, law as lines", frameon=False, fontsize=8, title_fontsize=8)
        left.set_ylabel("loss above the entropy, nats per token")
        left.set_title("Mean loss of each run, and the fitted law")
        for number, colour in enumerate(plots.SEQUENCE[:3] + plots.SEQUENCE[4:7] + plots.SEQUENCE[8:]):
            shares = [accuracy[tokens][number] for tokens in sorted(accuracy)]
            right.plot(sorted(accuracy), shares, "o-", ms=4, lw=1.4, color=colour, label=f"{BANDS[number]:,}")
        right.legend(title="facts from rank", frameon=False, fontsize=8, title_fontsize=8)
        right.set_ylabel(f"answers known, N = {plots.compact(max(sizes))}")
        right.set_title("Each band of facts has its own scale")
        log_axis(left, "y", "plain", 6)
        for ax in (left, right):
            log_axis(ax, "x", "compact", 6)
            ax.set_xlabel("training tokens D, all fresh")
        return plots.save(figure, folder / "known_law.svg")


def chain(runs: Path) -> Iterator[str]:
    """Fit the sweep on the hidden Markov chain."""
    from lmscale.lm.data import languages
    from lmscale.study import fits
    from lmscale.study.tables import read_table

    fit = fits.loss_law(read_table(runs / CHAIN.name))
    yield judged("chain: E", fit, "E", float(languages.entropy_nats(synthetic.parse(MARKOV), CONTEXT[MARKOV]) or 0))
    yield f"{fit}\n"


def main() -> None:
    """Train, fit, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder that holds one folder per sweep")
    parser.add_argument("--output", type=Path, default=Path("figures"), help="folder of the figure")
    args = parser.parse_args()
    for sweep in (SWEEP, CHAIN):
        lmscale.run(sweep, args.runs, force=True)
    print(f"\n{'':<34} {'fitted':>8}  {'95 % interval':<16}  {'truth':>8}")
    for line in (*facts(args.runs, args.output), *chain(args.runs)):
        print(line, flush=True)


if __name__ == "__main__":
    main()
