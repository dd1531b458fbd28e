"""How precise a plan is under each law that its prior allows, not only under the one that the prior names.

Letters: r draws of the prior, n runs, p unknowns.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from lmscale.study.design.fisher import Information, fisher, gradient
from lmscale.study.laws import Law

TOGETHER = 200_000
"""Draws times runs that are differentiated at once, to bound the memory of large plans."""
SINGULAR = 1e15
"""Condition of an information matrix from which on its inverse is rounding error."""


def sds(information: Information, quantity: Callable[[Law], Any]) -> np.ndarray:
    """Standard deviation of `quantity` under every draw of the prior (r,): infinite where the runs do not give one.

    Empty for a prior without draws, and for runs that cannot identify the law.
    """
    prior = information.prior
    if prior.draws is None or not information.identified:
        return np.zeros(0)
    values = [np.asarray(value)[:, None] for value in prior.draws.values().values()]
    size = max(1, TOGETHER // len(information.runs))
    scale_r = np.ones(len(values[0])) if prior.noises_r is None else prior.noises_r / prior.noise_nats
    parts = [
        _sds_of(
            information,
            type(prior.draws)(*[value[at : at + size] for value in values]),
            scale_r[at : at + size],
            quantity,
        )
        for at in range(0, len(values[0]), size)
    ]
    return np.concatenate(parts) * scale_r


def _sds_of(information: Information, laws: Law, scale_r: np.ndarray, quantity: Callable[[Law], Any]) -> np.ndarray:
    """`sds` of laws whose parameters are (r, 1), with `scale_r` times the prior's noise, over `scale_r`."""
    with np.errstate(all="ignore"):
        known_rpp = fisher(replace(information.prior, law=laws), information.runs, scale_r)
        slope_rp = gradient(laws, quantity)[:, 0]
    usable_r = np.isfinite(known_rpp).all(axis=(1, 2)) & np.isfinite(slope_rp).all(axis=1)
    condition_r = np.full(len(known_rpp), np.inf)
    condition_r[usable_r] = np.linalg.cond(known_rpp[usable_r])
    usable_r = condition_r < SINGULAR
    sds_r = np.full(len(known_rpp), np.inf)
    solved_rp = np.linalg.solve(known_rpp[usable_r], slope_rp[usable_r][:, :, None])[:, :, 0]
    sds_r[usable_r] = np.sqrt(np.maximum(np.einsum("rp,rp->r", slope_rp[usable_r], solved_rp), 0.0))
    return sds_r
