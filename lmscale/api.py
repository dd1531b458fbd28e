"""One call for what each main verb does, for notebooks and scripts; imported as `lmscale.plan`, `lmscale.run`, ..."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from lmscale.study.sweep import Plan, Sweep


def plan(sweep: "Sweep | Plan | str | Path") -> "Plan":
    """The runs of a sweep, counted and checked; nothing is started."""
    from lmscale.study.sweep import Plan, Sweep, read
    from lmscale.study.sweep import plan as planned

    if isinstance(sweep, Plan):
        return sweep
    return planned(sweep) if isinstance(sweep, Sweep) else read(Path(sweep))


def run(
    sweep: "Sweep | Plan | str | Path",
    runs: str | Path = "runs",
    *,
    workers: int | None = None,
    pack: int = 1,
    wandb: Literal["off", "offline", "online"] = "off",
) -> Path:
    """Train what is missing of a sweep, as `lmscale run` does; the sweep's folder."""
    from rich.console import Console

    from lmscale.commands.run import run_sweep

    planned = plan(sweep)
    run_sweep(planned, Path(runs), Console(), workers=workers, pack=pack, wandb=wandb)
    return Path(runs) / planned.sweep.name


def report(folder: str | Path, output: str | Path | None = None, **options: Any) -> Path:
    """Fit a sweep's folder, check its held-out runs and write the report; the page's path."""
    from lmscale.study.report import of_sweep

    return of_sweep(folder, output, **options)


def load(folder: str | Path, step: int | None = None) -> Any:
    """(configuration, parameters, tokenizer) of a trained run."""
    raise NotImplementedError
