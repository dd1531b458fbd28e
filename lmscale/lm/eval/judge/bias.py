"""What a voter likes besides quality: the first place, and length; and whether it agrees with itself."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from lmscale.lm.eval.judge.bootstrap import Estimate, Indices, estimate
from lmscale.lm.eval.judge.pairs import Result, Vote, both_orders

FEWEST_PROMPTS = 10
"""With fewer prompts, pairs are the units of the bootstrap, although pairs of one prompt share its texts."""


def units_of(prompts: Sequence[str]) -> list[list[int]]:
    """The positions that a bootstrap draws together: those of one prompt, or, of few prompts, each by itself."""
    groups: defaultdict[str, list[int]] = defaultdict(list)
    for number, prompt in enumerate(prompts):
        groups[prompt].append(number)
    return list(groups.values()) if len(groups) >= FEWEST_PROMPTS else [[number] for number in range(len(prompts))]


def mean_of_units(values: Sequence[float], prompts: Sequence[str], resamples: int, seed: int) -> Estimate:
    """The mean of values, with an interval over the units of their prompts."""
    array, units = np.array(values, float), units_of(prompts)
    sums, counts = np.array([array[unit].sum() for unit in units]), np.array([len(unit) for unit in units])

    def mean(drawn: Indices) -> float:
        return float(sums[drawn].sum() / counts[drawn].sum()) if len(drawn) else float("nan")

    return estimate(mean, len(units), resamples, seed)


def first_place(votes: Sequence[Vote], resamples: int, seed: int) -> Estimate:
    """The share of decided votes for the text that stood first; .5 without a liking for either place."""
    decided = [vote for vote in votes if vote.better in ("a", "b")]
    values = [float(vote.better == vote.first) for vote in decided]
    return mean_of_units(values, [vote.pair.prompt for vote in decided], resamples, seed)


def same_in_both_orders(votes: Sequence[Vote], resamples: int, seed: int) -> Estimate:
    """The share of pairs on which a voter says the same whichever text stands first."""
    twice = both_orders(votes)
    values = [float(one.better == other.better) for one, other in twice]
    return mean_of_units(values, [one.pair.prompt for one, _ in twice], resamples, seed)


def longer_text(results: Sequence[Result], resamples: int, seed: int) -> Estimate:
    """The share of the longer text (in characters) in the votes on pairs whose texts differ in length.

    Above .5 need not be a bias: longer texts may be better. A person's share on the same pairs says more.
    """
    lengths = [(len(one.pair.a.text), len(one.pair.b.text), one) for one in results]
    values = [one.share if a > b else 1 - one.share for a, b, one in lengths if a != b]
    return mean_of_units(values, [one.pair.prompt for a, b, one in lengths if a != b], resamples, seed)


def excludes(one: Estimate, value: float) -> bool:
    """Whether the interval leaves a value out."""
    return one.low is not None and one.high is not None and not one.low <= value <= one.high


def vote_sentences(votes: Sequence[Vote], results: Sequence[Result], resamples: int, seed: int) -> tuple[
    list[str], dict[str, Estimate]
]:  # fmt: skip
    """Order, length and consistency of votes, measured and in sentences."""
    first, longer = first_place(votes, resamples, seed), longer_text(results, resamples, seed)
    measured = {"first_place": first, "longer_text": longer}
    sentences = []
    if both_orders(votes):
        same = measured["same_in_both_orders"] = same_in_both_orders(votes, resamples, seed)
        if same.value < 1:
            sentences.append(
                f"the judge disagrees with itself: of {same.value:.0%} of the pairs it says the same in both orders"
                f"{_percent(same)}; where it does not, the pair counts as a tie"
            )
        else:
            sentences.append("the judge says the same of every pair in both orders")
    if not np.isnan(first.value):
        liking = f"a liking for the {'first' if first.value > 0.5 else 'second'} place"
        sentences.append(
            f"order: {first.value:.0%} of decided votes are for the text that stands first{_percent(first)}: "
            + (liking if excludes(first, 0.5) else "no liking for a place is seen")
        )
    if not np.isnan(longer.value):
        sentences.append(
            f"length: the longer text has {longer.value:.0%} of the votes{_percent(longer)}"
            + (", which is a bias as far as longer texts are not better" if excludes(longer, 0.5) else "")
        )
    return sentences, measured


def _percent(one: Estimate) -> str:
    return "" if one.low is None or one.high is None else f" [{one.low:.0%}, {one.high:.0%}]"
