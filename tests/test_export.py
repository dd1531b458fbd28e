"""`lmscale export` and `lmscale import-model`: a run becomes files, and files become a run."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.command_line import call
from helpers.tiny_runs import run, write_corpus

import lmscale
from lmscale.core.config import Distillation, ModelConfig, RunConfig
from lmscale.core.errors import UserError
from lmscale.core.files import read_json, write_json
from lmscale.core.results import Outcome, collect
from lmscale.core.run_folder import CONFIG_FILE
from lmscale.lm.model import transformer
from lmscale.lm.train.loop import train
from lmscale.lm.use.export import export
from lmscale.lm.use.hf.weights import WEIGHTS_FILE
from lmscale.lm.use.import_model import import_into_sweep

MODEL = ModelConfig(width=16, layers=1, heads=2, context=16, kv_heads=1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a few steps, with its checkpoint."""
    root = tmp_path_factory.mktemp("trained")
    (root / "text").mkdir()
    config = run(write_corpus(root / "text"), 4, model=MODEL)
    folder = root / config.run_id
    folder.mkdir()
    write_json(folder / CONFIG_FILE, config.to_json())
    train(config, folder)
    return folder


@pytest.fixture(scope="module")
def published(trained: Path) -> Path:
    folder = trained.parent / "published"
    export(trained, folder, "hf")
    return folder


@pytest.mark.long
def test_a_run_that_was_exported_and_imported_is_the_same_function(trained: Path, published: Path) -> None:
    back = trained.parent / "back"
    assert call("import-model", published, "--output", back) == 0
    first, second = lmscale.load(trained), lmscale.load(back)
    tokens = np.arange(48).reshape(3, 16)
    logits = [np.asarray(transformer.logits(each.params, tokens, each.config.model)) for each in (first, second)]
    np.testing.assert_allclose(*logits, atol=2e-5)
    text = "naïve <|endoftext|>\n"
    assert second.tokenizer.encode(text).tolist() == first.tokenizer.encode(text).tolist()
    assert second.tokenizer.end_of_document == first.tokenizer.end_of_document
    outcome = Outcome.read(back)
    assert outcome is not None and outcome.tokens == first.config.tokens
    assert lmscale.load(back).config.run_id == outcome.run_id != first.config.run_id


@pytest.mark.long
def test_nothing_is_left_of_an_export_that_fails(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A disk that is full when the weights are written: one sentence, status 74, and an empty folder around it."""
    import safetensors.numpy

    def full(*_: object, **__: object) -> None:
        raise safetensors.SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(safetensors.numpy, "save_file", full)
    assert call("export", trained, tmp_path / "out") == 74
    assert "is full" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_never_written_over(trained: Path, published: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in published.iterdir()}
    assert call("export", trained, published) == 2
    assert call("import-model", published, "--output", trained) == 2
    assert {path.name: path.read_bytes() for path in published.iterdir()} == before
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    assert call("export", trained, tmp_path / "link") == 2
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda folder: (folder / "config.json").unlink(), "there is no config.json of a published model at"),
        (lambda folder: (folder / "config.json").write_text("[1]"), "is no mapping of fields"),
        (lambda folder: (folder / "config.json").write_text("{"), "is corrupt"),
        (lambda folder: (folder / WEIGHTS_FILE).unlink(), "holds no model"),
        (lambda folder: (folder / WEIGHTS_FILE).write_bytes(b"\0" * 64), "is cut or damaged"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "holds no tokenizer"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "is no tokenizer.json"),
        (lambda folder: (folder / "tokenizer.json").write_bytes(b"\xff"), "cannot be read"),
    ],
)
def test_a_folder_that_is_no_model_is_one_sentence(
    published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: object, sentence: str
) -> None:
    shutil.copytree(published, tmp_path / "copy")
    damage(tmp_path / "copy")  # type: ignore[operator]
    assert call("import-model", tmp_path / "copy", "--output", tmp_path / "run") == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists() and len(list(tmp_path.iterdir())) == 1


def test_a_tokenizer_with_more_ids_than_the_model_is_refused(
    published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(published, tmp_path / "copy")
    spec = read_json(tmp_path / "copy/tokenizer.json")
    spec["model"]["vocab"]["longer"] = 300
    write_json(tmp_path / "copy/tokenizer.json", spec)
    assert call("import-model", tmp_path / "copy", "--output", tmp_path / "run") == 2
    assert "the tokenizer has 301 ids, but the model only 256" in capsys.readouterr().err


def test_models_of_others_become_the_runs_of_a_sweep(
    published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With D they are points of a table; without it they say that they are not."""
    shutil.copytree(published, tmp_path / "other")
    values = read_json(tmp_path / "other/config.json")
    del values["lmscale"]
    write_json(tmp_path / "other/config.json", values | {"rms_norm_eps": 1e-3})
    sweep = tmp_path / "runs"
    assert call("import-model", published, "--sweep", sweep, "--tokens", "3e5") == 0
    assert call("import-model", tmp_path / "other", "--sweep", sweep) == 0
    assert "how many tokens it was trained on is not known" in capsys.readouterr().out
    assert call("import-model", published, "--sweep", sweep) == 2, "the same weights are the same model"
    table = collect(sweep)
    assert list(table["name"]) == ["published", "other"] and list(table["state"]) == ["imported"] * 2
    assert table["tokens"][0] == 300_000 and table["flops"][0] > 0
    assert table["tokens"].isna()[1] and table["flops"].isna()[1]
    assert table["params"].nunique() == 1


def test_an_imported_model_cannot_be_trained_on_text_that_is_not_here(published: Path, tmp_path: Path) -> None:
    from lmscale.core.errors import UserError
    from lmscale.lm import data

    call("import-model", published, "--output", tmp_path / "run")
    config = lmscale.load(tmp_path / "run").config
    with pytest.raises(UserError, match="was trained on is not here"):
        data.prepare(config.data)


def test_the_tokenizer_of_gpt2_may_be_two_files(published: Path, tmp_path: Path) -> None:
    """vocab.json and merges.txt give the tokens of the tokenizer.json that they stand for."""
    from lmscale.lm.data.tokenizer import FileTokenizer, train_bpe
    from lmscale.lm.use.hf.tokenizer_files import read_tokenizer_content

    text = "low lower lowest, new newer newest; the wide widest"
    whole = FileTokenizer(train_bpe(270, iter([[text.encode()] * 9]), "a text"), "whole")
    model = json.loads(whole.content)["model"]
    (tmp_path / "vocab.json").write_text(json.dumps({**model["vocab"], "<|endoftext|>": whole.end_of_document}))
    merges = [" ".join(pair) if isinstance(pair, list) else pair for pair in model["merges"]]
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges))
    again = FileTokenizer(read_tokenizer_content(tmp_path), "again")
    assert again.encode(text).tolist() == whole.encode(text).tolist()
    assert again.end_of_document == whole.end_of_document


@pytest.mark.slow
@pytest.mark.parametrize("role", ["init_from", "teacher"])
def test_an_imported_model_is_a_parent(published: Path, tmp_path: Path, role: str) -> None:
    """What was read from elsewhere begins or teaches a run here, whose text has the same tokenizer."""
    sweep = tmp_path / "imported"
    folder, imported = import_into_sweep(published, sweep)
    (tmp_path / "text").mkdir()
    config = run(write_corpus(tmp_path / "text"), 4, model=imported.config.model)
    same = replace(config, data=replace(config.data, tokenizer=str(published / "tokenizer.json")))
    parent = imported.config.run_id

    def child(config: RunConfig) -> RunConfig:
        if role == "init_from":
            return replace(config, init_from=parent)
        return replace(config, objective=Distillation(teacher=parent))

    outcome = train(child(same), tmp_path / "runs" / child(same).run_id)
    assert folder == sweep / parent and outcome.state == "finished" and outcome.loss_nats is not None
    with pytest.raises(UserError, match=rf"run {parent}, was trained with another tokenizer than that of .*text"):
        train(child(config), tmp_path / "runs" / child(config).run_id)
