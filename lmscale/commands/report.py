"""`lmscale report`: the page about a sweep."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class ReportArgs:
    """Fit a sweep, check its held-out runs, and write one self-contained HTML page about it."""

    folder: Positional[Path]
    """runs/<sweep>."""
    output: Path | None = None
    """Folder of the report; by default <folder>/report."""
    resamples: int = 4000
    """Bootstrap resamples behind each interval."""
    seed: int = 0
    """Seed of the resampling."""


def main(args: ReportArgs, console: "Console") -> None:
    """Write the page. Raises `UserError` where the folder holds no plan or a corrupt file."""
    from lmscale.study import report

    page = report.of_sweep(
        args.folder, args.output, resamples=args.resamples, seed=args.seed, baselines=corpus_baselines(args.folder)
    )
    print(f"the report is {page}")


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

    configs = {replace(run.config.data, unique_tokens=None, max_epochs=1.0) for run in read_plan(folder)[1]}
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
