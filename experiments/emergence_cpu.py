"""At which size do abilities appear in small models trained on text and exercises, and are the jumps real?

    python experiments/emergence_cpu.py                     # trains what is missing in runs/, then judges and draws
    python experiments/emergence_cpu.py --output figures    # the same; the page and the figures go there

`sweeps/emergence_cpu.py`: nine byte models of 1.6k to 246k parameters, two seeds each, all on 8M bytes, of which 55 in
a hundred are source code, 40 lines of seven exercises on four letters, brackets or two-digit numbers, and 5 sums of
nine digits. Each model is scored, when it ends, on 500 fresh lines of each: exact match, which is all or nothing, and
the share of characters in place, which is not. `study.emergence.detect` judges both over N and over the validation
loss; over N the two seeds say how much the answers of one model hang together, and over the loss, where every model is
a scale of its own, that is taken over. Nothing in the detector was set by these runs; length and letters of the
exercises come from one pilot run of 160k parameters, nine digits from two of 246k: with a tenth of the bytes, one of
them added half of its sums of six digits right.

Cost: 5.6e13 FLOPs, 15 minutes on two idle cores by `lmscale plan`; 28 on those of the outcome, which others shared.
Outcome (2026-11, two cores of an AMD EPYC), over N, with the 95 % interval of the foot:

    histogram               inside the range: exact match emerges at 14.5k [11.2k, 24.0k] parameters; the share in place
                            grows smoothly from the smallest model on: metric-induced
    copy, reverse, sort     early: the foot of the bend lies in the first third of the range, below 8.4k, where too few
                            smaller models show that it was absent: smooth, and metric-induced as well
    most-frequent,          before: smooth, within reach of the second smallest model
    brackets
    addition of 2 digits    flat: .09 of the sums are right at the end, within what seeds differ by; more digits are in
                            place the larger the model (smooth)
    addition of 9 digits    never: of 9000 sums none is right; the share in place goes from .06 to .24

Seeds differ most where an ability is about to come: of the two models of 33.4k parameters, whose losses are 1.189 and
1.184, one counts .87 of the strings right and the other .15; of those of 6.6k one copies nearly every string and the
other .08. Hence rho = .11 and wide intervals. Over the loss all but brackets and sums emerge by both metrics: there the
smallest models, far behind in loss, take up half of the range. Page and figure: `experiments/outcomes/emergence_cpu.md`
and `.svg`.
"""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import lmscale
from lmscale.core.files import write_text
from lmscale.study import emergence, plots
from lmscale.study.emergence.finding import Finding
from lmscale.study.emergence.folder import read_scores

SWEEP = Path(__file__).resolve().parents[1] / "sweeps" / "emergence_cpu.py"
HARD, GRADED = "exact_match", "share_in_place"


def short(task: str) -> str:
    """A task that two languages have, called by its digits: "addition, 9 digits"."""
    parts = re.fullmatch(r"(\S+) of synthetic:.*digits=(\d+)\)", task)
    return f"{parts[1]}, {parts[2]} digits" if parts else task


def rows(result: emergence.Emergence) -> Iterator[str]:
    """A line of Markdown for every task: what its two metrics say."""
    yield "| task | exact match, first to last | chance | class | foot [95 %] | share in place | verdict |"
    yield "|---|---|---|---|---|---|---|"
    for hard in (one for one in result.findings if one.curve.metric == HARD):
        (graded,) = result.select(hard.curve.task, GRADED)
        cells = (
            hard.curve.task,
            f"{hard.curve.score_S[0]:.2f} to {hard.curve.score_S[-1]:.2f}",
            f"{hard.curve.chance:.3g}",
            hard.cls,
            plots.threshold_text(hard),
            f"{graded.cls} {plots.threshold_text(graded)}".strip(),
            hard.verdict or "",
        )
        yield f"| {' | '.join(cells)} |"


def page(by_axis: dict[str, emergence.Emergence]) -> str:
    """The verdicts on every axis as Markdown."""
    lines = ["# Abilities in byte models on a CPU"]
    for axis, result in by_axis.items():
        lines += ["", f"## Over {axis}", "", *rows(result), "", *(f"- {note}" for note in result.notes)]
    return "\n".join(lines) + "\n"


def draw(result: emergence.Emergence, file: Path) -> None:
    """Both metrics of every task, one above the other, over the size of the model."""
    from matplotlib.figure import Figure

    hard = [one for one in result.findings if one.curve.metric == HARD]
    pairs: list[tuple[Finding, Finding]] = [(one, result.select(one.curve.task, GRADED)[0]) for one in hard]
    columns = 4
    with plots.style():
        figure = Figure(figsize=(3.7 * columns, 10), layout="constrained")
        for number, pair in enumerate(pairs):
            place = 1 + number % columns + 2 * columns * (number // columns)
            panels = [figure.add_subplot(4, columns, place + columns * below) for below in (0, 1)]
            plots.hard_and_graded(panels, *pair)
            if number % columns:
                for ax in panels:
                    ax.set_ylabel("")
        plots.save(figure, file)


def main(runs: Path, output: Path) -> None:
    """Train, judge, print, draw."""
    table = read_scores(lmscale.run(SWEEP, runs))
    table = table[table["metric"].isin([HARD, GRADED])].assign(task=lambda d: d["task"].map(short))
    by_size = emergence.detect(table, "params")
    results = {"params": by_size, "loss": emergence.detect(table, "loss", rho=by_size.rho)}
    text = page(results)
    print(text)
    write_text(output / "emergence_cpu.md", text)
    draw(results["params"], output / "emergence_cpu.svg")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder that holds one folder per sweep")
    parser.add_argument("--output", type=Path, default=Path("figures"), help="folder of the page and the figure")
    arguments = parser.parse_args()
    main(arguments.runs, arguments.output)
