"""The task whose key is a docstring: its functions, how a ranking is scored, and that BM25 is the library's."""

import math
from pathlib import Path

import numpy as np
import pytest
from helpers.retrieval import subject_of, trained

from lmscale.core.errors import UserError
from lmscale.lm.retrieve.docstrings import Function, functions, held_out_functions, rank_docstrings
from lmscale.lm.retrieve.embed import Embedder, embedding_of
from lmscale.lm.retrieve.ranking import bm25_scores, chance_reciprocal, chance_within, ranks, reciprocal, within, words

MODULE = b'''
class A:
    def f(self, x):
        """Return the double of x.

        Of any number:
            indented
        """
        return 2 * x

    def silent(self):
        return 1

    def idle(self):
        """Do nothing at all here."""

    def refuses(self):
        """Raise an error always here."""
        raise NotImplementedError

    def brief(self):
        """Two words."""
        return 1

    async def outer(self):
        """An outer one with an inner."""
        @staticmethod
        def inner(y):
            """The inner one of these two."""
            return y
        return inner(3)
'''


def test_functions_have_a_docstring_and_do_something() -> None:
    by_name = {function.name: function for function in functions(MODULE)}
    assert set(by_name) == {"f", "outer", "inner"}
    assert by_name["f"] == Function("f", "return 2 * x", "Return the double of x.\n\nOf any number:\n    indented")
    assert by_name["outer"].body == "@staticmethod\ndef inner(y):\n    return y\nreturn inner(3)"
    assert list(functions(b"def f(:")) == [] and list(functions(b"\xff")) == []


def test_no_body_is_asked_twice() -> None:
    twice = MODULE + MODULE.replace(b"double of x", b"twice of it")
    chosen = held_out_functions([twice, MODULE], 100)
    assert len({function.body for function in chosen}) == len(chosen) == 3
    with pytest.raises(UserError, match="have 1 functions with a docstring"):
        held_out_functions([MODULE], 1)


def test_ranks_count_ties_against_a_ranking() -> None:
    scores = np.array([[3.0, 2.0, 1.0], [1.0, 1.0, 1.0], [0.0, 5.0, 9.0]])
    ranked = ranks(scores, np.array([0, 0, 1]))
    assert ranked.tolist() == [1, 3, 2]
    assert within(ranked, 2).tolist() == [1, 0, 1] and reciprocal(ranked).tolist() == [1, 1 / 3, 1 / 2]


def test_chance_is_that_of_a_random_order() -> None:
    rng = np.random.default_rng(0)
    ranked = ranks(rng.normal(size=(20_000, 5)), np.zeros(20_000, np.int64))
    assert within(ranked, 2).mean() == pytest.approx(chance_within(5, 2), abs=0.02)
    assert reciprocal(ranked).mean() == pytest.approx(chance_reciprocal(5), abs=0.02)
    assert chance_within(5, 10) == 1


def test_words_are_those_of_names_too() -> None:
    assert words("parse_header parseHeader HTTPServer2") == [
        "parse",
        "header",
        "parse",
        "header",
        "http",
        "server",
        "2",
    ]


def test_bm25_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    bm25_scores(["alpha"], ["alpha beta", "gamma"])
    assert not caplog.records


def test_bm25_is_the_formula() -> None:
    """ln(1 + (N - df + 1/2)/(df + 1/2)) tf / (tf + k1 (1 - b + b length / mean)), k1 = 1.5 and b = 0.75."""
    keys = ["alpha beta", "alpha alpha gamma delta", "gamma"]
    scores = bm25_scores(["alpha", "nothing", "?!"], keys)
    idf, mean = math.log(1 + (3 - 2 + 0.5) / (2 + 0.5)), 7 / 3
    by_formula = [
        idf * tf / (tf + 1.5 * (0.25 + 0.75 * length / mean)) if tf else 0.0 for tf, length in ((1, 2), (2, 4), (0, 1))
    ]
    np.testing.assert_allclose(scores[0], by_formula, rtol=1e-5)
    assert not scores[1:].any(), "words that no key has, and none at all"


@pytest.mark.long
def test_a_docstring_like_its_body_is_found(tmp_path: Path, compiled_programs: Path) -> None:
    """Where body and docstring have the same text, model and BM25 rank it first."""
    subject, _ = subject_of(trained(tmp_path, steps=2))
    texts = ["alpha beta gamma delta", "one two three four five", "quick brown fox jumps", "lazy dog box seven"]
    chosen = [Function(f"f{number}", text, text) for number, text in enumerate(texts)]
    embedder = Embedder(subject, embedding_of(subject.config.model))
    result = rank_docstrings(subject, embedder, chosen)
    assert result.model_Q.tolist() == result.bm25_Q.tolist() == [1, 1, 1, 1]
    assert result.keys == 4 and result.flops > 0
