"""Approaches 1, 2 and 3 of Hoffmann 2022 (arXiv 2203.15556), their intervals and their checks.

    table = read_table("chinchilla")                       # lmscale.tables
    law = fits.loss_law(table, resamples=4000, seed=0)     # Approach 3; fits.isoflop: 2; fits.frontier: 1
    print(law)                                             # reads like a result section
    law.optimum(flops=1e21)                                # Allocation(params=..., tokens=..., loss_nats=...)
    law.interval(lambda law: law.optimum(1e21).params)     # where the law lies
    law.predict(params=1e9, tokens=2e10).interval          # where one new run would land: wider

A fit is a frozen object; rows marked `held_out` never enter one. Names are loaded on first use, so that
`lmscale.fits.command` (the arguments of the command line) costs nothing to import.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lmscale.fits.approaches import APPROACHES, fit
    from lmscale.fits.envelope import Frontier, frontier
    from lmscale.fits.held_out import HeldOut, held_out_check
    from lmscale.fits.losslaw import PUBLISHED_AT, LossLaw
    from lmscale.fits.models import Comparison, compare
    from lmscale.fits.multiplier import ComputeMultiplier, compute_multiplier
    from lmscale.fits.parametric import loss_law
    from lmscale.fits.registered import check, register
    from lmscale.fits.result import Dropped, Prediction, Status
    from lmscale.fits.valleys import IsoFlop, isoflop

_HOME = {
    "Frontier": "envelope",
    "frontier": "envelope",
    "APPROACHES": "approaches",
    "fit": "approaches",
    "HeldOut": "held_out",
    "held_out_check": "held_out",
    "LossLaw": "losslaw",
    "loss_law": "parametric",
    "PUBLISHED_AT": "losslaw",
    "Comparison": "models",
    "compare": "models",
    "ComputeMultiplier": "multiplier",
    "compute_multiplier": "multiplier",
    "check": "registered",
    "register": "registered",
    "Dropped": "result",
    "Prediction": "result",
    "Status": "result",
    "IsoFlop": "valleys",
    "isoflop": "valleys",
}

__all__ = [
    "APPROACHES",
    "PUBLISHED_AT",
    "Comparison",
    "ComputeMultiplier",
    "Dropped",
    "Frontier",
    "HeldOut",
    "IsoFlop",
    "LossLaw",
    "Prediction",
    "Status",
    "check",
    "compare",
    "compute_multiplier",
    "fit",
    "frontier",
    "held_out_check",
    "isoflop",
    "loss_law",
    "register",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value
