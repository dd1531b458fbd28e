"""Pairs of texts with one prompt, by different models, and who prefers which.

A judge sees every pair in both orders, so that a liking for the first place cancels; a person sees it in one, drawn.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np

from lmscale.core.config import check
from lmscale.lm.eval.judge.answers import Answers, Asking, Cache, Request, ask_all, request
from lmscale.lm.eval.judge.replies import Unreadable, read_preference
from lmscale.lm.eval.judge.rubric import Rubric
from lmscale.lm.eval.judge.server import Server
from lmscale.lm.eval.judge.texts import Text

Better = Literal["a", "b", "tie"]
OUTCOME = {"a": 1.0, "tie": 0.5, "b": 0.0}
"""What a vote is worth for text a of a pair."""


@dataclass(frozen=True)
class Pair:
    """Two texts that continue one prompt."""

    a: Text
    b: Text

    @property
    def prompt(self) -> str:
        """What both continue."""
        return self.a.prompt

    @property
    def id(self) -> str:
        """A hash of the pair, which says nothing about who wrote it."""
        return hashlib.sha256(f"{self.a.id}\n{self.b.id}\n{self.a.hash}\n{self.b.hash}".encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Vote:
    """One look at one pair."""

    pair: Pair
    voter: str
    """A person, or a sample of a judge."""
    first: Literal["a", "b"]
    """The text that stood first."""
    better: Better | None
    """None where the answer is unreadable."""
    reply: str = ""
    problem: Unreadable | None = None

    def to_json(self) -> dict[str, Any]:
        """A line of the responses."""
        problem = {"problem": self.problem.kind, "reason": self.problem.reason} if self.problem else {}
        return {
            "pair": self.pair.id, "prompt": self.pair.prompt, "a": self.pair.a.text, "b": self.pair.b.text,
            "model_a": self.pair.a.model, "model_b": self.pair.b.model, "voter": self.voter, "first": self.first,
            "better": self.better, "reply": self.reply, **problem,
        }  # fmt: skip


def choose_pairs(texts: Sequence[Text], most: int, seed: int) -> tuple[list[Pair], list[str]]:
    """At most `most` pairs, spread evenly over the prompts, and in sentences what was left out.

    Raises `UserError` where no prompt was continued by two models.
    """
    by_prompt: defaultdict[str, list[Text]] = defaultdict(list)
    for text in texts:
        by_prompt[text.prompt].append(text)
    rng = np.random.default_rng(seed)
    queues, same = [], 0
    for group in by_prompt.values():
        pairs = [Pair(a, b) for a, b in combinations(group, 2) if a.model != b.model]
        # which text is a means nothing, or everybody who prefers the larger model would always say b
        pairs = [Pair(pair.b, pair.a) if rng.random() < 0.5 else pair for pair in pairs]
        differing = [pair for pair in pairs if pair.a.text.strip() != pair.b.text.strip()]
        same += len(pairs) - len(differing)
        queues.append([differing[i] for i in rng.permutation(len(differing))])
    rounds = max(map(len, queues), default=0)
    chosen = [pairs[i] for i in range(rounds) for pairs in queues if i < len(pairs)]
    check(bool(chosen), "no two models continue one prompt with different texts: there are no pairs to compare")
    sentences = [f"{same:,} pairs of equal texts are not compared"] * bool(same)
    if len(chosen) > most:
        sentences.append(f"{most:,} of {len(chosen):,} pairs are compared, drawn evenly over {len(queues):,} prompts")
    return chosen[:most], sentences


def pair_requests(pairs: Sequence[Pair], rubric: Rubric, server: Server, asking: Asking) -> list[Request]:
    """A request for every order and sample of every pair."""
    return [
        request(server, rubric.comparing(pair.prompt, *texts), asking, sample)
        for pair in pairs
        for sample in range(asking.samples)
        for texts in ((pair.a.text, pair.b.text), (pair.b.text, pair.a.text))
    ]


def compare(
    pairs: Sequence[Pair],
    rubric: Rubric,
    server: Server,
    asking: Asking,
    cache: Cache,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Vote], Answers]:
    """The judge's votes: of every pair and sample one with each text first. Raises `UserError` as `ask_all` does."""
    answered = ask_all(pair_requests(pairs, rubric, server, asking), server, cache, progress)
    replies = iter(answered.replies)
    votes = []
    for pair in pairs:
        for sample in range(asking.samples):
            for first in ("a", "b"):
                reply = next(replies)
                read = read_preference(reply)
                voter = f"sample {sample}"
                if isinstance(read, Unreadable):
                    votes.append(Vote(pair, voter, first, None, reply.content, read))
                    continue
                better = _in_pair(read, first)
                votes.append(Vote(pair, voter, first, better, reply.content))
    return votes, answered


def _in_pair(side: str, first: str) -> Better:
    """The text that stood on a side."""
    if side == "tie":
        return "tie"
    return "a" if (side == "A") == (first == "a") else "b"


def both_orders(votes: Sequence[Vote]) -> list[tuple[Vote, Vote]]:
    """The two votes of a voter on a pair that saw it in different orders, both readable."""
    seen: dict[tuple[str, str], Vote] = {}
    twice = []
    for vote in votes:
        if vote.better is None:
            continue
        key = vote.pair.id, vote.voter
        other = seen.setdefault(key, vote)
        if other.first != vote.first:
            twice.append((other, vote))
    return twice


@dataclass(frozen=True)
class Result:
    """What all votes on one pair come to."""

    pair: Pair
    share: float
    """How much of the votes text a has; half a vote for a tie."""
    votes: int


def results(votes: Sequence[Vote], *, balanced: bool) -> list[Result]:
    """A result for every pair that was voted on; where `balanced`, of votes in both orders only."""
    used = (
        [vote for two in both_orders(votes) for vote in two] if balanced else [v for v in votes if v.better is not None]
    )
    by_pair: defaultdict[str, list[Vote]] = defaultdict(list)
    for vote in used:
        by_pair[vote.pair.id].append(vote)
    return [
        Result(group[0].pair, float(np.mean([OUTCOME[vote.better] for vote in group if vote.better])), len(group))
        for group in by_pair.values()
    ]
