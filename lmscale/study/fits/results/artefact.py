"""A fit as a file: form, constants, draws, checks, the table's hash and the code's, for questions that come later.

The file is JSON with the ending .slaw. It holds every draw, so that any quantile of any quantity can be asked without
the table, and reads as what `lmscale fit --json` writes wherever that is taken.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

from lmscale.core.arguments import checked
from lmscale.core.errors import UserError
from lmscale.core.files import read_json, write_json
from lmscale.study.fits.results.frontier import Frontier
from lmscale.study.fits.results.isoflop import IsoFlop
from lmscale.study.fits.results.loss_law import LossLaw
from lmscale.study.fits.results.saved import SavedFields, shown, text

Fit: TypeAlias = Frontier | IsoFlop | LossLaw
"""What a fit of any approach gives."""
VERSION = 1
FIT_AGAIN = "give a file that `lmscale fit TABLE --save` or `--json` wrote whole"
"""What to do about a file that is no saved fit: it may be the user's table."""
KINDS: dict[str, Any] = {"1": Frontier, "2": IsoFlop, "3": LossLaw}
"""Approach -> the class of its fit."""


@checked
def save(fits: Fit | Sequence[Fit], path: str | Path, table: str = "") -> None:
    """Write fits with their draws; `table` names where the runs came from.

    Raises `UserError` where the file exists: a prediction may refer to it.
    """
    from lmscale.study.fits.predict.preregister import code_hash

    path = Path(path)
    if path.exists():
        raise UserError(f"{path} already holds a fit, to which predictions may refer: give another path, or delete it")
    several = list(fits) if isinstance(fits, Sequence) else [fits]
    path.parent.mkdir(parents=True, exist_ok=True)
    value = {
        "artefact": VERSION,
        "table": table,
        "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "code_hash": code_hash(),
        "fits": [one.to_json(samples=True) for one in several],
    }
    write_json(path, value)


@checked
def load(path: str | Path) -> list[Fit]:
    """The fits of a file that `save`, or `lmscale fit --json`, wrote; those of the latter have no draws.

    Raises `UserError` for a file of another version, or one that was cut or edited.
    """
    fields = SavedFields.of(read_json(path, "saved fit", FIT_AGAIN), f"the saved fit {path}")
    check_version(fields.value, path)
    kinds = [text(SavedFields.of(one, str(path))["approach"], "the approach") for one in fields["fits"]]
    for kind in kinds:
        if kind not in KINDS:
            raise UserError(f"{path} holds a fit of approach {shown(kind)}: known are 1, 2 and 3")
    return [KINDS[kind].from_json(one) for kind, one in zip(kinds, fields["fits"])]


def load_law(path: str | Path) -> LossLaw:
    """The first parametric law of a saved fit. Raises `UserError` as `load` does, or where the file has none."""
    return load_laws(path)[0]


def load_laws(path: str | Path) -> list[LossLaw]:
    """The parametric laws of a saved fit, one for each target. Raises `UserError` as `load_law` does."""
    laws = [one for one in load(path) if isinstance(one, LossLaw)]
    if not laws:
        raise UserError(f"{path} holds no parametric law: fit one with `lmscale fit TABLE --approach 3`")
    return laws


def check_version(value: Any, path: str | Path) -> None:
    """Raises `UserError` for a file of another version of lmscale; older files state none."""
    version = value.get("artefact", VERSION)
    if version != VERSION:
        raise UserError(
            f"{path} is a fit of version {shown(version)}, and this lmscale reads version {VERSION}: fit again, or use "
            f"the lmscale that wrote it"
        )
