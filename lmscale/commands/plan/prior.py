"""The law that a design is judged by: a published one by name, or that of a fit."""

from pathlib import Path
from typing import TYPE_CHECKING

from lmscale.core.errors import UserError, nearest
from lmscale.core.files import read_json
from lmscale.study.design import Prior
from lmscale.study.laws import PUBLISHED

if TYPE_CHECKING:
    from lmscale.study.fits import LossLaw

FITTED_FROM = {
    "chinchilla-refit": 1.4e18,
    "besiroglu-2024": 1.4e18,
    "hoffmann-2022": 1.4e18,
    "muennighoff-2023": 4.3e15,
    "gadre-2024-c4": 3.4e15,
    "gadre-2024-redpajama": 3.4e15,
    "gadre-2024-refinedweb": 3.4e15,
}
"""Smallest budget, in FLOPs, of the published runs behind a law."""
DEFAULTS = {"chinchilla": "chinchilla-refit", "data-constrained": "muennighoff-2023"}
"""Law that a sweep is to identify -> its published constants."""


def prior_of(named: str | None, law: str, noise_nats: float, shared: float) -> Prior:
    """The prior `named`: a published law or a file that `lmscale fit --json` wrote; unset, the default for `law`.

    Raises `UserError` that names the nearest.
    """
    if not named and law not in DEFAULTS:
        raise UserError(
            f"no constants of the law {law!r} are known to judge the plan at: fit a small sweep with "
            f"`lmscale fit TABLE --law {law} --json FITS.json` and give --prior FITS.json"
        )
    name = named or DEFAULTS[law]
    if name in PUBLISHED:
        return Prior(PUBLISHED[name], name, noise_nats, shared, FITTED_FROM.get(name))
    if Path(name).suffix != ".json":
        raise UserError(
            f"no prior is called {name!r}{nearest(name, PUBLISHED)}; or give a file that `lmscale fit --json` wrote"
        )
    return Prior(fitted_law(Path(name)).law, name, noise_nats, shared, smallest_flops=None)


def fitted_law(path: Path) -> "LossLaw":
    """The law of params and tokens in a file of `lmscale fit --json`. Raises `UserError` where there is none."""
    from lmscale.study.fits import LossLaw

    value = read_json(path, "fit")
    fits = value.get("fits", []) if isinstance(value, dict) else []
    for one in fits:
        if isinstance(one, dict) and one.get("approach") == "3" and "parameters" in one:
            fit = LossLaw.from_json(one)
            if fit.law.INPUTS == ("params", "tokens"):
                return fit
    raise UserError(
        f"{path} holds no law of params and tokens; `lmscale fit TABLE --approach 3 --json {path.name}` writes one"
    )
