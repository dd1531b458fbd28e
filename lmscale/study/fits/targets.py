"""One law for each of several targets: the losses of a mixture's domains, or of several validation texts."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lmscale.core.arguments import checked
from lmscale.core.errors import UserError
from lmscale.study.fits.approaches.parametric import loss_law
from lmscale.study.fits.options import FitOptions, chosen
from lmscale.study.laws import Law, form
from lmscale.study.tables import TableSource
from lmscale.study.tables.headers import parse_columns

if TYPE_CHECKING:
    from lmscale.study.fits.results.loss_law import LossLaw


@checked
def loss_laws(
    table: TableSource,
    targets: Sequence[str],
    law: str | type[Law] | None = None,
    options: FitOptions | None = None,
    **changes: Any,
) -> "list[LossLaw]":
    """The fits of a law to each of the columns `targets`, named after them; other arguments as `loss_law` takes them.

    Raises `UserError` as that does, for no target, one that is named twice, and where `columns` names the target too.
    """
    changes = changes if law is None else {**changes, "law": law}
    options = chosen("loss_law", options, changes)
    shape = form(options.law)
    names = tuple(targets)
    if not names or len(set(names)) < len(names):
        raise UserError(f"targets = {', '.join(names) or 'none'}: name each column once, as in loss_code,loss_web")
    columns = parse_columns(options.columns, (*shape.INPUTS, shape.TARGET))
    if shape.TARGET in columns:
        raise UserError(
            f"the targets are {', '.join(names)}, and `columns` names {columns[shape.TARGET]} as {shape.TARGET}: give "
            f"one of the two"
        )
    return [
        replace(loss_law(table, options=replace(options, columns={**columns, shape.TARGET: target})), name=target)
        for target in names
    ]
