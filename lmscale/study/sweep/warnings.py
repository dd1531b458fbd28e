"""Warnings about what would bend a law but is no error, printed with the plan before anything runs."""

from collections.abc import Callable, Iterator, Sequence

from lmscale.core.counting import count
from lmscale.core.plans import PlannedRun

FEW_STEPS = 100
"""With fewer updates than this, a run is mostly warmup and chance."""
LONG_WARMUP = 0.2
"""Above this share of a run, warmup itself bends the law (Porian 2024, arXiv 2406.19146)."""
MANY_EPOCHS = 4.0
"""Up to so many epochs, repeated text is nearly as good as fresh text (Muennighoff 2023, arXiv 2305.16264)."""


def warnings_of(runs: Sequence[PlannedRun]) -> tuple[str, ...]:
    """One sentence per warning about the runs of a plan."""
    return (
        *_tied("batch", "tokens", "optimizer.batch_sequences", runs, lambda run: run.config.batch_tokens),
        *_tied("weight decay", "", "optimizer.weight_decay", runs, lambda run: run.config.optimizer.weight_decay),
        *_short(runs),
        *_repeated(runs),
        *_experts(runs),
    )


def _tied(
    what: str, unit: str, field: str, runs: Sequence[PlannedRun], value: Callable[[PlannedRun], float]
) -> Iterator[str]:
    """Warn of a setting that changes with N along one budget: it moves the minimum of the valley, a confound."""
    from lmscale.study.grouping import group_values

    with_budget = [run for run in runs if run.flops_budget is not None]
    budgets: dict[float, list[PlannedRun]] = {}
    for run, flops in zip(with_budget, group_values([run.flops_budget for run in with_budget]).tolist()):
        budgets.setdefault(flops, []).append(run)
    for flops, members in budgets.items():
        sized = sorted(((count(run.config).params, run) for run in members), key=lambda pair: pair[0])
        sizes = {size: value(run) for size, run in sized}
        lists: dict[int, set[float]] = {}
        for size, run in sized:
            lists.setdefault(size, set()).add(value(run))
        if len(sizes) > 1 and len({frozenset(values) for values in lists.values()}) > 1:
            first, *_, last = sizes.values()
            origin = sized[0][1].origins.get(field, "")
            yield (
                f"along an IsoFLOP the {what} changes with N (at {flops:.3g} FLOPs from {first:,} to {last:,}"
                f"{' ' + unit if unit else ''} as N grows), so a valley compares more than sizes"
                + (f"; its rule: {origin}" if origin else "")
            )
            return


def _short(runs: Sequence[PlannedRun]) -> Iterator[str]:
    few = [run for run in runs if run.config.steps < FEW_STEPS]
    if few:
        least = min(few, key=lambda run: run.config.steps)
        yield (
            f"{len(few)} of {len(runs)} runs have fewer than {FEW_STEPS} updates (run {least.config.run_id}: "
            f"{least.config.steps}): take a smaller batch"
        )
    slow = [run for run in runs if run.config.warmup_steps > LONG_WARMUP * run.config.steps]
    if slow:
        yield f"{len(slow)} of {len(runs)} runs spend more than {LONG_WARMUP:.0%} of their steps in warmup"


def _repeated(runs: Sequence[PlannedRun]) -> Iterator[str]:
    seen = [run.config.tokens / run.config.data.unique_tokens for run in runs if run.config.data.unique_tokens]
    most = max(seen, default=0.0)
    if most > MANY_EPOCHS:
        yield (
            f"text is repeated up to {most:.3g} times, more than {MANY_EPOCHS:g}: such runs are for the law "
            f"'data-constrained', not for a plain Chinchilla fit"
        )


def _experts(runs: Sequence[PlannedRun]) -> Iterator[str]:
    numbers = {run.config.model.experts for run in runs}
    if len(numbers) > 1:
        yield (
            f"models have {min(numbers)} to {max(numbers)} experts, which a law of N and D does not know: fit a law "
            f"with experts, or one number of them; N of a design and C are those that a token passes, active_params"
        )
