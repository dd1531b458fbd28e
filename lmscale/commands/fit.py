"""`lmscale fit`: its arguments, and what it does. Importing this loads nothing heavy."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from lmscale.core.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from lmscale.study.fits.results.loss_law import LossLaw


@dataclass(frozen=True)
class FitArgs:
    """Fit scaling laws to a table of runs, with intervals and checks."""

    table: Positional[str]
    """A sweep's folder, a CSV (.gz too), Parquet or JSONL file, or `chinchilla` for the published runs that ship."""
    approach: Literal["1", "2", "3", "all"] = "all"
    """1: loss envelope; 2: IsoFLOP valleys; 3: parametric law."""
    law: str = "chinchilla"
    """The form of Approach 3: chinchilla, kaplan, data-constrained, over-training, outer-exponent, power-mean, ..."""
    loss: Literal["huber", "lad", "squared"] = "huber"
    """The loss function of Approach 3, summed over runs."""
    delta: float = 1e-3
    """Threshold of the Huber loss."""
    residual: Literal["log", "raw"] | None = None
    """Residuals of ln L or of L; unset, the law's own."""
    resamples: int | None = None
    """Bootstrap resamples or noise draws; unset, 4000 for Approach 3 and 1000 for 1 and 2."""
    seed: int = 0
    columns: Annotated[str | None, arg(metavar="params=n_params,...")] = None
    """What the table calls params, tokens, flops, loss, budget; usual names are recognised."""
    where: Annotated[str | None, arg(metavar="EXPR")] = None
    """Keep only rows for which this is true, for example "params > 1e8"."""
    at: Annotated[str | None, arg(metavar="1e20,1e21")] = None
    """Budgets in FLOPs whose compute-optimal allocation is stated."""
    json: Path | None = None
    """Write every number here."""
    rates: Literal["inside", "best", "all"] = "inside"
    """Of an N and D run at several learning rates: the best rate's if it is inside those tried, that anyway, or all."""
    bootstrap: Literal["auto", "runs", "weights", "noise"] = "auto"
    """Approach 3 draws whole runs, or gives each an exponential weight; auto: weights where runs are few.
    noise: it keeps the runs and draws their losses about the law."""
    strata: str | None = None
    """Column whose groups keep their size in every resample, for example budget."""
    clusters: str | None = None
    """Column whose groups are drawn whole, for example trunk or seed."""
    valley: Literal["auto", "parabola", "akima"] = "auto"
    """How Approach 2 finds a valley's minimum; auto takes parabolas unless they miss the runs."""
    noise: float | None = None
    """Standard deviation of one run's loss in nats, for Approach 2 and for --bootstrap noise; unset, it is estimated
    (for that bootstrap, from runs that differ in their seed alone)."""
    shared_noise: float = 0.0
    """Share of its variance which the runs of one cluster have in common, for --bootstrap noise."""
    window: float | None = None
    """Parabolas see only sizes within this factor of the lowest; unset, all."""
    envelope: Literal["bins", "hull"] = "bins"
    """How Approach 1 finds the envelope."""
    predict: Annotated[str | None, arg(metavar="params=...,tokens=...")] = None
    """Write a prediction before the run, with interval, hashes and time; several points are separated by ;"""
    prediction: Path = Path("prediction.json")
    """Where --predict writes; an existing file is not overwritten."""
    check: bool = True
    """The checks that fit again: influence of runs, largest budget left out, sensitivity."""


def budgets(text: str | None) -> list[float] | None:
    """ "1e20,1e21" as numbers. Raises `UserError` for anything that is no positive number."""
    if text is None:
        return None
    values = []
    for item in filter(None, (part.strip() for part in text.split(","))):
        try:
            value = float(item)
        except ValueError:
            value = -1.0
        if not 0 < value < float("inf"):
            raise UserError(f"--at has {item!r}: budgets are positive numbers of FLOPs, as in 1e20,1e21")
        values.append(value)
    return values


def main(args: FitArgs, console: "Console") -> None:
    """Fit, print every result, write --json and --predict. Raises `UserError` as they do."""
    at = budgets(args.at)
    from lmscale.core.files import write_json
    from lmscale.study import fits
    from lmscale.study.fits.predict import preregister
    from lmscale.study.tables import read_table

    points = None if args.predict is None else preregister.parse_points(args.predict)
    if points is not None and args.approach in ("1", "2"):
        raise UserError(
            f"--predict states the loss of a run, which Approach {args.approach} does not model: use --approach 3"
        )
    if points is not None and args.prediction.exists():
        raise UserError(
            f"{args.prediction} already holds a registered prediction: "
            "give another --prediction path, or delete it knowingly"
        )
    table = read_table(args.table, args.columns, args.where)
    approaches = fits.APPROACHES if args.approach == "all" else (args.approach,)
    found = fits.fit(
        table,
        approaches,
        law=args.law,
        loss=args.loss,
        delta=args.delta,
        residual=args.residual,
        resamples=args.resamples,
        seed=args.seed,
        at=at,
        strata=args.strata,
        clusters=args.clusters,
        valley=args.valley,
        noise_nats=args.noise,
        shared_noise=args.shared_noise,
        window=args.window,
        envelope=args.envelope,
        bootstrap=args.bootstrap,
        rates=args.rates,
        check=args.check,
    )
    print("\n\n".join(str(one) for one in found))
    if args.json is not None:
        write_json(args.json, {"table": args.table, "fits": [one.to_json() for one in found]})
    if points is not None:
        law: LossLaw | None = next((one for one in found if isinstance(one, fits.LossLaw)), None)
        if law is None:
            raise UserError(
                "--predict needs Approach 3, which this table does not support: "
                + "; ".join(s.sentence for s in found[0].status if s.name == "approach 3 not fitted")
            )
        written = preregister.register(law, points, args.prediction)
        print(f"\nRegistered in {args.prediction} at {written['written']}, hash {written['hash'][:12]}:")
        for point in points:
            print(f"  {law.predict(**point)}")
