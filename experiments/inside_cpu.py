"""When do induction heads appear with N and D, and which ability of `emergence_cpu.py` waits for them?

    python experiments/inside_cpu.py                     # trains what is missing in runs/, then measures and draws
    python experiments/inside_cpu.py --output figures    # the same; the page and the figure go there

`sweeps/inside_cpu.py`: six byte models of two layers, 4k to 117k parameters, on 12M bytes, each scored six times on the
way. D is the text read so far, at the rates of one long run, not a run of its own. Half of the text is that of
`emergence_cpu.py`, code and exercises, and half are random words that recur, in which alone a head pays. They have 26
letters: of words of 94 letters, pilots of 33k and 117k parameters had learned to copy none after 8M bytes.

An ability is there where a score has passed half of the way from chance to 1: of the induction score, exact match of an
exercise. Where no model at any time has an exercise without a head, it may wait for one. That is no proof, so that
every exercise is also taken apart in the largest model: on pairs of questions that differ in one character, the share
of the effect that passes through the best induction head (`lmscale inspect --units heads`), and its rank among all
heads.

Cost: 2.2e13 FLOPs and 36 exams: 32 minutes of training in sum, two runs at a time, on two cores that many shared.
Outcome (2026-11, two cores of an AMD EPYC, one seed; experiments/outcomes/inside_cpu.md and .svg):

    induction score      D = 1M     2M     4M     6M     8M    12M
    N = 4k                  .04    .01    .03    .03    .04    .02
    11k                     .03    .03    .02    .02    .04    .05
    20k                     .05    .04    .10    .97    .93    .94
    33k                     .03    .04    .04    .04    .86    .92
    68k                     .04    .07    .96    .95    .96    .96
    117k                    .05    .08    .97    .98    .99    .97

    when        at once: between two exams from less than .11 to .86 and more, chance .03. From 20k parameters on, and
                after fewer bytes the larger the model: 2M to 4M at 68k and 117k, 4M to 8M at 20k and 33k (whose order
                is that of one seed); not by 12M at 4k and 11k
    with it     the head that attends to the token before comes at the same exam (on those letters .10 to .96 at 117k),
                and the loss late in a window falls to .8 or .9 nats below the early one, from .35 at most
    of what     the letters of those words alone: on all bytes the score of those models is .00. What pays is
                learned, not looking back as such
    exercises   none is seen to wait for a head. copy, reverse, sort, most-frequent and brackets are there without one,
                3 to 17 times. Only histogram never is: it comes at 117k, 4M bytes after the head, and .01 [-.00, .02]
                of its effect passes through it. Sums of two digits are never there
    through it  -.01 to .02 of the effect of every exercise, but of brackets .30 [.04, .73]
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

import lmscale
from lmscale.core.files import write_text
from lmscale.core.quantities import quantity
from lmscale.lm.inspect import heads
from lmscale.lm.inspect.subject import Subject, source_tokens
from lmscale.lm.use.load import open_run
from lmscale.study import emergence, plots
from lmscale.study.emergence.folder import read_scores
from lmscale.study.sweep import load

if TYPE_CHECKING:
    import pandas as pd

SWEEP = Path(__file__).resolve().parents[1] / "sweeps" / "inside_cpu.py"
ON_WORDS = next(task for task in load(SWEEP).exam.tasks if task.startswith("inside:heads("))  # type: ignore[union-attr]
"""The induction score on the letters of the words that recur."""
HEADS, CONTEXT = (ON_WORDS, "induction_score"), ("inside:context", "in_context_nats")
OTHERS = {
    "Induction score of the best head on all bytes": ("inside:heads", "induction_score"),
    "Previous-token score of the best head on all bytes": ("inside:heads", "previous_token_score"),
    "Loss late in a window less that early in it, nats": CONTEXT,
}
HARD = "exact_match"
PAIRS = 16
"""Pairs of every exercise that are patched."""


class Waits(NamedTuple):
    """How often an exercise and an induction head are there, over all models and times."""

    both: int
    ability_alone: int
    head_alone: int
    neither: int

    @property
    def verdict(self) -> str:
        """Whether the exercise waits."""
        if not self.both + self.ability_alone:
            return "never there"
        return f"does not wait: {self.ability_alone} without a head" if self.ability_alone else "never without a head"


def scores_of(table: "pd.DataFrame", task: str, metric: str) -> "pd.DataFrame":
    """Scores over N (rows) and D (columns)."""
    rows = table[(table["task"] == task) & (table["metric"] == metric)]
    return rows.pivot_table(index="params", columns="tokens", values="score")


def is_there(table: "pd.DataFrame", task: str, metric: str) -> "pd.DataFrame":
    """Where a score has passed half of the way from chance to 1."""
    chance = table[(table["task"] == task) & (table["metric"] == metric)]["chance"].iloc[0]
    return scores_of(table, task, metric) >= (1 + chance) / 2


def waits(table: "pd.DataFrame", task: str) -> Waits:
    """The four counts of an exercise."""
    ability, head = is_there(table, task, HARD).to_numpy(), is_there(table, *HEADS).to_numpy()
    return Waits(*(int(cell.sum()) for cell in (ability & head, ability & ~head, ~ability & head, ~ability & ~head)))


def best_head(run: Path) -> int:
    """The number, over all layers, of the head with the highest induction score on the words."""
    opened = open_run(run)
    subject = Subject(*opened.run, opened.mesh)
    words = ON_WORDS.removeprefix("inside:heads(").removesuffix(")")
    ids = source_tokens(words, subject.tokenizer, subject.config.model.context)
    tokens_NT = heads.repeated_tokens(ids, subject.tokenizer.end_of_document, len(ids))
    with jax.set_mesh(subject.mesh):
        return int(heads.head_scores(subject.params, tokens_NT, subject.config.model).induction.argmax())


def through_head(run: Path, language: str, tasks: list[str]) -> dict[str, tuple[str, int]]:
    """The share of every exercise's effect that passes through the model's best induction head, and its rank."""
    best = best_head(run)
    value = lmscale.inspect(run, task=language, units=["heads"], most_pairs=PAIRS)
    cells = {}
    for task in tasks:
        share = value["effects"][task]["units"]["heads"]["indirect_share"]
        mean, low, high = (np.array(share[bound], float).ravel() for bound in ("mean", "low", "high"))
        rank = int((mean > mean[best]).sum()) + 1
        cells[task] = f"{mean[best]:.2f} [{low[best]:.2f}, {high[best]:.2f}]", rank
    return cells


def grid_lines(scores: "pd.DataFrame") -> Iterator[str]:
    """A table of N and D as Markdown."""
    yield f"| N | {' | '.join(f'D = {quantity(tokens)}' for tokens in scores.columns)} |"
    yield "|---" * (len(scores.columns) + 1) + "|"
    for params, row in scores.iterrows():
        yield f"| {quantity(params)} | {' | '.join(f'{value:.2f}' for value in row)} |"


def ability_lines(
    table: "pd.DataFrame", emergent: emergence.Emergence, through: dict[str, tuple[str, int]]
) -> Iterator[str]:
    """A line for every exercise: its foot over N beside that of the head, the counts, and what passes through it."""
    yield "| exercise | class over N | foot [95 %] | with head | without | head alone | verdict | share, rank |"
    yield "|---" * 8 + "|"
    for task, (share, rank) in through.items():
        (finding,) = emergent.select(task, HARD)
        counts = waits(table, task)
        cells = (task, finding.cls, plots.threshold_text(finding), counts.both, counts.ability_alone,
                 counts.head_alone, counts.verdict, f"{share}, {rank}")  # fmt: skip
        yield f"| {' | '.join(map(str, cells))} |"
    (head,) = emergent.select(*HEADS)
    yield f"| induction head | {head.cls} | {plots.threshold_text(head)} | | | | | |"


def page(table: "pd.DataFrame", emergent: emergence.Emergence, through: dict[str, tuple[str, int]]) -> str:
    """Everything as Markdown."""
    lines = ["# Induction heads in byte models on a CPU"]
    for title, score in {"Induction score of the best head on the words": HEADS, **OTHERS}.items():
        lines += ["", f"## {title}", "", *grid_lines(scores_of(table, *score))]
    lines += ["", "## What waits for the head", ""]
    lines += [*ability_lines(table, emergent, through), "", *(f"- {note}" for note in emergent.notes)]
    return "\n".join(lines) + "\n"


def draw(table: "pd.DataFrame", tasks: list[str], file: Path) -> None:
    """The induction score and exact match of every exercise against D, one line for each N."""
    import matplotlib
    from matplotlib.figure import Figure

    panels = [(HEADS[0], HEADS[1]), *((task, HARD) for task in tasks)]
    columns = 4
    with plots.style():
        figure = Figure(figsize=(3.4 * columns, 2.8 * -(-len(panels) // columns)), layout="constrained")
        for number, (task, metric) in enumerate(panels, 1):
            ax = figure.add_subplot(-(-len(panels) // columns), columns, number)
            scores = scores_of(table, task, metric)
            for place, (params, row) in enumerate(scores.iterrows()):
                colour = matplotlib.colormaps["viridis"](place / max(1, len(scores) - 1))
                ax.plot(row.index, row, color=colour, marker=".", label=quantity(params))
            ax.set(xscale="log", ylim=(-0.05, 1.05), title="induction score on the words" if task == HEADS[0] else task)
            if number > len(panels) - columns:
                ax.set_xlabel("D, tokens")
            if number == 1:
                ax.legend(title="N", fontsize="x-small")
        plots.save(figure, file)


def main(runs: Path, output: Path) -> None:
    """Train, measure, print, draw."""
    folder = lmscale.run(SWEEP, runs)
    table = read_scores(folder, every_step=True)
    last = table[table["tokens"] == table.groupby("params")["tokens"].transform("max")]
    emergent = emergence.detect(last, "params")
    tasks = list(dict.fromkeys(table["task"][table["metric"] == HARD]))
    largest: Any = table.sort_values("params")["run_id"].iloc[-1]
    language = load(SWEEP).exam.tasks[0]  # type: ignore[union-attr]
    text = page(table, emergent, through_head(folder / largest, language, tasks))
    print(text)
    write_text(output / "inside_cpu.md", text)
    draw(table, tasks, output / "inside_cpu.svg")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder that holds one folder per sweep")
    parser.add_argument("--output", type=Path, default=Path("figures"), help="folder of the page and the figure")
    arguments = parser.parse_args()
    main(arguments.runs, arguments.output)
