"""Counts of several conventions in one column of a table: seen by their ratio, and not where a table has one."""

import numpy as np
import pandas as pd
import pytest
from helpers.isoflop import isoflop_table, sentences

from lmscale.study.fits.runs import usable
from lmscale.study.tables import read_table


def test_small_counts_are_doubted() -> None:
    table = isoflop_table(0.003)
    table["params"], table["flops"] = (table["params"] / 1e6).round().clip(1), np.nan
    assert "millions or billions" in sentences(usable(table.drop(columns=["flops", "flops_budget"])))["units"]


def test_two_counts_of_flops_in_one_column_are_seen() -> None:
    table = isoflop_table(0.003)
    table.loc[::3, "flops"] *= 0.8
    sentence = sentences(usable(table))["mixed conventions"]
    assert sentence.startswith("C/(6 N D) falls into two groups, near 0.8 (7 runs")
    assert "begins with simulated 0" in sentence


def test_two_counts_of_params_in_one_column_are_seen() -> None:
    table = isoflop_table(0.003)
    embedding = 5e3 * np.sqrt(table["params"])
    table["params"] = np.where(np.arange(len(table)) % 2, table["params"], table["params"] + embedding)
    sentence = sentences(usable(table))["mixed conventions"]
    assert sentence.startswith("C/(6 N D) jumps from size to size, in 1") and "of 21 runs by more than 5%" in sentence
    table = isoflop_table(0.003).assign(params_non_embedding=lambda t: t["params"] - 1e5)
    table.loc[:5, "params"] = table["params_non_embedding"]
    table["flops"] = np.nan
    assert "in 6 of 21 rows" in sentences(usable(table.drop(columns="flops_budget")))["mixed conventions"]


def test_params_are_compared_with_width_and_layers() -> None:
    table = isoflop_table(0.003).drop(columns=["flops", "flops_budget"])
    table["layers"], table["width"] = 8, np.sqrt(table["params"] / 96)
    assert "mixed conventions" not in sentences(usable(table))
    table.loc[::2, "params"] *= 1.4
    assert "N/(12 layers width^2)" in sentences(usable(table))["mixed conventions"]


@pytest.mark.parametrize("widths", [(64, 96, 128), (64, 128), (48, 64, 256, 320), (32, 64, 96, 128, 192, 256)])
@pytest.mark.parametrize("vocab", [0, 256, 4096])
def test_widths_of_one_sweep_are_no_mixture(widths: tuple[int, ...], vocab: int) -> None:
    """Token tables and attention are a larger share of small models: the ratios fall with the width, by jumps."""
    rows = []
    for width in widths:
        params = 24 * width**2 + vocab * width + 2 * width
        rows += [(params, tokens, 6 * params * tokens * (1 + 9 / width), width) for tokens in (2e6, 4e6, 8e6, 16e6)]
    table = pd.DataFrame(rows, columns=["params", "tokens", "flops", "width"]).assign(layers=2)
    table["loss_nats"] = 1.8 + 480 * table["params"] ** -0.35 + 2000 * table["tokens"] ** -0.37
    assert "mixed conventions" not in sentences(usable(table))


def test_one_convention_is_no_mixture() -> None:
    """FLOPs that are smooth in N, and a single outlying row, are not two conventions."""
    table = isoflop_table(0.003)
    table["flops"] = 21.0 * table["params"] ** 0.94 * table["tokens"] * np.exp(0.01 * np.sin(np.arange(len(table))))
    assert "mixed conventions" not in sentences(usable(table))
    table = isoflop_table(0.003)
    table.loc[3, "flops"] *= 3
    assert "mixed conventions" not in sentences(usable(table))
    assert "mixed conventions" not in sentences(usable(read_table("chinchilla")))


def test_named_conventions_are_seen() -> None:
    table = isoflop_table(0.003).assign(tokenizer=["a"] * 10 + ["b"] * 11)
    assert "several values (a, b)" in sentences(usable(table))["mixed conventions"]
