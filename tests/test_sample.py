"""`lmscale sample`: what it prints and writes, and what it refuses."""

import io
import json
import shutil
from pathlib import Path

import pytest
from helpers.command_line import call
from helpers.tiny_runs import run, write_corpus

from lmscale import Sweep, isoflop, recipes
from lmscale.commands import sample
from lmscale.core.config import ModelConfig
from lmscale.core.counting import count
from lmscale.core.files import read_json, write_json
from lmscale.core.plans import PlannedRun, write_plan
from lmscale.core.run_folder import CONFIG_FILE, PLAN_FILE
from lmscale.lm.train.loop import train
from lmscale.study.sweep.runs import plan as plan_of


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two trained runs of a sweep and one that has not begun; the larger one stands first in the plan."""
    root = tmp_path_factory.mktemp("sampled")
    (root / "text").mkdir()
    corpus = write_corpus(root / "text")
    models = [ModelConfig(width=width, layers=1, heads=2, context=16) for width in (24, 16, 20)]
    configs = [run(corpus, 3, model=model) for model in models]
    write_plan(root / "sweep", "sweep", [PlannedRun(config) for config in configs])
    for config in configs[:2]:
        folder = root / "sweep" / config.run_id
        folder.mkdir()
        write_json(folder / CONFIG_FILE, config.to_json())
        train(config, folder)
    return root / "sweep"


def a_run(sweep: Path) -> Path:
    return next(path.parent for path in sorted(sweep.glob("*/outcome.json")))


@pytest.mark.long
def test_json_has_the_continuations(sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sample", a_run(sweep), "--prompt", "the ", "a \U0001f642", "--max-tokens", 24, "--n", 2]
    assert call(*words, "--json", tmp_path / "s.json") == 0
    value = read_json(tmp_path / "s.json")
    assert [one["prompt"] for one in value["completions"]] == ["the ", "the ", "a \U0001f642", "a \U0001f642"]
    for one in value["completions"]:
        assert set(one) == {"prompt", "text", "tokens", "finish_reason"} and 0 < len(one["tokens"]) <= 24
    assert value["completions"][0]["tokens"] != value["completions"][1]["tokens"], "draws of their own"
    assert value["tokens_per_second"] > 0
    assert "tokens/s" in capsys.readouterr().out


@pytest.mark.long
def test_prompts_and_stops_are_taken_one_flag_each_or_together(sweep: Path, tmp_path: Path) -> None:
    """Whichever way they are given, each counts; stops are vowels, so that a text without any ends at none."""
    prompts = ["the ", "a", "b"], ("--prompt", "the ", "-p", "a", "b"), ("-p", "the ", "a", "--prompt=b")
    stops = ("--stop", "a", "--stop=e", "--stop", "i", "o"), ("--stop", "a", "e", "i", "--stop", "o")
    texts = []
    for given, ends in zip(prompts[1:], stops):
        words = ["sample", a_run(sweep), *given, "--max-tokens", 40, *ends, "--json", tmp_path / "s.json"]
        assert call(*words) == 0
        completions = read_json(tmp_path / "s.json")["completions"]
        assert [one["prompt"] for one in completions] == prompts[0]
        texts.append([one["text"] for one in completions])
        assert not any(set("aeio") & set(text) for text in texts[-1])
    assert texts[0] == texts[1]


@pytest.mark.long
def test_a_dash_is_a_prompt_from_standard_input(
    sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the last line break, which `echo` adds; lines before it stay."""
    words = ["sample", a_run(sweep), "-p", "-", "--max-tokens", 3, "--json", tmp_path / "s.json"]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"the\n\n")))
    assert call(*words) == 0
    assert [one["prompt"] for one in read_json(tmp_path / "s.json")["completions"]] == ["the\n"]
    for text, sentence in ((b"\xff", "standard input is not UTF-8 at byte 0"), (None, "standard input is closed")):
        monkeypatch.setattr("sys.stdin", None if text is None else io.TextIOWrapper(io.BytesIO(text)))
        assert call(*words) == 2
        assert sentence in capsys.readouterr().err
    assert call(*words, "-p", "-") == 2 and "give --prompt - once" in capsys.readouterr().err


def test_models_of_one_budget_are_in_order_of_size(tmp_path: Path) -> None:
    """Whole batches move C by a fraction of a per cent: the order is that of the budgets, and of N in each."""
    plan = plan_of(Sweep("valleys", isoflop(budgets=[3e11, 1e11], sizes=5), recipes.cpu))
    write_plan(tmp_path, "valleys", plan.runs)
    by_id = {run.config.run_id: count(run.config) for run in plan.runs}
    order = [by_id[folder.name] for folder, _ in sample._models(tmp_path)]
    sizes = [counts.params for counts in order]
    assert sizes[:5] == sorted(sizes[:5]) and sizes[5:] == sorted(sizes[5:])
    assert max(counts.flops for counts in order[:5]) < min(counts.flops for counts in order[5:])
    flops = [counts.flops for counts in order[:5]]
    assert flops != sorted(flops)


@pytest.mark.long
def test_a_sweep_of_which_no_model_speaks_fails(
    sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model that cannot do it is reported, and the others go on; where none can, the call fails."""
    shutil.copy(sweep / PLAN_FILE, tmp_path)
    assert call("sample", "--sweep", tmp_path, "-p", "the") == 2
    assert "no model of" in capsys.readouterr().err.splitlines()[-1]
    assert call("sample", "--sweep", sweep, "-p", "the", "--beam", 2, "--max-tokens", 17) == 2
    error = capsys.readouterr().err
    assert error.count("beam search needs prompt and continuation in one context") == 3  # of two models, and the last


@pytest.mark.long
def test_a_dash_writes_json_alone_to_standard_output(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("sample", a_run(sweep), "-p", "the", "--temperature", 0, "--max-tokens", 5, "--json", "-") == 0
    value = json.loads(capsys.readouterr().out)
    assert len(value["completions"]) == 1


@pytest.mark.long
def test_all_models_of_a_sweep_speak_in_order_of_scale(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("sample", "--sweep", sweep, "-p", "the", "--max-tokens", 5) == 0
    printed = capsys.readouterr()
    titles = [line for line in printed.out.splitlines() if " N = " in line]
    assert len(titles) == 2 and all(
        line.count("the") == 1 for line in printed.out.splitlines() if line.startswith("the")
    )
    sizes = [float(title.split("N = ")[1].split("k")[0]) for title in titles]
    assert sizes == sorted(sizes)
    assert "no run folder" in printed.err, "the one without a model is named"


@pytest.mark.long
def test_beams_come_best_first(sweep: Path, tmp_path: Path) -> None:
    words = [
        "sample",
        a_run(sweep),
        "-p",
        "the",
        "--beam",
        4,
        "--n",
        3,
        "--max-tokens",
        6,
        "--json",
        tmp_path / "b.json",
    ]
    assert call(*words, "--length-penalty", 0) == 0
    logprobs = [one["logprob"] for one in read_json(tmp_path / "b.json")["completions"]]
    assert len(logprobs) == 3 and logprobs == sorted(logprobs, reverse=True)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "name what is to write: either a run"),
        (("RUN", "--sweep", "SWEEP"), "name what is to write: either a run"),
        (("RUN", "--temperature", "-1"), "temperature = -1.0: at least 0, which is greedy"),
        (("RUN", "--top-p", "0"), "top_p = 0.0: above 0 and at most 1"),
        (("RUN", "--top-p", "1.5"), "top_p = 1.5"),
        (("RUN", "--max-tokens", "0"), "--max-tokens 0: at least 1"),
        (("RUN", "--n", "0"), "--n 0: at least 1"),
        (("RUN", "--beam", "2", "--temperature", "0.5"), "beam search draws nothing: leave out temperature"),
        (("RUN", "--beam", "2", "--top-k", "5"), "beam search draws nothing"),
        (("RUN", "--beam", "2", "--n", "3"), "no more continuations than beams"),
        (("RUN", "--beam", "0"), "--beam 0: at least 1"),
        (("RUN", "--length-penalty", "2"), "--length-penalty is of beam search"),
        (("RUN", "--step", "99"), "has no checkpoint of step 99"),
        (("RUN", "--max-tokens", "1", "--json", "/"), "/"),
        (("nowhere",), "is no run folder"),
    ],
)
def test_what_cannot_be_sampled_is_one_sentence(
    sweep: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], sentence: str
) -> None:
    named = {"RUN": str(a_run(sweep)), "SWEEP": str(sweep)}
    assert call("sample", *(named.get(word, word) for word in words)) == 2
    error = capsys.readouterr().err
    assert sentence.replace("_", "-") in error.replace("_", "-") and error.count("\n") == 1
