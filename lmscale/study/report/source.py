"""What a page is made from: the rows of a sweep or table, the law that they are for, and its fits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmscale.core.errors import UserError, nearest
from lmscale.core.scores import has_scores
from lmscale.study import fits
from lmscale.study.fits.checks.stages import one_stage
from lmscale.study.laws import Law, form
from lmscale.study.plots import held_out_mask
from lmscale.study.report.kinds import ALLOCATION, Kind, kind_of
from lmscale.study.report.of_law import kind_of_law, with_columns
from lmscale.study.tables import read_table
from lmscale.study.tables.states import inside_schedule

if TYPE_CHECKING:
    import pandas as pd

    from lmscale.study.fits import HeldOut

LAW = "chinchilla"
"""The form of Approach 3 where a sweep names none."""


@dataclass(frozen=True)
class Source:
    """A sweep or table that has been read and fitted."""

    rows: "pd.DataFrame"
    """Rows of every stage of training."""
    table: "pd.DataFrame"
    """Rows of the stage that is asked for; of runs that are for no law, without points inside a decaying schedule."""
    law: type[Law]
    """The form of Approach 3."""
    kind: Kind
    """What a page is about: the law, where it has further inputs or is asked for."""
    runs_kind: Kind
    """What the runs were made for, whatever the law."""
    fits: Sequence[Any] = ()
    held_out: "Sequence[HeldOut]" = ()
    notes: Sequence[str] = ()
    """A sentence for each fit or check that could not be made."""

    @property
    def has_further_inputs(self) -> bool:
        """Whether the law is of more than model size, tokens and the loss."""
        return has_further_inputs(self.law)


def has_further_inputs(law: type[Law]) -> bool:
    """Whether a law is of more than model size, tokens and the loss."""
    return law.INPUTS != ("params", "tokens") or law.TARGET != "loss_nats"


def read_source(
    source: str | Path,
    *,
    law: str | type[Law] | None,
    planned_law: str | None,
    runs_folder: Path | None,
    stage: str | None,
    approaches: Sequence[str] = ("2", "3"),
    given: Mapping[str, float] | None = None,
    columns: Mapping[str, str] | str | None = None,
    where: str | None = None,
    resamples: int | None = None,
    seed: int = 0,
    mixed_corpora: bool = False,
) -> Source:
    """Read a table as `tables.read_table` does, choose its law, and fit it where its runs are for one.

    `law` None is the `planned_law`, else Chinchilla's, where the runs are for a law. One of further inputs is fitted by
    Approach 3 alone, with an allocation where those are `given`. Raises `UserError` as `read_table` does, for a law
    that there is not, and where the table lacks a column of the `law`.
    """
    shape = form(law or planned_law or LAW)
    further = has_further_inputs(shape)
    rows = read_table(source, columns, where, (*shape.INPUTS, shape.TARGET) if further else ())
    table = one_stage(rows, stage)
    lacking = [name for name in (*shape.INPUTS, shape.TARGET) if name not in table]
    if law is not None and lacking:
        raise UserError(
            f"the law {shape.NAME!r} needs a column {lacking[0]!r}{nearest(lacking[0], map(str, table.columns))}; name "
            f"it with `columns='{lacking[0]}=...'`"
        )
    final = _final(table)
    kind = runs_kind = kind_of_runs(final, runs_folder)
    if law is not None or (kind.fits_law and further):
        approaches = approaches if kind.fits_law and not further else ("3",)
        kind = kind_of_law(shape) if further else ALLOCATION
    if not kind.fits_law:
        return Source(rows, final, shape, kind, runs_kind)
    fitted = fit_and_check(
        table, approaches, resamples=resamples, seed=seed, mixed_corpora=mixed_corpora, law=shape, given=given
    )
    return Source(rows, with_columns(table) if kind.inputs else table, shape, kind, runs_kind, *fitted)


def _final(table: "pd.DataFrame") -> "pd.DataFrame":
    """The table without points inside of a schedule, which are no final losses, and a note that says how many.

    One of such points alone stays as it is.
    """
    inside = inside_schedule(table)
    if not inside.any() or inside.all():
        return table
    final = table[~inside]
    note = f"{int(inside.sum())} of {len(table)} rows are points inside a decaying schedule, not final losses: left out"
    final.attrs = {**table.attrs, "notes": [*table.attrs.get("notes", []), note]}
    return final


def fit_and_check(
    table: "pd.DataFrame",
    approaches: Sequence[str] = ("2", "3"),
    *,
    resamples: int | None = None,
    seed: int = 0,
    mixed_corpora: bool = False,
    law: str | type[Law] = LAW,
    given: Mapping[str, float] | None = None,
) -> "tuple[list[Any], list[HeldOut], list[str]]":
    """The fits that the table supports, their held-out checks, and a sentence for each that could not be made."""
    try:
        results = fits.fit(
            table, approaches, resamples=resamples, seed=seed, mixed_corpora=mixed_corpora, law=law, given=given,
        )  # fmt: skip
    except UserError as error:
        return [], [], [f"Nothing could be fitted: {error}."]
    return list(results), *held_out_checks(results, table)


def held_out_checks(results: Sequence[Any], table: "pd.DataFrame") -> "tuple[list[HeldOut], list[str]]":
    """What the held-out runs say of every fit, and a sentence for each that they cannot be held against."""
    checked, notes = [], []
    for fit in results if held_out_mask(table).any() else ():
        if not isinstance(fit, fits.Frontier):
            try:
                checked.append(fits.held_out_check(fit, table))
            except UserError as error:
                notes.append(f"The held-out runs could not be checked against Approach {fit.approach}: {error}.")
    return checked, notes


def kind_of_runs(table: "pd.DataFrame", runs_folder: str | Path | None) -> Kind:
    """What the table's runs were made for."""
    return kind_of(table, scored=runs_folder is not None and has_scores(Path(runs_folder)))
