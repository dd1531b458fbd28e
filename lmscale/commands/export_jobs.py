"""`lmscale export-jobs`: one job per run, for schedulers that lmscale does not talk to."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tyro.conf import Positional

from lmscale.commands.answer import write_answer
from lmscale.commands.next_step import print_next

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class ExportJobsArgs:
    """Write one job per run of a sweep, for any scheduler: Kubernetes manifests or shell scripts."""

    sweep: Positional[Path]
    """A file that defines SWEEP, or a plan that `lmscale plan --json` wrote."""
    format: Literal["k8s", "shell"] = "shell"
    """Kubernetes manifests, or shell scripts."""
    runs: Path = Path("runs")
    """Folder that holds one folder per sweep."""
    image: str | None = None
    """Container image with lmscale, for Kubernetes."""
    claim: str | None = None
    """PersistentVolumeClaim that all pods share, with runs/ and cache/ in it."""
    gpus: bool = False
    """Ask for a GPU for every device of a run's mesh; by default runs train on CPUs."""
    check_compiled: str | None = None
    """Compile every run for this machine first, as `lmscale plan --compile` does, and write nothing where one does not
    fit: h100x8, v5e-16."""
    json: Path | None = None
    """Write the files of the jobs here (- or no file: to standard output, alone)."""


def main(args: ExportJobsArgs, console: "Console") -> None:
    """Write the jobs. Raises `UserError` as `jobs.export` does."""
    from lmscale.study import sweep
    from lmscale.study.launch import jobs

    plan = sweep.read(args.sweep)
    if args.check_compiled is not None:
        from lmscale.commands.plan.compiled import check_compiled

        check_compiled(plan.runs, args.check_compiled, console)
    pod = jobs.Pod(image=args.image, claim=args.claim, gpus=args.gpus) if args.image and args.claim else None
    folder = args.runs / plan.sweep.name
    paths, sentence = jobs.export(plan.sweep.name, plan.runs, folder, args.format, pod, plan.sweep.purpose)
    print(sentence)
    write_answer(args.json, {"sweep": plan.sweep.name, "folder": str(folder), "jobs": list(map(str, paths))})
    print_next("status", folder, "--watch")
