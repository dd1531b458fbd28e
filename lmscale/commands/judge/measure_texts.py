"""Texts measured without a judge."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from lmscale.commands.console import print_whole
from lmscale.commands.judge import record, sources
from lmscale.commands.judge.arguments import JudgeArgs
from lmscale.core.quantities import quantity
from lmscale.lm.eval.judge.measures import measure
from lmscale.lm.eval.judge.rubric import read_rubric


def main(args: JudgeArgs, console: Console) -> dict[str, Any]:
    """Measure and show; what --json writes. Raises `UserError` as `gather` and `measure` do."""
    rubric = read_rubric(args.rubric)
    texts = sources.gather(args, rubric, write=True)
    rows, sentences = measure(texts.texts, texts.authors)
    _show(rows, console)
    for sentence in sentences:
        console.print(sentence, markup=False)
    responses = [vars(text) for text in texts.texts]
    value = {"rows": rows, "sentences": sentences, "texts": responses}
    record.write_all(args, value)
    columns = {
        "shots_seed": None,
        "draw": None,
        "task_hash": record.conditions(args, rubric, "offline", *sentences[:1]),
    }
    record.record(rows, texts, columns, lambda name: [one for one in responses if one["model"] == name], console)
    return value


def _show(rows: Sequence[dict[str, Any]], console: Console) -> None:
    """A line for every model, a column for every measure: as wide for many models as for one."""
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    table = Table("model", "N", *metrics, box=None, title="mean ± standard error", title_justify="left")
    for model in dict.fromkeys(row["model"] for row in rows):
        own = {row["metric"]: row for row in rows if row["model"] == model}
        params = next(iter(own.values()))["params"]
        table.add_row(model, "-" if params is None else quantity(params), *(_cell(own.get(name)) for name in metrics))
    print_whole(table, console)


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return "-"
    return f"{row['score']:.3f}" + ("" if row["stderr"] is None else f" ± {row['stderr']:.3f}")
