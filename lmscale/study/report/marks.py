"""A figure as data: axes, and marks that name the runs they are of. The page draws it, a CSV file beside it lists it.

`x` and `y` are in the units that the axes name; a colour is a key of `plots.INK` or a place in `plots.SEQUENCE`, so
that the page can exchange it with the reader's theme.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lmscale.study.plots import SEQUENCE

if TYPE_CHECKING:
    import pandas as pd

Kind = Literal["points", "line", "band", "bars", "level", "strip"]
Numerals = Literal["power", "compact", "plain", "percent"]
DIGITS = 6
"""Significant digits of a drawn number: no screen shows more."""
SEPARATOR = "; "
"""Between the runs of a point that joins several, such as the seeds of a scale."""
COLUMNS = ("panel", "mark", "run", "x", "y", "low", "high")
"""Columns of a figure's CSV; `low` and `high` are the ends of a bar or band."""


@dataclass(frozen=True)
class Axis:
    """What an axis counts, how it writes its numbers, and from where to where it goes at first."""

    label: str
    low: float
    high: float
    log: bool = True
    numerals: Numerals = "plain"


@dataclass(frozen=True)
class Mark:
    """Points, a line, a band, bars, a level across the figure, or a strip across it."""

    kind: Kind
    name: str
    """What it is, in the CSV and for the reader who points at it."""
    x: Sequence[float] = ()
    y: Sequence[float] = ()
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    colour: str = "--ink-text"
    colours: Sequence[str] = ()
    """The colour of each point, where they differ."""
    runs: Sequence[str] = ()
    """The run of each point; of one that joins several, all of them (`joined`)."""
    run: str = ""
    """The run whose curve a line is."""
    filled: Sequence[bool] = ()
    """Whether each point is filled; open ones were held out."""
    shape: Literal["circle", "diamond"] = "circle"
    along: Literal["x", "y"] = "y"
    """The direction in which bars lie."""
    width: float = 1.5
    dashed: bool = False
    dotted: bool = False
    opacity: float = 1.0
    key: str = ""
    """The line of the mark in the key below the figure; "" for none."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """With which choice of the reader it is shown: {"budget": "3×10¹²"}."""

    @property
    def drawn(self) -> int:
        """How many points, vertices or bars it has: 0 for the intervals of a fit without draws."""
        return max(len(self.x), len(self.y), len(self.low))

    def to_json(self) -> dict[str, Any]:
        """What the page draws; numbers with `DIGITS` digits, defaults left out where the page has the same."""
        value: dict[str, Any] = {
            "kind": self.kind, "name": self.name, "colour": self.colour, "width": self.width, "opacity": self.opacity,
        }  # fmt: skip
        value |= {name: rounded(getattr(self, name)) for name in ("x", "y", "low", "high") if len(getattr(self, name))}
        value |= {name: list(getattr(self, name)) for name in ("colours", "runs") if len(getattr(self, name))}
        value |= {name: getattr(self, name) for name in ("run", "dashed", "dotted", "key") if getattr(self, name)}
        if self.kind == "points":
            value |= {"filled": [*map(bool, self.filled)] or [True] * len(self.x), "shape": self.shape}
        if self.kind == "bars":
            value["along"] = self.along
        return value | ({"tags": dict(self.tags)} if self.tags else {})

    def rows(self) -> Iterable[tuple[Any, ...]]:
        """(mark, run, x, y, low, high) of every point of it; None where it has no such number."""
        count = self.drawn
        columns = [_padded(getattr(self, name), count) for name in ("x", "y", "low", "high")]
        runs = list(self.runs) or [self.run] * count
        return ((self.name, run, *numbers) for run, *numbers in zip(runs, *columns, strict=True))


def _padded(values: Sequence[float], count: int) -> list[float | None]:
    return [float(value) for value in values] if len(values) else [None] * count


@dataclass(frozen=True)
class Switch:
    """A choice that the reader has: which of the values of a tag are shown."""

    name: str
    label: str
    values: Sequence[str]


@dataclass(frozen=True)
class Chart:
    """One panel of a figure."""

    title: str
    x: Axis
    y: Axis
    marks: Sequence[Mark]
    switches: Sequence[Switch] = ()
    follows: str = ""
    """ "flops" where the slider over compute moves a line across it."""
    titled: bool = False
    """Whether its title stands above it: where its axes do not say what tells it from its neighbours."""

    @property
    def shapes(self) -> int:
        """How many points and bars it has."""
        return sum(mark.drawn for mark in self.marks if mark.kind in ("points", "bars"))

    def to_json(self) -> dict[str, Any]:
        """What the page draws."""
        return {
            "title": self.title,
            "titled": self.titled,
            "x": self.x.__dict__,
            "y": self.y.__dict__,
            "marks": [mark.to_json() for mark in self.marks if mark.drawn],
            "switches": [{**switch.__dict__, "values": list(switch.values)} for switch in self.switches],
            "follows": self.follows,
        }


def data_table(charts: Sequence[Chart]) -> "pd.DataFrame":
    """Everything that the panels of a figure draw, one row per point (`COLUMNS`)."""
    import pandas as pd

    rows = [(chart.title, *row) for chart in charts for mark in chart.marks for row in mark.rows()]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def joined(runs: Iterable[str]) -> str:
    """The runs of one point as one text, each once."""
    return SEPARATOR.join(dict.fromkeys(runs))


def rounded(values: Sequence[float]) -> list[float | None]:
    """The values with `DIGITS` digits, None where one is not finite."""
    return [float(f"{value:.{DIGITS - 1}e}") if np.isfinite(value) else None for value in map(float, values)]


def open_note(filled: Sequence[bool]) -> str:
    """What a key says of open points, where there are any."""
    return "" if all(filled) else " (open: held out)"


def ink(name: str) -> str:
    """The CSS variable of a colour of `plots.INK`."""
    return f"--ink-{name}"


def shade(colour: str) -> str:
    """The CSS variable of a colour of `plots.SEQUENCE`."""
    return f"--s{SEQUENCE.index(colour)}"
