"""Mixtures, as in `mix: 0.7 * stdlib + 0.3 * books/`: several sources, each with its share of the training tokens."""

import math
import re
from fractions import Fraction

from lmscale.core.config.checks import check

PREFIX = "mix:"
LONGEST_PERIOD = 10_000
"""Largest sum of the weights as whole numbers: the order of sources repeats after that many sequences."""
COMPONENT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*\*\s*(\S(?:.*\S)?)\s*")


def components(source: str) -> tuple[tuple[int, str], ...]:
    """(weight, source) of every component; whole weights without a common factor; ((1, source),) for no mixture.

    Raises `UserError` for what is not a mixture, a weight of zero, a source named twice and weights too fine.
    """
    if not source.startswith(PREFIX):
        return ((1, source),)
    matches = [COMPONENT.fullmatch(text) for text in re.split(r"\s\+\s", source.removeprefix(PREFIX))]
    check(
        all(matches) and len(matches) > 1,
        f"the mixture {source!r} cannot be read; write it as 'mix: 0.7 * stdlib + 0.3 * path/to/books', two "
        f"components or more, each a weight, a star and a source",
    )
    weights = [Fraction(match[1]) for match in matches if match]
    names = [match[2] for match in matches if match]
    check(min(weights) > 0, f"the mixture {source!r} has a weight of zero; leave that source out")
    check(
        not any(name.startswith(PREFIX) for name in names),
        f"the mixture {source!r} holds a mixture; write all its sources into one",
    )
    check(
        len(set(names)) == len(names),
        f"the mixture {source!r} names a source twice; add up its weights and name it once",
    )
    shares = [weight / sum(weights) for weight in weights]
    period = math.lcm(*(share.denominator for share in shares))
    check(
        period <= LONGEST_PERIOD,
        f"the weights of {source!r} are shares of {period:,}, more than {LONGEST_PERIOD:,}; round them to three "
        f"decimals that add up to 1",
    )
    return tuple((int(share * period), name) for share, name in zip(shares, names))
