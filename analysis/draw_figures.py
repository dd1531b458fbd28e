"""What do the runs of a table look like, and what do the fits make of them?

    python analysis/draw_figures.py chinchilla figures/chinchilla          # the published runs that ship
    python analysis/draw_figures.py runs/isoflop_cpu figures/isoflop_cpu   # a sweep's folder; any table file

Table in, figures out: loss against compute with its frontier, IsoFLOP valleys, D*/N* against compute with 80 and 95 %
intervals and the line of 20, residuals of the parametric law. Trains nothing.

Cost: seconds on one core.
Outcome: one SVG and one PNG per figure that the table supports, and a sentence for each fit that it does not.
"""

import sys
from pathlib import Path

from lmscale.core.errors import UserError
from lmscale.study import plots
from lmscale.study.report.source import fit_and_check
from lmscale.study.tables import read_table


def main(source: str, folder: Path) -> None:
    """Draw the figures of `source` into `folder`."""
    table = read_table(source)
    curves, corrupt = plots.read_curves(source, table) if Path(source).is_dir() else ({}, [])
    fits, checked, notes = fit_and_check(table)
    runs = plots.measured_runs(table)
    fitted = runs[~plots.held_out_mask(runs)]["flops"]
    by_approach = {fit.approach: fit for fit in fits}
    checked_budgets = next((check for check in checked if check.budgets), None)

    paint = {"loss": lambda ax: plots.curves(ax, table, curves, fits)}
    if isoflop := by_approach.get("2"):
        paint["valleys"] = lambda ax: plots.valleys(ax, table, isoflop, checked_budgets)
    if fits:
        low, high = float(fitted.min()), float(fitted.max())
        paint["tokens_per_param"] = lambda ax: plots.allocation(
            ax, fits, "tokens_per_param", span=(low / 2, 10 * high), data=(low, high), held_out=checked
        )
    if law := by_approach.get("3"):
        paint["residuals"] = lambda ax: plots.residuals(ax, law, "params")

    for name, draw in paint.items():
        with plots.style():
            figure, (ax,) = plots.canvas(9, 4.6)
            draw(ax)
        for suffix in (".svg", ".png"):
            print(plots.save(figure, folder / f"{name}{suffix}"))
    for sentence in [*notes, *corrupt]:
        print(sentence)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(
            "usage: python analysis/draw_figures.py TABLE FOLDER   (TABLE: a sweep's folder, a file, or chinchilla)"
        )
    try:
        main(sys.argv[1], Path(sys.argv[2]))
    except UserError as error:
        sys.exit(f"draw_figures: {error}")
