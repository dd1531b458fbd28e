"""Saved fits and registered predictions."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from helpers.finished_sweep import write_finished
from helpers.readers.reader import Reader
from helpers.readers.runs import SMOKE
from lmscale.commands.plan.optimal import _sweep_of
from lmscale.commands.plan.prior import fitted_law
from lmscale.core.files import write_json
from lmscale.study import fits
from lmscale.study.fits.predict import preregister
from lmscale.study.fits.results.artefact import load_law
from lmscale.study.laws import Chinchilla, training_flops

POINT = {"params": 2e8, "tokens": 4e9}


@cache
def _fitted() -> Any:
    rng = np.random.default_rng(0)
    law = Chinchilla(E=1.7, A=400.0, B=410.0, alpha=0.34, beta=0.28)
    params, tokens = (np.outer(np.geomspace(1e7, 1e9, 6), np.ones(4)).ravel(), np.tile(np.geomspace(1e9, 2e10, 4), 6))
    loss = law.loss(params, tokens) * np.exp(0.002 * rng.standard_normal(params.size))
    return fits.loss_law(
        pd.DataFrame({"params": params, "tokens": tokens, "loss_nats": loss}), resamples=20, check=False
    )


def _fits(folder: Path) -> Path:
    write_json(folder / "fits.json", {"table": "runs.csv", "fits": [_fitted().to_json(samples=True)]})
    return folder / "fits.json"


def _artefact(folder: Path) -> Path:
    fits.save(_fitted(), folder / "fit.slaw", "runs.csv")
    return folder / "fit.slaw"


def _answer(path: Path) -> Any:
    """The loss of a run and the best run, as `lmscale predict` says them."""
    fit = load_law(path)
    return fit.predict(**POINT).loss_nats, fits.allocate(fit, [training_flops(1e21)], draws=2).optimum.loss


def _prediction(folder: Path) -> Path:
    preregister.register(_fitted(), [POINT], folder / "prediction.json")
    return folder / "prediction.json"


def _optimum(path: Path) -> Any:
    """What the law of a saved fit says: its constants, an optimum and a prediction, and all of it as text."""
    fit = fitted_law(path)
    optimum = fit.optimum(1e21)
    assert str(fit)
    json.dumps(fit.to_json(), allow_nan=False)
    return fit.law.values(), optimum.params, optimum.tokens, fit.predict(**POINT).loss_nats


def _verdict(path: Path) -> Any:
    verdict = preregister.check(path, loss_nats=2.5)
    assert preregister.verdict_lines(verdict)
    return json.loads(json.dumps(verdict, allow_nan=False))


def _fits_of_a_sweep(folder: Path) -> Path:
    sweep = write_finished(SMOKE, folder)
    write_json(folder / "fits.json", {"table": str(sweep), "fits": [_fitted().to_json()]})
    return folder / "fits.json"


def _sweep(path: Path) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(SMOKE.parents[1])
        return _sweep_of(path).name


READERS = (
    Reader("saved fit", _fits, _optimum, "json"),
    Reader("artefact of a fit", _artefact, _answer, "json"),
    Reader("sweep of a saved fit", _fits_of_a_sweep, _sweep, "json"),
    Reader("prediction", _prediction, _verdict, "json", exact=True),
)
