"""`lmscale inspect`: what it measures, shows, writes and refuses."""

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from helpers.command_line import call
from helpers.opened_sweep import of_width, opened, write_sweep
from helpers.published import tiny
from helpers.tiny_runs import strictly

from lmscale.lm.inspect import summary
from lmscale.lm.inspect.subject import Subject
from lmscale.lm.model import transformer
from lmscale.lm.use import load

HOSTILE = '</script><script>alert("x")</script>&amp; é🙂\n'
WIDTHS = (16, 24, 32, 40)


def subject(folder: Path) -> Subject:
    one = opened(folder)
    return Subject(*one.run, one.mesh)


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sweep of four runs, the largest first; each has a checkpoint. Their corpus is not here."""
    monkeypatch.setattr(load, "open_run", opened)
    monkeypatch.setattr(summary, "held_out_text", lambda config, rows: None)
    return write_sweep(
        tmp_path / "mine",
        (tiny(vocab=256, context=64, heads=2, layers=2, width=width, mlp_width=8) for width in reversed(WIDTHS)),
    )


@pytest.mark.long
def test_json_holds_the_attention_and_the_predictions_of_a_text(sweep: Path, tmp_path: Path) -> None:
    folder = of_width(sweep, 16)
    assert call("inspect", folder, "--text", "abcab", "--json", tmp_path / "i.json") == 0
    value = strictly((tmp_path / "i.json").read_text("utf-8"))
    assert (value["run"], value["step"]) == (str(folder), 7)
    assert value["text"]["tokens"] == ["", *"abcab"] and value["text"]["left_out"] == 0
    attention = np.array(value["text"]["attention"])
    assert attention.shape == (2, 2, 6, 6)
    np.testing.assert_allclose(attention.sum(axis=-1), 1, atol=1e-3)
    config, params, tokenizer = opened(folder).run
    ids = jnp.array([[tokenizer.end_of_document, *b"abcab"]], jnp.int32)
    logits_V = np.asarray(transformer.logits(params, ids, config.model))[0, -1]
    lens = value["text"]["lens"]
    assert len(lens) == 3
    token, probability = lens[-1]["likeliest"][-1][0]
    assert token == tokenizer.decode([int(logits_V.argmax())])
    assert probability == pytest.approx(float(np.exp(logits_V.max() - np.logaddexp.reduce(logits_V))), rel=1e-3)


@pytest.mark.long
def test_effects_and_used_neurons_of_a_task(sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--task", "synthetic:tasks(only='copy sort', letters=4, length=4)", "--most-pairs", 4)
    units = ("--units", "heads", "--units", "neurons")
    assert call("inspect", of_width(sweep, 16), *words, *units, "--json", tmp_path / "i.json") == 0
    value = strictly((tmp_path / "i.json").read_text("utf-8"))["effects"]
    assert set(value) == {"copy", "sort"}
    for effects in value.values():
        assert effects["pairs"] <= 4 and set(effects["units"]) == {"heads", "neurons"}
        for kind, shape in (("heads", (2, 2)), ("neurons", (2, 8))):
            bounds = {name: np.array(part) for name, part in effects["units"][kind]["indirect_nats"].items()}
            assert bounds["mean"].shape == shape
            assert (bounds["low"] <= bounds["mean"] + 1e-6).all() and (bounds["mean"] <= bounds["high"] + 1e-6).all()
        used = effects["used_neurons"]
        assert used["neurons"] == 16 and 0 <= used["count"] <= 16
        share = used["share"]
        assert sum(map(len, used["used"])) == used["count"] and share["mean"] == used["count"] / 16
        assert 0 <= share["low"] <= share["high"] <= 1
    shown = capsys.readouterr().out
    assert "effects of heads" in shown and "effects of neurons" in shown and "keep 90 % of the score" in shown


@pytest.mark.long
def test_pairs_that_are_not_measured_are_reported(
    sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A language of two letters has few pairs of two letters; of a file the first are measured; one pair cannot say
    which neurons a task uses."""
    words = ("--task", "synthetic:tasks(only='copy', letters=2, length=2)", "--json", tmp_path / "i.json")
    assert call("inspect", of_width(sweep, 16), *words) == 0
    value = strictly((tmp_path / "i.json").read_text("utf-8"))
    pairs = value["effects"]["copy"]["pairs"]
    sentence = f"copy: {pairs} of the 32 pairs asked for, since it has no more that can be compared"
    assert 1 < pairs < 32 and value["remarks"] == [sentence] and sentence in capsys.readouterr().out
    path, row = tmp_path / "pairs.jsonl", {"prompt": "ab=", "answer": "a", "other_prompt": "cb=", "other_answer": "c"}
    path.write_text(f"{json.dumps(row)}\n" * 3, "utf-8")
    words = ("--pairs", path, "--most-pairs", 1, "--units", "neurons", "--html", tmp_path / "i.html")
    assert call("inspect", of_width(sweep, 16), *words) == 0
    shown = " ".join(capsys.readouterr().out.split())  # a long path wraps
    assert f"{path}: its first 1 of 3 pairs are measured" in shown and "2 pairs or more, and it has one" in shown
    assert "its first 1 of 3 pairs are measured" in (tmp_path / "i.html").read_text("utf-8")


@pytest.mark.long
def test_pairs_of_a_file_by_position(sweep: Path, tmp_path: Path) -> None:
    row = {"prompt": "ab=", "answer": "a", "other_prompt": "cb=", "other_answer": "c"}
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps(row) + "\n", "utf-8")
    words = ("--pairs", path, "--units", "positions", "--json", tmp_path / "i.json")
    assert call("inspect", of_width(sweep, 16), *words) == 0
    (effects,) = strictly((tmp_path / "i.json").read_text("utf-8"))["effects"].values()
    share = np.array(effects["units"]["positions"]["indirect_share"]["mean"])
    assert share.shape == (2, 4)
    np.testing.assert_allclose(share[-1], [0, 0, 0, 1], atol=1e-3)
    np.testing.assert_allclose(share[0, 0], 0, atol=1e-3)
    assert abs(share[0, 1]) > 0.01, "the prompts differ in their first character"


@pytest.mark.long
def test_heads_of_every_model_of_a_sweep(sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("inspect", "--sweep", sweep, "--heads", "--json", tmp_path / "i.json") == 0
    values = strictly((tmp_path / "i.json").read_text("utf-8"))["models"]
    assert [value["run"] for value in values] == [str(of_width(sweep, width)) for width in WIDTHS]
    for value in values:
        heads = value["heads"]
        assert np.array(heads["induction"]).shape == (2, 2) and heads["copy_tokens"] == 31
        assert len(heads["ablation"]["heads"]) == 2, "one of the two heads of each layer"
        assert len(heads["ablation"]["second_copy_nats"]["without_random"]) == 16
    assert capsys.readouterr().out.count("(") >= 3 * len(WIDTHS)


class Reader(HTMLParser):
    """Scripts, and what a browser would load."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts: list[str] = []
        self.loads: list[str] = []
        self.inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.inside = tag == "script"
        self.scripts += [""] if self.inside else []
        self.loads += [name for name, _ in attrs if name in ("src", "href") or name.startswith("on")]

    def handle_endtag(self, tag: str) -> None:
        self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.scripts[-1] += data


@pytest.mark.long
def test_the_page_has_three_models_loads_nothing_and_its_numbers_are_the_attention(sweep: Path, tmp_path: Path) -> None:
    page = tmp_path / "inside.html"
    words = ("--text", HOSTILE, "--task", "synthetic:tasks(only='copy', letters=4, length=4)", "--most-pairs", 2)
    assert call("inspect", "--sweep", sweep, *words, "--heads", "--head", "1.1", "--html", page) == 0
    written = page.read_text("utf-8")
    reader = Reader()
    reader.feed(written)
    assert not reader.loads and len(reader.scripts) == 4 and "alert(" not in reader.scripts[-1]
    for width, script in zip((WIDTHS[0], WIDTHS[2], WIDTHS[3]), reader.scripts):
        numbers = json.loads(script)
        reading = summary.read_text(subject(of_width(sweep, width)), HOSTILE)
        assert (numbers["layer"], numbers["head"]) == (1, 1)
        weights = np.frombuffer(base64.b64decode(numbers["attention"]), np.uint8).reshape(numbers["shape"])
        np.testing.assert_allclose(weights / 255, reading.attention_LHTS, atol=0.5 / 255 + 1e-6)
        assert numbers["likeliest"][0][0][0][0] == reading.lens[0]["likeliest"][0][0][0]
    assert re.search(r"https?:|url\(|@import", written) is None


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "say what to look at"),
        (("--text", ""), "there is no text to read"),
        (("--text", "ab", "--head", "2.0"), "has the layers 0 to 1 with the heads 0 to 1"),
        (("--text", "ab", "--head", "0.2"), "has the layers 0 to 1 with the heads 0 to 1"),
        (("--text", "ab", "--head", "one"), "write LAYER.HEAD"),
        (("--heads", "--head", "0.0"), "give --text too"),
        (("--heads", "--units", "heads"), "give --task or --pairs too"),
        (("--task", "synthetic:tasks", "--units", "head"), "did you mean 'heads'"),
        (("--task", "synthetic:tasks", "--most-pairs", "0"), "at least 1 pair"),
        (("--pairs", "none.jsonl"), "none.jsonl"),
    ],
)
def test_what_cannot_be_measured_is_one_sentence(
    sweep: Path, words: tuple[str, ...], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("inspect", of_width(sweep, 16), *words) == 2
    error = capsys.readouterr().err
    assert sentence in error and "Traceback" not in error


def test_runs_or_a_sweep_are_named(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in ((), (of_width(sweep, 16), "--sweep", sweep)):
        assert call("inspect", *words, "--heads") == 2
        assert "either runs, runs/<sweep>/<run_id>, or --sweep" in capsys.readouterr().err
    assert call("inspect", sweep, "--heads") == 2
    assert "is no run folder" in capsys.readouterr().err


def test_what_does_not_fit_the_context_is_left_out_and_reported(
    sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("inspect", of_width(sweep, 16), "--text", "a" * 100, "--head", "0.1") == 0
    shown = capsys.readouterr().out
    assert "the last 37 tokens are left out" in shown and "attention of head 0.1" in shown
