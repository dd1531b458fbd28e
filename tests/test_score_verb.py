"""`lmscale score`: what it reads and refuses, writes and shows."""

import io
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from helpers.command_line import call
from helpers.opened_sweep import of_width, opened, write_sweep
from helpers.published import tiny
from helpers.tiny_runs import strictly, write
from rich.console import Console

from lmscale.commands.score import heat_map, models, show, text_file
from lmscale.core.files import write_json
from lmscale.core.run_folder import CHECKPOINT_FOLDER, IMPORTED_FILE
from lmscale.core.run_identity import read_config
from lmscale.lm.use import load

HOSTILE = '</div><script>alert("x")</script>&amp; \x1b[31m\x00\u202e é🙂\n"\'>\n'
WIDTHS = (8, 16, 24, 32)


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sweep of four runs, the largest first; each has a checkpoint."""
    monkeypatch.setattr(load, "open_run", opened)
    return write_sweep(
        tmp_path / "mine", (tiny(vocab=256, context=16, layers=1, width=width) for width in reversed(WIDTHS))
    )


@pytest.fixture
def text(tmp_path: Path) -> Path:
    (tmp_path / "t.txt").write_text(HOSTILE, "utf-8")
    return tmp_path / "t.txt"


@pytest.mark.long
def test_json_holds_the_sums_and_the_tokens(sweep: Path, text: Path, tmp_path: Path) -> None:
    assert call("score", of_width(sweep, 8), "--json", tmp_path / "c.json", "--tokens", text) == 0
    value = strictly((tmp_path / "c.json").read_text("utf-8"))
    size = len(HOSTILE.encode())
    assert value["bytes"] == size and value["tokens"] == size + 1 == len(value["surprisal_nats"])
    assert value["bits_per_byte"] == pytest.approx(value["loss_nats"] * (size + 1) / math.log(2) / size, rel=1e-9)
    assert value["loss_nats"] == pytest.approx(np.mean(value["surprisal_nats"]), rel=1e-5)
    assert value["token_ids"] == [*HOSTILE.encode(), 255] and value["context_tokens"][:3] == [1, 2, 3]
    assert [line["line"] for line in value["lines"]] == [1, 2] and len(value["loss_by_position_nats"]) == 5
    assert sum(line["bytes"] for line in value["lines"]) == size


@pytest.mark.long
def test_one_run_or_several_and_lines(
    sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = "\ufeffab\r\n\ncd\n"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(lines.encode())))
    runs = [of_width(sweep, width) for width in (32, 8)]
    assert call("score", *runs, "-", "--documents", "lines", "--no-end", "--json", "-") == 0
    small, large = strictly(capsys.readouterr().out)["models"]
    assert (small["run"], large["run"]) == (str(runs[1]), str(runs[0])), "in order of scale"
    assert (small["documents"], small["tokens"], small["bytes"]) == (2, 4, 4)
    assert [line["line"] for line in small["lines"]] == [1, 3]


class Page(HTMLParser):
    """Tags and the text of a page, and the titles of its pieces."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.titles: list[str] = []
        self.words = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.titles += [value or "" for name, value in attrs if name == "title"]

    def handle_data(self, data: str) -> None:
        self.words += data


@pytest.mark.long
def test_a_sweep_is_a_page_with_its_smallest_middle_and_largest_model(
    sweep: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (of_width(sweep, 24) / CHECKPOINT_FOLDER / "7").rmdir()
    assert call("score", "--sweep", sweep, text, "--html", tmp_path / "a/page.html", "--json", tmp_path / "c.json") == 0
    printed = capsys.readouterr().out
    assert "1 of 4 runs has no checkpoint and is left out" in printed and "\x1b" not in printed
    values = strictly((tmp_path / "c.json").read_text("utf-8"))["models"]
    assert [Path(value["run"]) for value in values] == [of_width(sweep, width) for width in (8, 16, 32)]
    written = (tmp_path / "a/page.html").read_text("utf-8")
    page = Page(written)
    assert not {"script", "img", "link"} & set(page.tags) and "http" not in written
    assert not re.search("[\x00-\x08\x0b-\x1f\u202e]", written), "no character is obeyed"
    assert written.startswith('<!doctype html>\n<html lang="en">')
    shown = HOSTILE.replace("\n", "⏎\n").replace("\x1b", "\\x1b").replace("\x00", "\\x00").replace("\u202e", "\\u202e")
    assert page.words.count(f"{shown}∎\n") == 3, "the text, whole, once per model"
    assert len(page.titles) == 3 * (len(HOSTILE) + 1), "one piece per character, and the end"
    assert re.fullmatch(
        r"'<': \d+\.\d\d nats, rank \d+; expected ('.'|token \d+|end of document|'\\\\?.+') \d.*%", page.titles[0]
    ), page.titles[0]
    assert page.titles[HOSTILE.index("é")].count("\n") == 1, "two tokens are explained"


@pytest.mark.long
@pytest.mark.parametrize("end", [True, False])
def test_documents_do_not_run_into_each_other(sweep: Path, tmp_path: Path, end: bool) -> None:
    """Where their ends are not scored, a line break stands for each."""
    (tmp_path / "two.txt").write_text("a hen\nthe cat\n", "utf-8")
    words = ["score", of_width(sweep, 8), tmp_path / "two.txt", "--documents", "lines", *(() if end else ("--no-end",))]
    assert call(*words, "--html", tmp_path / "page.html") == 0
    mark = "∎" if end else ""
    assert f"a hen{mark}\nthe cat{mark}\n" in Page((tmp_path / "page.html").read_text("utf-8")).words
    (model,) = models.score_models(
        models.Choice([of_width(sweep, 8)], ()), [b"a hen", b"the cat"], [1, 2], end=end, step=None, ranked_tokens=0,
        keep_all=True, progress=lambda *_: None,
    )  # fmt: skip
    assert model.reading is not None
    assert show.coloured(model.reading.scored).plain == f"a hen{mark}\nthe cat{mark}\n"


def test_training_tokens_are_those_up_to_the_checkpoint(sweep: Path, text: Path, tmp_path: Path) -> None:
    """Seven updates of the run; of an imported model those of its record, and no updates."""
    folder = of_width(sweep, 8)
    config = read_config(folder)
    other = replace(config, data=replace(config.data, source="imported:other@00000000", max_epochs=1e12))
    for record, expected in (
        (None, (7 * config.batch_tokens, 7)),
        ({"tokens": 3000}, (3000, None)),
        ({}, (None, None)),
    ):
        if record is not None:
            folder = write(other, tmp_path / f"tokens {expected[0]}").parent
            write_json(folder / IMPORTED_FILE, record)
        assert call("score", folder, text, "--json", tmp_path / "c.json") == 0
        value = strictly((tmp_path / "c.json").read_text("utf-8"))
        assert (value["training_tokens"], value["step"]) == expected


def test_which_models_are_shown() -> None:
    assert [models.shown(number) for number in (1, 2, 3, 4, 5, 9)] == [
        [0], [0, 1], [0, 1, 2], [0, 2, 3], [0, 2, 4], [0, 4, 8]
    ]  # fmt: skip


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2)."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def test_text_is_legible_on_every_ground() -> None:
    for ink, grounds in zip(heat_map.TEXT, heat_map.GROUNDS):
        for ground in grounds:
            low, high = sorted((luminance(ink), luminance(ground)))
            assert (high + 0.05) / (low + 0.05) >= 7, (ink, ground)


def test_a_terminal_shows_the_text_in_colours_and_their_meaning(sweep: Path) -> None:
    choice = models.Choice([of_width(sweep, 8)], ())
    (model,) = models.score_models(
        choice, [HOSTILE.encode()], [1], end=True, step=None, ranked_tokens=0, keep_all=False, progress=lambda *_: None
    )
    assert model.reading is not None
    scored = replace(model.reading.scored, nats_T=np.linspace(0, 9, model.sums["tokens"], dtype=np.float32))
    model = replace(model, reading=replace(model.reading, scored=scored))
    for terminal in (True, False):
        console = Console(file=io.StringIO(), force_terminal=terminal, color_system="truecolor", width=200)
        show.show([model], 3, [], console)
        assert isinstance(console.file, io.StringIO)
        printed = console.file.getvalue()
        assert ("less than 1/1000" in printed) == terminal and ("48;2;179;38;30" in printed) == terminal
        assert "most surprising spans" in printed and "\x1b[31m" not in printed and "\x00" not in printed
    text = show.coloured(scored, 3)
    assert text.plain.startswith("</d\n... ") and "more tokens are scored and not shown" in text.plain


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("score", "{run}"), "takes RUN FILE, several RUNs and FILE"),
        (("score", "{run}", "{tmp}/none"), "there is no file"),
        (("score", "{run}", "{tmp}"), "is a folder; give one text file of it"),
        (("score", "{run}", "{tmp}/empty"), "is empty, so there is nothing to score"),
        (("score", "{run}", "{tmp}/bom"), "is empty, so there is nothing to score"),
        (("score", "{run}", "{tmp}/latin"), "is not UTF-8 at byte 1"),
        (("score", "{run}", "{tmp}/newlines", "--documents", "lines"), "has no line with anything in it"),
        (("score", "{run}", "{tmp}/long"), "has more than the 64 bytes that are scored at once"),
        (("score", "{tmp}", "{tmp}/a"), "is no run folder: it has no config.json"),
        (("score", "--sweep", "{tmp}/mine", "{run}", "{tmp}/a"), "takes RUN FILE"),
        (("score", "--sweep", "{tmp}/absent", "{tmp}/a"), "there is no folder"),
        (("score", "--sweep", "{tmp}/mine", "{tmp}/a", "--step", "3"), "--step is of one run"),
        (("score", "{run}", "{tmp}/a", "--tokens"), "--tokens says what --json writes"),
        (("score", "{run}", "{tmp}/a", "--spans", "-1"), "--spans -1"),
        (("score", "{run}", "-"), "standard input is a terminal"),
    ],
)
def test_what_cannot_be_scored_is_one_sentence(
    words: tuple[str, ...], sentence: str, sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    contents = {"empty": b"", "bom": b"\xef\xbb\xbf", "latin": b"a\xe9", "newlines": b"\n\r\n\n", "a": b"a",
                "long": b"a" * 65}  # fmt: skip
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    terminal = io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", terminal)
    monkeypatch.setattr(text_file, "MOST_BYTES", 64)
    assert call(*(word.format(run=of_width(sweep, 8), tmp=tmp_path) for word in words)) == 2
    captured = capsys.readouterr()
    assert sentence in captured.err and captured.err.count("\n") == 1 and captured.out == ""


def test_closed_standard_input_is_said(
    sweep: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", None)
    assert call("score", of_width(sweep, 8), "-") == 2
    assert "standard input is closed" in capsys.readouterr().err


def test_a_sweep_without_checkpoints_is_said(sweep: Path, text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for width in WIDTHS:
        (of_width(sweep, width) / CHECKPOINT_FOLDER / "7").rmdir()
    assert call("score", "--sweep", sweep, text) == 2
    assert "no run in" in (message := capsys.readouterr().err) and "has a checkpoint; train it with keep" in message
    assert json.loads((sweep / "plan.json").read_text())["sweep"] == "mine"
