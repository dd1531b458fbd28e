"""The options of a fit: tables from anywhere, one checked value, sentences for Python and for the command line."""

import inspect
import json
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.command_line import call

from lmscale.commands.fit import FitArgs
from lmscale.commands.flags import NAMES, as_flags
from lmscale.commands.plan.arguments import PlanArgs
from lmscale.core.errors import UserError
from lmscale.study import fits, laws
from lmscale.study.fits.options import OPTIONS, FitOptions, approach_names
from lmscale.study.fits.uncertainty.simulate import isoflop_design, simulate
from lmscale.study.laws import CHINCHILLA_REFIT

QUICK: dict[str, Any] = {"resamples": 0, "check": False}


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    design = isoflop_design(CHINCHILLA_REFIT, [1e18, 3e18, 1e19])
    return simulate(CHINCHILLA_REFIT, design, 0.003, np.random.default_rng(0))


@pytest.mark.long
@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_a_fit_takes_a_path_as_it_takes_the_table(table: pd.DataFrame, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"runs{suffix}"
    match suffix:
        case ".csv":
            table.to_csv(path, index=False)
        case ".parquet":
            table.to_parquet(path)
        case _:
            table.to_json(path, orient="records", lines=True, double_precision=15)
    for source in (path, str(path)):
        for one, other in zip(fits.fit(source, **QUICK), fits.fit(table, **QUICK), strict=True):
            assert one.optimum(1e20).params == pytest.approx(other.optimum(1e20).params, rel=1e-9)


def test_every_function_takes_a_path(table: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    table.assign(held_out=table["flops_budget"] == 1e19).to_csv(path, index=False)
    law, minima = fits.loss_law(path, **QUICK), fits.isoflop(path, **QUICK)
    assert law.n_runs == 14
    with pytest.raises(UserError, match="on the envelope"):
        fits.frontier(path, **QUICK)
    assert len(fits.held_out_check(law, path).runs) == 7 and len(fits.held_out_check(minima, path).budgets) == 1
    assert fits.compare(path, "chinchilla", resamples=0).unseen == tuple(table["run"][14:])
    with pytest.raises(UserError, match="the baseline ladder has 2 budgets"):
        fits.compute_multiplier(path, path)


def test_a_fit_takes_the_name_of_a_published_table() -> None:
    (law,) = fits.fit("chinchilla", 3, **QUICK)
    assert law.n_runs == 240 and law.optimum(1e22).tokens_per_param == pytest.approx(20.06, abs=0.01)


def test_columns_and_where_are_for_any_source(table: pd.DataFrame, tmp_path: Path) -> None:
    named = table.rename(columns={"params": "N", "tokens": "D"})
    named.to_csv(tmp_path / "n.csv", index=False)
    for source in (named, tmp_path / "n.csv"):
        law = fits.loss_law(source, columns="params=N,tokens=D", where="flops_budget < 5e18", **QUICK)
        assert law.n_runs == 14
    with pytest.raises(UserError, match=r"no column 'params'.*`columns='params=n_params'`"):
        fits.loss_law(named, **QUICK)


def test_a_column_that_may_be_the_one_asked_for_is_named(table: pd.DataFrame) -> None:
    several = table.rename(columns={"loss_nats": "eval/loss"}).assign(train_loss=3.0)
    with pytest.raises(UserError, match=r"no column 'loss_nats', but 'eval/loss'; .*`columns='loss_nats=eval/loss'`"):
        fits.loss_law(several, **QUICK)


@pytest.mark.parametrize("source", [None, 3, ["runs.csv"], {"params": [1.0]}])
def test_what_is_no_table_is_refused(source: Any) -> None:
    with pytest.raises(UserError, match="must be a DataFrame, the path of a CSV"):
        fits.fit(source)


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        (3, ("3",)),
        ("3", ("3",)),
        ((3,), ("3",)),
        ([3, "1", 1], ("1", "3")),
        ("all", ("1", "2", "3")),
        (np.int64(2), ("2",)),
        ({1, 2}, ("1", "2")),
        ([3, 2, 1], ("1", "2", "3")),
    ],
)
def test_approaches_are_numbers_or_text_one_or_several(asked: Any, names: tuple[str, ...]) -> None:
    assert approach_names(asked) == names


@pytest.mark.parametrize("asked", [4, "4", (1, 4), "23"])
def test_an_unknown_approach_is_refused(asked: Any) -> None:
    with pytest.raises(UserError, match="no approach is called"):
        fits.fit("chinchilla", asked)


@pytest.mark.parametrize("asked", [True, 3.5, None, {"3": 3}, [None]])
def test_what_is_no_approach_is_refused(asked: Any) -> None:
    with pytest.raises(UserError, match=r"must be approaches, as in \['1', '3'\], or 'all'"):
        fits.fit("chinchilla", asked)


def test_no_approach_is_refused() -> None:
    with pytest.raises(UserError, match="no approach was given"):
        fits.fit("chinchilla", ())


@pytest.mark.long
def test_options_and_keywords_are_one(table: pd.DataFrame) -> None:
    options = FitOptions(loss="squared", resamples=7, check=False, seed=3)
    (law,) = fits.fit(table, 3, options)
    (same,) = fits.fit(table, 3, loss="squared", resamples=7, check=False, seed=3)
    (changed,) = fits.fit(table, 3, options, loss="lad")
    assert law.to_json(samples=True) == same.to_json(samples=True)
    assert (law.loss_function, law.resamples, changed.loss_function, changed.resamples) == ("squared", 7, "lad", 7)
    assert fits.loss_law(table, options=options).to_json() == law.to_json()
    assert fits.loss_law(table, "kaplan", options).law.NAME == "kaplan"
    assert fits.loss_law(table, laws.Kaplan, options).law.NAME == "kaplan"
    assert fits.loss_law(table, options=FitOptions(law=laws.Kaplan, **QUICK)).law.NAME == "kaplan"


def test_each_approach_counts_its_own_resamples() -> None:
    assert [FitOptions().count(name) for name in "123"] == [1000, 1000, 4000]
    assert FitOptions(resamples=0).count("3") == 0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"loss": "hubre"}, "must be one of 'huber', 'lad', 'squared'; did you mean 'huber'"),
        ({"residual": "linear"}, "must be one of 'log', 'raw'"),
        ({"rates": "inner"}, "did you mean 'inside'"),
        ({"bootstrap": "weight"}, "did you mean 'weights'"),
        ({"valley": "akma"}, "did you mean 'akima'"),
        ({"envelope": "bin"}, "did you mean 'bins'"),
        ({"delta": 0.0}, "the Huber threshold must be positive"),
        ({"resamples": -1}, "resamples = -1: it is a count"),
        ({"resamples": 10**9}, "resamples = 1000000000: it is a count of at most 1,000,000"),
        ({"seed": -1}, "seed = -1: a whole number"),
        ({"noise_nats": -0.1}, "it is a standard deviation"),
        ({"shared_noise": 1.5, "bootstrap": "noise"}, "a share of the variance, from 0 to 1"),
        ({"shared_noise": 0.5}, "draws no noise"),
        ({"window": 0.5}, "a factor of model sizes, at least 1"),
        ({"at": [1e20, -1]}, "positive numbers of FLOPs, as in"),
        ({"at": "many"}, "positive numbers of FLOPs, as in"),
        ({"at": float("nan")}, "positive numbers of FLOPs, as in"),
    ],
)
def test_an_impossible_option_is_refused_at_birth(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        FitOptions(**options)


def test_options_are_frozen_and_budgets_are_floats() -> None:
    options = FitOptions(at=10**20)
    assert options.at == options.budgets == (1e20,)
    with pytest.raises(FrozenInstanceError):
        options.seed = 1  # type: ignore[misc]


def test_an_option_of_another_approach_is_refused(table: pd.DataFrame) -> None:
    with pytest.raises(UserError, match=r"fits\.isoflop has no option 'law'; it is one of loss_law"):
        fits.isoflop(table, law="kaplan")
    with pytest.raises(UserError, match=r"fits\.fit has no option 'resample'; did you mean 'resamples'"):
        fits.fit(table, resample=3)
    assert fits.isoflop(table, FitOptions(law="kaplan", **QUICK)).method == "parabola"


def test_a_given_noise_is_what_approach_3_holds_its_form_against(table: pd.DataFrame) -> None:
    minima, law = fits.fit(table, (2, 3), noise_nats=0.01, resamples=5, check=False)
    assert minima.noise_nats == law.noise.sd == 0.01 and law.lack_of_fit.evidence == "given"


def test_every_option_is_documented_and_belongs_to_some_approach() -> None:
    source = inspect.getsource(FitOptions)
    for field in fields(FitOptions):
        assert any(field.name in names for function, names in OPTIONS.items() if function != "fit"), field.name
        after = source.split(f"\n    {field.name}: ", 1)[1].split("\n", 2)[1]
        assert field.name == "seed" or after.strip().startswith('"""'), field.name
    assert issubclass(FitArgs, FitOptions)


def test_sentences_name_options_as_python_has_them() -> None:
    """No source of fits, emergence or tables writes a flag of the command line, except in an example of a command."""
    study = Path(inspect.getfile(fits)).parents[1]
    sources = [source for folder in ("fits", "emergence", "tables") for source in (study / folder).rglob("*.py")]
    for source in sources:
        if source.name == "writing.py":  # of `lmscale table --output` alone
            continue
        for number, line in enumerate(source.read_text(encoding="utf-8").splitlines(), 1):
            command = "lmscale fit" in line or "experiments/" in line
            assert command or " --" not in line, f"{source.name}:{number}: {line}"


@pytest.mark.parametrize(
    ("python", "flags"),
    [
        ("fit with `resamples=4000` to", "fit with --resamples 4000 to"),
        ("`rates='best'` keeps it", "--rates best keeps it"),
        ("name it with `columns='params=n_params'`", "name it with --columns params=n_params"),
        ("give a smaller `noise_nats`", "give a smaller --noise"),
        ("choose with `where=\"budget == '1'\"`", "choose with --where \"budget == '1'\""),
        ("`lmscale plan` and `Sweep(law='')`", "`lmscale plan` and `Sweep(law='')`"),
    ],
)
def test_the_command_line_names_its_flags(python: str, flags: str) -> None:
    assert as_flags(python) == flags


def test_every_option_that_a_sentence_names_is_a_flag(capsys: pytest.CaptureFixture[str]) -> None:
    flags = {field.name for kind in (FitArgs, PlanArgs) for field in fields(kind)}
    assert set(NAMES) <= flags
    assert call("fit", "chinchilla", "--approach", "3", "--where", "params > 1e30") == 2
    assert (
        capsys.readouterr().err
        == "lmscale: --where 'params > 1e30' keeps none of the 245 rows; params is 5.733e+07 to 1.618e+10\n"
    )


def test_the_command_fits_a_law_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(
        "from lmscale.study.laws import Chinchilla\nclass Own(Chinchilla):\n    NAME = 'own'\n", encoding="utf-8"
    )
    words = "fit chinchilla --approach 3 --law own.py:Own --resamples 0 --no-check --json f.json --at 1e21,1e22"
    assert call(*words.split()) == 0
    (value,) = json.loads(Path("f.json").read_text())["fits"]
    assert (value["law"], value["law_import"]) == ("own", "own.py:Own")
    assert [one["flops"] for one in value["allocations"]] == [1e21, 1e22]
    assert fits.LossLaw.from_json(value).law.NAME == "own"


def test_a_frame_as_notebooks_have_it_gives_the_fit_of_its_file(table: pd.DataFrame) -> None:
    """A column twice, the runs as index, numbers in a column of objects with a None."""
    (whole,) = fits.fit(table, 3, **QUICK)
    missing = table.astype(object).where(table["params"] > table["params"].min(), None)
    for same in (pd.concat([table, table[["params"]]], axis=1), table.set_index("run")):
        assert fits.fit(same, 3, **QUICK)[0].law == whole.law
    (rest,) = fits.fit(missing, 3, **QUICK)
    assert rest.n_runs == int((table["params"] > table["params"].min()).sum())
    twice = pd.concat([table, table[["params"]] * 2], axis=1)
    with pytest.raises(UserError, match="two columns named 'params' that differ"):
        fits.fit(twice, 3, **QUICK)


@pytest.mark.parametrize("setting", [{"resamples": "10"}, {"resamples": 10.5}, {"seed": 1.5}])
def test_a_count_is_a_whole_number(table: pd.DataFrame, setting: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(setting))):
        fits.fit(table, 3, **setting)
    with pytest.raises(UserError, match="no law was given to compare"):
        fits.compare(table, [])
