"""The law that a design is judged by: a published one by name, or that of a fit."""

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from lmscale.core.errors import UserError, nearest
from lmscale.core.files import read_json
from lmscale.study.design import Discrepancy, Prior, Runs, information, noise_draws, normal_draws, published_prior
from lmscale.study.design.prior import DRAWS, NOISE_NATS
from lmscale.study.laws import PUBLISHED

if TYPE_CHECKING:
    from lmscale.study.fits import LossLaw

DEFAULTS = {"chinchilla": "chinchilla-refit", "data-constrained": "muennighoff-2023", "clark": "clark-2022-sbase"}
"""Law that a sweep is to identify -> its published constants."""


def prior_of(
    named: str | None,
    law: str,
    noise_nats: float | None,
    shared: float,
    discrepancy: float | Literal["fit"] | None = None,
) -> Prior:
    """The prior `named`: a published law or a file that `lmscale fit --json` wrote; unset, the default for `law`.

    `discrepancy` is the size of its discrepancy, or "fit" for what the fitted runs cannot rule out.

    Raises `UserError` that names the nearest, and where "fit" is asked of a law that is no fit.
    """
    if not named and law not in DEFAULTS:
        raise UserError(
            f"no constants of the law {law!r} are known to judge the plan at: fit a small sweep with "
            f"`lmscale fit TABLE --law {law} --json FITS.json` and give --prior FITS.json"
        )
    name = named or DEFAULTS[law]
    if name not in PUBLISHED and Path(name).suffix not in (".json", ".slaw"):
        raise UserError(
            f"no prior is called {name!r}{nearest(name, PUBLISHED)}; or give a file that `lmscale fit --json` wrote"
        )
    fit = None if name in PUBLISHED else fitted_law(Path(name), any_inputs=True)
    prior = published_prior(name, noise_nats, shared) if fit is None else fitted_prior(fit, name, noise_nats, shared)
    return replace(prior, discrepancy=_discrepancy(discrepancy, fit, name))


def _discrepancy(asked: float | Literal["fit"] | None, fit: "LossLaw | None", name: str) -> Discrepancy | None:
    if asked is None:
        return None
    if asked != "fit":
        return Discrepancy(asked)
    if fit is None:
        raise UserError(
            f"--discrepancy fit is what the runs of a fit cannot rule out, and the prior is the published law "
            f"{name!r}: give --prior FITS.json, or a number, as in --discrepancy 0.02"
        )
    if (allowed := fit.allowed_discrepancy()) is None:
        raise UserError(
            f"the law of {name} has no derivative at its runs, so that they do not tell a discrepancy: give a number, "
            f"as in --discrepancy 0.02"
        )
    return allowed


def fitted_prior(fit: "LossLaw", name: str, noise_nats: float | None, shared: float) -> Prior:
    """The prior of a fit: its law and the scatter of its runs, with draws of both.

    Laws are drawn from its resamples or, where the file holds none, from the covariance that its runs give. Without
    `noise_nats` the noise is the standard deviation of the fit's residuals, in nats.
    """
    rows = {
        column: np.asarray(fit.residuals[column], dtype=float) for column in (*fit.law.INPUTS, "measured", "predicted")
    }
    freedom = fit.n_runs - len(fit.law.names()) + len(fit.fixed) + len(fit.tied)
    scatter = math.sqrt(float(((rows["predicted"] - rows["measured"]) ** 2).sum()) / freedom) if freedom > 0 else 0.0
    known = scatter > 0
    noise = noise_nats if noise_nats is not None else scatter if known else NOISE_NATS
    prior = Prior(fit.law, name, noise, shared, smallest_flops=None, size_column=fit.size_column, given=fit.given)
    draws = fit.samples
    if draws is None and known and not fit.fixed and not fit.tied:
        runs = Runs.of({name: rows[name] for name in fit.law.INPUTS})
        own = information(replace(prior, noise_nats=scatter, shared=0.0), runs)
        draws = None if own.covariance_pp is None else normal_draws(fit.law, own.covariance_pp)
    elif draws is not None:
        chosen = np.linspace(0, fit.resamples - 1, min(DRAWS, fit.resamples)).astype(int)
        draws = type(draws)(**{parameter: np.asarray(value)[chosen] for parameter, value in draws.values().items()})
    if draws is None:
        return prior
    count = len(next(iter(draws.values().values())))
    noises = noise_draws(scatter, freedom, count) if noise_nats is None and known else None
    return replace(prior, draws=draws, noises_r=noises)


def fitted_law(path: Path, any_inputs: bool = False) -> "LossLaw":
    """The law of params and tokens in a file of `lmscale fit --json`; with `any_inputs`, another where there is none.

    Raises `UserError` where there is no such law.
    """
    from lmscale.study.fits import LossLaw
    from lmscale.study.fits.results.artefact import FIT_AGAIN, check_version

    value = read_json(path, "fit", FIT_AGAIN)
    if isinstance(value, dict):
        check_version(value, path)
    fits = value.get("fits") if isinstance(value, dict) else None
    rows = [one for one in fits if isinstance(one, dict)] if isinstance(fits, list) else []
    laws = [LossLaw.from_json(one) for one in rows if one.get("approach") == "3" and "parameters" in one]
    usual = [fit for fit in laws if fit.law.INPUTS == ("params", "tokens")]
    if usual or (any_inputs and laws):
        return (usual or laws)[0]
    of = "no parametric law" if any_inputs else "no law of params and tokens"
    raise UserError(f"{path} holds {of}; `lmscale fit TABLE --approach 3 --json {path.name}` writes one")
