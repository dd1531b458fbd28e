"""Bradley-Terry ratings on a terminal."""

from rich.console import Console
from rich.table import Table

from lmscale.commands.console import print_whole
from lmscale.core.quantities import quantity
from lmscale.lm.eval.judge.ratings import Ratings


def show_ratings(ratings: Ratings, console: Console) -> None:
    """A line for every model, the smallest first."""
    title = "Bradley-Terry ratings, mean 0: 100 points more win 64 % of the votes"
    table = Table("model", "N", "rating", "95 % interval", "share of votes", "pairs", box=None, title=title)
    table.title_justify = "left"
    for one in ratings.ratings:
        params = "-" if one.params is None else quantity(one.params)
        interval = f"[{one.low:.0f}, {one.high:.0f}]"
        table.add_row(one.model, params, f"{one.rating:.0f}", interval, f"{one.share:.0%}", f"{one.pairs:,}")
    print_whole(table, console)
    if ratings.per_tenfold_params is not None and ratings.per_tenfold_interval is not None:
        low, high = ratings.per_tenfold_interval
        console.print(
            f"ten times the N is worth {ratings.per_tenfold_params:.0f} points [{low:.0f}, {high:.0f}]", markup=False
        )
