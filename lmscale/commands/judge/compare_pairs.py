"""Pairs by a judge: asked in both orders, rated against N, with what the judge likes besides quality."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console

from lmscale.commands.judge import asking, people_votes, record, sources, trust
from lmscale.commands.judge.arguments import JudgeArgs
from lmscale.commands.judge.ratings_table import show_ratings
from lmscale.core.config import check
from lmscale.lm.eval.judge.answers import Cache
from lmscale.lm.eval.judge.bias import vote_sentences
from lmscale.lm.eval.judge.grades import unreadable_sentences
from lmscale.lm.eval.judge.pairs import Pair, Vote, both_orders, choose_pairs, compare, pair_requests, results
from lmscale.lm.eval.judge.ratings import rate, rating_rows
from lmscale.lm.eval.judge.rubric import read_rubric


def main(args: JudgeArgs, console: Console) -> dict[str, Any]:
    """Compare and rate; what --json writes, with --dry-run the cost. Raises `UserError` as `gather`, `ask_all` and
    `rate` do, and where nothing is readable."""
    rubric, server, how = read_rubric(args.rubric), asking.server_of(args), asking.asking_of(args)
    cache = Cache()
    texts, pairs, people, sentences = _pairs(args)
    cost = asking.announce(pair_requests(pairs, rubric, server, how), args, server, cache, console)
    if args.dry_run:
        return cost
    with asking.bar(console) as progress:
        votes, answered = compare(pairs, rubric, server, how, cache, progress)
    asking.print_cost(answered.cost, args, console)
    sentences += unreadable_sentences([vote.problem for vote in votes])
    value: dict[str, Any] = {**record.judge_columns(args), "rubric": rubric.name, "votes": [v.to_json() for v in votes]}
    if not both_orders(votes):
        record.write_all(args, {**value, "sentences": sentences})
        for sentence in sentences:
            console.print(sentence, markup=False)
        check(False, f"of no pair did {server.model} give a readable answer in both orders: take another judge")
    outcome = results(votes, balanced=True)
    if len(outcome) < len(pairs):
        sentences.append(f"{len(pairs) - len(outcome):,} pairs lack a readable answer in one order and are left out")
    remarks, estimates = vote_sentences(votes, outcome, args.resamples, args.seed)
    ratings = rate(outcome, texts.authors, args.resamples, args.seed)
    rows = rating_rows(ratings, texts.authors, f"judge:{rubric.name}")
    remarks += ratings.sentences()
    if people:
        sentence, value["agreement"] = trust.with_people(votes, people, args)
        remarks.append(sentence)
    show_ratings(ratings, console)
    for sentence in (*sentences, *remarks):
        console.print(sentence, markup=False)
    value |= {
        "ratings": ratings.to_json(), "rows": rows, "sentences": [*sentences, *remarks],
        "estimates": {name: one.to_json() for name, one in estimates.items()},
    }  # fmt: skip
    record.write_all(args, value)
    columns = {
        **record.judge_columns(args), "shots_seed": None, "draw": None,
        "task_hash": record.conditions(args, rubric, server.model, how, sorted(pair.id for pair in pairs)),
    }  # fmt: skip
    record.record(rows, texts, columns, lambda name: _responses(votes, name), console)
    return value


def _pairs(args: JudgeArgs) -> tuple[sources.Texts, list[Pair], list[Vote], list[str]]:
    """Texts, pairs, what people said of them, and what was left out: of a page that people saw, or drawn now."""
    if args.people is not None:
        page = people_votes.read(args)
        return sources.Texts(page.texts, page.authors), page.pairs, page.votes, page.sentences
    rubric = read_rubric(args.rubric)
    texts = sources.gather(args, rubric, write=not args.dry_run)
    pairs, sentences = choose_pairs(texts.texts, args.most_pairs, args.seed)
    return texts, pairs, [], sentences


def _responses(votes: Sequence[Vote], name: str) -> list[dict[str, Any]]:
    return [vote.to_json() for vote in votes if name in (vote.pair.a.model, vote.pair.b.model)]
