"""Several approaches from one table, side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

from lmscale.core.errors import UserError, nearest
from lmscale.study.fits.results.common import Status

if TYPE_CHECKING:
    import pandas as pd

    from lmscale.study.fits.results.frontier import Frontier
    from lmscale.study.fits.results.isoflop import IsoFlop
    from lmscale.study.fits.results.loss_law import LossLaw

    Fit: TypeAlias = Frontier | IsoFlop | LossLaw

APPROACHES = ("1", "2", "3")
RESAMPLES = {"1": 1000, "2": 1000, "3": 4000}


def fit(
    table: "pd.DataFrame",
    approaches: Sequence[str] = APPROACHES,
    *,
    law: str = "chinchilla",
    loss: str = "huber",
    delta: float = 1e-3,
    residual: str | None = None,
    resamples: int | None = None,
    seed: int = 0,
    at: Sequence[float] | None = None,
    strata: str | None = None,
    clusters: str | None = None,
    fixed: Mapping[str, float] | None = None,
    valley: str = "auto",
    noise_nats: float | None = None,
    shared_noise: float = 0.0,
    window: float | None = None,
    envelope: str = "bins",
    bootstrap: str = "auto",
    rates: str = "inside",
    check: bool = True,
) -> "list[Fit]":
    """The fits of `approaches` ("1" envelope, "2" IsoFLOP valleys, "3" parametric law), in that order.

    `resamples` None takes 1000 for Approaches 1 and 2 and 4000 for 3; `noise_nats` is for 2, and for 3 where
    `bootstrap` is "noise". Of several approaches, one that the table cannot support is left out, and a status of the
    others says why; `UserError` where none can be fitted.
    """
    from lmscale.study.fits.approaches.envelope import frontier
    from lmscale.study.fits.approaches.isoflop import isoflop
    from lmscale.study.fits.approaches.parametric import loss_law

    for name in approaches:
        if name not in APPROACHES:
            raise UserError(f"no approach is called {name!r}{nearest(name, APPROACHES)}: 1, 2, 3 or all")
    if resamples is not None and resamples < 0:
        raise UserError(f"resamples = {resamples}: it is a count; 0 states no intervals")
    fits: list[Any] = []
    trouble: dict[str, UserError] = {}
    for name in sorted(set(approaches)):
        count = RESAMPLES[name] if resamples is None else resamples
        try:
            if name == "1":
                fits.append(
                    frontier(table, method=envelope, resamples=count, seed=seed, rates=rates, at=at, check=check)
                )
            elif name == "2":
                fits.append(
                    isoflop(
                        table,
                        method=valley,
                        resamples=count,
                        seed=seed,
                        noise_nats=noise_nats,
                        window=window,
                        rates=rates,
                        at=at,
                        check=check,
                    )
                )
            else:
                fits.append(
                    loss_law(
                        table,
                        law,
                        loss=loss,
                        delta=delta,
                        residual=residual,
                        resamples=count,
                        seed=seed,
                        bootstrap=bootstrap,
                        noise_nats=noise_nats if bootstrap == "noise" else None,
                        shared_noise=shared_noise,
                        rates=rates,
                        strata=strata,
                        clusters=clusters,
                        fixed=fixed,
                        at=at,
                        check=check,
                    )
                )
        except UserError as error:
            trouble[name] = error
    if not fits:
        saying: dict[str, list[str]] = {}
        for name, refusal in trouble.items():
            saying.setdefault(str(refusal), []).append(name)
        if len(saying) == 1:
            raise next(iter(trouble.values()))
        raise UserError("; ".join(f"approach {' and '.join(names)}: {said}" for said, names in saying.items()))
    said = tuple(Status(f"approach {name} not fitted", str(refusal), "note") for name, refusal in trouble.items())
    return [replace(one, status=(*one.status, *said)) for one in fits]
