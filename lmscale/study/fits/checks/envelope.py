"""Checks of an envelope: each is a status with a name and one sentence."""

import numpy as np

from lmscale.study.fits.approaches.envelope_curves import Curves, Envelope, bracketed
from lmscale.study.fits.results.common import Status
from lmscale.study.fits.runs import UsableRuns
from lmscale.study.fits.solvers.power_law import regress


def ends(
    curves: Curves, log_flops: np.ndarray, who: np.ndarray, on: np.ndarray, used: np.ndarray | None, a: float
) -> Status:
    """Where the best size is near the smallest or largest of its compute, no better one was there to be chosen."""
    every = int(on.sum())
    if used is None:
        sentence = (
            f"at fewer than three of {every} points of the envelope were sizes a factor 2 above and below the best run"
        )
        return Status("envelope not contested", f"{sentence}: a is that of the design, not of the losses", "warning")
    if outside := every - int(used.sum()):
        slope, _ = regress(log_flops[on], curves.log_params[who[on]][:, None], np.ones((every, 1)))
        sentence = (
            f"at {outside} of {every} points of the envelope the optimum is within a factor 2 of the smallest or "
        )
        sentence += (
            f"largest size run there; the line leaves them out: with them a = {float(slope[0]):.4f} instead of {a:.4f}"
        )
        return Status("envelope ends", sentence, "note")
    return Status(
        "envelope ends", "at every point of the envelope sizes a factor 2 above and below the optimum were run"
    )


def through_all(curves: Curves, lowest: Envelope) -> Status:
    """The line goes through every point because it was asked to: how many of them have no larger and smaller rivals."""
    run, on = lowest.run[:, 0], lowest.on[:, 0]
    contested = bracketed(curves, lowest.log_flops, curves.log_params[lowest.run])[:, 0] & on
    sentence = f"the line goes through all {int(on.sum())} points of the envelope, as asked"
    uncontested = int(on.sum()) - int(contested.sum())
    if uncontested:
        sentence += (
            f"; at {uncontested} no size a factor 2 above or below the best of {len(np.unique(run[on]))} runs was run"
        )
    return Status("envelope ends", sentence, "note" if uncontested else "ok")


def schedules(runs: UsableRuns, curves: Curves) -> list[Status]:
    columns = {"schedule", "fraction_of_schedule", "portion_steps_elapsed"} & set(map(str, runs.table.columns))
    if max(map(len, curves.loss)) > 1 and not columns:
        return [
            Status(
                "schedules unknown",
                "the curves have points inside a run, and the table does not say whether the learning rate was "
                "constant there: inside a decaying schedule the loss is too high for its compute",
                "warning",
            )
        ]
    return []
