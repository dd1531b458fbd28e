"""The best of n answers by a reward: what its scores are on average, and how far the choice moves a policy.

Letters: Q questions, M answers drawn to each, of which n are chosen from.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def kl_bound_nats(n: Any) -> Any:
    """ln n - (n-1)/n: the KL of the best of n from the policy, exact where no two answers earn the same, else an upper
    bound (Beirami 2024, arXiv 2401.01879)."""
    return np.log(n) - (n - 1) / n


def expected_best(rewards_QM: Array, scores_QM: Array, n: int) -> Array:
    """[Q]: the mean score of the answer with the highest reward, over all choices of n of the M answers.

    Of answers that earn the same, any is taken as often. Without bias whatever M >= n, as the estimate of pass@k (Chen
    2021, arXiv 2107.03374) is, which it is for rewards and scores of 0 and 1.
    """
    return np.array(
        [
            sum(share * scores_M[rewards_M == level].mean() for level, share in _chosen_shares(rewards_M, n))
            for rewards_M, scores_M in zip(rewards_QM, scores_QM, strict=True)
        ]
    )


def _chosen_shares(rewards_M: Array, n: int) -> list[tuple[float, float]]:
    """Every reward that was earned, and the share of the choices of n answers whose best earns it."""
    levels, counts = np.unique(rewards_M, return_counts=True)
    up_to = [0, *np.cumsum(counts).tolist()]
    choices = math.comb(len(rewards_M), n)
    return [
        (level, (math.comb(above, n) - math.comb(below, n)) / choices)
        for level, below, above in zip(levels.tolist(), up_to, up_to[1:])
    ]


def kl_with_ties_nats(shares_K: Array, n: int) -> float:
    """The KL of the best of n from a policy whose answers earn K different rewards, in ascending order, with these
    probabilities; of answers that earn the same, any is taken as often.

    The best of n earns at most reward k with probability F_k^n, F the distribution of the rewards, and among answers of
    one reward nothing changes. Never above `kl_bound_nats`, which it reaches where every reward is rare.
    """
    up_to_K = np.cumsum(shares_K)
    up_to_K /= up_to_K[-1]
    best_K = np.diff(up_to_K**n, prepend=0.0)
    ratio_K = np.divide(best_K, shares_K, out=np.ones_like(best_K), where=best_K > 0)
    return float((best_K * np.log(ratio_K)).sum())


def drawn_kl_nats(rewards_QM: Array, n: int) -> float:
    """`kl_with_ties_nats` at the shares of the rewards that were drawn, averaged over the questions.

    It is meant for rewards of which many are equal. Where all differ, M answers show at most ln M, and the bound is
    exact.
    """
    shares = (np.unique(rewards_M, return_counts=True)[1] / len(rewards_M) for rewards_M in rewards_QM)
    return float(np.mean([kl_with_ties_nats(shares_K, n) for shares_K in shares]))


def tied_share(rewards_QM: Array) -> float:
    """The share of the pairs of answers to one question that earn the same."""
    counts = [np.unique(rewards_M, return_counts=True)[1] for rewards_M in rewards_QM]
    answers = rewards_QM.shape[1]
    return float(np.mean([(count * (count - 1)).sum() / (answers * (answers - 1)) for count in counts]))
