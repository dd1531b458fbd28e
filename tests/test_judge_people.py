"""People as judges of pairs: the page that they see, what their answers come to, and answers that cannot be used."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from helpers.command_line import call
from helpers.judge_server import serving
from helpers.judged_pairs import SIZES, compare, prefers_length, write_texts

from lmscale.core.errors import UserError
from lmscale.core.files import read_json, write_json
from lmscale.lm.eval.judge.people import key_path, read_answers, read_key


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the texts, and a cache of its own."""
    monkeypatch.setenv("LMSCALE_CACHE", str(tmp_path / "cache"))
    write_texts(tmp_path)
    return tmp_path


@pytest.fixture
def page(files: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert call("judge", files / "texts.jsonl", "--people", files / "page.html") == 0
    assert "36 pairs" in capsys.readouterr().out
    return files / "page.html"


def answer(page: Path, rater: str, better: dict[str, str] | None = None, changed: Any = None) -> Path:
    """Answers as the page saves them: everybody prefers the larger model, but for `better` by pair."""
    key = read_key(page)
    size = {author.name: author.params or 0 for author in key.authors}
    rows = [
        {"pair": one.id, "left": "a", "better": "a" if size[one.a.model] > size[one.b.model] else "b"}
        | ({"better": better[one.id]} if better and one.id in better else {})
        for one in key.pairs
    ]
    file = page.parent / f"answers-{rater}.json"
    write_json(file, {"form": "lmscale-people-1", "page": key.page, "rater": rater, "answers": rows, **(changed or {})})
    return file


def test_the_page_is_blind_and_whole(page: Path) -> None:
    """It names no model, loads nothing, and no text ends its script."""
    content = page.read_text()
    assert not [name for name in SIZES if name in content]
    assert "://" not in content and content.count("</script>") == 2
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', content, re.DOTALL)
    assert data is not None
    shown = json.loads(data[1])["pairs"]
    assert len(shown) == 36 and shown[0]["a"].startswith("</script>")
    assert {one.id for one in read_key(page).pairs} == {one["id"] for one in shown}


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node, which reads the page's script")
def test_the_pages_script_is_javascript(page: Path) -> None:
    script = page.read_text().split("<script>")[1].split("</script>")[0]
    (page.parent / "script.js").write_text(script)
    done = subprocess.run(
        [str(shutil.which("node")), "--check", page.parent / "script.js"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.long
def test_what_people_prefer_becomes_ratings_and_pairs(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tie = {read_key(page).pairs[0].id: "tie"}
    files = answer(page, "anna"), answer(page, "ben", tie)
    out, pairs = page.parent / "out.json", page.parent / "pairs.jsonl"
    assert call("judge", "--people", page, "--answers", *files, "--output", pairs, "--json", out) == 0
    printed = capsys.readouterr().out
    assert "72 answers of 2 people" in printed and "left out: 1 ties" in printed
    assert "people among themselves: alpha 0.9" in printed
    rows = [json.loads(line) for line in pairs.read_text().splitlines()]
    assert len(rows) == 71 and set(rows[0]) == {"prompt", "chosen", "rejected", "rater"}
    assert all(len(row["chosen"]) > len(row["rejected"]) for row in rows)
    ratings = {one["model"]: one["rating"] for one in read_json(out)["ratings"]["ratings"]}
    assert ratings["small"] < ratings["middle"] < ratings["large"]


@pytest.mark.long
def test_a_judge_is_compared_with_people_on_their_pairs(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(prefers_length) as running:
        assert compare(page.parent, running, "--people", page, "--answers", answer(page, "anna")) == 0
    assert "agreement with people, preferences: alpha 0." in capsys.readouterr().out
    agreement = read_json(page.parent / "out.json")["agreement"]
    assert agreement["texts"] == 36 and 0 < agreement["kappa"]["low"] < agreement["kappa"]["value"] < 1


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"page": "000000000000"}, "name the one that was answered"),
        ({"form": "other"}, "it does not say 'lmscale-people-1'"),
        ({"answers": []}, "hold no answer"),
        ({"answers": [{"pair": "x", "left": "a", "better": "a"}]}, "the page has no pair 'x'"),
        ({"answers": 3}, "must be a list"),
        ({"rater": 3}, "must be a str"),
    ],
)
def test_answers_that_cannot_be_used(changed: dict[str, Any], sentence: str, page: Path) -> None:
    with pytest.raises(UserError) as caught:
        read_answers(answer(page, "anna", changed=changed), read_key(page))
    assert sentence in str(caught.value)


def test_answers_of_one_pair_twice_or_of_one_name_twice(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key, file = read_key(page), answer(page, "anna")
    rows = read_json(file)["answers"]
    for bad, sentence in [
        ([rows[0], rows[0]], "is answered twice"), ([{**rows[0], "left": "c"}], "left is 'c'"),
        ([{**rows[0], "better": "left"}], "better is 'left'"),
    ]:  # fmt: skip
        with pytest.raises(UserError, match=sentence):
            read_answers(answer(page, "anna", changed={"answers": bad}), key)
    again = page.parent / "again.json"
    shutil.copy(answer(page, "anna"), again)
    assert call("judge", "--people", page, "--answers", file, again) == 2
    assert "are both answers of 'anna'" in capsys.readouterr().err


def test_a_key_that_is_lost_or_changed(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = answer(page, "anna")
    key = read_json(key_path(page))
    key["pairs"][0]["a"]["text"] += "!"
    write_json(key_path(page), key)
    assert call("judge", "--people", page, "--answers", file) == 2
    assert "holds other texts than it was written with" in capsys.readouterr().err
    key_path(page).unlink()
    assert call("judge", "--people", page, "--answers", file) == 2
    assert "without it nobody knows who wrote which text" in capsys.readouterr().err


def test_a_page_is_not_written_over(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = page.read_text()
    assert call("judge", page.parent / "texts.jsonl", "--people", page, "--seed", 1) == 2
    assert "name another page, or remove both" in capsys.readouterr().err and page.read_text() == before
