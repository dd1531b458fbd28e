"""How each fit was made and how its intervals were drawn, in sentences that follow from the fit's own fields."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lmscale.study.fits.results.common import LEVELS, why_no_interval

if TYPE_CHECKING:
    from lmscale.study.fits import Frontier, IsoFlop, LossLaw
    from lmscale.study.fits.results.artefact import Fit

GIVEN = "given"
"""The source of a noise that the user stated."""
RATES = {
    "inside": "only the runs at the best rate enter, and none where that is the smallest or largest of three or more",
    "best": "only the runs at the best rate enter",
    "all": "the runs at every rate enter",
}


def levels() -> str:
    """The levels of every interval on the page: "80 and 95 %"."""
    return f"{' and '.join(f'{100 * level:g}' for level in LEVELS)} %"


def method(fit: "Fit") -> str:
    """What was minimised, over which runs."""
    sentence = {"1": _envelope, "2": _valleys, "3": _law}[fit.approach](fit)  # type: ignore[operator]
    if any(status.name == "several learning rates" for status in fit.status):
        sentence += f" Where one N and D was run at several learning rates, {RATES[fit.rates]}."
    return sentence


def intervals(fit: "Fit") -> str:
    """How the resamples were drawn from which the fit's intervals are taken."""
    if not fit.resamples:
        reason = why_no_interval(fit.status)
        return f"None: {reason or 'the fit was made without resamples'}."
    how = {"1": _whole_runs, "2": _noisy_minima, "3": _bootstrap}[fit.approach](fit)  # type: ignore[operator]
    return f"The central {levels()} of {fit.resamples} resamples (seed {fit.seed}). {how}"


def _law(fit: "LossLaw") -> str:
    quantity = {"loss_nats": "L"}.get(fit.law.TARGET, fit.law.TARGET)
    residual = {"log": f"ln {quantity}", "raw": quantity}[fit.residual]
    loss = {
        "huber": f"Huber losses (delta = {fit.delta:g})",
        "lad": "absolute values",
        "squared": "squares",
    }[fit.loss_function]
    sentence = f"Least sum of the {loss} of the residuals of {residual} over {fit.n_runs} runs"
    if fit.fixed:
        sentence += f", with {listed(fit.fixed)} held fixed"
    return f"{sentence}."


def _valleys(fit: "IsoFlop") -> str:
    noisy = bool(fit.resamples) and fit.noise_nats > 0
    if fit.method == "akima":
        curve = "an Akima interpolation of ln L on ln N"
        centre = " (the median over the resamples)" if noisy else ""
    else:
        sizes = "all sizes"
        if fit.window is not None:
            sizes = f"the sizes within a factor {fit.window:g} of the lowest run, or the three nearest to it"
        curve, centre = f"a parabola of the loss in ln N through {sizes}", ""
    weights = "weighted by the minima's noise" if all(m.log_params_sd > 0 for m in fit.minima) else "unweighted"
    return (
        f"For each budget the minimum of {curve}{centre}; then least squares of ln N* on ln C through "
        f"{len(fit.minima)} minima ({fit.n_runs} runs), {weights}."
    )


def _envelope(fit: "Frontier") -> str:
    envelope = {
        "bins": "the lowest curve at each of a series of log-spaced budgets",
        "hull": "the lower convex hull of all points in (ln C, ln L)",
    }[fit.method]
    line = sum(point.in_line for point in fit.frontier)
    return (
        f"The lower envelope of the curves of {fit.n_runs} runs: {envelope}; then least squares of ln N* on ln C "
        f"through {line} of its {len(fit.frontier)} points."
    )


def _whole_runs(fit: "Frontier") -> str:
    return "Each draws whole runs with replacement and finds the envelope again."


def _noisy_minima(fit: "IsoFlop") -> str:
    if not fit.noise_nats:
        sentence = f"They add no noise, since that of one run is not known ({fit.noise_source})"
    else:
        sentence = (
            f"Each adds normal noise of one run, {fit.noise_nats:.3g} nats ({fit.noise_source}), to every loss and "
            f"finds the minima again"
        )
    if fit.noise_freedom is not None:
        sentence += f"; its size is drawn too, {_estimate(fit.noise_freedom)}"
    if fit.noise_source != GIVEN:
        sentence += "; scatter of the minima about the line beyond this noise is added"
    if fit.bias is not None:
        sentence += (
            "; every second one is corrected for the bias of the interpolation"
            if fit.bias.in_draws
            else "; the bias of the interpolation is not in them"
        )
    return f"{sentence}."


def _bootstrap(fit: "LossLaw") -> str:
    if not fit.bootstrap:
        return "The fit does not state how they were drawn."
    return {"runs": _drawn_runs, "weights": _exponential_weights, "noise": _drawn_losses}[fit.bootstrap](fit)


def _drawn_runs(fit: "LossLaw") -> str:
    unit = f"groups of runs with one value of {fit.clusters}" if fit.clusters else "runs"
    return f"Each draws whole {unit} with replacement{_within(fit, 'as many')}."


def _exponential_weights(fit: "LossLaw") -> str:
    unit = f"group of runs with one value of {fit.clusters}" if fit.clusters else "run"
    return (
        f"Each keeps every run and gives every {unit} an exponential weight of mean one"
        f"{_within(fit, 'the same total weight')}."
    )


def _within(fit: "LossLaw", amount: str) -> str:
    return f", {amount} in each {fit.strata} as in the table" if fit.strata else ""


def _drawn_losses(fit: "LossLaw") -> str:
    assert fit.noise is not None
    unit = "nats" if fit.law.TARGET == "loss_nats" else fit.law.TARGET
    sentence = (
        f"Each keeps every run and draws its {'loss' if unit == 'nats' else unit} about the fitted law, with normal "
        f"noise of {fit.noise.sd:.3g}{' nats' if unit == 'nats' else ''} ({fit.noise.source})"
    )
    if fit.noise.freedom is not None:
        sentence += f", whose size is drawn too, {_estimate(fit.noise.freedom)}"
    if fit.shared_noise:
        sentence += (
            f"; {100 * fit.shared_noise:.3g} % of its variance is common to runs with one value of {fit.clusters}"
        )
    return f"{sentence}. What the law itself misses of the runs is not in these intervals."


def _estimate(freedom: float) -> str:
    """How the size of an estimated noise is drawn."""
    return f"as an estimate with {freedom:.3g} degrees of freedom"


def listed(names: Sequence[str]) -> str:
    """Names within a sentence: "E", "E and A", "E, A and B"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
