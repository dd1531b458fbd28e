"""People as judges: the page is written, or its answers are read, rated and written as pairs."""

import json
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from lmscale.commands.judge import record, sources, trust
from lmscale.commands.judge.arguments import JudgeArgs
from lmscale.commands.judge.ratings_table import show_ratings
from lmscale.commands.next_step import print_next
from lmscale.commands.places import Place, check_each, places
from lmscale.core.files import write_text
from lmscale.lm.eval.judge.bias import vote_sentences
from lmscale.lm.eval.judge.pairs import Pair, Vote, choose_pairs, results
from lmscale.lm.eval.judge.people import key_path, preferred, read_all_answers, read_key, write_page
from lmscale.lm.eval.judge.ratings import rate, rating_rows
from lmscale.lm.eval.judge.rubric import read_rubric
from lmscale.lm.eval.judge.texts import Author, Text


@dataclass(frozen=True)
class Page:
    """A page that people answered."""

    texts: list[Text]
    authors: list[Author]
    pairs: list[Pair]
    votes: list[Vote]
    sentences: list[str]


def write(args: JudgeArgs, console: Console) -> dict[str, Any]:
    """Write a page of blinded pairs; how many. Raises `UserError` as `gather`, `choose_pairs` and `write_page` do."""
    assert args.people is not None
    check_each([*places(args), Place("--people", args.people), Place("the key of --people", key_path(args.people))])
    rubric = read_rubric(args.rubric)
    texts = sources.gather(args, rubric, write=True)
    pairs, sentences = choose_pairs(texts.texts, args.most_pairs, args.seed)
    write_page(args.people, pairs, texts.authors, rubric.preference)
    for sentence in sentences:
        console.print(sentence, markup=False)
    console.print(
        f"{args.people}: {len(pairs):,} pairs, for any browser, without a server; who wrote which text is in "
        f"{key_path(args.people)}, which stays with you",
        markup=False,
    )
    if not console.quiet:
        print_next(
            "judge", "--people", args.people, "--answers", "answers-NAME.json", "--output", "pairs.jsonl", stderr=True
        )
    return {"page": str(args.people), "pairs": len(pairs), "sentences": sentences}


def read(args: JudgeArgs) -> Page:
    """The pairs of a page and what people said of them. Raises `UserError` as `read_key` and `read_answers` do."""
    assert args.people is not None
    key = read_key(args.people)
    votes = read_all_answers(args.answers, key)
    texts = {text.id: text for pair in key.pairs for text in (pair.a, pair.b)}
    unseen = len(key.pairs) - len({vote.pair.id for vote in votes})
    sentences = [f"{unseen:,} of {len(key.pairs):,} pairs were answered by nobody"] * bool(unseen)
    return Page(list(texts.values()), key.authors, key.pairs, votes, sentences)


def show(args: JudgeArgs, console: Console) -> dict[str, Any]:
    """Rate what people said, and write what they prefer; what --json writes. Raises `UserError` as `read` and `rate`
    do."""
    page = read(args)
    outcome = results(page.votes, balanced=False)
    ratings = rate(outcome, page.authors, args.resamples, args.seed)
    remarks, estimates = vote_sentences(page.votes, outcome, args.resamples, args.seed)
    records, left_out = preferred(page.votes)
    sentences = [*page.sentences, *remarks, *ratings.sentences()]
    if (among := trust.among_people(page.votes, args)) is not None:
        sentences.append(among)
    show_ratings(ratings, console)
    people = len({vote.voter for vote in page.votes})
    console.print(f"{len(page.votes):,} answers of {people} {'person' if people == 1 else 'people'}", markup=False)
    for sentence in sentences:
        console.print(sentence, markup=False)
    value: dict[str, Any] = {
        "ratings": ratings.to_json(), "rows": rating_rows(ratings, page.authors, "people"), "sentences": sentences,
        "estimates": {name: one.to_json() for name, one in estimates.items()},
        "votes": [vote.to_json() for vote in page.votes],
    }  # fmt: skip
    record.write_all(args, value)
    if args.output is not None:
        lines = [json.dumps(record, ensure_ascii=False) for record in records]
        write_text(args.output, "".join(f"{line}\n" for line in lines))
        left = f"; left out: {', '.join(left_out)}" if left_out else ""
        console.print(f"{args.output}: {len(records):,} pairs of prompt, chosen and rejected{left}", markup=False)
    return value
