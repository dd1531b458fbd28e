"""Every sentence about a method follows from the fit's fields, for every value that a field can take."""

from dataclasses import fields, replace
from typing import get_args, get_type_hints

import numpy as np
import pandas as pd
import pytest
from helpers.simulated import TRUTH

from lmscale.core.counting import Counts
from lmscale.study import fits
from lmscale.study.fits import learning_rates
from lmscale.study.fits.results.common import Status
from lmscale.study.fits.results.run_noise import RunNoise
from lmscale.study.laws import FORMS, ComputeModel, form
from lmscale.study.report.conventions import conventions
from lmscale.study.report.methods import RATES, intervals, levels, method


def choices(option: str) -> tuple[str, ...]:
    """The words that an option of a fit takes."""
    return get_args(get_type_hints(fits.FitOptions)[option])


def table(sizes=5):
    """Three budgets of `sizes` runs on the known law, with a little noise."""
    rows = []
    for budget in (1e12, 1e13, 1e14):
        best = float(TRUTH.optimum(budget).params)
        rows += [
            (best * factor, budget / (6 * best * factor), budget, budget) for factor in np.geomspace(0.3, 3, sizes)
        ]
    runs = pd.DataFrame(rows, columns=["params", "tokens", "flops", "flops_budget"])
    noise = 0.003 * np.random.default_rng(0).standard_normal(len(runs))
    return runs.assign(loss_nats=TRUTH.loss(runs["params"], runs["tokens"]) + noise)


@pytest.fixture(scope="module")
def law():
    return fits.loss_law(table(), resamples=20, seed=7, check=False)


@pytest.fixture(scope="module")
def valleys():
    return fits.isoflop(table(), resamples=20, seed=7, check=False)


@pytest.fixture(scope="module")
def frontier():
    return fits.frontier(table(), resamples=20, seed=7, check=False)


@pytest.mark.parametrize(
    ("loss", "phrase"),
    [("huber", "Huber losses (delta = 0.01)"), ("lad", "absolute values"), ("squared", "squares")],
)
@pytest.mark.parametrize(("residual", "quantity"), [("log", "ln L"), ("raw", "L")])
def test_the_objective_of_a_law(law, loss, phrase, residual, quantity):
    fit = replace(law, loss_function=loss, delta=0.01, residual=residual)
    assert method(fit) == f"Least sum of the {phrase} of the residuals of {quantity} over 15 runs."


def test_no_loss_function_lacks_a_phrase():
    assert choices("loss") == ("huber", "lad", "squared")


@pytest.mark.parametrize(
    ("fixed", "phrase"), [(("E",), "E"), (("E", "alpha"), "E and alpha"), (("E", "A", "beta"), "E, A and beta")]
)
def test_fixed_parameters_are_named(law, fixed, phrase):
    assert method(replace(law, fixed=fixed)).endswith(f"over 15 runs, with {phrase} held fixed.")


def test_a_law_of_another_target_states_residuals_of_that_target(law):
    shape = form(next(iter(_targets().values())))
    fit = replace(law, law=shape(*np.ones(len(shape.PARAMETERS))), residual="raw")
    assert f"of the residuals of {shape.TARGET} over" in method(fit)


def _targets():
    """Target other than the loss -> a law that states it."""
    return {law.TARGET: name for name, law in FORMS.items() if law.TARGET != "loss_nats"}


@pytest.mark.parametrize("rates", choices("rates"))
def test_which_learning_rates_enter_is_stated_where_cells_have_several(law, rates):
    several = Status("several learning rates", "2 of 9 runs are not at the best")
    sentence = method(replace(law, rates=rates, status=(several,)))
    assert sentence.endswith(f" Where one N and D was run at several learning rates, {RATES[rates]}.")
    assert "learning rate" not in method(replace(law, rates=rates, status=()))


def test_the_choices_of_learning_rates_are_what_the_fits_do():
    """One cell of three rates with its best in the middle, one with its best at an edge."""
    rows = pd.DataFrame({"params": [1.0] * 3 + [2.0] * 3, "tokens": 1.0, "lr": [1, 2, 3] * 2,
                         "loss_nats": [3, 2, 3, 1, 2, 3]})  # fmt: skip
    out = {rates: set(learning_rates.left_out(rows, "loss_nats", rates)) for rates in choices("rates")}
    assert out == {"all": set(), "best": {0, 2, 4, 5}, "inside": {0, 2, 3, 4, 5}}
    assert RATES["all"] == "the runs at every rate enter"
    assert RATES["best"] == "only the runs at the best rate enter"
    assert RATES["inside"] == f"{RATES['best']}, and none where that is the smallest or largest of three or more"


KINDS = [kind for kind in choices("bootstrap") if kind != "auto"]
DRAWN = {
    "runs": "Each draws whole runs with replacement.",
    "weights": "Each keeps every run and gives every run an exponential weight of mean one.",
    "noise": "Each keeps every run and draws its loss about the fitted law, with normal noise of 0.01 nats (given). "
    "What the law itself misses of the runs is not in these intervals.",
    "": "The fit does not state how they were drawn.",
}


@pytest.mark.parametrize("kind", [*KINDS, ""])
def test_the_bootstrap_of_a_law_is_the_one_that_was_used(law, kind):
    fit = replace(law, bootstrap=kind, noise=RunNoise(0.01, "given", None) if kind == "noise" else None)
    assert intervals(fit) == f"The central 80 and 95 % of 20 resamples (seed 7). {DRAWN[kind]}"


@pytest.mark.parametrize("kind", KINDS)
def test_a_fit_states_the_bootstrap_that_was_asked_for(kind):
    fit = fits.loss_law(table(), resamples=9, bootstrap=kind, noise_nats=0.01 if kind == "noise" else None, check=False)
    assert intervals(fit) == f"The central 80 and 95 % of 9 resamples (seed 0). {DRAWN[kind]}"


def test_few_runs_under_huber_are_weighted_and_the_page_says_so():
    fit = fits.loss_law(table(), resamples=9, delta=1e-4, check=False)
    assert fit.bootstrap == "weights" and "exponential weight" in intervals(fit) and "replacement" not in intervals(fit)


@pytest.mark.parametrize(
    ("kind", "phrase"),
    [
        (
            "runs",
            "Each draws whole groups of runs with one value of trunk with replacement, as many in each budget as in "
            "the "
            "table.",
        ),
        (
            "weights",
            "Each keeps every run and gives every group of runs with one value of trunk an exponential weight of mean "
            "one, the same total weight in each budget as in the table.",
        ),
    ],
)
def test_clusters_and_strata_are_named(law, kind, phrase):
    assert intervals(replace(law, bootstrap=kind, clusters="trunk", strata="budget")).endswith(f" {phrase}")


def test_a_drawn_noise_states_its_freedom_and_what_runs_share(law):
    noise = RunNoise(0.0123, "the seeds of 4 points, 5 degrees of freedom", 5)
    sentence = intervals(replace(law, bootstrap="noise", noise=noise, shared_noise=0.25, clusters="trunk"))
    assert (
        "normal noise of 0.0123 nats (the seeds of 4 points, 5 degrees of freedom), whose size is drawn too, as an "
        "estimate with 5 degrees of freedom; 25 % of its variance is common to runs with one value of trunk."
        in sentence
    )


def test_without_resamples_there_are_no_intervals(law, valleys, frontier):
    for fit in (law, valleys, frontier):
        assert intervals(replace(fit, samples=None)) == "None: the fit was made without resamples."


@pytest.mark.parametrize(
    ("how", "window", "phrase"),
    [
        ("parabola", None, "a parabola of the loss in ln N through all sizes"),
        (
            "parabola",
            3.0,
            "a parabola of the loss in ln N through the sizes within a factor 3 of the lowest run, or the "
            "three nearest to it",
        ),
        ("akima", None, "an Akima interpolation of ln L on ln N (the median over the resamples)"),
    ],
)
def test_the_minimum_of_a_valley(valleys, how, window, phrase):
    assert how in choices("valley")
    assert method(replace(valleys, method=how, window=window)) == (
        f"For each budget the minimum of {phrase}; then least squares of ln N* on ln C through 3 minima (15 runs), "
        f"weighted by the minima's noise."
    )


def test_minima_without_noise_are_not_weighted(valleys):
    bare = fits.isoflop(table(), resamples=0, valley="akima", check=False)
    assert method(bare).endswith("interpolation of ln L on ln N; then least squares of ln N* on ln C through 3 minima "
                                 "(15 runs), unweighted.")  # fmt: skip
    quiet = tuple(replace(minimum, log_params_sd=0.0) for minimum in valleys.minima)
    assert method(replace(valleys, minima=quiet)).endswith("(15 runs), unweighted.")
    unknown = replace(bare, samples=valleys_of_akima().samples, noise_nats=0.0)
    assert "median" in method(valleys_of_akima()) and "median" not in method(unknown)
    assert choices("valley") == ("auto", "parabola", "akima")


def valleys_of_akima():
    return fits.isoflop(table(), resamples=9, valley="akima", check=False)


def test_the_noise_of_the_minima(valleys):
    start = "The central 80 and 95 % of 20 resamples (seed 7). "
    fit = replace(valleys, noise_nats=0.00314, noise_source="equal runs", noise_freedom=6)
    assert intervals(fit) == start + (
        "Each adds normal noise of one run, 0.00314 nats (equal runs), to every loss and finds the minima again; its "
        "size is drawn too, as an estimate with 6 degrees of freedom; scatter of the minima about the line beyond this "
        "noise is added; every second one is corrected for the bias of the interpolation."
    )
    given = fits.isoflop(table(), resamples=20, seed=7, noise_nats=0.004, check=False)
    assert intervals(given) == start + (
        "Each adds normal noise of one run, 0.004 nats (given), to every loss and finds the minima again; the bias of "
        "the interpolation is not in them."
    )
    unknown = replace(valleys, noise_nats=0.0, noise_source="unknown: three sizes", noise_freedom=None, bias=None)
    assert intervals(unknown) == start + (
        "They add no noise, since that of one run is not known (unknown: three sizes); scatter of the minima about the "
        "line beyond this noise is added."
    )


@pytest.mark.parametrize(
    ("how", "phrase"),
    [
        ("bins", "the lowest curve at each of a series of log-spaced budgets"),
        ("hull", "the lower convex hull of all points in (ln C, ln L)"),
    ],
)
def test_the_envelope(frontier, how, phrase):
    assert how in choices("envelope") and len(choices("envelope")) == 2
    points = tuple(replace(frontier.frontier[0], in_line=index < 2) for index in range(3))
    assert method(replace(frontier, method=how, frontier=points)) == (
        f"The lower envelope of the curves of 15 runs: {phrase}; then least squares of ln N* on ln C through 2 of its "
        f"3 "
        f"points."
    )
    assert intervals(frontier) == (
        f"The central 80 and 95 % of {frontier.resamples} resamples (seed 7). Each draws whole runs with replacement "
        f"and "
        f"finds the envelope again."
    )


def test_levels_are_those_of_the_fits():
    assert levels() == "80 and 95 %"


def meanings(runs, *of):
    """Symbol -> meaning of a table and its fits."""
    return dict(conventions(runs, of))


def counted(**columns):
    """Two runs of a sweep that this package counted: C is 6ND and 7ND."""
    runs = pd.DataFrame({item.name: [1.0, 2.0] for item in fields(Counts)})
    return runs.assign(**{
        "run": ["one", "two"], "params": [100.0, 200.0], "params_non_embedding": [60.0, 150.0], "tokens": 1000.0,
        "flops": [6e5, 1.4e6], "loss_nats": 2.0, "validation_tokens": 5000.0, "loss_stderr": 0.01, **columns,
    })  # fmt: skip


def test_a_sweep_s_own_symbols():
    lines = meanings(counted())
    assert lines["N"] == "all trained parameters, embeddings and output head included (column params)"
    assert lines["N non-embedding"] == ("the matrices of the layers alone (Kaplan 2020): 60 to 75 % of N in these runs")
    assert lines["D"] == "training tokens, repeats counted"
    assert lines["C"] == (
        "exact training FLOPs: projections, causal attention, MLP, head; forward and backward; without validation. "
        "C/6ND = 1.000 to 1.167 in these runs"
    )
    assert lines["loss"] == (
        "cross-entropy in nats per token (natural logarithm): validation loss at the last step over 5,000 fixed tokens "
        "that are not trained on; ± is its standard error"
    )
    assert not {"D*/N*", "intervals", "C(N, D)"} & set(lines), "without a fit there is no such number"


def test_another_s_table_states_its_own_symbols():
    runs = counted(flops=[6.6e5, 1.32e6]).drop(columns="flops_6n")
    lines = meanings(runs)
    assert lines["N"] == "model parameters as the table states them (column params)" and "N non-embedding" not in lines
    assert lines["D"] == "training tokens as the table states them"
    assert lines["C"] == "training FLOPs as the table states them. C = 6.6 N D on every row"
    assert lines["loss"] == "the table's loss, read as cross-entropy in nats per token (natural logarithm)"


def test_what_a_loss_lacks_is_not_claimed():
    assert meanings(counted(validation_tokens=np.nan, loss_stderr=np.nan))["loss"] == (
        "cross-entropy in nats per token (natural logarithm)"
    )
    assert "over 4,000 to 5,000 fixed tokens" in meanings(counted(validation_tokens=[5000.0, 4000.0]))["loss"]


def test_the_loss_of_pairs_of_answers_is_not_per_token():
    assert meanings(counted(stage="prefer"))["loss"].startswith("mean loss, per pair of answers: validation loss")
    assert meanings(counted(stage=["fine-tune", "reward"]))["loss"].startswith(
        "mean loss, nats per token or per pair of answers"
    )


def test_every_formula_of_c_that_allocations_use_is_stated(law, valleys):
    assert meanings(table(), law, valleys)["C(N, D)"] == "allocations convert with C = 6 N D"
    lines = [text for name, text in conventions(table(), [law, replace(valleys, compute=ComputeModel(7.0))])
             if name == "C(N, D)"]  # fmt: skip
    assert lines == [
        "allocations convert with C = 6 N D (Approach 3)",
        "allocations convert with C = 7 N D (Approach 2)",
    ]
    two = conventions(table(), [law, valleys, replace(law, compute=ComputeModel(7.0))])
    assert ("C(N, D)", "allocations convert with C = 6 N D (Approach 3 and 2)") in two


def test_the_convention_of_intervals_follows_the_fits(law, valleys):
    beginning = (
        "the central 80 and 95 % of a fit's resamples, which are described beside its parameters. An interval of the "
        "law is where the law lies, if its form is right"
    )
    assert meanings(table(), valleys)["intervals"] == beginning
    assert meanings(table(), valleys, law)["intervals"] == beginning + (
        "; the interval of the mean is where many runs lie on average, whether or not the form is right: law times "
        "a smooth unknown function, of which the runs and a prior say how large; the interval of one new run adds a "
        "run's own scatter, and is wider (among the fitted runs: about the law, as the residuals scatter)"
    )
    assert meanings(table(), replace(law, samples=None))["intervals"] == "none: no fit was made with resamples"


def test_a_target_that_is_no_loss_is_a_symbol_of_its_own(law):
    name, of = next(iter(_targets().items()))
    shape = form(of)
    fit = replace(law, law=shape(*np.ones(len(shape.PARAMETERS))), samples=None)
    assert meanings(table(), fit)[name] == f"what Approach 3 fits, as the table states it (column {name})"
    assert "loss_nats" not in meanings(table(), law)
