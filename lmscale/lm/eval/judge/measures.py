"""What can be measured of texts without a judge: readability, variety, repetition, likeness, errors of grammar.

Readability is by the library textstat, with the two formulas that count letters (and so need no dictionary of
syllables): the Automated Readability Index (Smith and Senter 1967) and the Coleman-Liau index (1975), both in grades of
American schools; a grade of k is read at k + 5 years. Flesch-Kincaid (1975) joins them where nltk's dictionary
`cmudict` is on this machine; nothing is downloaded.

Variety and likeness depend on how much text there is, so every model is measured on as many words and texts as the one
with the fewest.
"""

import importlib.util
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lmscale.core.config import check
from lmscale.lm.eval.judge.grammar import grammar_errors, grammar_tool
from lmscale.lm.eval.judge.self_bleu import self_bleu
from lmscale.lm.eval.judge.texts import Author, Text

WORD = re.compile(r"\w+(?:['’]\w+)*")
TOKEN = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")
"""Words and marks, which self-BLEU compares."""
YEARS_AT_GRADE_0 = 5
REPEATED_ORDER = 4
SMALLER_IS_BETTER = ("repeated_4grams", "self_bleu", "grammar_errors_per_100_words")


def words(text: str) -> list[str]:
    """The words of a text in small letters, without marks."""
    return WORD.findall(text.lower())


def distinct(sequence: Sequence[str], order: int) -> float:
    """Distinct-n (Li 2016, arXiv 1510.03055): different n-grams over all n-grams; NaN where there are none."""
    grams = [tuple(sequence[i : i + order]) for i in range(len(sequence) - order + 1)]
    return len(set(grams)) / len(grams) if grams else math.nan


def repeated(sequence: Sequence[str], order: int = REPEATED_ORDER) -> float:
    """The share of a text's n-grams that occurred before in it (seq-rep-n, Welleck 2020, arXiv 1908.04319)."""
    return 1 - distinct(sequence, order)


def readability() -> dict[str, Callable[[str], float]]:
    """Measures of a text's difficulty by name. Raises `UserError` where textstat is not installed."""
    check(importlib.util.find_spec("textstat") is not None, "readability needs textstat: pip install 'lmscale[judge]'")
    import textstat

    formulas: dict[str, Callable[[str], float]] = {
        "readability_grade": textstat.automated_readability_index,
        "coleman_liau_grade": textstat.coleman_liau_index,
    }
    if _has_syllables():
        formulas["flesch_kincaid_grade"] = textstat.flesch_kincaid_grade
    return {**formulas, "reading_age_years": lambda text: formulas["readability_grade"](text) + YEARS_AT_GRADE_0}


def _has_syllables() -> bool:
    """Whether textstat can count syllables without downloading anything."""
    import nltk

    try:
        nltk.data.find("corpora/cmudict")
    except LookupError:
        return False
    return True


def measure(
    texts: Sequence[Text], authors: Sequence[Author], most_words: int | None = None
) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows of scores of every author, and in sentences how they were measured and what is missing.

    Distinct-n is of the first `most_words` words; None takes as many as the author with the fewest has. Raises
    `UserError` where an author has no words, and as `readability` and `grammar_errors` do.
    """
    by_author: defaultdict[str, list[Text]] = defaultdict(list)
    for text in texts:
        by_author[text.model].append(text)
    if most_words is None:
        most_words = min(sum(len(words(text.text)) for text in by_author[author.name]) for author in authors)
    most_texts = min(len(by_author[author.name]) for author in authors)
    formulas, tool = readability(), grammar_tool()
    for author in authors:
        check(any(words(text.text) for text in by_author[author.name]), f"the texts of {author.name} have no words")
    rows = []
    for author in authors:
        own = [text.text for text in by_author[author.name]]
        measured = {**_of_each_text(own, formulas), **_of_all_texts(own, most_words, most_texts)}
        if tool is not None:
            count = sum(len(words(text)) for text in own)
            measured["grammar_errors_per_100_words"] = (100 * grammar_errors(own, tool) / count, None)
        rows += [_row(author, name, value, stderr, len(own)) for name, (value, stderr) in measured.items()
                 if math.isfinite(value)]  # fmt: skip
    sentences = [
        f"distinct-n is of the first {most_words:,} words of every model, self-BLEU of its first {most_texts:,} texts"
    ]
    if tool is None:
        sentences.append("errors of grammar are not counted: no `languagetool` is in the PATH")
    return rows, sentences


Measured = dict[str, tuple[float, float | None]]
"""Name -> value and standard error."""


def _of_each_text(own: Sequence[str], formulas: dict[str, Callable[[str], float]]) -> Measured:
    """Means over texts that have words."""
    spoken = [text for text in own if words(text)]
    values = {
        "words": [float(len(words(text))) for text in own],
        "repeated_4grams": [repeated(words(text)) for text in spoken],
        **{name: [float(formula(text)) for text in spoken] for name, formula in formulas.items()},
    }
    return {name: _mean([value for value in column if math.isfinite(value)]) for name, column in values.items()}


def _mean(values: Sequence[float]) -> tuple[float, float | None]:
    if not values:
        return math.nan, None
    stderr = float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None
    return float(np.mean(values)), stderr


def _of_all_texts(own: Sequence[str], most_words: int, most_texts: int) -> Measured:
    """Variety and likeness of as many words and texts as every model has."""
    measured: Measured = {}
    for order in (1, 2, 3):
        measured[f"distinct_{order}"] = (_distinct_of_texts(own, order, most_words), None)
    if most_texts > 1:
        measured["self_bleu"] = (float(np.mean(self_bleu([TOKEN.findall(text) for text in own[:most_texts]]))), None)
    return measured


def _distinct_of_texts(own: Sequence[str], order: int, most_words: int) -> float:
    """Distinct-n over all texts up to so many words; no n-gram goes from one text into the next."""
    grams: Counter[tuple[str, ...]] = Counter()
    left = most_words
    for text in own:
        sequence = words(text)[:left]
        left -= len(sequence)
        grams.update(tuple(sequence[i : i + order]) for i in range(len(sequence) - order + 1))
    return len(grams) / grams.total() if grams else math.nan


def _row(author: Author, name: str, value: float, stderr: float | None, texts: int) -> dict[str, Any]:
    return {
        "model": author.name, "params": author.params, **dict(author.columns), "task": "offline", "metric": name,
        "kind": "graded", "shots": 0, "score": value, "stderr": stderr, "n": texts, "chance": None,
        "higher_is_better": name not in SMALLER_IS_BETTER,
    }  # fmt: skip
