"""A column of one quantity is not read as another: what its name says, and what the user insists on."""

import numpy as np
import pandas as pd
import pytest

from lmscale.core.errors import UserError
from lmscale.study import emergence, fits
from lmscale.study.laws import KNOWN_INPUTS
from lmscale.study.tables import read_table
from lmscale.study.tables.headers import KNOWN
from lmscale.study.tables.meanings import held_by

N, D = np.geomspace(2e7, 2e9, 12), np.geomspace(3e9, 5e8, 12)
LOSS = 1.8 + 480 * N**-0.35 + 2000 * D**-0.37


def table(**columns: object) -> pd.DataFrame:
    return pd.DataFrame({"n_params": N, "n_tokens": D, "loss": LOSS, "loss_web": 1.1 * LOSS, **columns})


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ("loss=n_tokens", r"'n_tokens' holds tokens by its name, and loss_nats is a loss: .* 'loss'; .*n_tokens\*1"),
        ("params=n_tokens", r"'n_tokens' holds tokens by its name, and params counts parameters: .* 'n_params'"),
        ("tokens=loss", r"'loss' holds loss_nats by its name, and tokens is an amount of data: .* 'n_tokens'"),
        ("flops=n_params", "'n_params' holds params by its name, and flops counts FLOPs: name another; where"),
        ("budget=loss_web,loss=loss_web", "one column, 'loss_web', is given as flops_budget and as loss_nats"),
        ("loss=rank,params=rank", "one column, 'rank', is given as loss_nats and as params"),
    ],
)
def test_a_column_of_another_quantity_is_refused(columns: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        read_table(table(rank=np.arange(12.0)), columns)


def test_what_only_looks_alike_is_read() -> None:
    """Kinds of one quantity, a score that is fitted as a loss, text, and a factor that is taken at its word."""
    rows = table(accuracy=0.5, seed=0)
    assert (read_table(rows, "active_params=n_params,unique_tokens=n_tokens,group=seed")["unique_tokens"] == D).all()
    assert (read_table(rows, "loss=accuracy")["loss_nats"] == 0.5).all()
    assert (read_table(rows, "loss=n_tokens*1")["loss_nats"] == D).all()


@pytest.mark.parametrize("target", ["n_tokens", "n_params", "seed"])
def test_a_target_is_a_loss(target: str) -> None:
    with pytest.raises(UserError, match="is a loss: name another, such as 'loss'"):
        fits.loss_laws(table(seed=0), ["loss_web", target], resamples=0, check=False)


def test_a_target_that_is_not_there_is_answered_with_a_loss() -> None:
    with pytest.raises(UserError, match="no column 'tokens'") as error:
        fits.loss_laws(table(), ["tokens"], resamples=0, check=False)
    assert "n_tokens" not in str(error.value)


def test_a_loss_and_a_teacher_s_are_two_columns() -> None:
    with pytest.raises(UserError, match="'loss', is given as"):
        fits.loss_law(table(), law="distillation", columns="loss=loss,teacher_loss=loss", resamples=0)


def test_an_axis_of_emergence_is_what_its_name_says() -> None:
    rows = pd.DataFrame({"task": "a", "metric": "exact", "kind": "hard", "tokens": D, "correct": 3, "n": 10})
    with pytest.raises(UserError, match=r"'tokens' holds tokens by its name, and params counts .* x=tokens"):
        emergence.detect(rows, "params", columns={"params": "tokens"})


@pytest.mark.parametrize("name", sorted({*KNOWN, *KNOWN_INPUTS}))
def test_our_own_names_say_what_they_hold(name: str) -> None:
    assert held_by(name) == name
