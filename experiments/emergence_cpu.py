"""At which size do abilities appear in small models trained on text and exercises, and are the jumps real?

    python experiments/emergence_cpu.py                     # trains what is missing in runs/, then judges and draws
    python experiments/emergence_cpu.py --output figures    # the same; the page and the figures go there

`sweeps/emergence_cpu.py`: nine byte models of 1.6k to 246k parameters, two seeds each, all on 8M bytes, of which six in
ten are source code and four are lines of seven exercises on four letters, brackets or two-digit numbers. Each model is
scored, when it ends, on 500 fresh lines of each: exact match, which is all or nothing, and the share of characters in
place, which is not. `lmscale.emergence.detect` judges both over N and over the validation loss; over N the two seeds
say how much the answers of one model hang together. Nothing in the detector was set by these runs; length and letters
of the exercises come from one pilot run of 160k parameters.

Cost: 5.6e13 FLOPs, 12 minutes on two idle cores by `lmscale plan`; 33 on those of the outcome, which others shared.
Outcome (2026-11, two cores of an AMD EPYC), over N, with 95 % intervals of the foot:

    reverse, sort, histogram    exact match emerges at 3.2k [2.1k, 6.1k], 2.6k [1.6k, 5.3k], 11k [8.3k, 24k] parameters,
                                the share in place grows smoothly from the smallest model on: metric-induced
    addition                    both emerge, at 127k [33k, 234k] and 67k [44k, 110k]: corroborated
    copy, most-frequent,        smooth: within reach, by the share in place, of the second smallest model
    brackets

None stays at chance to the end. Seeds differ most where an ability is about to come: of the two models of 246k
parameters, whose losses are both .9816, one adds 80 % of the numbers right and the other 10 %; of those of 10.8k one
reverses every line and the other 6 %. Hence rho = .22, wide intervals, and feet over the loss that lie apart from those
over N: at one mean loss a model may have the ability or not. Page and figure: `experiments/outcomes/emergence_cpu.md`
and `.svg`.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from lmscale import emergence, plots, sweep, terminal
from lmscale.emergence.folder import read_scores
from lmscale.emergence.result import Finding
from lmscale.files import write_text

SWEEP = Path(__file__).resolve().parents[1] / "sweeps" / "emergence_cpu.py"
HARD, GRADED = "exact_match", "share_in_place"


def rows(found: emergence.Emergence) -> Iterator[str]:
    """A line of Markdown for every task: what its two metrics say."""
    yield "| task | exact match, first to last | chance | class | foot [95 %] | share in place | verdict |"
    yield "|---|---|---|---|---|---|---|"
    for hard in (one for one in found.findings if one.curve.metric == HARD):
        (graded,) = found.of(hard.curve.task, GRADED)
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
    for axis, found in by_axis.items():
        lines += ["", f"## Over {axis}", "", *rows(found), "", *(f"- {note}" for note in found.notes)]
    return "\n".join(lines) + "\n"


def draw(found: emergence.Emergence, file: Path) -> None:
    """Both metrics of every task, one above the other, over the size of the model."""
    from matplotlib.figure import Figure

    hard = [one for one in found.findings if one.curve.metric == HARD]
    pairs: list[tuple[Finding, Finding]] = [(one, found.of(one.curve.task, GRADED)[0]) for one in hard]
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
    planned = sweep.plan(sweep.load(SWEEP))
    if status := terminal.run_sweep(planned, runs, Console()):
        sys.exit(status)
    table = read_scores(runs / planned.sweep.name)
    table = table[table["metric"].isin([HARD, GRADED])]
    found = {axis: emergence.detect(table, axis) for axis in ("params", "loss")}
    text = page(found)
    print(text)
    write_text(output / "emergence_cpu.md", text)
    draw(found["params"], output / "emergence_cpu.svg")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder that holds one folder per sweep")
    parser.add_argument("--output", type=Path, default=Path("figures"), help="folder of the page and the figure")
    arguments = parser.parse_args()
    main(arguments.runs, arguments.output)
