"""`lmscale report`: the page about a sweep or a table, or the one that compares several."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from tyro.conf import Positional, arg

from lmscale.commands.answer import write_answer
from lmscale.commands.console import fitted
from lmscale.commands.constraints import VALUES
from lmscale.commands.next_step import print_next
from lmscale.commands.several_values import Joined
from lmscale.commands.unfinished import print_unfinished

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class ReportArgs:
    """Fit a sweep, check its held-out runs, and write one self-contained HTML page about it; or about a table.

    Several sweeps or tables get a page that compares them: `lmscale report runs/a runs/b`.
    """

    FOLDERS: ClassVar[tuple[str, ...]] = ("output",)

    source: Positional[str]
    """A sweep's folder, runs/<sweep>; a CSV (.gz too), Parquet or JSONL file; or `chinchilla` for the published runs
    that ship."""
    more: Positional[tuple[str, ...]] = ()
    """Further sweeps or tables: the page then compares them with the first, laws side by side; or, of sweeps that fix
    no law, losses, best rates and scores where both ran the same."""
    output: Path | None = None
    """Folder of the report; by default <source>/report for a sweep, reports/<name> for a table, reports/<a>-<b> for
    several."""
    columns: Annotated[str | None, arg(metavar="params=n_params,..."), Joined()] = None
    """What a table calls our columns; usual names are recognised."""
    where: Annotated[str | None, arg(metavar="EXPR")] = None
    """Keep only rows of a table for which this is true, for example "params > 1e8"."""
    law: str | None = None
    """The form of Approach 3, by name or import path, mine.py:MyLaw; unset, that of the sweep, else chinchilla."""
    given: Annotated[Mapping[str, float] | None, arg(metavar="experts=8"), VALUES, Joined()] = None
    """Values of the law's inputs besides params and tokens at which its allocation is stated."""
    resamples: int | None = None
    """Bootstrap resamples behind each interval; unset, those of `lmscale fit`: 4000 for Approach 3, 1000 for 2."""
    seed: int = 0
    """Seed of the resampling."""
    stage: str | None = None
    """Which stage of training the page is about where there are several, for example fine-tune; unset, pretrain."""
    mixed_corpora: bool = False
    """Fit runs on several corpora together."""
    watch: float | None = None
    """Write the page again every so many seconds until no run of the sweep is at work; a browser follows."""
    json: Path | None = None
    """Write the path of the page and what it answers here (- or no file: to standard output, alone)."""


def main(args: ReportArgs, console: "Console") -> None:
    """Write the page. Raises `UserError` as `write_report` and `write_comparison` do."""
    from lmscale.core.config import check
    from lmscale.core.results import corpora_sentence
    from lmscale.study.launch.states import read_states
    from lmscale.study.report.under_way import refresh_seconds

    check(not args.more or args.watch is None, "--watch is for one sweep; leave it out where several are compared")
    if args.more:
        page = write_comparison(
            [args.source, *args.more], args.output, resamples=args.resamples, seed=args.seed, stage=args.stage,
            mixed_corpora=args.mixed_corpora, columns=args.columns, where=args.where, law=args.law, given=args.given,
        )  # fmt: skip
        print(f"the comparison is {page}; open it in a browser")
        write_answer(args.json, {"page": str(page)})
        return
    folder = Path(args.source)
    check(args.watch is None or args.watch > 0, f"--watch {args.watch}: give seconds, more than 0")
    check(args.watch is None or folder.is_dir(), "--watch is for a sweep's folder; leave it out for a table")
    while True:
        page = write_report(
            args.source, args.output, columns=args.columns, where=args.where, resamples=args.resamples, seed=args.seed,
            stage=args.stage, mixed_corpora=args.mixed_corpora, law=args.law, given=args.given,
        )  # fmt: skip
        runs = read_states(folder)[1] if folder.is_dir() else []
        if args.watch is None or refresh_seconds(runs) is None:
            break
        time.sleep(args.watch)
    if mixed := corpora_sentence((run.data_fingerprint for run in runs), (run.stage for run in runs)):
        print(fitted(f"note: {mixed}", console))
    print_answer(page, console)
    print(f"the report is {page}; open it in a browser")
    write_answer(args.json, {"page": str(page), "answer": answer_of(page)})
    after = ("fit", args.source, *(["--stage", args.stage] if args.stage else []), "--json", "fits.json")
    print_next(*(print_unfinished(folder, console) or after))


def print_answer(page: Path, console: "Console") -> None:
    """Print what a page answers, as the numbers beside it state it."""
    for line in answer_of(page):
        print(fitted(line, console))


def answer_of(page: Path) -> list[str]:
    """What a page answers, in lines."""
    from lmscale.core.files import read_json

    lines: list[str] = read_json(page.parent / "fits.json")["answer"]
    return lines


def write_report(
    source: str | Path,
    output: str | Path | None = None,
    *,
    columns: Mapping[str, str] | str | None = None,
    where: str | None = None,
    **settings: Any,
) -> Path:
    """Write the report of a sweep's folder or of a table; the page's path.

    `settings` are those that `report.of_sweep` and `report.of_table` have in common. Raises `UserError` for a folder
    without a plan, a corrupt file, or a table that cannot be read.
    """
    from lmscale.core.config import check
    from lmscale.study import report

    if Path(source).is_dir():
        check(
            columns is None and where is None, "columns and where are for a table; leave them out for a sweep's folder"
        )
        return report.of_sweep(source, output, baselines=corpus_baselines(Path(source)), **settings)
    output = output or Path("reports") / Path(source).name.split(".")[0]
    return report.of_table(source, output, columns=columns, where=where, **settings)


def write_comparison(
    sources: Sequence[str],
    output: Path | None = None,
    *,
    columns: Mapping[str, str] | str | None = None,
    where: str | None = None,
    **settings: Any,
) -> Path:
    """Write the page that compares several sweeps or tables; its path.

    `settings` are those of `comparison.write`; `columns` and `where` are for one source alone. Raises `UserError` for
    them, and as `comparison.write` does.
    """
    from lmscale.core.config import check
    from lmscale.study.report import comparison
    from lmscale.study.report.comparison.sides import labels

    check(len(sources) > 1, "a comparison is of two or more sweeps or tables")
    for name, value in {"columns": columns, "where": where}.items():
        check(value is None, f"--{name} is for one sweep or table; leave it out where several are compared")
    named = "-".join(label.replace("/", "-") for label in labels(sources))
    return comparison.write(sources, output or Path("reports") / named, **settings)


def corpus_baselines(folder: Path) -> dict[str, float]:
    """Bits per byte of simple models on a sweep's validation text, by name; computed once, then read from the cache.

    Empty where the runs were validated on different texts, on a made language or a mixture, or where the text is not
    prepared on this machine. Raises `UserError` as `read_plan` does.
    """
    from contextlib import suppress
    from dataclasses import replace

    from lmscale.core.errors import UserError
    from lmscale.core.plans import read_plan
    from lmscale.lm import data
    from lmscale.lm.data.statistics import corpus_statistics

    configs = {run.config.data for run in read_plan(folder)[1]}
    configs = {replace(config, unique_tokens=None, max_epochs=1.0) for config in configs}
    if len(configs) != 1:
        return {}
    with suppress(UserError):
        config = configs.pop()
        manifest = data.find_manifest(config)
        if manifest is None or manifest.endless or len(manifest.components) > 1:
            return {}
        if manifest.held_out is None or not manifest.held_out.endless:
            tokens = data.prepare(config)
            return corpus_statistics((*tokens.components, tokens)[0], held_out=tokens.held_out).baselines
    return {}
