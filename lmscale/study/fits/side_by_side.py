"""Several approaches from one table, side by side."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from lmscale.core.arguments import checked
from lmscale.core.errors import UserError
from lmscale.core.threads import one_thread_for_products
from lmscale.study.fits.options import APPROACHES, FitOptions, approach_names, chosen
from lmscale.study.fits.results.common import Status
from lmscale.study.tables import TableSource

if TYPE_CHECKING:
    from lmscale.study.fits.results.artefact import Fit


Approaches: TypeAlias = Annotated[str | int | Iterable[str | int], "approaches, as in ['1', '3'], or 'all'"]


@checked
def fit(
    table: TableSource,
    approaches: Approaches = APPROACHES,
    options: FitOptions | None = None,
    **changes: Any,
) -> "list[Fit]":
    """The fits of `approaches` (1 envelope, 2 IsoFLOP valleys, 3 parametric law; one, several or "all"), in that order.

    `table` is a DataFrame, a file, the name of a published table or a sweep's folder. `changes` are fields of
    `FitOptions` in place of those of `options`; each approach takes what concerns it, Approach 3 a given noise only
    with bootstrap="noise". Of several approaches, one that the table cannot support is left out, and a status of the
    others says why; `UserError` where none can be fitted.
    """
    names = approach_names(approaches)
    rows, options = chosen("fit", options, changes).read(table)
    functions = _functions()
    fits: list[Any] = []
    refusals: dict[str, UserError] = {}
    for name in names:
        try:
            with one_thread_for_products():
                fits.append(functions[name](rows, options=options))
        except UserError as error:
            refusals[name] = error
    if not fits:
        raise _refusal(refusals)
    statuses = [Status(f"approach {name} not fitted", str(error), "note") for name, error in refusals.items()]
    return [replace(one, status=(*one.status, *statuses)) for one in fits]


def _functions() -> dict[str, Callable[..., Any]]:
    from lmscale.study.fits.approaches.envelope import frontier
    from lmscale.study.fits.approaches.isoflop import isoflop
    from lmscale.study.fits.approaches.parametric import loss_law

    return {"1": frontier, "2": isoflop, "3": loss_law}


def _refusal(refusals: dict[str, UserError]) -> UserError:
    """One error for all approaches: each sentence once."""
    names: dict[str, list[str]] = {}
    for name, error in refusals.items():
        names.setdefault(str(error), []).append(name)
    if len(names) == 1:
        return next(iter(refusals.values()))
    return UserError("; ".join(f"approach {' and '.join(several)}: {sentence}" for sentence, several in names.items()))
