"""Every sentence of a report's account: how many runs, which were left out and why, where the numbers come from."""

import json
import platform
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import lmscale
from lmscale.study.fits.results.common import Dropped, Status
from lmscale.study.report import account, tables

CHECKED = (SimpleNamespace(runs=("one",), budgets=()),)


def runs(count=4, **columns):
    """Runs a, b, c, ... with everything that a fit needs."""
    names = [chr(ord("a") + index) for index in range(count)]
    numbers = {"params": 1e3, "tokens": 1e4, "flops": 6e7, "loss_nats": 2.0}
    return pd.DataFrame({"run": names, **numbers}, index=range(count)).assign(**columns)


def fit(approach="3", dropped=(), notes=()):
    """What the account reads of a fit."""
    return SimpleNamespace(approach=approach, dropped=tuple(Dropped(*item) for item in dropped), notes=notes)


def lines(table, *fits, checked=()):
    return account.left_out_lines(table, fits, checked)


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        (runs(0), "The table holds no run."),
        (runs(1), "1 run."),
        (runs(3), "3 runs."),
        (runs(4, held_out=[True, False, False, False]), "4 runs; 1 is held out."),
        (runs(4, held_out=[True, True, False, False]), "4 runs; 2 are held out."),
        (runs(4, state=["failed", "finished", "finished", "missing"]), "4 runs: 2 finished, 1 failed, 1 missing."),
        (runs(3, state="finished", held_out=[True, False, False]), "3 runs: 3 finished; 1 is held out."),
    ],
)
def test_runs_are_counted_by_state(table, sentence):
    assert account.run_count(table) == sentence


def test_a_reason_that_every_approach_has_is_stated_once():
    fits = fit("2", [("a", "too large")]), fit("3", [("a", "too large"), ("b", "odd")])
    assert lines(runs(), *fits) == ["Approach 3: odd – 1 run: b.", "too large – 1 run: a."]


def test_reasons_of_two_of_three_approaches_name_both():
    fits = fit("1", [("a", "odd")]), fit("2"), fit("3", [("a", "odd"), ("a", "bad")])
    assert lines(runs(), *fits) == ["Approach 1 and 3: odd; Approach 3: bad – 1 run: a."]


def test_two_fits_of_one_approach_are_one_approach():
    assert lines(runs(), fit("3", [("a", "odd")]), fit("3", [("a", "odd")])) == ["odd – 1 run: a."]


def test_the_commonest_reason_comes_first_and_many_runs_are_counted():
    many = [(f"run {index}", "odd") for index in range(14)]
    first, second = lines(runs(), fit(dropped=[("a", "bad"), *many]))
    assert first == f"odd – 14 runs: {', '.join(f'run {index}' for index in range(12))} and 2 more."
    assert second == "bad – 1 run: a."
    (line,) = lines(runs(), fit(dropped=many[:12]))
    assert line.endswith("run 10, run 11.")


@pytest.mark.parametrize(
    ("state", "reason", "phrase"),
    [
        ("missing", None, "missing: no outcome was written"),
        ("missing", "the machine stopped", "missing: the machine stopped"),
        ("failed", "out of memory", "failed: out of memory"),
        ("diverged", np.nan, "diverged"),
        ("diverged", "", "diverged"),
    ],
)
def test_a_run_that_did_not_finish_is_described_by_its_state(state, reason, phrase):
    table = runs(2, state=["finished", state], reason=["", reason])
    assert lines(table, fit(dropped=[("b", "loss_nats is missing")])) == [f"{phrase} – 1 run: b."]


def test_what_reading_left_out_is_stated_also_where_nothing_was_fitted():
    table = runs(2)
    table.attrs["dropped"] = [{"run": "z", "reason": "an outlier"}]
    assert lines(table) == ["an outlier – 1 run: z."]
    assert lines(table, fit("2"), fit("3")) == ["an outlier – 1 run: z."]


def test_nothing_is_left_out_only_of_a_table_that_was_fitted():
    assert lines(runs(), fit()) == ["Nothing: every run of the table was fitted."]
    assert lines(runs()) == ["No run was fitted."]


def test_notes_of_table_and_fits_follow_each_once():
    table = runs()
    table.attrs["notes"] = ["2 rows state no FLOPs: C = 6ND"]
    noted = fit(notes=("branches share noise", "2 rows state no FLOPs: C = 6ND"))
    assert lines(table, noted) == ["2 rows state no FLOPs: C = 6ND.", "branches share noise."]


@pytest.mark.parametrize(
    ("held_out", "losses", "checked", "sentence"),
    [
        (
            1,
            [2.0] * 4,
            CHECKED,
            "1 held-out run entered no fit: the predictions above are checked against their losses.",
        ),
        (
            2,
            [2.0] * 4,
            CHECKED,
            "2 held-out runs entered no fit: the predictions above are checked against their losses.",
        ),
        (
            2,
            [2.0, np.nan, 2.0, 2.0],
            CHECKED,
            "2 held-out runs entered no fit: the predictions above are checked against the 1 measured losses.",
        ),
        (
            2,
            [2.0] * 4,
            (),
            "2 held-out runs entered no fit, and no prediction was checked against a held-out run.",
        ),
    ],
)
def test_what_held_out_runs_served_for(held_out, losses, checked, sentence):
    names = ["a", "b", "c", "d"]
    table = runs(held_out=[index < held_out for index in range(4)], loss_nats=losses)
    dropped = [(name, "held out to check the prediction") for name in names[:held_out]]
    assert lines(table, fit(dropped=dropped), checked=checked) == [sentence]


def test_a_held_out_run_that_did_not_finish_is_left_out_too():
    table = runs(2, state=["finished", "failed"], reason=["", "no space"], held_out=[False, True])
    assert lines(table, fit(dropped=[("b", "held out to check the prediction")]))[0] == "failed: no space – 1 run: b."


def rejected():
    """Approach 2 found no minimum at the first of two budgets; run c of the second was odd."""
    table = runs(flops_budget=[1e12, 1e12, 2e12, 2e12], held_out=False)
    return table, fit("2", [("budget 1e+12", "flat: every size has the same loss"), ("c", "odd")])


def test_a_rejected_budget_is_a_budget_and_its_runs_were_not_used():
    table, valleys = rejected()
    assert lines(table, valleys) == [
        "its budget has no minimum – 2 runs: a, b.",
        "flat: every size has the same loss – 1 budget: budget 1e+12.",
        "odd – 1 run: c.",
    ]
    assert list(account.fitted_rows(table, [valleys])["run"]) == ["d"]
    assert list(account.fitted_rows(table, [valleys, fit("3", [("d", "odd")])])["run"]) == ["a", "b", "c", "d"]
    assert list(account.fitted_rows(table.assign(held_out=True), [valleys])["run"]) == []


def test_budgets_may_be_the_runs_own_flops():
    table = runs(flops=[1e12, 1e12, 2e12, 2e12])
    assert "its budget has no minimum – 2 runs: a, b." in lines(table, fit("2", [("budget 1e+12", "flat")]))


def test_a_run_may_be_called_budget():
    table = runs(2).assign(run=["budget 1", "b"])
    assert lines(table, fit(dropped=[("budget 1", "odd")])) == ["odd – 1 run: budget 1."]


def test_the_table_of_runs_says_what_each_was_used_for():
    table, valleys = rejected()
    both = tables.runs(table.assign(held_out=[False, False, False, True]), [valleys, fit("3")])
    uses = [row.rsplit("<td", 1)[1].split(">")[1].split("<")[0] for row in both.splitlines() if row.startswith("<tr")]
    assert uses == [
        "not by Approach 2: its budget has no minimum", "not by Approach 2: its budget has no minimum",
        "not by Approach 2: odd", "held out",
    ]  # fmt: skip
    odd = tables.runs(runs(), [fit(dropped=[("a", "odd")])])
    assert ">yes</td>" in odd and ">no: odd</td>" in odd
    assert ">–</td>" not in tables.runs(runs(), []) and ">yes</td>" not in tables.runs(runs(), []), (
        "no column without fits"
    )


def stated(fixed=(), intervals=None, n_runs=7):
    """A fit that states two numbers."""
    ends = {"0.8": {"a": (9, 9)}, "0.95": {"a": (1000.1, 2000.2)}} if intervals is None else intervals
    value = {"formula": "y = a x^b", "n_runs": n_runs, "parameters": {"a": 1234.567, "b": 0.25}}
    value |= {"fixed": list(fixed), "intervals": ends}
    return SimpleNamespace(to_json=lambda: value)


def test_parameters_with_their_95_per_cent():
    assert account.parameters(stated()) == "y = a x^b, 7 runs: a = 1234.6 (95 % 1000 to 2000); b = 0.25."
    assert account.parameters(stated(["a"], n_runs=1)) == "y = a x^b, 1 run: a = 1234.6 (held fixed); b = 0.25."
    assert account.parameters(stated(intervals={})) == "y = a x^b, 7 runs: a = 1234.6; b = 0.25."


def test_warnings_come_first_and_are_called_so():
    fit_ = SimpleNamespace(status=[Status("x", "fine"), Status("y", "mind", "note"), Status("z", "stop", "warning")])
    assert account.statuses(fit_) == ["Warning – z: stop.", "y: mind.", "x: fine."]


def test_where_the_numbers_come_from():
    table = runs(
        device=["B200", "A100", None, "B200"], source=["/data/texts", "stdlib", "stdlib", "stdlib"],
        data_fingerprint="5f0c", seconds=[6000.0, 90.0, 30.0, 0.0],
    )  # fmt: skip
    hashed = SimpleNamespace(approach="3", table_hash="0123456789abcdef0123")
    lines_ = dict(account.provenance(table, [hashed], None))
    assert lines_["on"] == "A100, B200"
    assert lines_["data"] == "texts, stdlib"
    assert lines_["data fingerprint"] == "5f0c"
    assert lines_["training time"] == "102.0 minutes over all runs, start-up left out"
    assert lines_["Approach 3"] == "SHA-256 of the fitted rows 0123456789abcdef"
    assert lines_["report by"] == f"lmscale {lmscale.__version__}, Python {platform.python_version()}"
    assert "trained with" not in lines_
    partly = dict(account.provenance(table.assign(seconds=[6000.0, None, None, 30.0]), [], None))
    assert partly["training time"] == "100.5 minutes over the 2 of 4 runs that state theirs, start-up left out"
    assert list(dict(account.provenance(runs(), [], None))) == ["report by"]


def test_the_versions_of_all_runs_are_stated_side_by_side(tmp_path):
    """Run c has no outcome, and what lies in the folder of the last one is not believed."""
    versions = {"a": {"jax": "0.9.1", "numpy": "2.3"}, "b": {"jax": "0.9.0", "numpy": "2.3"}, "d": {"jax": "1"}}
    for run, value in versions.items():
        (tmp_path / run).mkdir()
        (tmp_path / run / "outcome.json").write_text(json.dumps({"versions": value}))
    table = runs(4, state=["finished", "diverged", "missing", "corrupt"])
    stated_ = dict(account.provenance(table, [], tmp_path))
    assert stated_["trained with"] == "jax 0.9.0/0.9.1, numpy 2.3"
