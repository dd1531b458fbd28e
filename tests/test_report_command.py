"""The command that a page states writes it again: every option that is not its default, quoted for a shell."""

import shlex

import pytest
from tyro import cli

from lmscale.commands.report import ReportArgs
from lmscale.core.errors import UserError
from lmscale.study.laws import form
from lmscale.study.report.command import report_command


def test_defaults_are_left_out():
    assert report_command(["runs/mine", "chinchilla"]) == "lmscale report runs/mine chinchilla"


def test_the_command_line_reads_what_was_asked_for():
    command = report_command(
        ["my runs.csv"], law=form("sparse"), given={"sparsity": 0.75}, columns={"params": "n", "tokens": "d $HOME"},
        where="params > 1e6 and tokens < 2e9", stage="fine-tune", resamples=0, seed=3, mixed_corpora=True,
    )  # fmt: skip
    assert cli(ReportArgs, args=shlex.split(command)[2:]) == ReportArgs(
        "my runs.csv", law="sparse", given={"sparsity": 0.75}, columns="params=n,tokens=d $HOME",
        where="params > 1e6 and tokens < 2e9", stage="fine-tune", resamples=0, seed=3, mixed_corpora=True,
    )  # fmt: skip


def test_a_law_of_a_file_is_named_by_it_from_here(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "from dataclasses import dataclass\nfrom lmscale.study.laws import Law, Parameter\n\n\n"
        "@dataclass(frozen=True)\nclass Mine(Law):\n    A: object\n    NAME = 'mine'\n"
        "    INPUTS = ('params', 'tokens')\n"
        "    PARAMETERS = (Parameter('A', 1, 1e6, (300.0,)),)\n\n"
        "    def loss(self, params, tokens):\n        return self.A / params\n",
        "utf-8",
    )
    monkeypatch.chdir(tmp_path)
    assert report_command(["a.csv"], law=f"{tmp_path}/mine.py:Mine").endswith(" --law mine.py:Mine")
    with pytest.raises(UserError, match="no law is called"):
        report_command(["a.csv"], law="mime")
