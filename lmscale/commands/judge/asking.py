"""How the verb asks a judge: the server of a call, what it will cost, and a bar while answers come."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from rich.console import Console

from lmscale.commands.console import preparing
from lmscale.commands.judge.arguments import JudgeArgs
from lmscale.core.config import check
from lmscale.core.errors import UserError
from lmscale.core.files import parse_json
from lmscale.core.quantities import duration, quantity
from lmscale.lm.eval.judge.answers import Asking, Cache, Cost, Prices, Request, estimate
from lmscale.lm.eval.judge.server import Server, check_installed


def server_of(args: JudgeArgs) -> Server:
    """The judge's server. Raises `UserError` for options that can be none, and for a key that is not there."""
    check_installed()
    assert args.server is not None and args.model is not None
    server = Server(
        url=args.server, model=args.model, key_variable=args.key_variable, timeout_seconds=args.timeout,
        attempts=args.attempts, requests_per_minute=args.requests_per_minute, parallel=args.parallel,
        body=_body(args.body),
    )  # fmt: skip
    server.key()
    return server


def _body(text: str | None) -> dict[str, object]:
    try:
        value = parse_json(text or "{}")
    except ValueError as error:
        raise UserError(f'--body is not JSON ({error}): write an object of fields, such as {{"top_p": 0.9}}') from None
    check(isinstance(value, dict), '--body is no object of fields: write one such as {"top_p": 0.9}')
    return dict(value)


def asking_of(args: JudgeArgs) -> Asking:
    """How the judge is asked."""
    return Asking(temperature=args.temperature, samples=args.samples, seed=args.seed, max_tokens=args.answer_tokens)


def announce(
    requests: Sequence[Request], args: JudgeArgs, server: Server, cache: Cache, console: Console
) -> dict[str, Any]:
    """Say what the answers will cost, and with --dry-run the first question; the cost as JSON."""
    cost = estimate(requests, cache)
    sentence = (
        f"{server.model} at {server.host}: {cost.requests:,} requests, {cost.cached:,} of them answered before; about "
        f"{quantity(cost.prompt_tokens)} tokens to read (guessed from the bytes) and at most "
        f"{quantity(cost.answer_tokens)} to write{_money(cost, args)}"
    )
    if server.requests_per_minute < float("inf"):
        sentence += f"; at least {duration(60 * (cost.requests - cost.cached) / server.requests_per_minute)}"
    console.print(sentence, markup=False)
    if args.dry_run:
        for message in json.loads(requests[0].body)["messages"]:
            console.print(f"\n{message['role']}:\n{message['content']}", markup=False)
        console.print("\nnothing was asked (--dry-run)", markup=False)
    return {"cost": asdict(cost)}


def print_cost(cost: Cost, args: JudgeArgs, console: Console) -> None:
    """Say what the answers cost that were asked for now, as the server counts tokens."""
    asked = cost.requests - cost.cached
    if asked and not cost.prompt_tokens:
        console.print(f"{asked:,} requests answered; the server does not say how many tokens that took", markup=False)
    elif asked:
        tokens = f"{quantity(cost.prompt_tokens)} tokens read and {quantity(cost.answer_tokens)} written"
        console.print(f"{asked:,} requests answered: {tokens}{_money(cost, args)}", markup=False)


def _money(cost: Cost, args: JudgeArgs) -> str:
    if args.price is None:
        return ""
    return f", {cost.money(Prices(*args.price)):.4g} at the price given"


@contextmanager
def bar(console: Console) -> Iterator[Callable[[int, int], None]]:
    """A progress bar over answers, of a number that is known from the start."""
    with preparing(console) as progress:
        yield lambda answered, all: progress("asking the judge", answered / all)
