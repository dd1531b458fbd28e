"""Is the compute-optimal number of tokens per parameter 20, at Chinchilla's scale and at ours?

    python experiments/twenty_tokens_per_parameter.py                     # reads runs/isoflop_cpu
    python experiments/twenty_tokens_per_parameter.py runs/isoflop_gpu    # another sweep's folder
    python experiments/twenty_tokens_per_parameter.py runs/isoflop_cpu --output figures

The published Chinchilla runs (Hoffmann 2022, read off its figure by Besiroglu 2024) and a sweep of our own go through
the same two fits: IsoFLOP minima (Approach 2) and the parametric law (Approach 3). One table and one figure put the two
side by side. Trains nothing: where the sweep is not finished, it prints the command that finishes it.

Conventions: N counts all parameters; D training tokens (bytes in the CPU sweep, subwords in Chinchilla's); C is 6ND for
the published runs and exact training FLOPs for ours; losses in nats per token.

Cost: the fits and the figure take seconds on one core; the sweep's own cost is what `lmscale plan` prints for it.
Outcome (2026-11, sweeps/isoflop_cpu.py on two cores of an AMD EPYC): D*/N* is 20.7 [13.7, 29.2] at 3e21 FLOPs for the
published runs and 40.1 [33.9, 50.0] at 2.25e12 for ours by Approach 3 (19.4 [14.1, 27.1] and 37.0 [32.1, 47.2] by
Approach 2): 20 lies inside the interval of the published runs and below that of ours.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from lmscale.core.errors import UserError
from lmscale.study import plots
from lmscale.study.report.account import fitted_rows
from lmscale.study.report.answer import largest_budget, ratio, usable, where_20_lies
from lmscale.study.report.source import fit_and_check
from lmscale.study.report.verdict import verdict
from lmscale.study.tables import read_table


def unfinished(folder: Path) -> str:
    """The sentence that says what is lacking before the sweep can be fitted; "" where it is complete."""
    command = f"lmscale run sweeps/{folder.name}.py"
    if not (folder / "plan.json").exists():
        return f"there is no sweep in {folder}; train it first: {command}"
    states = read_table(folder)["state"]
    missing = int((states == "missing").sum())
    return f"{missing} of {len(states)} runs of {folder} are missing; finish them first: {command}" if missing else ""


def study(name: str, source: str | Path) -> dict[str, Any]:
    """Table, fits and held-out checks of one source."""
    table = read_table(source)
    fits, checked, notes = fit_and_check(table)
    if not fits:
        raise UserError(f"{name}: {' '.join(notes)}")
    flops, _ = largest_budget(fitted_rows(table, usable(fits)))
    return {"name": name, "table": table, "fits": fits, "checked": checked, "flops": flops}


def rows(one: dict[str, Any]) -> list[str]:
    """One line per fit: exponent, allocation and tokens per parameter at the study's largest fitted budget."""
    lines = []
    for fit in usable(one["fits"]):
        a, flops = fit.interval("a", 0.95), one["flops"]
        best, (centre, low, high) = fit.optimum(flops), ratio(fit, flops)
        lines.append(
            f"{one['name']:<22} {fit.approach:>8} {flops:>9.3g} {fit.exponents()['params']:>6.3f} "
            f"{f'[{a[0]:.3f}, {a[1]:.3f}]':>16} {plots.compact(best.params):>8} {plots.compact(best.tokens):>8} "
            f"{centre:>7.3g} {f'[{low:.3g}, {high:.3g}]':>15}  {where_20_lies(low, high)}"
        )
    return lines


def draw(studies: list[dict[str, Any]], folder: Path) -> None:
    """D*/N* against C of every study, one panel each, on one scale of D*/N*."""
    with plots.style():
        figure, axes = plots.canvas(10, 4.2, panels=len(studies))
        for ax, one in zip(axes, studies):
            runs = plots.measured_runs(one["table"])
            fitted = runs[~plots.held_out_mask(runs)]["flops"]
            low, high = float(fitted.min()), float(fitted.max())
            plots.allocation(
                ax, usable(one["fits"]), "tokens_per_param", span=(low / 2, 10 * float(runs["flops"].max())),
                data=(low, high), held_out=one["checked"], labels="corner" if ax is axes[0] else "none",
            )  # fmt: skip
            ax.set_title(one["name"], loc="right")
        bottom, top = min(ax.get_ylim()[0] for ax in axes), max(ax.get_ylim()[1] for ax in axes)
        for ax in axes:
            ax.set_ylim(bottom, top * (top / bottom) ** 0.2)
        for suffix in (".svg", ".png"):
            print(plots.save(figure, folder / f"twenty_tokens_per_parameter{suffix}"))


def main() -> None:
    """Fit both, print the table, draw the figure."""
    parser = argparse.ArgumentParser(description="Is D*/N* = 20, at Chinchilla's scale and at ours?")
    parser.add_argument(
        "sweep", nargs="?", type=Path, default=Path("runs/isoflop_cpu"), help="folder of a finished sweep"
    )
    parser.add_argument("--output", type=Path, default=Path("figures"), help="folder of the figure")
    args = parser.parse_args()
    if trouble := unfinished(args.sweep):
        raise UserError(trouble)
    studies = [study("Chinchilla, published", "chinchilla"), study(args.sweep.name, args.sweep)]
    print("Compute-optimal allocation at each study's largest fitted budget, 95 % intervals:\n")
    heads = f"{'runs':<22} {'approach':>8} {'C, FLOPs':>9} {'a':>6} {'':>16} {'N*':>8} {'D*':>8}"
    print(f"{heads} {'D*/N*':>7} {'':>15}  20 is")
    print("\n".join(line for one in studies for line in rows(one)), end="\n\n")
    for one in studies:
        for sentence in verdict(one["fits"], one["checked"]):
            print(f"{one['name']}. {sentence}")
    draw(studies, args.output)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"twenty_tokens_per_parameter: {error}")
