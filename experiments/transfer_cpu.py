"""How many tokens of code is it worth to have read prose before, and which law predicts a fine-tuned loss?

    python experiments/transfer_cpu.py                     # trains what is missing in runs/, then measures, fits, draws
    python experiments/transfer_cpu.py --output figures

`sweeps/transfer_cpu.py`: byte models of three widths on 2M bytes of docstrings, each then on 16k to 1.0M bytes of code
without them; and the same models on code alone. The data transferred to a fine-tuned run is what training from random
numbers needs for its loss, less its own tokens (Hernandez 2021, arXiv 2102.01293): read off a monotone curve through
the runs of its width, in logarithms, and not beyond their ends. Through it goes D_T = k D_F^alpha N^beta. Laws of the
fine-tuned loss are fitted to the two smaller widths without their longest runs and compared on those and on the third
width: the rectified law and a power law, one of each per width (Lin 2024, arXiv 2402.02314); the joint law of Zhang
2024 (arXiv 2402.17193); a rectified law whose first term falls with N, too; and the loss on code alone at D_F + D_T
tokens, D_T by the law of transfer.

Cost: 1.09e13 FLOPs, on two cores that many others shared. Outcome (2026-11, two cores of an AMD EPYC, one seed;
experiments/outcomes/transfer_cpu.svg):

    data transferred   16k bytes of code after the prose are as good as .52M to .54M without it, 1.0M as good as 2.0M to
                       2.6M: the prose is worth .50M to .52M bytes of code at first, 1.0M to 1.5M at the end
    law                through all 21 runs alpha = .246 [.206, .271] and beta = -.039 [-.120, .050]: over sizes a factor
                       3.4 apart the model's size makes no difference that this would show. Through the twelve runs of
                       two sizes, as was planned, alpha = .252 [.222, .283] and beta = -.26 [-.37, .11]: it misses the
                       third size by 13 to 24 %, always too low, and the longest run of the smallest by 40 %, where the
                       data transferred no longer grow

    error of the loss, rms            numbers  fitted  longest  third width
    rectified, one for each width     8        .17 %   .52 %    -
    power law, one for each width     8        .31 %   1.05 %   -
    joint law                         4        .47 %   1.44 %   2.62 %
    rectified joint law               5        .46 %   1.39 %   2.55 %
    code alone at D_F + D_T           3        .64 %   1.57 %   1.66 %

So the rectified law predicts the next doubling best, with four numbers for each width; to another width the law of
transfer comes nearest, and needs runs of that width on code alone. E goes to 0 in both joint laws, and the optimum of
the rectified one is flat. What chance did to the curve of a width on code alone is in all its points, in no interval.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import lmscale
from lmscale import fits, laws, plots
from lmscale.core.quantities import quantity
from lmscale.study.fits import LossLaw
from lmscale.study.fits.loss_curve import LossCurve
from lmscale.study.plots.axes import end_labels, log_axis

SWEEP = Path(__file__).resolve().parents[1] / "sweeps" / "transfer_cpu.py"
RESAMPLES = 1000
PER_WIDTH = ("rectified", "fine-tuning-power")


@dataclass(frozen=True)
class RectifiedJoint(laws.Law):
    """The rectified law of Lin 2024 with one more factor, a power of the model's size."""

    A: Any
    alpha: Any
    D_l: Any
    beta: Any
    E: Any

    NAME = "rectified-joint"
    FORMULA = "L = A/(X^alpha (D_l + D^beta)) + E"
    INPUTS = (laws.Input("scale", "amount", "parameters"), "finetuning_tokens")
    PARAMETERS = (
        laws.Parameter("A", 1e-6, 1e15, (1, 100, 1e4)),
        laws.Parameter("alpha", 0, 3, (0.05, 0.3), log=False),
        laws.Parameter("D_l", 1e-3, 1e15, (10, 300, 1e4)),
        laws.Parameter("beta", 1e-2, 5, (0.1, 0.3, 0.6), log=False),
        laws.Parameter("E", 1e-9, 50, (0.3, 1), log=False),
    )

    def loss(self, scale: Any, finetuning_tokens: Any) -> Any:
        return self.A * scale**-self.alpha / (self.D_l + finetuning_tokens**self.beta) + self.E


@dataclass(frozen=True)
class Candidate:
    """A law of the fine-tuned loss, with what it predicts for the runs of a table; NaN for those that it cannot."""

    name: str
    parameters: int
    """Numbers that were fitted to fine-tuned runs."""
    predict: Callable[["pd.DataFrame"], np.ndarray]


def fine_tuned(table: "pd.DataFrame", scratch: dict[int, LossCurve]) -> "pd.DataFrame":
    """The fine-tuned runs with the inputs of the laws, and the data transferred to each where it can be read off."""
    rows = table[table["stage"] == "fine-tune"].sort_values(["width", "tokens"]).reset_index(drop=True)
    rows = rows.assign(scale=rows["params"], finetuning_tokens=rows["stage_tokens"])
    equal = [float(scratch[row.width].amount(row.loss_nats)) for row in rows.itertuples()]
    return rows.assign(equal_tokens=equal, transferred_tokens=np.array(equal) - rows["tokens"])


def candidates(tuned: "pd.DataFrame", scratch: dict[int, LossCurve], transfer: LossLaw) -> Iterator[Candidate]:
    """The laws to compare, fitted to the runs that are not held out."""
    for form in ("joint-fine-tuning", RectifiedJoint):
        fit = fits.loss_law(tuned, form, resamples=RESAMPLES // 5, check=False)
        print(f"\n{fit}")
        yield Candidate(fit.law.NAME, len(fit.law.names()), lambda rows, law=fit.law: _joint(law, rows))
    widths = sorted(set(tuned["width"][~tuned["held_out"]]))
    for name in PER_WIDTH:
        by_width = {
            width: fits.loss_law(tuned[tuned["width"] == width], name, resamples=0, check=False).law for width in widths
        }
        count = sum(len(law.names()) for law in by_width.values())
        yield Candidate(f"{name}, per width", count, lambda rows, by_width=by_width: _per_width(by_width, rows))

    def through_transfer(rows: "pd.DataFrame") -> np.ndarray:
        tokens = rows["finetuning_tokens"] + transfer.law.loss(rows["finetuning_tokens"], rows["params"])
        pairs = zip(rows["width"], tokens.to_numpy(dtype=float))
        return np.array([scratch[width].loss(count) for width, count in pairs])

    yield Candidate("code alone at D_F + D_T", len(transfer.law.names()), through_transfer)


def _joint(law: laws.Law, rows: "pd.DataFrame") -> np.ndarray:
    return np.asarray(law.loss(rows["scale"].to_numpy(dtype=float), rows["finetuning_tokens"].to_numpy(dtype=float)))


def _per_width(by_width: dict[int, laws.Law], rows: "pd.DataFrame") -> np.ndarray:
    pairs = zip(rows["width"], rows["tokens"].astype(float))
    return np.array([by_width[width].loss(count) if width in by_width else np.nan for width, count in pairs])


def comparison(compared: list[Candidate], tuned: "pd.DataFrame") -> Iterator[str]:
    """The root mean square of ln(measured / predicted) of every law, on the fitted runs and on both kinds of unseen."""
    largest = tuned["width"] == tuned["width"].max()
    groups = (~tuned["held_out"], tuned["held_out"] & ~largest, largest)
    yield f"{'law':<28} {'numbers':>7} {'fitted':>8} {'longest':>8} {'largest':>8}   error of the loss, rms"
    for one in compared:
        cells = []
        for chosen in groups:
            rows = tuned[chosen]
            gap = np.log(rows["loss_nats"].to_numpy() / one.predict(rows))
            known = gap[np.isfinite(gap)]
            share = f" ({len(known)} of {len(gap)})" if 0 < len(known) < len(gap) else ""
            cells.append(f"{100 * np.sqrt(np.mean(known**2)):>7.2f}%{share}" if len(known) else f"{'-':>8}")
        yield f"{one.name:<28} {one.parameters:>7} {' '.join(cells)}"


def rows_of(tuned: "pd.DataFrame") -> Iterator[str]:
    """A line for every fine-tuned run: its loss, and what the prose was worth to it."""
    yield f"{'width':>5} {'N':>6} {'D_F':>7} {'loss':>7} {'alone':>7} {'D_T':>8}  D_T/D_F"
    for row in tuned.itertuples():
        known = np.isfinite(row.equal_tokens)
        cells = (
            (quantity(row.equal_tokens), quantity(row.transferred_tokens), f"{row.transferred_tokens / row.tokens:.2f}")
            if known
            else ("beyond", "-", "-")
        )
        suffix = "  held out" if row.held_out else ""
        yield (
            f"{row.width:5} {quantity(row.params):>6} {quantity(row.tokens):>7} {row.loss_nats:7.4f} {cells[0]:>7} "
            f"{cells[1]:>8}  {cells[2]:>7}{suffix}"
        )


def draw(tuned: "pd.DataFrame", scratch: dict[int, LossCurve], transfer: LossLaw, file: Path) -> None:
    """Losses against tokens of code with and without prose, and the data transferred with its law."""
    colours = dict(zip(sorted(scratch), plots.SEQUENCE[::2]))
    with plots.style():
        figure, (left, right) = plots.canvas(10.5, 4.6, panels=2)
        labels: list[list[tuple[float, str, str]]] = [[], []]
        for width, rows in tuned.groupby("width"):
            colour, alone = colours[width], scratch[width]
            label = f"N = {quantity(float(rows['params'].iloc[0]))}"
            left.plot(alone.amounts_n, alone.losses_n, "--", color=colour, lw=1.1)
            left.plot(rows["tokens"], rows["loss_nats"], "o-", color=colour, ms=4, lw=1.1)
            labels[0].append((float(alone.losses_n[-1]), label, colour))
            grid = np.geomspace(rows["tokens"].min(), rows["tokens"].max(), 30)
            predicted = transfer.law.loss(grid, float(rows["params"].iloc[0]))
            right.plot(grid, predicted, color=colour, lw=1.1)
            for is_held_out, face in ((False, colour), (True, "white")):
                some = rows[rows["held_out"] == is_held_out]
                right.plot(some["tokens"], some["transferred_tokens"], "o", ms=5, mec=colour, mfc=face)
            labels[1].append((float(predicted[-1]), label, colour))
        for ax, ends in zip((left, right), labels):
            log_axis(ax, "x", "compact")
            ax.set_xlabel("tokens of code, bytes")
            end_labels(ax, ends)
        log_axis(right, "y", "compact")
        left.set_ylabel("validation loss on code, nats per byte")
        right.set_ylabel("data transferred, tokens of code")
        left.set_title("after 2M bytes of prose (dots), and without")
        right.set_title("data transferred; lines: the law, open: held out")
        plots.save(figure, file)


def main(runs: Path, output: Path) -> None:
    """Train, measure, fit, compare, print, draw."""
    table = lmscale.read_table(lmscale.run(SWEEP, runs))
    alone = table[table["stage"] == "scratch"]
    scratch = {int(width): LossCurve.through(rows, "tokens") for width, rows in alone.groupby("width")}
    tuned = fine_tuned(table, scratch)
    print("\n".join(rows_of(tuned)))
    transfer = fits.loss_law(tuned, "transfer", resamples=RESAMPLES)
    print("", transfer, fits.held_out_check(transfer, tuned), sep="\n")
    print("\nthe same through all runs, those held out before included:")
    print(fits.loss_law(tuned.assign(held_out=False), "transfer", resamples=RESAMPLES))
    compared = list(candidates(tuned, scratch, transfer))
    print("\n".join(["", *comparison(compared, tuned)]))
    draw(tuned, scratch, transfer, output / "transfer_cpu.svg")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder that holds one folder per sweep")
    parser.add_argument("--output", type=Path, default=Path("figures"), help="folder of the figure")
    arguments = parser.parse_args()
    main(arguments.runs, arguments.output)
