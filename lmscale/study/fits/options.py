"""The options of a fit: one checked value for Python and for `lmscale fit`, whose flags are its fields."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal, Self

from lmscale.core.arguments import Budget, Number, checked
from lmscale.core.errors import UserError, nearest
from lmscale.study.fits.checks.corpora import check_one_corpus
from lmscale.study.fits.checks.stages import one_stage
from lmscale.study.laws import form
from lmscale.study.tables import TableSource, numbers, read_table

if TYPE_CHECKING:
    import pandas as pd


APPROACHES = ("1", "2", "3")
RESAMPLES = {"1": 1000, "2": 1000, "3": 4000}
"""Resamples of an approach, where `FitOptions.resamples` is None."""
MOST_RESAMPLES = 1_000_000
"""More would change no digit that an interval is stated with, and not fit into memory."""


@checked
@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """How a table is read and fitted; each approach takes what concerns it. Raises `UserError` for what cannot be."""

    law: str | type[Any] = "chinchilla"
    """The form of Approach 3: chinchilla, kaplan, data-constrained, over-training, outer-exponent, power-mean, ..., or
    one of your own, mine.py:MyLaw."""
    loss: Literal["huber", "lad", "squared"] = "huber"
    """The loss function of Approach 3, summed over runs."""
    delta: Number = 1e-3
    """Threshold of the Huber loss."""
    residual: Literal["log", "raw"] | None = None
    """Residuals of ln L or of L; unset, the law's own."""
    resamples: int | None = None
    """Bootstrap resamples or noise draws; unset, 4000 for Approach 3 and 1000 for 1 and 2."""
    seed: int = 0
    """Seed of the resampling."""
    columns: str | Mapping[str, str] | None = None
    """What the table calls params, tokens, flops, loss, budget; usual names are recognised. A factor states the unit
    of a column: params=N*1e6 for millions."""
    where: str | None = None
    """Keep only rows for which this is true, for example "params > 1e8 and kind in ('a', 'b')"."""
    stage: str | None = None
    """Which stage of training is fitted where a table holds several, for example fine-tune; unset, pretrain."""
    mixed_corpora: bool = False
    """Fit runs on several corpora together, although losses on different data belong to different laws."""
    at: Budget | Sequence[Budget] | None = None
    """Budgets in FLOPs whose compute-optimal allocation is stated."""
    rates: Literal["inside", "best", "all"] = "inside"
    """Which runs enter where one N and D was run at several learning rates: those of the best rate if it lies inside
    those tried, of the best rate anyway, or all."""
    bootstrap: Literal["auto", "runs", "weights", "noise"] = "auto"
    """Approach 3 draws whole runs, or gives each an exponential weight; auto: weights where runs are few.
    noise: it keeps the runs and draws their losses about the law."""
    strata: str | None = None
    """Column whose groups keep their size in every resample, for example budget."""
    clusters: str | None = None
    """Column whose groups are drawn whole, for example trunk or seed."""
    fixed: Mapping[str, float] | None = None
    """Parameters of the law that are fixed at a value, for example {"E": 1.8}."""
    bounds: Mapping[str, tuple[float, float]] | None = None
    """Ranges of the law's parameters in place of its own, for example {"alpha": (0.1, 0.5)}."""
    tied: Mapping[str, str] | None = None
    """Parameters that equal another one, for example {"beta": "alpha"}."""
    given: Mapping[str, float] | None = None
    """Values of the law's inputs besides params and tokens at which allocations are stated, as {"experts": 8}."""
    valley: Literal["auto", "parabola", "akima"] = "auto"
    """How Approach 2 finds a valley's minimum; auto takes parabolas unless they miss the runs."""
    noise_nats: Number | None = None
    """Standard deviation of one run's loss in nats, for Approach 2, for the noise bootstrap and for the test whether a
    law's form fits; unset, it is estimated (for that bootstrap, from runs that differ in their seed alone)."""
    shared_noise: Number = 0.0
    """Share of its variance which the runs of one cluster have in common, for the noise bootstrap."""
    window: Number | None = None
    """Parabolas see only sizes within this factor of the lowest; unset, all."""
    envelope: Literal["bins", "hull"] = "bins"
    """How Approach 1 finds the envelope."""
    line: Literal["inside", "all"] = "inside"
    """Which points of the envelope Approach 1's line goes through: those whose optimum lies a factor 2 inside the sizes
    that were run, or all."""
    weights: Literal["noise", "equal"] = "noise"
    """How Approach 2 weighs the budgets' minima in its line: by their noise, or all alike."""
    budget_flops: Literal["nominal", "mean"] = "nominal"
    """Where Approach 2 puts a budget: at its stated FLOPs, or at the mean FLOPs of its runs."""
    tokens_fit: Literal["compute", "valley"] = "compute"
    """Approach 2's D*: from N* by the compute model, or from valleys of the loss in ln D with a line of their own."""
    check: bool = True
    """The checks that fit again: influence of runs, largest budget left out, sensitivity."""

    def __post_init__(self) -> None:
        if not self.delta > 0:
            raise UserError(f"delta = {self.delta}: the Huber threshold must be positive; 1e-3 is the published one")
        whole = self.resamples is None or isinstance(self.resamples, Integral)
        if not whole or (self.resamples is not None and not 0 <= self.resamples <= MOST_RESAMPLES):
            raise UserError(
                f"resamples = {self.resamples!r}: it is a count of at most {MOST_RESAMPLES:,}; 0 states no intervals"
            )
        if not isinstance(self.seed, Integral) or self.seed < 0:
            raise UserError(f"seed = {self.seed}: a whole number, 0 or more")
        if self.noise_nats is not None and not 0 <= self.noise_nats < math.inf:
            raise UserError(f"noise = {self.noise_nats} nats: it is a standard deviation; leave it out to estimate it")
        if not 0 <= self.shared_noise <= 1:
            raise UserError(f"shared noise = {self.shared_noise}: a share of the variance, from 0 to 1")
        if self.shared_noise and self.bootstrap != "noise":
            raise UserError(_draws_no_noise(self.bootstrap))
        if self.window is not None and not self.window >= 1:
            raise UserError(f"window = {self.window}: a factor of model sizes, at least 1; leave it out to see all")
        if self.at is not None:
            object.__setattr__(self, "at", _budgets(self.at))

    @property
    def budgets(self) -> tuple[float, ...] | None:
        """`at` as a tuple."""
        return None if self.at is None else _budgets(self.at)

    def count(self, approach: str) -> int:
        """Resamples or draws of an approach."""
        return RESAMPLES[approach] if self.resamples is None else self.resamples

    def read(self, source: TableSource, inputs: Sequence[str] | None = None) -> tuple["pd.DataFrame", Self]:
        """The table of `source` with columns for `inputs`, None for those of `law`; and what is left of these options.

        Raises `UserError` for runs on several corpora, unless `mixed_corpora`, and for a stage that is not there.
        """
        shape = form(self.law)
        inputs = (*shape.INPUTS, shape.TARGET) if inputs is None else inputs
        table = one_stage(read(source, self.columns, self.where, inputs), self.stage)
        if not self.mixed_corpora:
            check_one_corpus(table)
        return table, replace(self, columns=None, where=None, stage=None)


def read(
    source: TableSource,
    columns: str | Mapping[str, str] | None = None,
    where: str | None = None,
    inputs: Sequence[str] = (),
) -> "pd.DataFrame":
    """The table of `source`: as it is where it is one already and nothing is asked of it, else by `read_table`.

    Of a DataFrame that has two columns of one name, or a named index, that is read as well.
    """
    import pandas as pd

    from lmscale.study.tables.headers import NUMBERS

    if isinstance(source, pd.DataFrame) and columns is None and where is None and _is_plain(source):
        objects = [name for name in NUMBERS if name in source and source[name].dtype == object]
        return source.assign(**{name: numbers(source, name) for name in objects}) if objects else source
    return read_table(source, columns, where, inputs)


def _is_plain(table: "pd.DataFrame") -> bool:
    return table.columns.is_unique and all(name is None for name in table.index.names)


FIELDS = tuple(field.name for field in fields(FitOptions))
EVERY = {"columns", "where", "stage", "mixed_corpora", "resamples", "seed", "at", "rates", "check"}
"""Options of every approach."""
OPTIONS = {
    "frontier": EVERY | {"envelope", "line"},
    "isoflop": EVERY | {"valley", "noise_nats", "window", "weights", "budget_flops", "tokens_fit"},
    "loss_law": EVERY
    | {"law", "loss", "delta", "residual", "bootstrap", "strata", "clusters", "fixed", "noise_nats", "shared_noise"}
    | {"bounds", "tied", "given"},
    "compare": {"columns", "where", "stage", "mixed_corpora", "resamples", "seed", "rates", "loss", "delta"},
    "fit": set(FIELDS),
}


def chosen(function: str, options: FitOptions | None, changes: Mapping[str, Any]) -> FitOptions:
    """`options` with the keyword arguments of `function` in their place.

    Raises `UserError` that names the nearest for one that `function` does not take.
    """
    for name in changes:
        if name not in OPTIONS[function]:
            elsewhere = [other for other, names in OPTIONS.items() if name in names and other != "fit"]
            hint = f"; it is one of {', '.join(elsewhere)}" if elsewhere else nearest(name, OPTIONS[function])
            raise UserError(f"fits.{function} has no option {name!r}{hint}")
    return replace(options or FitOptions(), **changes)


def approach_names(approaches: Any) -> tuple[str, ...]:
    """("1", "3") from 1, "3", [1, 3], "all", ...: in order, each once. Raises `UserError` for what is none."""
    if isinstance(approaches, str) and approaches == "all":
        return APPROACHES
    several = isinstance(approaches, Collection) and not isinstance(approaches, str)
    names = {str(name) for name in (approaches if several else [approaches])}
    if unknown := sorted(names - set(APPROACHES)):
        raise UserError(f"no approach is called {unknown[0]!r}{nearest(unknown[0], APPROACHES)}: 1, 2, 3 or all")
    if not names:
        raise UserError("no approach was given: give 1, 2, 3 or all")
    return tuple(sorted(names))


def _draws_no_noise(bootstrap: str) -> str:
    return f"bootstrap = {bootstrap!r} draws no noise: give noise and shared noise with `bootstrap='noise'`"


def _budgets(at: float | Sequence[float]) -> tuple[float, ...]:
    return tuple(map(float, at)) if isinstance(at, Sequence) else (float(at),)
