"""One sweep or table of a comparison: its runs, its fits, and the unit in which its losses can be compared."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lmscale.core.errors import UserError
from lmscale.study.plots import measured_runs
from lmscale.study.report.answer import is_identified, usable
from lmscale.study.report.kinds import ALLOCATION, DATA, SCORES, SIZES, Kind

if TYPE_CHECKING:
    import pandas as pd

    from lmscale.study.fits import LossLaw

LADDERS = (ALLOCATION, DATA, SIZES, SCORES)
"""Kinds of sweeps whose loss falls with compute: the compute that one saves can be stated."""
ALIKE = 1.01
"""Runs whose tokens have so nearly the same number of bytes have one factor from nats per token to bits per byte."""


@dataclass(frozen=True)
class Side:
    """A source with its fits; `label` names it on the page."""

    label: str
    source: str
    table: "pd.DataFrame"
    fits: tuple[Any, ...]
    folder: Path | None
    """The sweep's folder; None for a table."""
    kind: Kind = ALLOCATION
    """What its runs were made for."""

    @property
    def runs(self) -> "pd.DataFrame":
        """The measured runs."""
        return measured_runs(self.table)

    @property
    def fit(self) -> Any:
        """The fit that states the allocation, the parametric law first; None where none does."""
        return next(iter(usable(self.fits)), None)

    @property
    def law(self) -> "LossLaw | None":
        """The parametric law, where it is identified; one of further inputs may state no allocation."""
        return next((fit for fit in self.fits if fit.approach == "3" and is_identified(fit)), None)

    @property
    def is_ladder(self) -> bool:
        """Whether its losses are a function of compute."""
        return self.kind in LADDERS

    @property
    def bits_per_nat(self) -> float | None:
        """Bits per byte of one nat per token; None where the table does not say, or where its tokens differ."""
        if "bits_per_byte" not in self.runs:
            return None
        scale = (self.runs["bits_per_byte"].astype(float) / self.runs["loss_nats"].astype(float)).dropna()
        if not len(scale) or scale.max() > ALIKE * scale.min():
            return None
        return float(np.median(scale))


@dataclass(frozen=True)
class Unit:
    """The unit in which losses of several sides are compared, and the factors of each side's nats per token."""

    name: str
    factors: tuple[float, ...]
    caution: str = ""
    """What the reader must know before comparing; "" where nothing stands against it."""


def labels(sources: Sequence[str]) -> list[str]:
    """A short name of every source: its own, with the folder above where two would be alike. Raises `UserError`."""
    names = [
        Path(source).name.split(".")[0] if not Path(source).is_dir() else Path(source).resolve().name
        for source in sources
    ]
    if len(set(names)) < len(names):
        names = [f"{Path(source).resolve().parent.name}/{name}" for source, name in zip(sources, names)]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{twice} is given twice: a comparison is of different sweeps or tables")
    return names


def comparable_unit(sides: Sequence[Side]) -> Unit:
    """Nats per token where all tokens are alike, bits per byte where they are not and the tables state them."""
    scales = [side.bits_per_nat for side in sides]
    known = [scale for scale in scales if scale is not None]
    texts = [_values(side, "data_fingerprint") for side in sides]
    caution = ""
    if all(texts) and any(text != texts[0] for text in texts):
        caution = "The sweeps were validated on different texts: a loss of one is no loss of the other"
    if len(known) == len(scales) and max(known) > ALIKE * min(known):
        return Unit("bits per byte", tuple(known), caution)
    vocabularies = [_values(side, "vocab") for side in sides]
    if all(vocabularies) and any(one != vocabularies[0] for one in vocabularies) and len(known) < len(scales):
        caution = (
            "The tokens differ and a table states no bits per byte: losses in nats per token are of different units, "
            "and only model sizes and tokens can be compared"
        )
    return Unit("nats per token", (1.0,) * len(scales), caution)


def _values(side: Side, column: str) -> set[str]:
    return {str(value) for value in side.table[column].dropna()} if column in side.table else set()
