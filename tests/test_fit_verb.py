"""`lmscale fit`: what it prints and writes, and what it refuses in one sentence."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from lmscale.commands import check as check_verb
from lmscale.commands import fit as fit_verb
from lmscale.commands.check import CheckArgs
from lmscale.commands.fit import FitArgs, budgets
from lmscale.core.errors import UserError
from lmscale.study import fits


@pytest.mark.long
def test_the_fit_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, prediction = tmp_path / "f.json", tmp_path / "p.json"
    args = FitArgs(
        "chinchilla", resamples=50, at=(1e20, 1e22), json=out, predict="params=1e9,tokens=2e10", prediction=prediction
    )
    fit_verb.main(args, Console())
    printed = capsys.readouterr().out
    assert "Approach 1" in printed and "Approach 2" in printed and "Approach 3" in printed and "Registered" in printed
    results = json.loads(out.read_text())["fits"]
    assert [one["approach"] for one in results] == ["1", "2", "3"]
    keys = {
        "approach",
        "law",
        "loss_function",
        "n_runs",
        "objective",
        "status",
        "parameters",
        "standard_errors",
        "intervals",
        "exponents",
        "allocations",
        "dropped",
    }
    for one in results:
        assert keys <= set(one)
        assert [row["flops"] for row in one["allocations"]] == [1e20, 1e22]
        assert {"flops", "params", "tokens", "tokens_per_param", "loss_nats", "intervals"} <= set(one["allocations"][0])
        assert set(one["intervals"]) == {"0.8", "0.95"}
        assert {"name", "sentence"} <= set(one["status"][0])
    assert results[0]["frontier"] and results[1]["minima"]
    check_verb.main(CheckArgs(prediction, loss=2.53, json=tmp_path / "v.json"), Console())
    assert json.loads((tmp_path / "v.json").read_text()) == fits.check(prediction, loss_nats=2.53)
    assert "HELD" in capsys.readouterr().out


def test_the_fit_command_refuses_in_one_sentence(tmp_path: Path) -> None:
    for args, sentence in (
        (FitArgs("chinchilla", law="chinchila", approach="3"), "did you mean 'chinchilla'"),
        (FitArgs("chinchilla", predict="params=1e9", approach="2"), "use --approach 3"),
        (FitArgs("chinchilla", predict="params=x", approach="3"), "'x' is not a number"),
        (
            FitArgs("chinchilla", predict="params=1e9", approach="3", resamples=5, prediction=tmp_path / "p"),
            "takes params, tokens",
        ),
    ):
        with pytest.raises(UserError, match=sentence):
            fit_verb.main(args, Console())
    assert not (tmp_path / "p").exists()
    assert budgets("1e20, 3e21") == (1e20, 3e21)
    with pytest.raises(UserError, match="'many' is not a number"):
        budgets("1e20,many")
