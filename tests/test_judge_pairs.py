"""Pairs: both orders, what is a bias and what a tie, ratings against N, and people as judges."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.command_line import call
from helpers.judge_server import Answer, Running, says, serving

from lmscale.core.errors import UserError
from lmscale.core.files import read_json, write_json
from lmscale.lm.eval.judge.bias import first_place, longer_text, same_in_both_orders
from lmscale.lm.eval.judge.pairs import Better, Pair, Result, Vote, both_orders, choose_pairs, results
from lmscale.lm.eval.judge.people import key_path, preferred, read_answers, read_key, write_page
from lmscale.lm.eval.judge.ratings import rate
from lmscale.lm.eval.judge.texts import Author, Text

SIZES = {"small": 1e4, "middle": 1e5, "large": 1e6}
AUTHORS = [Author(name, params) for name, params in SIZES.items()]


def text(model: str, number: int, content: str | None = None) -> Text:
    return Text(f"prompt {number}", content or f"{model} {number}", model, f"{model}-{number}")


def pair(a: str = "small", b: str = "large", number: int = 0) -> Pair:
    return Pair(text(a, number), text(b, number))


def test_pairs_are_of_one_prompt_and_two_models() -> None:
    texts = [text(model, number) for model in SIZES for number in range(3)]
    pairs, sentences = choose_pairs([*texts, text("small", 0), text("small", 9)], 100, 0)
    assert len(pairs) == 3 * 3 + 2 and not sentences  # prompt 0 has two texts of the small model
    assert all(one.a.prompt == one.b.prompt and one.a.model != one.b.model for one in pairs)


def test_few_pairs_are_spread_over_the_prompts() -> None:
    texts = [text(model, number) for model in SIZES for number in range(5)]
    pairs, sentences = choose_pairs(texts, 5, 0)
    assert {one.prompt for one in pairs} == {f"prompt {number}" for number in range(5)}
    assert sentences == ["5 of 15 pairs are compared, drawn evenly over 5 prompts"]
    assert choose_pairs(texts, 5, 0)[0] == pairs != choose_pairs(texts, 5, 1)[0]


def test_equal_texts_and_lone_models_are_no_pairs() -> None:
    same = [text("small", 0, "x"), text("large", 0, "x "), text("middle", 0, "y")]
    pairs, sentences = choose_pairs(same, 9, 0)
    assert len(pairs) == 2 and sentences == ["1 pairs of equal texts are not compared"]
    with pytest.raises(UserError, match="no two models continue one prompt"):
        choose_pairs([text("small", 0), text("small", 1), text("large", 2)], 9, 0)


def votes_on(one: Pair, a_first: Better | None, b_first: Better | None, voter: str = "v") -> list[Vote]:
    return [Vote(one, voter, "a", a_first), Vote(one, voter, "b", b_first)]


def test_what_votes_in_both_orders_come_to() -> None:
    """A voter that follows the place makes a tie; what is unreadable in one order is left out."""
    pairs = [pair(number=number) for number in range(5)]
    votes = [
        *votes_on(pairs[0], "a", "a"), *votes_on(pairs[1], "a", "b"), *votes_on(pairs[2], "b", "b"),
        *votes_on(pairs[3], "a", None), *votes_on(pairs[4], "tie", "b"),
    ]  # fmt: skip
    assert [(one.pair, one.share, one.votes) for one in results(votes, balanced=True)] == [
        (pairs[0], 1.0, 2), (pairs[1], 0.5, 2), (pairs[2], 0.0, 2), (pairs[4], 0.25, 2),
    ]  # fmt: skip
    assert len(both_orders(votes)) == 4
    assert same_in_both_orders(votes, 100, 0).value == 0.5
    assert [one.share for one in results(votes, balanced=False)] == [1.0, 0.5, 0.0, 1.0, 0.25]


def test_samples_are_voters_of_their_own() -> None:
    one = pair()
    votes = [*votes_on(one, "a", "a", "sample 0"), *votes_on(one, "b", "b", "sample 1")]
    assert [(two.share, two.votes) for two in results(votes, balanced=True)] == [(0.5, 4)]
    assert same_in_both_orders(votes, 100, 0).value == 1.0


def test_a_liking_for_the_first_place_is_measured() -> None:
    pairs = [pair(number=number) for number in range(30)]
    follows = [vote for one in pairs for vote in votes_on(one, "a", "b")]
    liking = first_place(follows, 200, 0)
    assert (liking.value, liking.low, liking.high, liking.units) == (1.0, 1.0, 1.0, 30)
    fair = first_place([vote for one in pairs for vote in votes_on(one, "a", "a")], 200, 0)
    assert fair.value == 0.5 and fair.low == fair.high == 0.5


def test_a_liking_for_length_is_measured() -> None:
    long = [Result(Pair(text("small", i, "xx"), text("large", i, "x")), 0.9, 2) for i in range(12)]
    short = [Result(Pair(text("small", i, "x"), text("large", i, "xx")), 0.3, 2) for i in range(12)]
    equal = [Result(Pair(text("small", i, "x"), text("large", i, "y")), 1.0, 2) for i in range(12)]
    assert longer_text([*long, *short, *equal], 100, 0).value == pytest.approx(0.8)
    assert np.isnan(longer_text(equal, 100, 0).value)


def test_intervals_draw_prompts_not_pairs() -> None:
    """Forty pairs of each prompt that agree with each other say no more than one."""
    values = {number: number % 2 for number in range(20)}
    alike = [Vote(pair(number=i), f"v{k}", "a", "a" if values[i] else "b") for i in values for k in range(40)]
    single = [vote for vote in alike if vote.voter == "v0"]
    wide, narrow = (first_place(votes, 500, 0) for votes in (single, alike))
    assert (wide.low, wide.high) == (narrow.low, narrow.high) and narrow.units == 20


def drawn_results(gaps: dict[str, float], prompts: int, seed: int = 0) -> list[Result]:
    """Votes drawn from Bradley-Terry's own probabilities."""
    rng, names = np.random.default_rng(seed), list(gaps)
    out = []
    for number in range(prompts):
        for i, a in enumerate(names):
            for b in names[i + 1 :]:
                chance = 1 / (1 + 10 ** ((gaps[b] - gaps[a]) / 400))
                out.append(Result(pair(a, b, number), float(rng.random() < chance), 2))
    return out


@pytest.mark.long
def test_ratings_are_found_again() -> None:
    truth = {"small": -150.0, "middle": 0.0, "large": 150.0}
    ratings = rate(drawn_results(truth, 1500), AUTHORS, 100, 0)
    assert [one.model for one in ratings.ratings] == list(truth)
    for one in ratings.ratings:
        assert one.rating == pytest.approx(truth[one.model], abs=25)
        assert one.low < truth[one.model] < one.high and one.high - one.low < 60
        assert one.pairs == 3000
    assert ratings.per_tenfold_params == pytest.approx(150, abs=25)
    assert ratings.per_tenfold_interval is not None and ratings.per_tenfold_interval[0] < 150


def test_a_model_that_never_lost_has_a_finite_rating() -> None:
    """Eleven wins and half a win each way are 11.5 to .5: 400 log10(23) points apart."""
    never_lost = [Result(pair("small", "large", number), 0.0, 2) for number in range(11)]
    ratings = rate(never_lost, AUTHORS, 100, 0)
    (small, large) = ratings.ratings
    assert "large won all its votes: how far it is from the others is a bound" in " ".join(ratings.sentences())
    assert large.rating - small.rating == pytest.approx(400 * np.log10(23), abs=0.01)
    assert large.rating == pytest.approx(-small.rating) and (small.share, large.share) == (0.0, 1.0)
    assert ratings.per_tenfold_params is None, "two sizes are no law"


def test_models_that_were_never_compared_are_named() -> None:
    apart = [Result(pair("small", "large"), 1.0, 2), Result(pair("c", "d", 1), 1.0, 2)]
    with pytest.raises(UserError, match="small and c were never compared"):
        rate(apart, [*AUTHORS, Author("c"), Author("d")], 100, 0)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Texts of three models on twelve prompts; larger models write longer texts."""
    monkeypatch.setenv("LMSCALE_CACHE", str(tmp_path / "cache"))
    rows = [
        {"prompt": f"prompt {i}", "text": "</script>" + name[0] * (k + 1), "model": name, "params": params,
         "id": f"{name}-{i}"}
        for i in range(12) for k, (name, params) in enumerate(SIZES.items())
    ]  # fmt: skip
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


CONTINUATION = re.compile(r"<continuation>\n(.*?)\n</continuation>", re.DOTALL)


def prefers_length(body: dict[str, Any], number: int) -> Answer:
    """The longer text, but of the two shorter ones always the first."""
    first, second = CONTINUATION.findall(body["messages"][1]["content"])
    if "l" in first[9:] or "l" in second[9:]:
        return says(json.dumps({"better": "A" if len(first) > len(second) else "B"}))
    return says('{"better": "A"}')


def compare(files: Path, running: Running, *words: object) -> int:
    server = ("--server", running.url, "--model", "m", "--resamples", 200)
    return call("judge", *words, *server, "--json", files / "out.json")


@pytest.mark.long
def test_the_verb_compares_and_rates(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(prefers_length) as running:
        assert compare(files, running, files / "texts.jsonl", "--pairs") == 0
        assert len(running.bodies) == 12 * 3 * 2
        assert compare(files, running, files / "texts.jsonl", "--pairs") == 0
        assert len(running.bodies) == 12 * 3 * 2, "both orders come from the cache"
    printed = capsys.readouterr().out
    assert "the judge disagrees with itself: of 67% of the pairs it says the same in both orders" in printed
    assert "order: 67% of decided votes are for the text that stands first" in printed
    assert "length: the longer text has 83% of the votes" in printed
    value = read_json(files / "out.json")
    ratings = {one["model"]: one for one in value["ratings"]["ratings"]}
    assert (
        ratings["small"]["rating"] == pytest.approx(ratings["middle"]["rating"], abs=1e-3)
        and ratings["large"]["low"] > 0
    )
    assert [row["metric"] for row in value["rows"]] == ["rating"] * 3 and "large won all its votes" in printed
    assert {row["params"] for row in value["rows"]} == set(SIZES.values())


def test_a_judge_that_answers_in_one_order_only(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def script(body: dict[str, Any], number: int) -> Answer:
        first, second = CONTINUATION.findall(body["messages"][1]["content"])
        return says('{"better": "A"}' if first < second else "I cannot say.")

    with serving(script) as running:
        assert compare(files, running, files / "texts.jsonl", "--pairs") == 2
    assert "of no pair did m give a readable answer in both orders" in capsys.readouterr().err
    assert len(read_json(files / "out.json")["votes"]) == 72


# --- people ---


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


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--people", "p.html"), "name either"),
        (("x.jsonl", "--people", "p.html", "--answers", "a.json"), "name either"),
        (("--answers", "a.json"), "say who judges"),
        (("x.jsonl", "--offline", "--people", "p.html"), "leave out --people"),
        (("x.jsonl", "--offline", "--pairs"), "--pairs is of a server's judge"),
        (("x.jsonl", "--offline", "--output", "o.jsonl"), "--output is for what people prefer"),
        (("x.jsonl", "--offline", "--human", "h.jsonl"), "--human is of a server's judge"),
        (("x.jsonl", "--offline", "--resamples", "5"), "from 100 to 100,000"),
        (("x.jsonl", "--people", "p.html", "--server", "http://h/v1", "--model", "m"), "give their --answers too"),
    ],
)
def test_options_that_do_not_go_together(
    words: tuple[str, ...], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("judge", *words) == 2
    message = capsys.readouterr().err
    assert sentence in message and message.count("\n") == 1


def test_preferences_have_the_continuation_alone(tmp_path: Path) -> None:
    one = pair()
    blank = Pair(text("small", 0, " "), text("large", 0))
    records, left_out = preferred([Vote(one, "a", "b", "b"), Vote(one, "b", "a", "tie"), Vote(blank, "a", "a", "b")])
    assert records == [{"prompt": "prompt 0", "chosen": "large 0", "rejected": "small 0", "rater": "a"}]
    assert left_out == ["1 ties", "1 without a prompt or with an empty text"]
    write_page(tmp_path / "p.html", [one], AUTHORS, "Which & why <b>?")
    assert "<title>Which &amp; why &lt;b&gt;?</title>" in (tmp_path / "p.html").read_text()
    assert read_key(tmp_path / "p.html").pairs == [one]
    assert replace(one.a, model="x").hash == one.a.hash
