"""Does a student learn more from a teacher than from the text, and who wins when the teacher has a price?

    python experiments/distillation_cpu.py                     # trains what is missing in runs/, then judges and draws
    python experiments/distillation_cpu.py --output figures

`sweeps/distillation_cpu.py`: a byte model that four teachers teach for three lengths, and that is trained on the text
alone for six. Compute is booked in three ways: the student's training alone, where the teacher's distributions are
there already; with the teacher's forward passes; and with its training, too. At each the distilled student is compared
with one that spends the same on the text: the loss of that one is read off a monotone curve through its runs, in
logarithms. Where it would be longer than the longest, that run stands for it: if it is better already, text wins. The U
in the teacher's loss: ln(L_S / L~) = a + b x + c x^2 with x = ln(L_T / L~), L~ the loss of the same student after as
many tokens of text; with c > 0 and its foot inside of what was run there is one. Last the law of Busbridge 2025 (arXiv
2502.08606, equation 8), L~ by a law of our own runs without a teacher, as far as students of one size fix it.

Cost: 3.6e12 FLOPs, on two cores that many others shared. Outcome (2026-11, two cores of an AMD EPYC, one student of
20.1k parameters, one seed; experiments/outcomes/distillation_cpu.svg):

    teacher free       9 of 12 students are better than after as many bytes of text, by up to 10 %: all those of a
                       teacher whose loss is at most .96 of what the text alone would give them, none of the others
    passes booked      5 of 12 are better: three of four at 131k bytes, those of the two strong teachers at 524k, none
                       at 1.0M, where the text is better by .9 % or more
    training, too      none is. A teacher would have to serve 6 to 28 such students before the text that each saves has
                       paid for it, and where the text wins already it never does
    U                  none: at every length the strongest teacher is the best. The parabola (a = .025, b = .71 [.67,
                       .79], c = .95 [.72, 1.37]) has its foot at L_T/L~ = .69 [.64, .75], at the end of what was run,
                       .71
    Busbridge's law    leaves an rms of .0066 in ln L with six numbers (the parabola .0110 with three), beta at its
                       bound and no interval: twelve runs of one size do not fix it

So distil where the teacher is there already and the student is trained for a short time. A teacher that is no better
than what the student would reach alone only holds it back: after 1.0M bytes from one of 2.16 nats the student has 2.17,
and 1.82 from the text.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd

import lmscale
from lmscale import fits, laws, plots
from lmscale.core.quantities import quantity
from lmscale.study.fits import LossLaw
from lmscale.study.fits.loss_curve import LossCurve
from lmscale.study.plots.axes import end_labels, log_axis

SWEEP = Path(__file__).resolve().parents[1] / "sweeps" / "distillation_cpu.py"
RESAMPLES = 1000
OF_ONE_SIZE = {"A": 1e-3, "alpha": 1.0, "gamma": 1.0}
"""For students of one size the last factor of Busbridge's law is a power of D: what it says of N cannot be fitted."""
BOOKINGS = {
    "free": "the teacher is free",
    "read": "its forward passes are booked",
    "all": "its training, too",
}


@dataclass(frozen=True)
class TeacherStrength(laws.Law):
    """A parabola in ln(L_T / L~): what a teacher of some strength does to the student's loss, whatever N and D."""

    a: Any
    b: Any
    c: Any

    NAME = "teacher-strength"
    FORMULA = "L_S/L~ = exp(a + b x + c x^2), x = ln(L_T/L~)"
    INPUTS = (laws.Input("strength", "number", "ln of the teacher's loss over the student's without it"),)
    TARGET = laws.Input("relative_loss", "amount", "loss over that without a teacher")
    PARAMETERS = (
        laws.Parameter("a", -1, 1, (-0.02, 0.02), log=False),
        laws.Parameter("b", -5, 5, (-0.3, 0.3), log=False),
        laws.Parameter("c", -20, 20, (-0.5, 0.5), log=False),
    )

    def loss(self, strength: Any) -> Any:
        return np.exp(self.a + self.b * strength + self.c * strength**2)

    @property
    def foot(self) -> Any:
        """L_T / L~ at the lowest point of a U."""
        return np.exp(-self.b / (2 * self.c))


def distilled(table: "pd.DataFrame", alone: dict[int, LossCurve]) -> "pd.DataFrame":
    """The runs with a teacher: its loss and cost beside their own, and the same student's loss without it."""
    teachers = table.set_index("run")
    rows = table[(table["stage"] == "distil") & table["loss_nats"].notna()].reset_index(drop=True)
    of_teacher = teachers.loc[rows["teacher"]].reset_index(drop=True)
    free = rows["flops"].astype(float)
    read = free + rows["reference_flops"].astype(float)
    rows = rows.assign(
        teacher_width=of_teacher["width"],
        teacher_tokens=of_teacher["tokens"],
        teacher_loss=of_teacher["loss_nats"],
        teacher_flops=of_teacher["flops"].astype(float),
        free=free,
        read=read,
        all=read + of_teacher["flops"].astype(float),
        alone_loss=[float(alone[width].loss(flops)) for width, flops in zip(rows["width"], free)],
    )
    return rows.assign(
        strength=np.log(rows["teacher_loss"] / rows["alone_loss"]),
        relative_loss=rows["loss_nats"] / rows["alone_loss"],
    ).sort_values(["width", "tokens", "teacher_loss"], ascending=[True, True, False])


def winner(loss: float, flops: float, alone: LossCurve) -> str:
    """Which of two students of one width and `flops` has the lower loss: the taught one's is `loss`."""
    longest = alone.amounts_n[-1]
    if loss < alone.loss(min(flops, longest)):
        return "teacher" if flops <= longest * (1 + 1e-9) else "beyond"
    return "text"


def students_to_pay(row: Any, alone: LossCurve) -> float:
    """How many students a teacher must serve until distilling one of them costs no more than the text that it saves.

    Infinite where the text costs less than reading the teacher; 0 where no text that was tried reaches the loss.
    """
    if row.loss_nats < alone.losses_n[-1]:
        return 0.0
    saved = float(alone.amount(row.loss_nats)) - row.read
    return float("inf") if saved <= 0 else row.teacher_flops / saved


def rows_of(taught: "pd.DataFrame", alone: dict[int, LossCurve]) -> Iterator[str]:
    """A line for every distilled student: its loss, that without a teacher, and who wins under each booking."""
    yield (
        f"{'width':>5} {'D_S':>6}  {'teacher':>10} {'L_T':>6}  {'L_S':>6} {'L~':>6}  "
        f"{'free':>8} {'read':>8} {'all':>8}  students to pay"
    )
    for row in taught.itertuples():
        curve = alone[row.width]
        winners = [winner(row.loss_nats, getattr(row, booking), curve) for booking in BOOKINGS]
        pays = students_to_pay(row, curve)
        yield (
            f"{row.width:5} {quantity(row.tokens):>6}  {f'{row.teacher_width}, {quantity(row.teacher_tokens)}':>10} "
            f"{row.teacher_loss:6.4f}  {row.loss_nats:6.4f} {row.alone_loss:6.4f}  "
            + " ".join(f"{word:>8}" for word in winners)
            + f"  {'never' if np.isinf(pays) else f'{pays:.1f}' if pays else 'any'}"
        )


def tally(taught: "pd.DataFrame", alone: dict[int, LossCurve]) -> Iterator[str]:
    """Who wins how often under each booking."""
    for booking, words in BOOKINGS.items():
        winners = [winner(row.loss_nats, getattr(row, booking), alone[row.width]) for row in taught.itertuples()]
        beyond = winners.count("beyond")
        yield (
            f"{words}: the taught student is better in {winners.count('teacher')} of {len(winners)}, the text in "
            f"{winners.count('text')}" + (f"; undecided beyond the longest run: {beyond}" if beyond else "")
        )


def strength_lines(taught: "pd.DataFrame") -> Iterator[str]:
    """Whether there is a U in the teacher's strength, by length of the student and over all."""
    fit = fits.loss_law(taught, TeacherStrength, resamples=RESAMPLES, check=False)
    yield str(fit)
    low, high = np.exp(taught["strength"].min()), np.exp(taught["strength"].max())
    curvature, foot = fit.interval("c"), fit.interval(lambda one: one.law.foot)
    inside = curvature[0] > 0 and low < foot[0] and foot[1] < high
    yield (
        f"foot at L_T/L~ = {fit.law.foot:.3f} [{foot[0]:.3f}, {foot[1]:.3f}], run from {low:.3f} to {high:.3f}, "
        f"c = {fit.law.c:.3f} [{curvature[0]:.3f}, {curvature[1]:.3f}]: {'a U' if inside else 'no U is shown'}"
    )
    for (width, tokens), rows in taught.groupby(["width", "tokens"]):
        best = rows.loc[rows["loss_nats"].idxmin()]
        strongest = rows["teacher_loss"].min()
        yield (
            f"width {width}, D_S {quantity(float(tokens))}: best with the teacher of {best['teacher_loss']:.4f} "
            f"(L_T/L~ {np.exp(best['strength']):.3f}); the strongest has {strongest:.4f}"
        )


def busbridge(table: "pd.DataFrame", taught: "pd.DataFrame") -> Iterator[str]:
    """The law of the students without a teacher, and Busbridge's of those with one."""
    supervised = fits.loss_law(table, "chinchilla", resamples=0, check=False, at=())
    yield str(supervised)

    class OurDistillation(laws.Distillation):
        """Busbridge's law over the runs of this sweep without a teacher."""

        NAME: ClassVar[str] = "distillation-here"
        SUPERVISED: ClassVar[laws.Law] = supervised.law

    yield str(fits.loss_law(taught, OurDistillation, resamples=RESAMPLES // 4, check=False, at=(), fixed=OF_ONE_SIZE))


def draw(taught: "pd.DataFrame", alone: dict[int, LossCurve], fit: LossLaw, file: Path) -> None:
    """The loss against compute with the teacher's passes booked; and relative losses against the teacher's strength."""
    with plots.style():
        figure, (left, right) = plots.canvas(10.5, 4.6, panels=2)
        colours = dict(zip(sorted(alone), (plots.SEQUENCE[1], plots.SEQUENCE[6])))
        markers = dict(zip(sorted(set(taught["tokens"])), "osD"))
        labels = []
        for width, rows in taught.groupby("width"):
            colour, curve = colours[width], alone[width]
            left.plot(curve.amounts_n, curve.losses_n, "--", color=colour, lw=1.1)
            left.plot(rows["free"], rows["loss_nats"], "o", mfc="white", mec=colour, ms=5)
            left.plot(rows["read"], rows["loss_nats"], "o", color=colour, ms=5)
            labels.append((float(curve.losses_n[-1]), f"width {width}", colour))
            for tokens, some in rows.groupby("tokens"):
                right.plot(
                    np.exp(some["strength"]), some["relative_loss"], markers[tokens], color=colour, ms=5,
                    label=f"width {width}, D_S = {quantity(float(tokens))}",
                )  # fmt: skip
        grid = np.linspace(taught["strength"].min(), taught["strength"].max(), 60)
        right.plot(np.exp(grid), fit.law.loss(grid), color=plots.INK["muted"], lw=1.2)
        right.axhline(1.0, color=plots.INK["line"], lw=1)
        log_axis(left, "x", "power")
        left.set_xlabel("training FLOPs of the student; full: with the teacher's passes")
        left.set_ylabel("validation loss, nats per byte")
        left.set_title("students of a teacher, and without (dashed)")
        end_labels(left, labels)
        right.set_xlabel("loss of the teacher over that of the student without it")
        right.set_ylabel("loss of the student over that without a teacher")
        right.set_title("strength of the teacher")
        right.legend(frameon=False, fontsize=8)
        plots.save(figure, file)


def main(runs: Path, output: Path) -> None:
    """Train, judge, print, draw."""
    table = lmscale.read_table(lmscale.run(SWEEP, runs))
    widths = sorted(set(table["width"][table["stage"] == "distil"]))
    pretrained = table[(table["stage"] == "pretrain") & table["loss_nats"].notna()]
    alone = {int(width): LossCurve.through(pretrained[pretrained["width"] == width], "flops") for width in widths}
    taught = distilled(table, alone)
    print("\n".join([*rows_of(taught, alone), "", *tally(taught, alone), "", *strength_lines(taught)]))
    print("\n".join(["", *busbridge(table, taught)]))
    fit = fits.loss_law(taught, TeacherStrength, resamples=0, check=False)
    draw(taught, alone, fit, output / "distillation_cpu.svg")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder that holds one folder per sweep")
    parser.add_argument("--output", type=Path, default=Path("figures"), help="folder of the figure")
    arguments = parser.parse_args()
    main(arguments.runs, arguments.output)
