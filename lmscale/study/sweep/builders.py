"""Builders: each gives the points of one classical experiment."""

import math
from collections.abc import Callable, Iterable, Sequence
from numbers import Real

from lmscale.core.config import check
from lmscale.study.laws import CHINCHILLA_REFIT
from lmscale.study.sweep.points import Point, Points, chain, grid, product

COOLDOWN = 0.2
"""Share of a branch's steps over which it cools down (10 to 20 %: Haegele 2024, arXiv 2405.18392)."""


def _check_positive(builder: str, **arguments: Sequence[float]) -> None:
    """Raise `UserError` for an argument that is no list of positive numbers: a text, say, is no list of budgets."""
    for name, values in arguments.items():
        several = not isinstance(values, str) and isinstance(values, Iterable)
        bad = [one for one in values if not _is_positive(one)] if several else [values]
        check(not bad, f"{builder}({name}={bad and bad[0]!r}): must be positive numbers, as in [1e12, 3e12]")


def _is_positive(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and 0 < float(value) < math.inf


def chinchilla_params(flops: float) -> float:
    """N* of a budget by the refit of the published Chinchilla runs, at C = 6 N D."""
    return float(CHINCHILLA_REFIT.optimum(flops).params)


def isoflop(
    budgets: Sequence[float],
    *,
    centre: Callable[[float], float] = chinchilla_params,
    sizes: int = 7,
    spread: float = 4.0,
    seeds: Sequence[int] = (0,),
) -> Points:
    """At each compute budget, model sizes spaced evenly in ln N around where the minimum is expected.

    Args:
        budgets: C, exact training FLOPs.
        centre: expected optimal N (all parameters) at a budget; by default that of the published Chinchilla runs.
        sizes: model sizes per budget; 7 is enough for a parabola and its check.
        spread: the grid runs from centre / spread to centre * spread. Approach 2 is biased by a grid that is wide or
            off centre (laws of unequal exponents: +1.3 % in N* at spread 4, +5.4 % at 16).
        seeds: one repeat of each point per seed.
    """
    check(sizes >= 3, f"isoflop(sizes={sizes}): a parabola takes at least 3 sizes, and 7 are advised")
    check(spread > 1, f"isoflop(spread={spread}): must be larger than 1, and 4 is advised")
    _check_positive("isoflop", budgets=budgets)
    ratios = [spread ** (2 * i / (sizes - 1) - 1) for i in range(sizes)]
    centres = [centre(flops) for flops in budgets]
    _check_positive("isoflop", centre=centres)
    return tuple(
        {"flops": float(flops), "params": middle * ratio, "seed": seed}
        for flops, middle in zip(budgets, centres)
        for ratio in ratios
        for seed in seeds
    )


def ladder(sizes: Sequence[float], tokens_per_param: Sequence[float], seeds: Sequence[int] = (0,)) -> Points:
    """Model sizes N (all parameters) times training lengths D/N; D/N is exact for the shape that a recipe picks."""
    _check_positive("ladder", sizes=sizes, tokens_per_param=tokens_per_param)
    return tuple(
        {"params": float(params), "tokens": float(params * ratio), "tokens_per_param": float(ratio), "seed": seed}
        for params in sizes
        for ratio in tokens_per_param
        for seed in seeds
    )


def over_training(
    sizes: Sequence[float],
    multiples: Sequence[float] = (0.5, 1, 2, 4, 8, 16, 32),
    *,
    optimal: float = 20.0,
    hold_out_from: float | None = None,
) -> Points:
    """Sizes trained up to far past the compute-optimal length: D/N = optimal x multiple (Gadre 2024, arXiv 2403.08540).

    With `hold_out_from`, runs of the largest size and runs of at least that multiple of the optimal length are held
    out: they are the prediction.
    """
    check(min(multiples) > 0, f"over_training(multiples={tuple(multiples)}): must be positive")
    points = ladder(sizes, [optimal * multiple for multiple in multiples])
    if hold_out_from is None:
        return points
    largest, least = max(sizes), optimal * hold_out_from
    return tuple(
        {**point, "held_out": point["params"] == largest or point["tokens"] / point["params"] >= 0.999 * least}
        for point in points
    )


def fixed_model(params: float, tokens: Sequence[float], seeds: Sequence[int] = (0,)) -> Points:
    """One model at several lengths, which shows what data alone is worth; it cannot identify a law of N and D."""
    _check_positive("fixed_model", params=[params], tokens=tokens)
    return tuple({"params": float(params), "tokens": float(count), "seed": seed} for count in tokens for seed in seeds)


def repeat_data(
    params: float | Sequence[float], tokens: float, epochs: Sequence[float] = (1, 2, 4, 8, 16, 40)
) -> Points:
    """One length D on texts cut to D / epochs, which shows what a repeated token is worth (Muennighoff 2023).

    All runs of a size cost the same, so that they differ in the repeats alone.
    """
    check(min(epochs) >= 1, f"repeat_data(epochs={tuple(epochs)}): a run passes its text at least once")
    sizes = [params] if isinstance(params, int | float) else params
    _check_positive("repeat_data", params=sizes, tokens=[tokens])
    return tuple(
        {"params": float(size), "tokens": float(tokens), "unique_tokens": float(tokens / passes), "seed": 0}
        for size in sizes
        for passes in epochs
    )


def lr_transfer(
    widths: Sequence[int],
    peak_lrs: Sequence[float],
    *,
    tokens: float,
    parametrizations: Sequence[str] = ("standard", "mup"),
) -> Points:
    """Widths times learning rates under each parametrization: does the best rate stay where it was (Yang 2022)?"""
    return grid(parametrization=parametrizations, width=widths, peak_lr=peak_lrs, tokens=[float(tokens)])


def with_experts(
    points: Iterable[Point], experts: Sequence[int] = (1, 2, 4, 8), *, granularity: Sequence[int] = (1,)
) -> Points:
    """Every point as a dense model and with more experts at the same FLOPs of a token.

    E experts are E times the parameters of the MLP, of which a token passes as many as in the dense model, so the size
    `params` of the points becomes `active_params`. With granularity G a layer has G E experts of 1 / G of the MLP, and
    a token passes G of them (Krajewski 2024, arXiv 2402.07871).

    Args:
        points: of any builder; a `width` stays one.
        experts: E of each repeat; 1 is the dense model (Clark 2022, arXiv 2202.01169), which has no granularity.
        granularity: G of each repeat with experts.
    """
    for name, values in (("experts", experts), ("granularity", granularity)):
        check(
            len(values) > 0 and all(int(value) == value >= 1 for value in values),
            f"with_experts({name}={tuple(values)}): must be whole numbers of at least 1",
        )
    fine = [(int(number), int(grain)) for number in experts for grain in (granularity if number > 1 else (1,))]
    return tuple(
        {
            **{"active_params" if name == "params" else name: value for name, value in point.items()},
            "experts": number * grain,
            **({"experts_per_token": grain, "granularity": grain} if grain > 1 else {}),
        }
        for point in points
        for number, grain in fine
    )


def seeds(points: Iterable[Point], count: int) -> Points:
    """Every point `count` times, with the seeds 0, 1, ..."""
    check(count >= 1, f"seeds({count}): must be at least 1")
    bare = [{name: value for name, value in point.items() if name != "seed"} for point in points]
    return product(bare, grid(seed=range(count)))


def trunk(
    sizes: Sequence[float],
    *,
    tokens: Sequence[float] = (),
    tokens_per_param: Sequence[float] = (),
    cooldown: float = COOLDOWN,
    seed: int = 0,
) -> Points:
    """Per size one warmup-stable-decay trunk with a cooldown branch for every length (Haegele 2024, arXiv 2405.18392).

    Each branch is a complete run with its own D and C, and the steps that it shares with the longest are paid once: D
    in {1, 2, 4, 8} costs 9.4 units instead of 15. Branches of a trunk share noise, so they are one cluster for the
    bootstrap.

    Args:
        sizes: N of each trunk; all parameters.
        tokens: D of the branches; or
        tokens_per_param: D/N of the branches.
        cooldown: share of a branch's steps over which its rate falls.
        seed: seed of all runs.
    """
    check(
        bool(tokens) != bool(tokens_per_param),
        "trunk(...): give the lengths of the branches once, as tokens=[...] or as tokens_per_param=[...]",
    )
    check(0 < cooldown < 1, f"trunk(cooldown={cooldown}): a share of the steps, 0.1 to 0.2 is usual")
    return chain(*(_branches(float(params), tokens, tokens_per_param, cooldown, seed) for params in sizes))


def _branches(
    params: float, tokens: Sequence[float], tokens_per_param: Sequence[float], cooldown: float, seed: int
) -> Points:
    lengths = tuple(sorted(float(count) for count in (tokens or [params * ratio for ratio in tokens_per_param])))
    check(len(set(lengths)) == len(lengths), f"trunk(...): the length {lengths[0]:.4g} is given twice; once is enough")
    return tuple(
        {
            "params": params,
            "tokens": length,
            **({"tokens_per_param": length / params} if tokens_per_param else {}),
            "trunk": f"trunk {params:.4g}",
            "trunk_tokens": lengths,
            "cooldown_fraction": cooldown,
            "seed": seed,
        }
        for length in lengths
    )
