"""Pairs: both orders, what is a bias and what a tie, ratings against N, and the verb that compares."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.command_line import call
from helpers.judge_server import Answer, says, serving
from helpers.judged_pairs import CONTINUATION, SIZES, compare, pair, prefers_length, text, write_texts

from lmscale.core.errors import UserError
from lmscale.core.files import read_json
from lmscale.lm.eval.judge.bias import first_place, longer_text, same_in_both_orders
from lmscale.lm.eval.judge.pairs import Better, Pair, Result, Vote, both_orders, choose_pairs, results
from lmscale.lm.eval.judge.people import preferred, read_key, write_page
from lmscale.lm.eval.judge.ratings import rate
from lmscale.lm.eval.judge.texts import Author

AUTHORS = [Author(name, params) for name, params in SIZES.items()]


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
    """A working folder with the texts, and a cache of its own."""
    monkeypatch.setenv("LMSCALE_CACHE", str(tmp_path / "cache"))
    write_texts(tmp_path)
    return tmp_path


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
