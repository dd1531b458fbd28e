"""How far a judge's grades and votes can be trusted, in sentences and as JSON."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from lmscale.commands.judge.arguments import JudgeArgs
from lmscale.lm.eval.judge.agreement import agreement, grade_agreements
from lmscale.lm.eval.judge.bias import excludes
from lmscale.lm.eval.judge.consistency import length_correlation, self_consistency
from lmscale.lm.eval.judge.grades import Grading
from lmscale.lm.eval.judge.human import read_human
from lmscale.lm.eval.judge.pairs import OUTCOME, Vote, results
from lmscale.lm.eval.judge.rubric import Rubric
from lmscale.lm.eval.judge.texts import Text


def of_grades(
    gradings: Sequence[Grading], texts: Sequence[Text], rubric: Rubric, args: JudgeArgs
) -> tuple[list[str], dict[str, Any]]:
    """Self-consistency, agreement with people and the part of length, as far as there is what they need.

    Raises `UserError` as `read_human` does.
    """
    sentences: list[str] = []
    value: dict[str, Any] = {}
    if args.samples > 1:
        consistency = self_consistency(gradings, rubric, args.resamples, args.seed)
        sentences += [one.sentence() for one in consistency]
        value["self_consistency"] = [one.to_json() for one in consistency]
    if args.human is not None:
        human, left_out = read_human(args.human, texts, rubric)
        agreements = grade_agreements(gradings, human, rubric, args.resamples, args.seed)
        sentences += [f"agreement with people, {one.sentence()}" for one in agreements] + left_out
        value["agreement"] = [one.to_json() for one in agreements]
    value["length"] = {}
    for criterion in rubric.criteria:
        length = length_correlation(gradings, criterion.name, args.resamples, args.seed)
        value["length"][criterion.name] = length.to_json()
        if excludes(length, 0.0):
            longer = "longer" if length.value > 0 else "shorter"
            sentences.append(f"length, {criterion.name}: {longer} texts get higher grades, rank correlation {length}")
    return sentences, value


def with_people(judge: Sequence[Vote], people: Sequence[Vote], args: JudgeArgs) -> tuple[str, dict[str, Any]]:
    """The agreement of a judge's preferences with those of people, on the pairs that both saw.

    A preference is one of the two texts or a tie; the judge's is the majority of its votes in both orders.
    """
    by_voter: defaultdict[str, dict[str, float]] = defaultdict(dict)
    for vote in people:
        if vote.better is not None:
            by_voter[vote.voter][vote.pair.id] = OUTCOME[vote.better]
    own = {one.pair.id: _side(one.share) for one in results(judge, balanced=True)}
    both = agreement("preferences", own, by_voter, args.resamples, args.seed, nominal=True)
    return f"agreement with people, {both.sentence()}", both.to_json()


def among_people(people: Sequence[Vote], args: JudgeArgs) -> str | None:
    """How far people agree with each other; None where no pair was seen by two."""
    import numpy as np

    from lmscale.lm.eval.judge.agreement import alpha
    from lmscale.lm.eval.judge.bootstrap import estimate

    voters = list(dict.fromkeys(vote.voter for vote in people))
    pairs = list(dict.fromkeys(vote.pair.id for vote in people))
    grades_RT = np.full((len(voters), len(pairs)), np.nan)
    for vote in people:
        if vote.better is not None:
            grades_RT[voters.index(vote.voter), pairs.index(vote.pair.id)] = OUTCOME[vote.better]
    own = estimate(lambda drawn: alpha(grades_RT[:, drawn], nominal=True), len(pairs), args.resamples, args.seed)
    return None if np.isnan(own.value) else f"people among themselves: alpha {own} over {len(pairs):,} pairs"


def _side(share: float) -> float:
    """The share of votes as one preference."""
    return 1.0 if share > 0.5 else 0.0 if share < 0.5 else 0.5
