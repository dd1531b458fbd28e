"""What a corpus is like: how often its tokens and words come by rank, and how long its documents are."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lmscale.study.plots.axes import log_axis, word_key
from lmscale.study.plots.style import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def rank_frequency(ax: "Axes", series: Mapping[str, tuple[Sequence[int], Sequence[int]]]) -> None:
    """Counts against rank, both logarithmic: a straight line is a power law (Zipf). `series`: name -> ranks, counts."""
    key = []
    for colour, (name, (ranks, counts)) in zip((INK["3"], INK["2"], INK["1"]), series.items()):
        ax.plot(ranks, counts, "-", color=colour, lw=1.6)
        key.append((name, colour))
    log_axis(ax, "x", "compact", 6)
    log_axis(ax, "y", "compact", 6)
    ax.set_xlabel("rank")
    ax.set_ylabel("times counted in the training split")
    word_key(ax, key, x=0.72)


def lengths(ax: "Axes", edges: Sequence[int], counts: Sequence[int]) -> None:
    """Documents by their length in tokens, in bins from one of `edges` to the next."""
    ends = np.asarray(edges, dtype=float)
    ax.bar(ends[:-1], counts, width=np.diff(ends), align="edge", color=INK["3"], edgecolor=INK["paper"], lw=0.8)
    ax.set_xlim(ends[0], ends[-1])
    log_axis(ax, "x", "compact", 7)
    ax.set_xlabel("length of a document, tokens")
    ax.set_ylabel("training documents")
