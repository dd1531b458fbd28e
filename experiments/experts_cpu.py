"""What are experts worth at equal FLOPs on two CPU cores, and how many should a memory hold?

    python experiments/experts_cpu.py                     # trains what is missing in runs/, then fits, prints, draws
    python experiments/experts_cpu.py --output figures

`sweeps/experts_cpu.py`: byte models of three widths, each dense and with 2, 4 and 8 experts of which a token passes
one, on 1M, 2M and 4M bytes of source code; the four models of the largest width, on 4M bytes, are held out. N is the
active parameters throughout. Two laws are fitted to the others and compared on the held-out runs: one in which E
experts make N worth N E^kappa, whatever N and D, and the joint law of Ludziejewski 2025 (arXiv 2502.05172), in which
their worth depends on both. By the first: the dense model of equal loss for each number of experts, and how many
experts a memory should hold at the largest budget of the sweep.

Outcome (2026-11, two cores of an AMD EPYC that many others shared, 40 runs of one seed, 3.0e13 FLOPs in all;
experiments/outcomes/experts_cpu.svg). Losses in nats per byte, N without experts that a token does not pass:

    their worth        kappa = .162 [.092, .234] (95 %): at equal FLOPs 2, 4 and 8 experts are worth a dense model of
                       1.12 [1.07, 1.18], 1.25 [1.14, 1.38] and 1.40 [1.21, 1.63] times N, and take 1.5, 2.6 and 4.8
                       times its memory at width 40
    held out           experts as a size, mean absolute error .62 %, 4 of 4 inside the 95 % interval of one new run; the
                       joint law 1.18 %, 3 of 4: it misses the dense model by 2.7 %
    one exponent       does not fit: the residuals of both laws are smooth, with probability 3e-5 and less than 1e-2 by
                       chance. Experts gain most where models are small: from none to 8, 4M bytes, measured 9.5 % of the
                       loss at width 16, 7.4 % at 24, 5.6 % at 40 and 3.2 % at 64
    in a memory        of one, two, four and eight times that of the largest dense model: 4, 8, 8 and 8 experts at
                       3.2e12 FLOPs, of which the last two leave memory free

One seed: neighbours scatter by about 1 %, and with E at its bound the law says nothing about other budgets.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import lmscale
from lmscale import design, fits, laws, plots
from lmscale.core.quantities import quantity
from lmscale.study.fits import HeldOut, LossLaw
from lmscale.study.plots.axes import end_labels

SWEEP = Path(__file__).resolve().parents[1] / "sweeps" / "experts_cpu.py"
RESAMPLES = 1000
BYTES_PER_PARAM = 4.0
"""A float32 model as it lies in memory, without what training adds."""
UNSATURATED = {"E_start": 1.0001, "E_max": 1e6}
"""With these E^ of the joint law is the number of experts: eight saturate nothing, and cannot show where it would."""
MEMORIES = (1.0, 2.0, 4.0, 8.0)
"""Memory for all experts, in units of what the largest dense model of the sweep takes."""


@dataclass(frozen=True)
class ExpertsAsSize(laws.Law):
    """E experts make N worth N E^kappa: the effective size of Clark 2022 with one exponent for all sizes."""

    E: Any
    A: Any
    B: Any
    alpha: Any
    beta: Any
    kappa: Any

    NAME = "experts-as-size"
    FORMULA = "L = E + A/(N experts^kappa)^alpha + B/D^beta"
    INPUTS = ("params", "tokens", "experts")
    PARAMETERS = (
        laws.Parameter("E", 1e-6, 20, (0.5, 1.0), log=False),
        laws.Parameter("A", 1e-3, 1e6, (10, 100)),
        laws.Parameter("B", 1e-3, 1e6, (10, 300)),
        laws.Parameter("alpha", 0.02, 2, (0.2, 0.4), log=False),
        laws.Parameter("beta", 0.02, 2, (0.2, 0.4), log=False),
        laws.Parameter("kappa", -0.5, 2, (0.2, 0.5), log=False),
    )

    def loss(self, params: Any, tokens: Any, experts: Any = 1.0) -> Any:
        return self.E + self.A * (params * experts**self.kappa) ** -self.alpha + self.B * tokens**-self.beta


def effective_sizes(fit: LossLaw, table: "pd.DataFrame") -> Iterator[str]:
    """For each width and number of experts, at the greatest length: how many times as large an equal dense model is."""
    yield f"{'width':>5} {'experts':>7} {'N':>8} {'active N':>8}  {'loss':>7}  equal dense N, times the active [95 %]"
    longest = table[table["tokens"] == table.groupby("width")["tokens"].transform("max")]
    for row in longest.sort_values(["width", "experts"]).itertuples():
        point = float(row.params), float(row.experts), float(row.tokens)

        def times(one: LossLaw, point: tuple[float, float, float] = point) -> float:
            return design.effective_dense_params(one.law, *point) / point[0]

        low, high = fit.interval(times)
        yield (
            f"{row.width:5} {row.experts:7} {quantity(row.total):>8} {quantity(row.params):>8}  {row.loss_nats:7.4f}  "
            f"{times(fit):.2f} [{low:.2f}, {high:.2f}]"
        )


def memories(fit: LossLaw, table: "pd.DataFrame") -> Iterator[str]:
    """The best number of experts at the largest budget for memories of one to eight times the largest dense model's."""
    flops = float(table["flops"].max())
    largest = float(table["total"][table["experts"] == 1].max())
    share = _mlp_share(table)
    yield f"{'memory':>8}  experts  active N  {'all N':>8}  {'D':>8}  loss"
    for factor in MEMORIES:
        limits = design.ExpertLimits(memory_bytes=factor * largest * BYTES_PER_PARAM, bytes_per_param=BYTES_PER_PARAM)
        best = design.optimal_experts(
            fit.law,
            flops,
            limits,
            experts=(1, 2, 4, 8),
            compute=fit.compute,
            total=lambda active, experts: design.total_params(active, experts, share),
        )
        yield (
            f"{quantity(factor * largest * BYTES_PER_PARAM):>7}B  {best.experts:7}  {quantity(best.active_params):>8}  "
            f"{quantity(best.total_params):>8}  {quantity(best.tokens):>8}  {best.loss_nats:.4f}"
        )


def _mlp_share(table: "pd.DataFrame") -> float:
    """Share of the MLPs in the active parameters of the largest model, from what one more expert adds."""
    row = table[table["experts"] == table["experts"].max()].sort_values("params").iloc[-1]
    return float((row["total"] / row["params"] - 1) / (row["experts"] - 1))


def draw(fit: LossLaw, table: "pd.DataFrame", checked: HeldOut, file: Path) -> None:
    """The loss against the number of experts for every size and length, with the law; held-out runs open."""
    from matplotlib.figure import Figure

    held_out = {run.run for run in checked.runs}
    with plots.style():
        figure = Figure(figsize=(6.4, 4.4), layout="constrained")
        ax = figure.add_subplot()
        colours = dict(zip(sorted(set(table["width"])), plots.SEQUENCE[::3]))
        labels: list[tuple[float, str, str]] = []
        for (width, tokens), rows in table.sort_values("experts").groupby(["width", "tokens"]):
            colour = colours[width]
            grid = np.geomspace(1, 8, 30)
            size = np.exp(np.interp(np.log(grid), np.log(rows["experts"]), np.log(rows["params"])))
            ax.plot(grid, fit.law.loss(size, float(tokens), grid), color=colour, lw=1.2, zorder=2)
            face = "white" if set(map(str, rows["run"])) <= held_out else colour
            ax.plot(rows["experts"], rows["loss_nats"], "o", ms=5, mec=colour, mfc=face, zorder=3)
            label = f"width {width}, D = {quantity(float(tokens))}"
            labels.append((float(rows["loss_nats"].iloc[-1]), label, colour))
        ax.set_xscale("log", base=2)
        ax.set_xticks([1, 2, 4, 8], ["1 (dense)", "2", "4", "8"])
        ax.set_xlim(0.93, 8.6)
        end_labels(ax, labels)
        ax.set_xlabel("experts of a layer, of which a token passes one")
        ax.set_ylabel("validation loss, nats per byte")
        ax.text(0.02, 0.03, "lines: the law; open: held out", transform=ax.transAxes, fontsize=8)
        plots.save(figure, file)


def main(runs: Path, output: Path) -> None:
    """Train, fit, compare, print, draw."""
    folder = lmscale.run(SWEEP, runs)
    table = lmscale.read_table(folder, columns="params=active_params")
    table["total"] = lmscale.read_table(folder)["params"].to_numpy()
    fit = fits.loss_law(table, ExpertsAsSize, resamples=RESAMPLES)
    checked = fits.held_out_check(fit, table)
    joint = fits.loss_law(table, "joint-experts", resamples=RESAMPLES, fixed=UNSATURATED)
    print(fit, checked, joint, fits.held_out_check(joint, table), sep="\n\n")
    measured = table[table["loss_nats"].notna()]
    print("\n".join(["", *effective_sizes(fit, measured), "", *memories(fit, measured)]))
    draw(fit, measured, checked, output / "experts_cpu.svg")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder that holds one folder per sweep")
    parser.add_argument("--output", type=Path, default=Path("figures"), help="folder of the figure")
    arguments = parser.parse_args()
    main(arguments.runs, arguments.output)
