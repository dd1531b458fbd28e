"""What `lmscale score` does: read the text, read it with every model, show and write what it cost."""

from pathlib import Path
from typing import Any

from rich.console import Console

from lmscale.commands.answer import is_standard_output, write_answer
from lmscale.commands.console import preparing
from lmscale.commands.next_step import print_next, repeat
from lmscale.commands.score.arguments import ScoreArgs
from lmscale.commands.score.text_file import read_text_file
from lmscale.core.config import check
from lmscale.core.files import write_text


def main(args: ScoreArgs, console: Console) -> None:
    """Score and show. Raises `UserError` for a text that cannot be scored and for a run without a checkpoint."""
    *runs, path = (word for word in (args.run, args.file, *args.further) if word is not None)
    check(
        bool(runs) == (args.sweep is None),
        "lmscale score takes RUN FILE, several RUNs and FILE, or --sweep runs/NAME and FILE; FILE may be - for "
        "standard input",
    )
    check(args.sweep is None or args.step is None, "--step is of one run: leave it out with --sweep")
    check(not args.tokens or args.json is not None, "--tokens says what --json writes; name a file with --json PATH")
    check(args.spans >= 0, f"--spans {args.spans}: how many spans are listed is 0 or more")
    from lmscale.commands.score import models, rewards

    if models.is_reward_model([Path(run) for run in runs]):
        rewards.main(args, Path(runs[0]), path, console)
        return
    text = read_text_file(path, args.documents)
    from lmscale.lm.devices import machine

    machine.set_up()
    from lmscale.commands.score import heat_map, show

    choice = (
        models.Choice(models.in_order_of_scale([Path(run) for run in runs]), ())
        if args.sweep is None
        else models.runs_of_sweep(args.sweep)
    )
    with preparing(console) as progress:
        scored = models.score_models(
            choice, text.documents, text.lines, end=args.end, step=args.step,
            ranked_tokens=0 if args.html is None else heat_map.SHOWN_TOKENS, keep_all=args.tokens, progress=progress,
        )  # fmt: skip
    if args.json is not None:
        values = [to_json(model, args.spans, tokens=args.tokens) for model in scored]
        write_answer(args.json, values[0] if args.sweep is None and len(values) == 1 else {"models": values})
    if args.html is not None:
        write_text(args.html, heat_map.page(scored, path, args.spans, choice.left_out))
    if is_standard_output(args.json):
        _print_next(args, scored)
        return
    remarks = [*choice.left_out, *_remarks(text.empty_lines)]
    show.show(scored, args.spans, remarks, console)
    for written in (args.json, args.html):
        if written is not None:
            console.print(f"{written}: written", markup=False, highlight=False)
    _print_next(args, scored)


def _print_next(args: ScoreArgs, scored: list[Any]) -> None:
    """The page of the same text where none is written yet, else what a sweep's models or this one are good for."""
    if args.html is None:
        print_next(*repeat("--html", "score.html"), stderr=True)
    elif args.sweep is not None:
        print_next("sample", "--sweep", args.sweep, stderr=True)
    else:
        print_next("sample", scored[0].folder, stderr=True)


def _remarks(empty_lines: int) -> list[str]:
    return [f"{empty_lines} empty lines are no documents and are not scored"] if empty_lines else []


def to_json(model: Any, most_spans: int, *, tokens: bool) -> dict[str, Any]:
    """What `--json` writes of one model; lines and spans where its reading is kept."""
    from lmscale.lm.use.surprise import line_losses, surprising_spans

    value: dict[str, Any] = {
        "run": str(model.folder),
        "step": model.step,
        "params": model.params,
        "active_params": model.active_params,
        "training_tokens": model.training_tokens,
        **model.sums,
    }
    if model.reading is None:
        return value
    scored = model.reading.scored
    value["lines"] = [line.to_json() for line in line_losses(scored)]
    value["spans"] = [span.to_json() for span in surprising_spans(scored, most_spans)]
    if tokens:
        value["token_ids"] = scored.tokens_T.tolist()
        value["surprisal_nats"] = [float(f"{nats:.7g}") for nats in scored.nats_T.tolist()]
        value["context_tokens"] = scored.context_T.tolist()
    return value
