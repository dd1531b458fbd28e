"""The card of an exported model says what the run's record says, in front matter that YAML reads."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from helpers.command_line import call
from helpers.finished_sweep import LAW
from helpers.outcomes import RUN, outcome_of
from helpers.tiny_runs import run, write_corpus

from lmscale import fits
from lmscale.commands.export import law_sentence
from lmscale.core.config import ModelConfig
from lmscale.core.counting import active_params_non_embedding, active_params_total, count, params_total
from lmscale.core.files import write_json
from lmscale.core.results import Outcome
from lmscale.core.run_folder import CONFIG_FILE, SCORES_FILE
from lmscale.lm.train.loop import train
from lmscale.lm.use.export import FORMATS
from lmscale.lm.use.model_card import CardOptions, Loss, Record, card


def front_matter(text: str) -> dict[str, Any]:
    start, front, _ = text.split("---\n", 2)
    assert start == ""
    values = yaml.safe_load(front)
    assert isinstance(values, dict)
    return values


def record(**changed: Any) -> Record:
    outcome = outcome_of(RUN, loss_nats=2.5, loss_stderr=0.01, bits_per_byte=3.5, validation_tokens=4096)
    loss = Loss(2.5, 0.01, 3.5, 4096)
    values = {"config": RUN, "step": RUN.steps, "tokenizer_fingerprint": "abc", "outcome": outcome, "loss": loss}
    return Record(**{**values, "scores": (), "imported": None, **changed})


def test_the_numbers_are_those_of_the_record() -> None:
    counts, text = count(RUN), card(record(), CardOptions())
    for line in (
        f"| N | {counts.params:,} | all trained numbers",
        f"| N without tables | {counts.params_non_embedding:,} |",
        "| D | 64,000 | training tokens",
        f"| C | {counts.flops:.4g} | exact training FLOPs",
        f"| 6 N D | {6 * counts.params * 64_000:.4g} |",
        "| loss | 2.5000 ± 0.0100 | validation cross-entropy in nats per token over 4,096 tokens",
        "| bits per byte | 3.5000 |",
        "- source: `stdlib`",
        "- tokenizer: `bytes`, fingerprint `abc`",
        "- fingerprint of the text and the tokenizer: `5f0c`",
        f"- run `{RUN.run_id}`, seed 0, after 1,000 of 1,000 updates",
        "on cpu, with jax 0.10",
        "# first",
    ):
        assert line in text
    assert "## Tasks" not in text and "## The law" not in text


def test_an_earlier_checkpoint_has_its_own_counts() -> None:
    text = card(record(step=10, loss=None), CardOptions())
    assert "| D | 640 |" in text and f"| C | {count(RUN, 640).flops:.4g} |" in text
    assert "| loss | not measured |" in text and "after 10 of 1,000 updates" in text and "2.5000" not in text


def test_a_mixture_of_experts_has_both_of_its_sizes() -> None:
    model = replace(RUN.model, experts=8, experts_per_token=2, shared_experts=1)
    text = card(record(config=replace(RUN, model=model)), CardOptions())
    assert f"A language model of {params_total(model):,} parameters" in text
    assert "8 experts, of which 2 read a token, and 1 that read every token: a token is multiplied by" in text
    assert f"{active_params_total(model):,} of the parameters." in text
    assert f"| active N | {active_params_total(model):,} |" in text
    assert f"| active N without tables | {active_params_non_embedding(model):,} |" in text
    assert "expert" not in card(record(), CardOptions())


def test_an_imported_model_claims_nothing_of_its_training() -> None:
    imported = {
        "source": "pythia",
        "architecture": "GPTNeoXForCausalLM",
        "parameters_fingerprint": "f00d",
        "tokens": None,
    }
    text = card(record(imported=imported, outcome=None, loss=None, step=1), CardOptions())
    assert "trained elsewhere and imported from a folder `pythia` of the class `GPTNeoXForCausalLM`" in text
    assert "| D | unknown |" in text and "`f00d`" in text and "stdlib" not in text and "| C |" not in text
    assert f"| D | {3 * 10**11:,} |" in card(record(imported={**imported, "tokens": 3 * 10**11}), CardOptions())


@pytest.mark.parametrize("license", ["unknown", "apache-2.0", "other: 'mine' # no", "yes", "1.0", "[a]", "é"])
def test_front_matter_reads_back(license: str) -> None:
    values = front_matter(card(record(), CardOptions(license=license, library="transformers")))
    assert values["license"] == license and values["library_name"] == "transformers"
    assert values["pipeline_tag"] == "text-generation" and "lmscale" in values["tags"]


def test_names_of_others_stay_in_their_line() -> None:
    config = replace(RUN, name="a\n---\n# b", data=replace(RUN.data, source="x`y\n| z"))
    rows = ({"task": "a|b", "metric": "accuracy", "shots": 0, "n": 10, "score": 0.25, "stderr": 0.1},)
    text = card(record(config=config, scores=rows), CardOptions())
    assert "# a\\x0a---\\x0a# b\n" in text and "- source: `x'y\\x0a| z`\n" in text
    assert "| a\\|b | accuracy | 0 | 10 | 0.2500 ± 0.1000 |" in text
    front_matter(text)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("card")
    (root / "text").mkdir()
    config = run(write_corpus(root / "text"), 4, model=ModelConfig(width=16, layers=1, heads=2, context=16, kv_heads=1))
    folder = root / "sweep" / config.run_id
    write_json(folder / CONFIG_FILE, config.to_json())
    train(config, folder)
    rows = [
        {
            "run_id": config.run_id,
            "step": step,
            "task": "copy",
            "metric": "accuracy",
            "shots": 0,
            "n": 8,
            "score": score,
        }
        for step, score in ((2, 0.125), (4, 0.375))
    ]
    (folder / SCORES_FILE).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.mark.long
@pytest.mark.parametrize("format", FORMATS)
def test_every_format_has_a_card(format: str, trained: Path, tmp_path: Path) -> None:
    assert call("export", trained, tmp_path / "out", "--format", format, "--license", "mit") == 0
    text = (tmp_path / "out/README.md").read_text("utf-8")
    outcome = Outcome.read(trained)
    assert outcome is not None and f"| loss | {outcome.loss_nats:.4f} ± {outcome.loss_stderr:.4f} |" in text
    assert front_matter(text)["license"] == "mit" and FORMATS[format].usage in text
    assert "| copy | accuracy | 0 | 8 | 0.3750 |" in text and "0.1250" not in text


@pytest.mark.long
def test_the_law_of_the_sweep_predicts_the_loss(trained: Path) -> None:
    assert law_sentence(trained) == ""
    grid = [(n, d) for n in np.geomspace(1e4, 1e6, 5) for d in np.geomspace(1e5, 1e8, 5)]
    table = pd.DataFrame(grid, columns=["params", "tokens"])
    table = table.assign(flops=6 * table.params * table.tokens, loss_nats=LAW.loss(table.params, table.tokens))
    fit = fits.loss_law(table, resamples=0)
    write_json(trained.parent / "report/fits.json", {"fits": [fit.to_json()]})
    outcome = Outcome.read(trained)
    assert outcome is not None
    sentence = law_sentence(trained)
    assert "Fitted to 25 runs of the sweep" in sentence
    predicted = float(sentence.split("a loss of ")[1].split(" nats")[0])
    assert predicted == pytest.approx(float(LAW.loss(outcome.params, outcome.tokens)), rel=2e-2)


def test_an_unknown_format_is_one_sentence(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("export", trained, tmp_path / "out", "--format", "two-files") == 2
    assert "two-file" in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.long
@pytest.mark.parametrize("format", FORMATS)
def test_a_full_disk_leaves_nothing(
    format: str, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The card is written last: what was written before it goes, too."""
    from lmscale.lm.use import model_card

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(model_card, "write_text", full)
    assert call("export", trained, tmp_path / "out", "--format", format) == 74
    assert "is full" in capsys.readouterr().err and list(tmp_path.iterdir()) == []
