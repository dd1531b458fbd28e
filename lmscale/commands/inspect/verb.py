"""What `lmscale inspect` does: look inside every model, show and write what was measured."""

from rich.console import Console

from lmscale.commands.answer import is_standard_output, write_answer
from lmscale.commands.console import preparing
from lmscale.commands.inspect.arguments import InspectArgs
from lmscale.commands.next_step import print_next, repeat
from lmscale.core.config import check
from lmscale.core.errors import UserError
from lmscale.core.files import write_text


def main(args: InspectArgs, console: Console) -> None:
    """Measure and show. Raises `UserError` for what cannot be measured and for a run without a checkpoint."""
    check_args(args)
    from lmscale.commands.score.text_file import text_or_standard_input

    text = None if args.text is None else text_or_standard_input(args.text)
    from lmscale.lm.devices import machine

    machine.set_up()
    from lmscale.commands.inspect import measure, page, show
    from lmscale.commands.score import models

    choice = (
        models.Choice(models.in_order_of_scale(args.runs), ())
        if args.sweep is None
        else models.runs_of_sweep(args.sweep)
    )
    with preparing(console) as progress:
        inspected = measure.inspect_models(choice.folders, args, text, progress)
    if args.json is not None:
        values = [model.to_json() for model in inspected]
        write_answer(args.json, values[0] if args.sweep is None and len(values) == 1 else {"models": values})
    if args.html is not None:
        write_text(args.html, page.page(inspected, args.head, choice.left_out))
    if not is_standard_output(args.json):
        show.show(inspected, args.head, choice.left_out, console)
        for written in (args.json, args.html):
            if written is not None:
                console.print(f"{written}: written", markup=False, highlight=False)
    if args.html is None:
        print_next(*repeat("--html", "inspect.html"), stderr=True)
    else:
        print_next("sample", *(("--sweep", args.sweep) if args.sweep else (inspected[0].folder,)), stderr=True)


def check_args(args: InspectArgs) -> None:
    """Raise `UserError` for arguments that do not go together."""
    if bool(args.runs) == (args.sweep is not None):
        raise UserError("name what is inspected: either runs, runs/<sweep>/<run_id>, or --sweep runs/<sweep>")
    asked = args.text is not None or args.task is not None or args.pairs is not None or args.heads
    check(
        asked,
        "say what to look at: --text 'some text', --task synthetic:tasks(only='copy'), --pairs FILE.jsonl or --heads",
    )
    check(args.sweep is None or args.step is None, "--step is of one run: leave it out with --sweep")
    check(args.most_pairs >= 1, f"--most-pairs {args.most_pairs}: at least 1 pair")
    check(
        args.head is None or args.text is not None, "--head says whose attention to a text is listed: give --text too"
    )
    check(
        not args.units or args.task is not None or args.pairs is not None,
        "--units says what is patched on pairs of prompts: give --task or --pairs too",
    )
