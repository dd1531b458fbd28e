"""Which runs of a plan need which, drawn as a tree."""

from collections.abc import Iterator, Sequence

from lmscale.core.plans import PlannedRun
from lmscale.core.quantities import quantity
from lmscale.study.sweep import PARENT_VERBS

SHOWN = 60
"""Most lines of a drawing."""


def dependencies(runs: Sequence[PlannedRun]) -> list[str]:
    """A tree of the runs that need others and of those that they need; nothing where none does.

    A run stands below the first that it needs, and names the others.
    """
    by_id = {run.config.run_id: run for run in runs}
    children: dict[str, list[tuple[str, PlannedRun]]] = {}
    for run in runs:
        for role, name in list(run.config.parents.items())[:1]:
            children.setdefault(name.run_id, []).append((role, run))
    if not children:
        return []
    below = {run.config.run_id for members in children.values() for _, run in members}
    roots = [name for name in children if name not in below]
    lines = ["Which run needs which:"]
    for root in roots:
        lines.append(f"  {_label(by_id[root])}" if root in by_id else f"  {root} of another sweep, or imported")
        lines += _below(root, children, "  ")
    hidden = len(lines) - SHOWN
    return lines if hidden <= 0 else [*lines[:SHOWN], f"  ... {hidden:,} more"]


def _below(root: str, children: dict[str, list[tuple[str, PlannedRun]]], indent: str) -> Iterator[str]:
    members = children.get(root, [])
    for number, (role, run) in enumerate(members, start=1):
        last = number == len(members)
        others = list(run.config.parents.items())[1:]
        also = "".join(f", {PARENT_VERBS[other]} {name}" for other, name in others)
        yield f"{indent}{'└' if last else '├'} {_label(run)}, {PARENT_VERBS[role]} it{also}"
        yield from _below(run.config.run_id, children, indent + ("  " if last else "│ "))


def _label(run: PlannedRun) -> str:
    config = run.config
    return f"{config.run_id} {run.stage}, {config.model.width} x {config.model.layers}, D {quantity(config.tokens)}"
