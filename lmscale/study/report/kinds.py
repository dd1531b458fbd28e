"""What a sweep was made for, as its table shows it: the question that its report answers.

Only valleys and ladders, which vary N and D, can say how compute is to be split; a sweep of another kind is reported by
what it varies.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lmscale.study.fits.learning_rates import BRACKET
from lmscale.study.grouping import group_count, group_index

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

APART = 0.03
"""Sizes and lengths that differ by less, in ratio, are one: runs have whole batches."""
SAME_TEXT = 0.1
"""Lengths of text that differ by less, in ratio, are one."""
LEAST_SEEDS = 3
"""Fewest repeats of a point that show its noise."""
TEXTS = 3
"""Fewest lengths of text that show what repeating it costs."""
ONCE = 1.01
"""Passes over the text up to which a run sees nothing twice: runs have whole batches."""
LAW_RUNS, LAW_LEVELS = 9, 3
"""Fewest runs, and fewest sizes and lengths among them, that a law of N and D is fitted to beside repeats."""


@dataclass(frozen=True)
class Kind:
    """One kind of sweep."""

    name: str
    title: str
    """Title of the page, before the name of the sweep."""
    question: str
    fits_law: bool = False
    """Whether laws are fitted to its runs."""
    inputs: tuple[str, ...] = ()
    """Inputs and target of the law that the page is about, where it is not of N and D alone."""


ALLOCATION = Kind(
    "allocation",
    "Scaling laws of",
    "At a given training compute C, how should it be split between model size N and training tokens D, "
    "and is the answer 20 tokens per parameter?",
    fits_law=True,
)
RATES = Kind("rates", "Learning rates of", "Which peak learning rate is best at each model size and length?")
TRANSFER = Kind(
    "transfer", "Transfer of learning rates in", "Does the best learning rate stay where it was when the model grows?"
)
SEEDS = Kind(
    "seeds", "Noise between seeds of", "By how much do losses differ between runs that differ in their seed alone?"
)
DATA = Kind("data", "Loss against training tokens in", "What do more training tokens buy a model of one size?")
SIZES = Kind("sizes", "Loss against model size in", "What do more parameters buy at one training length?")
REPEATS = Kind("repeats", "Repeated data in", "What is a token worth that the model has seen before?")
SCORES = Kind("scores", "Benchmark scores of", "At which model size does each ability appear?")


def kind_of(table: "pd.DataFrame", scored: bool = False) -> Kind:  # noqa: PLR0911 - a line per kind
    """The kind of a table of runs, by its columns; `scored` where its runs have scores on benchmark tasks."""
    if not len(table) or not {"params", "tokens"} <= set(table):
        return ALLOCATION
    sizes, lengths = group_index(table["params"], APART), group_index(table["tokens"], APART)
    count, different = len(set(sizes)), len(set(lengths))
    if _rates_of_cells(table, sizes, lengths):
        several = "parametrization" in table and set(table["parametrization"].dropna()) - {"standard"}
        return TRANSFER if several and count > 1 else RATES
    if len(repeated(table)) > len(table) / 2 and not _law_beside(table):
        return REPEATS
    if scored and different <= 2:
        return SCORES
    if count == 1 and different == 1 and len(table) >= LEAST_SEEDS and _different(table, "seed") >= LEAST_SEEDS:
        return SEEDS
    if count == 1 and different > 2:
        return DATA
    if different == 1 and count > 2:
        return SIZES
    return ALLOCATION


def _different(table: "pd.DataFrame", name: str) -> int:
    return table[name].nunique() if name in table else 0


def _rates_of_cells(table: "pd.DataFrame", sizes: "np.ndarray", lengths: "np.ndarray") -> bool:
    """Whether most runs belong to a size and length that was run at enough learning rates to bracket the best."""
    if _different(table, "peak_lr") < BRACKET:
        return False
    rates = table.assign(size=sizes, length=lengths).groupby(["size", "length"])["peak_lr"].transform("nunique")
    return bool((rates >= BRACKET).mean() > 0.5)


def repeated(table: "pd.DataFrame") -> "pd.DataFrame":
    """The runs of a size and length that was run on texts of three or more lengths, over and over."""
    if not {"unique_tokens", "epochs", "params", "tokens"} <= set(table.columns) or not len(table):
        return table.iloc[:0]
    size, length = (group_index(table[name], APART) for name in ("params", "tokens"))
    cells = table.assign(size=size, length=length, text=group_index(table["unique_tokens"], SAME_TEXT))
    known = cells[cells["text"] >= 0]
    texts = known.groupby(["size", "length"])["text"].transform("nunique").reindex(table.index)
    return table[texts >= TEXTS]


def _law_beside(table: "pd.DataFrame") -> bool:
    """Whether the runs that see no text twice are enough sizes and lengths for a law of their own."""
    fresh = table[table["epochs"].astype(float) <= ONCE]
    if len(fresh) < LAW_RUNS:
        return False
    return all(group_count(fresh[name], APART) >= LAW_LEVELS for name in ("params", "tokens"))
