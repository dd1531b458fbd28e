"""Builders: each gives the points of one classical experiment."""

from collections.abc import Callable, Iterable, Sequence

from lmscale.core.arguments import Count, Number, Positive, checked
from lmscale.core.config import check
from lmscale.core.user_code import called
from lmscale.study.laws import CHINCHILLA_REFIT
from lmscale.study.sweep.points import Point, Points, chain, grid, is_positive, product

COOLDOWN = 0.2
"""Share of a branch's steps over which it cools down (10 to 20 %: Haegele 2024, arXiv 2405.18392)."""


@checked
def chinchilla_params(flops: Positive) -> float:
    """N* of a budget by the refit of the published Chinchilla runs, at C = 6 N D."""
    return float(CHINCHILLA_REFIT.optimum(flops).params)


@checked
def isoflop(
    budgets: Sequence[Positive],
    *,
    centre: Callable[[float], float] = chinchilla_params,
    sizes: Count = 7,
    spread: Positive = 4.0,
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
    ratios = [spread ** (2 * i / (sizes - 1) - 1) for i in range(sizes)]
    centres = [called("the centre of isoflop", centre, flops) for flops in budgets]
    for middle in centres:
        check(is_positive(middle), f"isoflop(centre=...) gives {middle!r}: must be a positive number of parameters")
    return tuple(
        {"flops": float(flops), "params": middle * ratio, "seed": seed}
        for flops, middle in zip(budgets, centres)
        for ratio in ratios
        for seed in seeds
    )


@checked
def ladder(sizes: Sequence[Positive], tokens_per_param: Sequence[Positive], seeds: Sequence[int] = (0,)) -> Points:
    """Model sizes N (all parameters) times training lengths D/N; D/N is exact for the shape that a recipe picks."""
    return tuple(
        {"params": float(params), "tokens": float(params * ratio), "tokens_per_param": float(ratio), "seed": seed}
        for params in sizes
        for ratio in tokens_per_param
        for seed in seeds
    )


@checked
def over_training(
    sizes: Sequence[Positive],
    multiples: Sequence[Positive] = (0.5, 1, 2, 4, 8, 16, 32),
    *,
    optimal: Positive = 20.0,
    hold_out_from: Positive | None = None,
) -> Points:
    """Sizes trained up to far past the compute-optimal length: D/N = optimal x multiple (Gadre 2024, arXiv 2403.08540).

    With `hold_out_from`, runs of the largest size and runs of at least that multiple of the optimal length are held
    out: they are the prediction.
    """
    points = ladder(sizes, [optimal * multiple for multiple in multiples])
    if hold_out_from is None:
        return points
    largest, least = max(sizes), optimal * hold_out_from
    return tuple(
        {**point, "held_out": point["params"] == largest or point["tokens"] / point["params"] >= 0.999 * least}
        for point in points
    )


@checked
def fixed_model(params: Positive, tokens: Sequence[Positive], seeds: Sequence[int] = (0,)) -> Points:
    """One model at several lengths, which shows what data alone is worth; it cannot identify a law of N and D."""
    return tuple({"params": float(params), "tokens": float(count), "seed": seed} for count in tokens for seed in seeds)


@checked
def repeat_data(
    params: Positive | Sequence[Positive], tokens: Positive, epochs: Sequence[Positive] = (1, 2, 4, 8, 16, 40)
) -> Points:
    """One length D on texts cut to D / epochs, which shows what a repeated token is worth (Muennighoff 2023).

    All runs of a size cost the same, so that they differ in the repeats alone.
    """
    check(min(epochs) >= 1, f"repeat_data(epochs={tuple(epochs)}): a run passes its text at least once")
    sizes = [params] if isinstance(params, int | float) else params
    return tuple(
        {"params": float(size), "tokens": float(tokens), "unique_tokens": float(tokens / passes), "seed": 0}
        for size in sizes
        for passes in epochs
    )


@checked
def lr_transfer(
    widths: Sequence[Count],
    peak_lrs: Sequence[Positive],
    *,
    tokens: Positive,
    parametrizations: Sequence[str] = ("standard", "mup"),
) -> Points:
    """Widths times learning rates under each parametrization: does the best rate stay where it was (Yang 2022)?"""
    return grid(parametrization=parametrizations, width=widths, peak_lr=peak_lrs, tokens=[float(tokens)])


@checked
def with_experts(
    points: Iterable[Point], experts: Sequence[Count] = (1, 2, 4, 8), *, granularity: Sequence[Count] = (1,)
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


@checked
def seeds(points: Iterable[Point], count: Count) -> Points:
    """Every point `count` times, with the seeds 0, 1, ..."""
    bare = [{name: value for name, value in point.items() if name != "seed"} for point in points]
    return product(bare, grid(seed=range(count)))


@checked
def trunk(
    sizes: Sequence[Positive],
    *,
    tokens: Sequence[Positive] = (),
    tokens_per_param: Sequence[Positive] = (),
    cooldown: Number = COOLDOWN,
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
