"""Every verb does its work and says it; help, the next call and the nearest word. (Bad input: test_cli_trouble.py.)"""

import json
import os
import pty
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from helpers.command_line import call

from lmscale import UserError, cli
from lmscale.core.plans import read_plan
from lmscale.core.results import collect


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(verb, "--help") == 0
    printed = re.sub(r"\s+", " ", capsys.readouterr().out)
    docstring = re.sub(r"\s+", " ", getattr(cli.VERBS[verb].load(), cli.VERBS[verb].arguments).__doc__)
    assert f"usage: lmscale {verb}" in printed and docstring.split(".")[0].split(";")[0] in printed
    assert docstring.startswith(cli.VERBS[verb].summary) and len(cli.VERBS[verb].summary) <= 80 - 15


def test_help_lists_every_verb_and_loads_nothing_heavy(tmp_path: Path) -> None:
    heavy = {"jax", "flax", "numpy", "scipy", "pandas", "matplotlib", "pyarrow", "wandb", "tensorflow_datasets"}
    program = (
        "import sys; from lmscale import cli; sys.argv = ['lmscale', '--help']\n"
        "try: cli.main()\n"
        f"except SystemExit: print('LOADED', *({heavy} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONWARNINGS": "error"}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert done.stdout.splitlines()[-1] == "LOADED" and done.stderr == ""
    assert all(f"  {verb} " in done.stdout for verb in cli.VERBS)
    assert all(len(line) <= 80 for line in done.stdout.splitlines())


def test_a_verb_that_does_not_exist_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("reprot", "runs/smoke") == 2
    assert "there is no verb 'reprot' (`lmscale --help` lists them); did you mean 'report'?" in capsys.readouterr().err
    assert call("price", "sweeps/mine.py") == 2
    assert "there is no verb 'price' (`lmscale --help` lists them); it is called 'plan'" in capsys.readouterr().err
    assert not cli.SYNONYMS.keys() & cli.VERBS.keys() and set(cli.SYNONYMS.values()) <= cli.VERBS.keys()
    assert call() == 2 and "usage: lmscale VERB" in capsys.readouterr().err
    assert call("--version") == 0 and capsys.readouterr().out.startswith("lmscale 0.")


def test_what_stands_in_a_place_is_shown_by_its_name_and_not_by_its_type(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("fit") == 2 and "TABLE" in capsys.readouterr().err
    assert call("logs", "--help") == 0 and "usage: lmscale logs [-h] RUN " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("points", "sentence"),
    [
        ("params=1e9", "predict was given params: the law 'chinchilla' takes params, tokens"),
        ("params=1e9,token=2e10", "predict was given params, token: the law 'chinchilla' takes params, tokens"),
        ("params=-1,tokens=2e10", "params"),
        ("params=1B,tokens=2e10", "--predict has 'params=1B': '1B' is not a number; write 1e+09"),
    ],
)
def test_points_that_cannot_be_predicted_are_refused_before_anything_is_fitted(
    points: str, sentence: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lmscale.study.fits.fit", lambda *_: pytest.fail("it was fitted first"))
    assert call("fit", "chinchilla", "--approach", "3", "--predict", points) == 2
    said = capsys.readouterr()
    assert sentence in said.err and said.out == ""


def test_plan_prints_and_starts_nothing(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("plan", root / "sweeps" / "smoke.py", "--json", "plan.json") == 0
    output = capsys.readouterr().out
    value = json.loads(Path("plan.json").read_text())
    assert value["sweep"] == "smoke" and len(value["runs"]) == 12
    assert all(run["run_id"] in output for run in value["runs"]) and "12 runs, 4 held out" in output
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]


def test_status_and_table(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, planned = read_plan(runs)
    assert call("status", runs) == 0
    output = capsys.readouterr().out
    assert all(run.config.run_id in output for run in planned) and "\n12 finished\n" in output
    assert call("table", runs) == 0
    (Path("runs.csv")).write_text(capsys.readouterr().out)
    assert call("table", runs, "--output", "runs.parquet") == 0
    for table in (pd.read_csv("runs.csv"), pd.read_parquet("runs.parquet")):
        assert list(table["run"]) == [run.config.run_id for run in planned]
        assert list(table["loss_nats"]) == list(collect(runs)["loss_nats"])


def test_fit_prints_the_law_and_writes_its_numbers(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("fit", runs, "--approach", 3, "--resamples", 20, "--no-check", "--json", "fit.json") == 0
    output = capsys.readouterr().out
    assert "Approach 3" in output and "through 8 runs" in output and "4 left out (held out" in output
    (fit,) = json.loads(Path("fit.json").read_text())["fits"]
    assert all(re.search(rf" {name} = {value:.7g} ", output) for name, value in fit["parameters"].items())


def test_data_says_what_is_in_a_corpus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.txt").write_text("\n\n".join(f"line {number} of text" for number in range(3000)))
    words = ("--test-fraction", 0.2, "--tokenizer", "bpe:270", "--json", tmp_path / "data.json")
    assert call("data", tmp_path / "text.txt", *words) == 0
    value = json.loads((tmp_path / "data.json").read_text())
    documents = sum(value["statistics"][0]["length_counts"])
    assert value["manifest"]["vocab"] == 270 and value["manifest"]["train_documents"] == documents > 0
    assert set(value["statistics"][0]["baselines_bits_per_byte"]) == {"unigram", "bigram", "zlib", "lzma", "zstd"}
    output = capsys.readouterr().out
    assert "test " in output and "tokenizer bpe:270" in output and "baselines in bits per byte" in output


@pytest.mark.long
def test_on_a_terminal_of_80_columns_the_status_is_whole(workspace: Path) -> None:
    inner, outer = pty.openpty()
    environment = {**os.environ, "COLUMNS": "80", "TERM": "xterm"}
    command = [sys.executable, "-m", "lmscale", "status", "runs/smoke"]
    process = subprocess.Popen(command, cwd=workspace, stdout=outer, stderr=outer, env=environment)
    os.close(outer)
    text = ""
    while True:
        try:
            text += (chunk := os.read(inner, 4096).decode())
        except OSError:  # how Linux says that the other end is closed
            chunk = ""
        if not chunk:
            break
    os.close(inner)
    assert process.wait() == 0 and "…" not in text
    lines = re.sub(r"\x1b\[[\d;]*m", "", text).splitlines()
    assert sum("finished  100%" in line for line in lines) == 12 and max(map(len, lines)) <= 80, max(lines, key=len)


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_option_has_a_text_and_every_verb_an_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The example is a call that the verb's parser takes; a text is more than the default that is added to it."""
    name, *words = shlex.split(cli.VERBS[verb].example)[1:]
    assert name == verb and cli.parse(verb, words)
    assert call(verb, "--help") == 0
    printed = capsys.readouterr().out
    assert f"Example: {cli.VERBS[verb].example}" in re.sub(r"\s+", " ", printed)
    body = printed.split("positional arguments" if "positional arguments" in printed else "options")[1]
    options = re.split(r"^  (?=-|[A-Z{\[])", body, flags=re.MULTILINE)[1:]
    assert len(options) > 1
    for option in options:
        text = re.sub(r"\(default: .*?\)|\(required\)", "", re.sub(r"\s+", " ", option))
        assert len(re.findall(r"\b[a-z]{2,}\b", text.split(" ", maxsplit=2)[-1])) >= 3, option


@pytest.mark.parametrize(
    ("words", "suggestion"),
    [
        (("run", "x.py", "--worker", "2"), "--workers"),
        (("run", "x.py", "--lancher", "slurm"), "--launcher"),
        (("report", "runs/x", "--resample", "20"), "--resamples"),
        (("fit", "chinchilla", "--aproach", "3"), "--approach"),
    ],
)
def test_a_mistyped_option_is_answered_with_the_nearest(
    words: tuple[str, ...], suggestion: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*words) == 2
    error = capsys.readouterr().err
    assert "Perhaps you meant" in error and suggestion in error.split("Perhaps you meant")[1]


@pytest.mark.parametrize(
    ("task", "sentence"),
    [
        ("mmul:x", "did you mean 'mmlu'?"),
        ("mmlu", "write mmlu:PATH"),
        ("syntetic:tasks(digits=2)", "did you mean 'synthetic'?"),
        ("synthetic:tasks(digit=2)", "did you mean 'digits'?"),
    ],
)
def test_a_mistyped_task_is_answered_with_the_nearest(task: str, sentence: str) -> None:
    from lmscale.lm.eval.tasks import load

    with pytest.raises(UserError) as refused:
        load(task)
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    "words", [("--improve", "--spend", "2e9"), ("--improve", "--spend", "2e9", "--json", "p.json")]
)
def test_a_proposal_names_the_call_that_stores_or_trains_it(
    words: tuple[str, ...], runs: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep_file = str(root / "sweeps" / "smoke.py")
    assert call("plan", sweep_file, *words) == 0
    following = shlex.split(capsys.readouterr().out.splitlines()[-1].removeprefix("next: "))
    stored = ["lmscale", "run", "p.json"]
    assert following == (
        stored if "--json" in words else ["lmscale", "plan", sweep_file, *words, "--json", "plan.json"]
    )


@pytest.mark.long
@pytest.mark.parametrize("verb", ["status", "table", "fit", "report"])
def test_a_verb_names_the_next_with_its_path(verb: str, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--resamples", 5) if verb in ("fit", "report") else ()
    assert call(verb, runs, *words) == 0
    printed = capsys.readouterr()
    (line,) = [line for line in (printed.out + printed.err).splitlines() if line.startswith("next: lmscale ")]
    _, following, *rest = shlex.split(line.removeprefix("next: "))
    assert following in cli.VERBS and str(runs) in rest


def test_the_help_lists_every_verb_once_by_its_step() -> None:
    assert sorted(name for names in cli.STEPS.values() for name in names) == sorted(cli.VERBS)


def test_a_new_sweep_file_can_be_planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("init", "mine") == 0
    assert "next: lmscale plan sweeps/mine.py" in capsys.readouterr().out
    assert call("plan", "sweeps/mine.py", "--json", "plan.json") == 0
    value = json.loads(Path("plan.json").read_text())
    assert value["sweep"] == "mine" and any(run["held_out"] for run in value["runs"])
    assert call("init", "mine") == 2 and "sweeps/mine.py is there already" in capsys.readouterr().err
    assert call("init", "../mine") == 2 and "use letters, digits" in capsys.readouterr().err


@pytest.mark.parametrize("shell", cli.SHELLS)
def test_a_shell_completes_verbs_and_options(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--completion", shell) == 0
    script = capsys.readouterr().out
    assert all(verb in script for verb in cli.VERBS) and "resamples" in script


def test_a_shell_that_is_not_known_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--completion", "elvish") == 2
    assert "--completion takes one shell: bash, zsh, fish" in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.parametrize("columns", ["1", "7", "0", "-5"])
def test_help_ends_in_a_terminal_that_is_hardly_there(columns: str) -> None:
    command = [sys.executable, "-m", "lmscale", "status", "--help"]
    done = subprocess.run(command, env={**os.environ, "COLUMNS": columns}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "--help" in done.stdout
