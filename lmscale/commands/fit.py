"""`lmscale fit`: its arguments, and what it does. Importing this loads nothing heavy."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg
from tyro.constructors import PrimitiveConstructorSpec

from lmscale.commands.answer import is_standard_output, write_answer
from lmscale.commands.console import fitted
from lmscale.commands.constraints import RANGES, TIES, VALUES
from lmscale.commands.flags import as_flags
from lmscale.commands.next_step import print_next
from lmscale.commands.numbers import read_number
from lmscale.commands.places import Place, check_each, places
from lmscale.commands.several_values import Joined
from lmscale.commands.unfinished import cannot_fit_yet, print_unfinished
from lmscale.core.errors import UserError
from lmscale.study.fits.options import FitOptions

if TYPE_CHECKING:
    from rich.console import Console

    from lmscale.study.fits.results.artefact import Fit
    from lmscale.study.fits.results.loss_law import LossLaw


def budgets(text: str) -> tuple[float, ...]:
    """ "1e20,1e21" as numbers. Raises `UserError` for anything that is no positive number."""
    values = []
    for item in filter(None, (part.strip() for part in text.split(","))):
        try:
            value = read_number(item, float)
        except ValueError as error:
            raise UserError(f"{error}") from None
        if not 0 < value < float("inf"):
            raise UserError(f"{item!r} is no budget: write positive numbers of FLOPs, as in 1e20,1e21")
        values.append(value)
    return tuple(values)


BUDGETS = PrimitiveConstructorSpec(
    nargs=1,
    metavar="1e20,1e21",
    instance_from_str=lambda strings: budgets(strings[0]),
    is_instance=lambda value: value is None or isinstance(value, tuple),
    str_from_instance=lambda value: [str(value) if value is None else ",".join(map(str, value))],
)


@dataclass(frozen=True)
class FitArgs(FitOptions):
    """Fit scaling laws to a table of runs, with intervals and checks."""

    table: Positional[str]
    """A sweep's folder, a CSV (.gz too), Parquet or JSONL file, or `chinchilla` for the published runs that ship."""
    approach: Literal["1", "2", "3", "all"] = "all"
    """1: loss envelope; 2: IsoFLOP valleys; 3: parametric law."""
    json: Path | None = None
    """Write every number here (- or no file: to standard output, alone)."""
    save: Path | None = None
    """Save the fit with its draws here, as in fits/mine.slaw: `lmscale predict` answers from it without the table."""
    predict: Annotated[str | None, arg(metavar="params=...,tokens=..."), Joined(";")] = None
    """Write a prediction before the run, with interval, hashes and time; several points are separated by ;"""
    prediction: Path = Path("prediction.json")
    """Where --predict writes; an existing file is not overwritten."""

    law: str = field(default="chinchilla", kw_only=True)
    """The form of Approach 3: chinchilla, kaplan, data-constrained, outer-exponent, farseer, clark (experts), parscale,
    distillation, rectified (fine-tuning), mixture-5, ..., or a law of your own by its import path, mine.py:MyLaw or
    package.module:MyLaw."""
    columns: Annotated[str | None, arg(metavar="params=n_params,..."), Joined()] = field(default=None, kw_only=True)
    """What the table calls params, tokens, flops, loss, budget; usual names are recognised. A factor states the unit
    of a column: params=N*1e6 for millions."""
    where: Annotated[str | None, arg(metavar="EXPR")] = field(default=None, kw_only=True)
    """Keep only rows for which this is true, for example "params > 1e8 and kind in ('a', 'b')"."""
    at: Annotated[tuple[float, ...] | None, BUDGETS, Joined()] = field(default=None, kw_only=True)
    """Budgets in FLOPs whose compute-optimal allocation is stated."""
    noise_nats: Annotated[float | None, arg(name="noise")] = field(default=None, kw_only=True)
    """Standard deviation of one run's loss in nats, for Approach 2, for --bootstrap noise and for the test whether a
    law's form fits; unset, it is estimated (for that bootstrap, from runs that differ in their seed alone)."""
    fixed: Annotated[Mapping[str, float] | None, VALUES, arg(name="fix"), Joined()] = field(default=None, kw_only=True)
    """Parameters of the law that are fixed at a value."""
    bounds: Annotated[Mapping[str, tuple[float, float]] | None, RANGES, arg(name="bound"), Joined()] = field(
        default=None, kw_only=True
    )
    """Ranges of the law's parameters in place of its own."""
    tied: Annotated[Mapping[str, str] | None, TIES, arg(name="tie"), Joined()] = field(default=None, kw_only=True)
    """Parameters that equal another one."""
    targets: Annotated[str | None, arg(metavar="loss_code,loss_web"), Joined()] = field(default=None, kw_only=True)
    """Columns of losses, each of which Approach 3 fits a law of its own to."""
    given: Annotated[Mapping[str, float] | None, VALUES, Joined()] = field(default=None, kw_only=True)
    """Values of the law's inputs besides params and tokens at which allocations are stated."""


def parse_points(text: str) -> list[dict[str, float]]:
    """[{"params": 1e9, "tokens": 2e10}, ...] from "params=1e9,tokens=2e10;params=...".

    Raises `UserError` for a bad pair.
    """
    points = []
    for part in filter(None, (piece.strip() for piece in text.split(";"))):
        point: dict[str, float] = {}
        for pair in part.split(","):
            name, _, given = (item.strip() for item in pair.partition("="))
            try:
                value = read_number(given, float)
            except ValueError as error:
                rule = "write name=number pairs, as in params=1e9,tokens=2e10"
                raise UserError(f"--predict has {pair.strip()!r}: {error if given else rule}") from None
            if not math.isfinite(value):
                raise UserError(f"--predict has {pair.strip()!r}: {name} must be finite")
            if name in point:
                raise UserError(f"--predict gives {name} twice, {point[name]:g} and {value:g}: separate points by ;")
            point[name] = value
        points.append(point)
    if not points:
        raise UserError("--predict is empty: write name=number pairs, as in params=1e9,tokens=2e10")
    return points


def _of_targets(args: FitArgs) -> "list[Fit]":
    """A law for each of --targets. Raises `UserError` for an approach that fits none, and beside --predict."""
    from lmscale.study import fits

    if args.approach in ("1", "2"):
        raise UserError(f"--targets are fitted by Approach 3, and --approach {args.approach} was asked for")
    if args.predict is not None:
        raise UserError(
            "--predict registers the loss of one law: save the fits of --targets, and ask `lmscale predict`"
        )
    return list(fits.loss_laws(args.table, [name.strip() for name in (args.targets or "").split(",")], options=args))


def _with_answer(args: FitArgs) -> "tuple[list[Fit], list[str]]":
    """The fits, and what they answer in a few lines: the optimum, and prediction against measurement."""
    from lmscale.study import fits
    from lmscale.study.report.brief import brief
    from lmscale.study.report.naming import named
    from lmscale.study.report.source import held_out_checks

    table, options = args.read(args.table)
    results = fits.fit(table, args.approach, options)
    rows = named(table)
    return results, brief(results, rows, held_out_checks(results, rows)[0])


def main(args: FitArgs, console: "Console") -> None:
    """Fit, print every result, write --json and --predict. Raises `UserError` as they do."""
    from lmscale.study.fits.results import artefact
    from lmscale.study.fits.uncertainty.new_runs import check_point
    from lmscale.study.laws.forms import form

    points = None if args.predict is None else parse_points(args.predict)
    _check_files(args)
    for point in points or ():
        check_point(form(args.law), point)
    try:
        results, answer = _with_answer(args) if args.targets is None else (_of_targets(args), [])
    except UserError as error:
        raise (cannot_fit_yet(Path(args.table), error) or error) from None
    text = as_flags("\n\n".join([*map(str, results), *(["\n".join(answer)] if answer else [])]))
    print(fitted(text, console))
    write_answer(args.json, {"table": args.table, "fits": [one.to_json() for one in results], "answer": answer})
    if args.save is not None:
        artefact.save(results, args.save, args.table)
    next_words = print_unfinished(Path(args.table), console)
    if points is not None:
        _register(args, results, points, console)
    else:
        _print_next(args, results, next_words)


def _check_files(args: FitArgs) -> None:
    """Raise `UserError` for a prediction that the approach cannot make, and for files that hold something already."""
    if args.predict is not None and args.approach in ("1", "2"):
        raise UserError(
            f"--predict states the loss of a run, which Approach {args.approach} does not model: use --approach 3"
        )
    if args.predict is not None and args.prediction.exists():
        raise UserError(
            f"{args.prediction} already holds a registered prediction: "
            "give another --prediction path, or delete it knowingly"
        )
    if args.predict is not None:
        check_each([*places(args), Place("--prediction", args.prediction)])
    if args.save is not None and args.save.exists():
        raise UserError(f"{args.save} already holds a fit: give another --save path, or delete it knowingly")


def _register(
    args: FitArgs, results: "Sequence[Fit]", points: "Sequence[dict[str, float]]", console: "Console"
) -> None:
    """Write what the law predicts at `points`, and print it. Raises `UserError` where no law was fitted."""
    from lmscale.study import fits
    from lmscale.study.fits.predict import preregister

    law: LossLaw | None = next((one for one in results if isinstance(one, fits.LossLaw)), None)
    if law is None:
        raise UserError(
            "--predict needs Approach 3, which this table does not support: "
            + "; ".join(s.sentence for s in results[0].status if s.name == "approach 3 not fitted")
        )
    written = preregister.register(law, points, args.prediction, args.save)
    print(f"\nRegistered in {args.prediction} at {written['written']}, hash {written['hash'][:12]}:")
    for point in points:
        print(fitted(f"  {law.predict(**point)}", console))
    which, they = ("that run", "it is") if len(points) == 1 else ("those runs", "they are")
    print(f"Train {which} now, and name the table that {they} in:")
    print_next("check", args.prediction, "--table", "TABLE")


def _print_next(args: FitArgs, results: "Sequence[Fit]", of_unfinished: Sequence[object]) -> None:
    """The command that goes on from a fit: none where its file is of a law whose compute nobody knows.

    Of a sweep that is not finished, `of_unfinished` goes on with it, unless a file of the fit was asked for.
    """
    largest = max((one.largest_flops for one in results if not math.isnan(one.largest_flops)), default=None)
    if args.save is not None or (args.json is not None and not is_standard_output(args.json)):
        if largest is not None and args.save is not None:
            print_next("predict", args.save, "--flops", f"{10 * largest:.2g}")
        elif largest is not None:
            print_next("plan", "SWEEP.py", "--optimal", args.json, "--flops", f"{largest:.2g}")
    elif of_unfinished:
        print_next(*of_unfinished)
    elif Path(args.table).is_dir():
        print_next("report", args.table, *(["--stage", args.stage] if args.stage else []))
    else:
        print_next("fit", args.table, "--json", "fits.json")
