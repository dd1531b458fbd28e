"""What is a datastore worth to small models on a CPU, and do they retrieve better than BM25?

    python experiments/retrieval_cpu.py                     # trains what is missing in runs/, then measures and draws
    python experiments/retrieval_cpu.py --output figures    # the same; the page and the figure go there

`sweeps/retrieval_cpu.py`: nine byte models, 11k to 117k parameters on 0.5M to 2M bytes of source code, each measured
with datastores of R = 0 to 1M bytes of the same code: by kNN interpolation (Khandelwal 2020, arXiv 1911.00172), and
with a retrieved passage in the context (Ram 2023, arXiv 2302.00083). No evaluated module is nearly copied in a
datastore. To each of the two the law L0 + A/N^alpha + B/D^beta + C/(R + 1)^gamma is fitted (arXiv 2604.00715). By it:
how many times as large a model without retrieval has the loss that the largest datastore gives, beside how many times
as many FLOPs a token then costs.

Quality of retrieval has a key of its own: the body of a function of a held-out module, and its docstring among those of
all 241 of them that have one; recall@1, recall@10 and the mean reciprocal rank (MRR) beside those of BM25.

Cost: 4.0e12 training FLOPs, on two cores that many others shared. Outcome (2026-11, two cores of an AMD EPYC, one seed,
32 windows and 32 documents; experiments/outcomes/retrieval_cpu.svg):

    loss, nats per byte        R = 0    16k      66k      262k     1.05M
    kNN, N 11k, D 2M           1.841    1.818    1.752    1.692    1.549
    kNN, N 33k, D 2M           1.570    1.563    1.543    1.510    1.401
    kNN, N 117k, D 2M          1.388    1.381    1.373    1.360    1.285
    passage, N 117k, D 2M      1.6119   1.6107   1.6102   1.6102   1.6103

    kNN          gains .10 to .38 nats with 1.05M bytes, the more the smaller the model and the shorter its training:
                 the smallest model with them (1.549) is better than one of three times its size (1.570), at 500 to
                 1,100 times the FLOPs of a byte, since search is exact
    law          does not fit: the last fourfold of R gains most of all, where a power law flattens. L0 rests on 0,
                 rms residual .047; gamma = .008 [.006, .019]. So the equal sizes by it, 1.9 to 6.1 times, are no
                 result. In the first run nearly half of the last gain comes from 3 of 32 windows, of a codec and of a
                 table of names: modules like theirs enter the datastore, which are no near-duplicates
    passage      changes nothing: -.003 to .007 nats in nine runs; passages of other segments do as well within .003.
                 Models that have hardly learned to look back do not read it
    docstrings   recall@10 is .07 to .15 (± .02), chance .04, BM25 .66; MRR .03 to .06, BM25 .41. The mean of the middle
                 layer of such models is no embedding
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console

import lmscale
from lmscale import fits, plots
from lmscale.core.counting import flops_per_token_forward
from lmscale.core.files import write_text
from lmscale.core.quantities import quantity
from lmscale.core.run_identity import read_config
from lmscale.lm.devices import machine
from lmscale.lm.eval.tasks import Shots
from lmscale.lm.use import score_tasks
from lmscale.study.emergence.folder import read_scores

if TYPE_CHECKING:
    import pandas as pd

    from lmscale.study.fits import LossLaw

SWEEP = Path(__file__).resolve().parents[1] / "sweeps" / "retrieval_cpu.py"
KINDS = {"retrieval:knn": "kNN interpolation", "retrieval:passages": "a passage in the context"}
DOCSTRINGS = "retrieval:docstrings"
RESAMPLES = 200
COLUMNS = ["run_id", "params", "tokens", "datastore_tokens", "datastore_flops", "retrieval_flops", "flops"]


def rank_docstrings(folder: Path) -> None:
    """Score the runs on docstrings that have not been."""
    machine.set_up()
    table = read_scores(folder)
    ranked = set(table["run_id"][table["task"] == DOCSTRINGS])
    for run_id in sorted(set(table["run_id"]) - ranked):
        score_tasks.show(folder / run_id, [DOCSTRINGS], [Shots(0)], None, Console(quiet=True))


def losses_of(table: "pd.DataFrame", kind: str) -> "pd.DataFrame":
    """One row for each run and size of the datastore; the rows of a run share its noise."""
    rows = table[table["task"].str.startswith(f"{kind},")]
    losses = rows[COLUMNS].assign(loss_nats=rows["score"], stderr=rows["stderr"], group=rows["run_id"])
    return losses.sort_values(["params", "tokens", "datastore_tokens"]).reset_index(drop=True)


def loss_lines(losses: "pd.DataFrame") -> Iterator[str]:
    """Losses over models (rows) and datastores (columns) as Markdown."""
    wide = losses.pivot_table(index=["params", "tokens"], columns="datastore_tokens", values="loss_nats")
    yield f"| N | D | {' | '.join(f'R = {quantity(size)}' for size in wide.columns)} |"
    yield "|---" * (len(wide.columns) + 2) + "|"
    for (params, tokens), row in wide.iterrows():
        cells = " | ".join("" if np.isnan(value) else f"{value:.4f}" for value in row)
        yield f"| {quantity(params)} | {quantity(tokens)} | {cells} |"


def equal_size(fit: "LossLaw", params: float, tokens: float, datastore: float) -> float:
    """How many times as large a model without a datastore has the same loss by the law; infinite where none has."""
    law = fit.law
    gain = law.loss(params, tokens, 0.0) - law.loss(params, tokens, datastore)
    left = law.A * params**-law.alpha - gain
    return float((left / law.A) ** (-1 / law.alpha) / params) if left > 0 else float("inf")


def worth_lines(fit: "LossLaw", losses: "pd.DataFrame", folder: Path) -> Iterator[str]:
    """What the largest datastore is worth to each model, and what it costs for every token."""
    yield "| N | D | R | gain, nats | equal N, times [95 %] | FLOPs of a token, times | FLOPs of the datastore |"
    yield "|---" * 7 + "|"
    for _, rows in losses.groupby("run_id", sort=False):
        first, last = rows.iloc[0], rows.iloc[-1]
        point = float(last["params"]), float(last["tokens"]), float(last["datastore_tokens"])
        bounds = "no interval"  # where too few resamples of the law converged
        if fit.samples is not None:
            low, high = fit.interval(lambda one, point=point: equal_size(one, *point))
            bounds = f"{low:.2f}, {high:.2f}"
        forward = flops_per_token_forward(read_config(folder / str(last["run_id"])).model)
        yield (
            f"| {quantity(point[0])} | {quantity(point[1])} | {quantity(point[2])} "
            f"| {first['loss_nats'] - last['loss_nats']:.4f} | {equal_size(fit, *point):.2f} [{bounds}] "
            f"| {1 + last['retrieval_flops'] / forward:.3g} | {last['datastore_flops']:.3g} |"
        )


def ranking_lines(table: "pd.DataFrame") -> Iterator[str]:
    """Recalls and reciprocal rank of every model, beside chance and BM25."""
    rows = table[table["task"] == DOCSTRINGS]
    wide = rows.pivot_table(index=["params", "tokens"], columns="metric", values=["score", "stderr"])
    metrics = list(dict.fromkeys(rows["metric"]))
    yield f"| N | D | {' | '.join(metrics)} |"
    yield "|---" * (len(metrics) + 2) + "|"
    for (params, tokens), row in wide.iterrows():
        cells = " | ".join(f"{row['score', name]:.3f} ± {row['stderr', name]:.3f}" for name in metrics)
        yield f"| {quantity(params)} | {quantity(tokens)} | {cells} |"
    for name in ("bm25", "chance"):
        values = rows.drop_duplicates("metric").set_index("metric")[name]
        yield f"| {name} | | {' | '.join(f'{values[metric]:.3f}' for metric in metrics)} |"


def page(table: "pd.DataFrame", by_kind: "dict[str, tuple[pd.DataFrame, LossLaw]]", folder: Path) -> str:
    """Everything as Markdown."""
    lines = ["# Retrieval by byte models on a CPU", ""]
    for kind, (losses, fit) in by_kind.items():
        lines += [f"## Loss with {KINDS[kind]}, nats per byte", "", *loss_lines(losses), ""]
        lines += ["```", str(fit), "```", "", *worth_lines(fit, losses, folder), ""]
    lines += ["## The docstring of a function by its body", "", *ranking_lines(table)]
    return "\n".join(lines) + "\n"


def draw(by_kind: "dict[str, tuple[pd.DataFrame, LossLaw]]", file: Path) -> None:
    """The loss against the size of the datastore, one line for each model, with the law."""
    from matplotlib.figure import Figure

    with plots.style():
        figure = Figure(figsize=(4.6 * len(by_kind), 4.0), layout="constrained")
        for number, (kind, (losses, fit)) in enumerate(by_kind.items(), 1):
            ax = figure.add_subplot(1, len(by_kind), number)
            sizes = sorted(set(losses["params"]))
            for (params, tokens), rows in losses.groupby(["params", "tokens"]):
                colour = plots.SEQUENCE[3 * sizes.index(params) % len(plots.SEQUENCE)]
                grid = np.geomspace(1, 1 + rows["datastore_tokens"].max(), 60)
                dashed = "-" if tokens == losses["tokens"].max() else "--"
                ax.plot(grid, fit.law.loss(float(params), float(tokens), grid - 1), dashed, color=colour, lw=1)
                label = f"N = {quantity(params)}" if dashed == "-" else None
                ax.errorbar(
                    1 + rows["datastore_tokens"], rows["loss_nats"], rows["stderr"],
                    fmt="o", ms=4, color=colour, label=label,
                )  # fmt: skip
            ax.set(xscale="log", xlabel="R + 1, tokens of the datastore", title=KINDS[kind])
            if number == 1:
                ax.set_ylabel("loss, nats per byte")
                ax.legend(fontsize="x-small", title="dashed: the shorter runs")
        plots.save(figure, file)


def main(runs: Path, output: Path) -> None:
    """Train, measure, fit, print, draw."""
    folder = lmscale.run(SWEEP, runs)
    rank_docstrings(folder)
    table = read_scores(folder)
    by_kind = {}
    for kind in KINDS:
        losses = losses_of(table, kind)
        by_kind[kind] = losses, fits.loss_law(losses, "retrieval", resamples=RESAMPLES)
    text = page(table, by_kind, folder)
    print(text)
    write_text(output / "retrieval_cpu.md", text)
    draw(by_kind, output / "retrieval_cpu.svg")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder that holds one folder per sweep")
    parser.add_argument("--output", type=Path, default=Path("figures"), help="folder of the page and the figure")
    arguments = parser.parse_args()
    main(arguments.runs, arguments.output)
