"""Units of tables: stated by a header or a factor, or doubted; never guessed."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lmscale.core.errors import UserError
from lmscale.study import fits
from lmscale.study.tables import read_table, units
from lmscale.study.tables.headers import split_unit

N, D = np.geomspace(2e7, 2e9, 12), np.geomspace(3e9, 5e8, 12)
LOSS = 1.8 + 480 * N**-0.35 + 2000 * D**-0.37


def table(n: float = 1, d: float = 1, **columns: object) -> pd.DataFrame:
    return pd.DataFrame({"params": N / n, "tokens": D / d, "loss": LOSS, **columns})


@pytest.mark.parametrize("cost", ["flops", "budget"])
@pytest.mark.parametrize(
    ("n", "d", "c", "words"),
    [
        (1e9, 1e9, 1, "params in billions and tokens in billions"),
        (1e6, 1e6, 1, "params in millions and tokens in millions"),
        (1e6, 1e9, 1, "params in millions and tokens in billions"),
        (1e3, 1e3, 1, "params in thousands and tokens in thousands"),
        (1, 1e9, 1, "tokens in billions;"),
        (1e6, 1, 1, "params in millions;"),
        (1, 1, 1e9, "in gigaFLOPs"),
        (1, 1, 1e15, "in petaFLOPs"),
        (1, 1, 1e18, "in exaFLOPs"),
        (1, 1, 8.64e19, "in petaFLOP/s-days"),
        (1e9, 1e9, 8.64e19, "petaFLOP/s-days"),
    ],
)
def test_a_cost_that_is_far_from_6nd_shows_a_unit(n: float, d: float, c: float, words: str, cost: str) -> None:
    rows = table(n, d, **{cost: 6 * N * D / c})
    with pytest.raises(UserError, match=words) as error:
        read_table(rows)
    if "give `columns='" in str(error.value):  # the advice works
        columns = str(error.value).split("give `columns='")[1].split("'")[0]
        assert read_table(rows, columns)["params"].to_numpy() == pytest.approx(N)


@pytest.mark.parametrize("ratio", [1 / 3, 0.8, 1.0, 2.0, 6.0])
def test_every_way_of_counting_is_no_unit(ratio: float) -> None:
    assert len(read_table(table(flops=6 * N * D * ratio))) == 12
    assert not units.doubts(read_table(table(flops=6 * N * D * ratio)))


def test_some_rows_in_another_unit_are_named() -> None:
    rows = table(flops=6 * N * D)
    rows.loc[3:5, "params"] /= 1e6
    with pytest.raises(UserError, match=r"near 1e6 in 3 of 12 rows \(first: row 4\).* bring all rows to one unit"):
        read_table(rows)


def test_some_rows_in_another_unit_are_named_without_a_cost() -> None:
    rows = table()
    rows["tokens"] = rows["tokens"].where(rows.index != 5, (rows["tokens"] / 1e9).round(3))
    with pytest.raises(UserError, match=r"tokens are fractions in 1 of 12 rows \(first: \d\.\d+.*\)"):
        read_table(rows)


def test_one_column_in_another_unit_shows_in_the_ratio_of_the_two() -> None:
    assert any("tokens per parameter" in doubt for doubt in units.doubts(read_table(table(n=1e3))))
    assert not units.doubts(read_table(table()))


def test_fractions_of_parameters_are_refused_without_a_cost() -> None:
    with pytest.raises(UserError, match=r"params and tokens are fractions \(params: 0\.02 to 2\)"):
        read_table(table(1e9, 1e9))
    with pytest.raises(UserError, match="tokens are fractions"):
        fits.loss_law(table(1, 1e9).rename(columns={"loss": "loss_nats"}), resamples=0, check=False)
    assert read_table(table(1e9, 1e9), "params=params*1,tokens=tokens*1")["params"].max() == pytest.approx(2)
    assert "millions" in units.doubts(read_table(table(1e6).round({"params": 0})))[0]


@pytest.mark.parametrize(
    ("header", "name", "factor"),
    [
        ("N (M)", "params", 1e6),
        ("params_b", "params", 1e9),
        ("Params (millions)", "params", 1e6),
        ("n_params, in billions", "params", 1e9),
        ("tokens_B", "tokens", 1e9),
        ("tokens [x1e9]", "tokens", 1e9),
        ("D (10^6)", "tokens", 1e6),
        ("tokens_in_millions", "tokens", 1e6),
        ("flops (PFLOPs)", "flops", 1e15),
        ("C [exaFLOP]", "flops", 1e18),
        ("flops (PF-days)", "flops", 8.64e19),
        ("budget, petaflop/s-days", "flops_budget", 8.64e19),
    ],
)
def test_a_unit_in_the_header_is_used_and_said(header: str, name: str, factor: float) -> None:
    values = {"params": N, "tokens": D, "flops": 6 * N * D, "flops_budget": 6 * N * D}[name]
    rows = table().drop(columns=[name], errors="ignore").assign(**{header: values / factor})
    ours = read_table(rows)
    assert ours[name].to_numpy() == pytest.approx(values)
    assert any(header in note and f"{factor:.6g}" in note for note in ours.attrs["notes"])
    assert read_table(rows, {name: header})[name].to_numpy() == pytest.approx(values)


@pytest.mark.parametrize(
    ("header", "values"),
    [
        ("val_ppl", np.exp(LOSS)),
        ("perplexity", np.exp(LOSS)),
        ("loss (bits)", LOSS / math.log(2)),
        ("Loss [nats]", LOSS),
    ],
)
def test_losses_become_nats(header: str, values: np.ndarray) -> None:
    assert read_table(table().drop(columns="loss").assign(**{header: values}))["loss_nats"].to_numpy() == pytest.approx(
        LOSS
    )


def test_what_has_no_factor_is_asked_for() -> None:
    with pytest.raises(UserError, match="in GPU-hours, which are no FLOPs"):
        read_table(table(**{"C (GPU-hours)": 3.0}))
    with pytest.raises(UserError, match="bits per byte, which depends on the tokenizer"):
        read_table(table(bpb=0.9), "loss=bpb")
    assert read_table(table(bpb=0.9), "loss=bpb*1")["loss_nats"].tolist() == [0.9] * 12
    with pytest.raises(UserError, match="a factor is a positive number"):
        read_table(table(), "params=params*0")


@pytest.mark.parametrize("header", ["_" * 9999, "(" * 9999, " in" * 3333, "tokens" + " " * 9000 + "(B"])
def test_a_name_without_end_states_no_unit(header: str) -> None:
    assert split_unit(header, "tokens") == split_unit(header, "loss_nats") == (header, None)


def test_losses_above_the_vocabulary_are_doubted() -> None:
    assert not units.doubts(read_table(table(vocab=256)))
    assert "perplexities or bits" in units.doubts(read_table(table(vocab=8)))[0]
    assert "perplexities or bits" in units.doubts(read_table(table().assign(loss=np.exp(LOSS))))[0]


def test_tiny_models_of_our_own_are_not_doubted(tmp_path: Path) -> None:
    tiny = table(1e6, 1e6, data_fingerprint="0")
    assert len(read_table(tiny)) == 12 and not units.doubts(read_table(tiny))


@pytest.mark.parametrize("header", ["log10_params", "log(N)", "ln_params", "lg N", "log2-params"])
def test_a_column_of_logarithms_is_no_column_of_sizes(header: str) -> None:
    runs = pd.DataFrame({header: [7.0, 8.0, 9.0], "tokens": [1e9, 1e10, 1e11], "loss": [4.0, 3.0, 2.5]})
    with pytest.raises(UserError, match=r"holds logarithms, as its name says.*\*1'` where they are"):
        read_table(runs, {"params": header})
    with pytest.raises(UserError) as refused:
        fits.loss_law(runs, resamples=0)
    assert "but" not in str(refused.value), "no fix that leads to logarithms"
    assert read_table(runs.rename(columns={header: "logits_n"}), {"params": "logits_n*1e6"})["params"][0] == 7e6


def test_the_log_loss_is_a_loss() -> None:
    runs = pd.DataFrame({"params": [1e7, 1e8], "tokens": [1e9, 1e10], "log_loss": [4.0, 3.0]})
    assert list(read_table(runs, {"loss": "log_loss"})["loss_nats"]) == [4.0, 3.0]
