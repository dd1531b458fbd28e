"""`lmscale predict`: its arguments, and what it does. Importing this loads nothing heavy."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from lmscale.commands.answer import write_answer
from lmscale.commands.console import fitted
from lmscale.commands.constraints import CHOICES, VALUES, Limits
from lmscale.commands.flags import as_flags
from lmscale.commands.next_step import print_next
from lmscale.commands.several_values import Joined
from lmscale.core.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from lmscale.study.fits import LossLaw


@dataclass(frozen=True)
class PredictArgs:
    """Ask a saved fit for the loss of a run, or for the best run under constraints; no table is needed.

    With the inputs of the law (--params, --tokens, others by --given): where one new run would land and where many
    would on average, even if the form is wrong, and where the law lies if it is right. With --flops, --memory or
    another constraint: the inputs that make the loss lowest.
    """

    fit: Positional[Path]
    """A file of `lmscale fit --save`, which has the draws for intervals, or of --json, which has none."""
    params: float | None = None
    """N of the run."""
    tokens: float | None = None
    """D of the run."""
    given: Annotated[Mapping[str, float] | None, arg(metavar="experts=8"), VALUES, Joined()] = None
    """Other inputs of the law."""
    level: float = 0.95
    """Level of the intervals of a run."""
    costs: Annotated[tuple[float, float] | None, arg(metavar="OVER UNDER")] = None
    """What an estimate costs for each nat that it is too high, and too low, as in 3 1: gives the cheapest one."""
    flops: float | None = None
    """Training FLOPs of the best run; with --inference-tokens those of training and inference together."""
    inference_tokens: float | None = None
    """Tokens that the model will read in its life."""
    memory: str | None = None
    """Most memory of the weights in bfloat16, as in 80GB."""
    unique_tokens: float | None = None
    """Tokens of text that there are: an input of a law of repeated data, else the most that D may be."""
    teacher_params: float | None = None
    """N of a teacher, whose logits --flops pays too."""
    teacher_tokens: float | None = None
    """D of that teacher where --flops pays its training too."""
    choose: Annotated[Mapping[str, tuple[float, float]] | None, arg(metavar="experts=1:64"), CHOICES, Joined()] = None
    """Inputs of the law that are chosen beside params and tokens, each within a range."""
    json: Path | None = None
    """Write the answer here (- or no file: to standard output, alone)."""


def main(args: PredictArgs, console: "Console") -> None:
    """Print the prediction or the allocation and write --json. Raises `UserError` as these do."""
    from lmscale.study.fits.results.artefact import load_laws

    if not 0 < args.level < 1:
        raise UserError(f"--level {args.level}: a share between 0 and 1, as 0.95")
    fits = load_laws(args.fit)
    asked = (args.flops, args.inference_tokens, args.memory, args.teacher_params, args.choose)
    constrained = any(value is not None for value in asked)
    if constrained and args.costs is not None:
        raise UserError("--costs is of the loss of one run, of given --params and --tokens: leave the constraints out")
    answers = [_best(args, fit) if constrained else _run(args, fit) for fit in fits]
    for fit, answer in zip(fits, answers):
        target = f", {fit.name}" if fit.name else ""
        print(fitted(as_flags(f"{fit.law.NAME} through {fit.n_runs} runs{target}: {answer}"), console))
    largest = max((fit.largest_flops for fit in fits), key=lambda flops: -1 if math.isnan(flops) else flops)
    if args.json is not None:
        write_answer(args.json, _saved(args, fits, answers))
    elif constrained:
        print_next("plan", "SWEEP.py", "--optimal", args.fit, "--flops", f"{args.flops or largest:.2g}")
    elif not math.isnan(largest):
        print_next("predict", args.fit, "--flops", f"{10 * largest:.2g}")


def _saved(args: PredictArgs, fits: "Sequence[LossLaw]", answers: Sequence[Any]) -> dict[str, Any]:
    """The answer of one law, or those of several under their targets."""
    if len(fits) == 1:
        return {"fit": str(args.fit), "table_hash": fits[0].table_hash, **answers[0].to_json()}
    named = {fit.name or fit.law.TARGET: answer.to_json() for fit, answer in zip(fits, answers)}
    return {"fit": str(args.fit), "targets": named}


def _given(args: PredictArgs, fit: "LossLaw") -> dict[str, float]:
    named = {"params": args.params, "tokens": args.tokens, "unique_tokens": args.unique_tokens}
    given = {name: value for name, value in named.items() if value is not None and name in fit.law.INPUTS}
    return {**given, **(args.given or {})}


def _run(args: PredictArgs, fit: "LossLaw") -> Any:
    from lmscale.study.fits import estimate

    if args.unique_tokens is not None and "unique_tokens" not in fit.law.INPUTS:
        raise UserError(
            f"--unique-tokens: the law {fit.law.NAME!r} is of {', '.join(fit.law.INPUTS)}, so they only limit tokens "
            f"that are to be chosen: leave them out, or fit a law of repeated data, as data-constrained"
        )
    if args.teacher_tokens is not None:
        raise UserError("--teacher-tokens is of the FLOPs of a teacher: give --teacher-params and --flops with it")
    values = _given(args, fit)
    for name, value in (("params", args.params), ("tokens", args.tokens)):
        if value is not None and name not in fit.law.INPUTS:
            raise UserError(f"--{name}: the law {fit.law.NAME!r} is of {', '.join(fit.law.INPUTS)}")
    inputs = {**{name: value for name, value in fit.given.items() if name in fit.law.INPUTS}, **values}
    return fit.predict(args.level, **inputs) if args.costs is None else estimate(fit, *args.costs, args.level, **inputs)


def _best(args: PredictArgs, fit: "LossLaw") -> Any:
    sizes = {name: value for name in ("params", "tokens") if (value := getattr(args, name)) is not None}
    of_law = {"params", "tokens"} & set(fit.law.INPUTS)
    if of_law and of_law <= set(sizes) and not args.choose:
        raise UserError("--params and --tokens are both given: leave one out, to be chosen under the constraints")
    return Limits.of(args).best(fit, sizes)
