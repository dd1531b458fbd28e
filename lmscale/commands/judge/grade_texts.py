"""Single grades by a judge: asked, counted, printed by model, and written where scores belong."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from lmscale.commands.console import print_whole
from lmscale.commands.judge import asking, record, sources, trust
from lmscale.commands.judge.arguments import JudgeArgs
from lmscale.commands.next_step import print_next
from lmscale.core.config import check
from lmscale.core.quantities import quantity
from lmscale.core.run_folder import SCORES_FILE
from lmscale.lm.eval.judge.answers import Cache
from lmscale.lm.eval.judge.grades import Grading, grade, grading_requests, score_rows, unreadable_sentences
from lmscale.lm.eval.judge.rubric import read_rubric


def main(args: JudgeArgs, console: Console) -> dict[str, Any]:
    """Grade every text; what --json writes, with --dry-run the cost. Raises `UserError` as `gather` and `ask_all` do,
    and where nothing is readable."""
    rubric, server, how = read_rubric(args.rubric), asking.server_of(args), asking.asking_of(args)
    cache = Cache()
    texts = sources.gather(args, rubric, write=not args.dry_run)
    cost = asking.announce(grading_requests(texts.texts, rubric, server, how), args, server, cache, console)
    if args.dry_run:
        return cost
    with asking.bar(console) as progress:
        gradings, answered = grade(texts.texts, rubric, server, how, cache, progress)
    asking.print_cost(answered.cost, args, console)
    sentences = unreadable_sentences([one.problem for one in gradings])
    remarks, estimates = trust.of_grades(gradings, texts.texts, rubric, args)
    sentences += remarks
    rows = score_rows(gradings, rubric, texts.authors)
    _show(rows, console)
    for sentence in sentences:
        console.print(sentence, markup=False)
    value = {
        **record.judge_columns(args), "rubric": rubric.name, "rows": rows, "sentences": sentences,
        "grades": [one.to_json() for one in gradings], **estimates,
    }  # fmt: skip
    record.write_all(args, value)
    columns = {
        **record.judge_columns(args), "shots_seed": None, "draw": None,
        "task_hash": record.conditions(args, rubric, server.model, how, sorted(server.body.items())),
    }  # fmt: skip
    record.record(rows, texts, columns, lambda name: _responses(gradings, name), console)
    check(
        any(one.grades is not None for one in gradings),
        f"none of {len(gradings):,} answers of {server.model} could be read as grades: take a judge that follows "
        "instructions, or a rubric that asks less; --json PATH shows what it answers",
    )
    if not console.quiet:
        _next(texts)
    return value


def _responses(gradings: Sequence[Grading], name: str) -> list[dict[str, Any]]:
    return [one.to_json() for one in gradings if one.text.model == name]


def _show(rows: Sequence[dict[str, Any]], console: Console) -> None:
    """A line for every model, a column for every criterion."""
    if not rows:
        console.print("no model has two graded texts: no means are shown", markup=False)
        return
    names = list(dict.fromkeys(row["metric"] for row in rows))
    table = Table("model", "N", "texts", *names, box=None, title="mean grade ± standard error", title_justify="left")
    for model in dict.fromkeys(row["model"] for row in rows):
        own = {row["metric"]: row for row in rows if row["model"] == model}
        first = next(iter(own.values()))
        params = "-" if first["params"] is None else quantity(first["params"])
        table.add_row(
            model, params, f"{first['n']:,}", *(f"{own[n]['score']:.2f} ± {own[n]['stderr']:.2f}" for n in names)
        )
    print_whole(table, console)


def _next(texts: sources.Texts) -> None:
    folders = [author.folder for author in texts.authors if author.folder is not None]
    if len(folders) == 1:
        print_next("emergence", folders[0] / SCORES_FILE, stderr=True)
    elif folders:
        print_next("emergence", folders[0].parent, stderr=True)
