"""What `lmscale judge` does: which of its ways was asked for, and whether its options go together."""

from typing import Any

from rich.console import Console

from lmscale.commands.answer import is_standard_output
from lmscale.commands.judge.arguments import JudgeArgs
from lmscale.core.config import check


def judge(args: JudgeArgs, console: Console) -> dict[str, Any]:
    """Judge and show; what --json writes. Raises `UserError` for texts that cannot be judged and a judge that does not
    answer."""
    _check(args)
    if is_standard_output(args.json):
        console = Console(stderr=True, highlight=False)
    from lmscale.commands.judge import compare_pairs, grade_texts, measure_texts, people_votes

    if args.server is not None:
        return (compare_pairs if args.pairs or args.people is not None else grade_texts).main(args, console)
    if args.offline:
        return measure_texts.main(args, console)
    return people_votes.show(args, console) if args.answers else people_votes.write(args, console)


def _check(args: JudgeArgs) -> None:
    check(
        args.server is not None or args.offline or args.people is not None,
        "say who judges: a model (--server URL --model NAME), people (--people PAGE.html), or nobody (--offline)",
    )
    check(args.server is None or args.model is not None, "--server needs --model NAME: which of its models judges")
    for name in ("model", "key_variable", "pairs", "dry_run", "body", "human"):
        given = getattr(args, name) not in (None, False)
        check(
            args.server is not None or not given,
            f"--{name.replace('_', '-')} is of a server's judge: give --server URL",
        )
    check(not args.offline or args.server is None, "--offline measures without a judge: leave out --server")
    check(not args.offline or args.people is None, "--offline measures without people: leave out --people")
    check(
        args.people is None or bool(args.texts) != bool(args.answers),
        "--people PAGE writes a page of the texts named, or reads one with --answers FILE...: name either",
    )
    check(not args.answers or args.people is not None, "--answers are to a page: name it with --people PAGE.html")
    check(args.output is None or bool(args.answers), "--output is for what people prefer: give --people and --answers")
    check(
        args.output is None or args.server is None,
        "--output is for what people prefer: call it without --server, which compares a judge with them",
    )
    check(
        args.human is None or not (args.pairs or args.people),
        "--human has grades of single texts: leave out --pairs and --people",
    )
    check(
        args.server is None or args.people is None or bool(args.answers),
        "--people with --server compares a judge with people: give their --answers too",
    )
    _check_numbers(args)


def _check_numbers(args: JudgeArgs) -> None:
    check(args.n >= 1, f"--n {args.n}: at least 1 continuation of each prompt")
    check(args.max_tokens >= 1, f"--max-tokens {args.max_tokens}: at least 1")
    check(100 <= args.resamples <= 100_000, f"--resamples {args.resamples}: from 100 to 100,000")
    check(args.most_pairs >= 1, f"--most-pairs {args.most_pairs}: at least 1")
    check(0 <= args.seed < 2**31, f"--seed {args.seed}: from 0 to 2^31 - 1")
