"""Print a priced plan: a line per run, and the totals."""

import math
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.markup import escape

from lmscale.commands.columns import Columns, omitted, print_columns, room
from lmscale.commands.plan import compiled
from lmscale.commands.plan.attention import plain_note, without_kernel
from lmscale.commands.plan.dependencies import dependencies
from lmscale.commands.plan.rows import PricedPlan, PricedRun
from lmscale.commands.plan.verdict import show_verdict
from lmscale.core.config import PRETRAIN, ExamConfig
from lmscale.core.config.exam import retrieves
from lmscale.core.machines import Machine
from lmscale.core.quantities import counted, duration, in_one_program, quantity, rough_duration
from lmscale.core.results import corpora_sentence
from lmscale.study.sweep import experts_text, flops_text

LEGEND = {
    "shape": "width x layers",
    "N": "all parameters",
    "D": "training tokens",
    "C": "{convention}",
    "epochs": "passes over the training text",
    "batch": "tokens per update",
    "lr": "peak learning rate",
    "MiB": "{memory} peak memory over all devices of {program}",
    "time": "start-up and validation included",
    "by": "where the time is from (measured: the runs of this sweep that have finished)",
}
"""What a column holds, where its heading alone does not say it."""
LEAST_FIRST = (
    "by", "datastore", "MiB", "attention", "step", "epochs", "leaves", "batch", "steps", "lr", "seed", "time", "D/N",
)  # fmt: skip
"""Columns that a narrow window leaves out, in this order."""
SHORT_ID = 6
"""Letters of a run's name by which a branch names its trunk."""
MOST_DATASTORES = 4
"""Sizes of datastores that are listed one by one."""
UNSAID = ("by",)
"""Columns that are left out where all runs have one value: the line of times says it."""
CONSTANTS = {
    "seed": "seed {}", "epochs": "{} epochs", "batch": "{} tokens per batch", "lr": "peak learning rate {}",
    "attention": "attention by {}",
    "datastore": "datastores of {} tokens",
}  # fmt: skip
"""Columns that become a phrase where all runs have one value."""
CONVENTION_NAMES = {
    "flops": "exact training FLOPs, causal attention counted as needed",
    "flops_6n": "6 N D, N all parameters, of experts the active ones",
    "flops_kaplan": "6 N D, N non-embedding (Kaplan)",
    "flops_with_head": "6 N D, N the layers and the head (Porian)",
    "flops_full_attention": "exact, with full attention (PaLM)",
    "flops_deepseek": "DeepSeek's M D",
}


def show(priced: PricedPlan, console: Console, convention: str = "flops", target: Machine | None = None) -> None:
    """Print every run of a plan with its price, the totals, warnings, and the verdict on the design.

    `target` is the machine that it was compiled for.
    """
    sweep = priced.plan.sweep
    title = f"{sweep.name}: {sweep.question}" if sweep.question else sweep.name
    columns, same = _varying(_columns(priced, convention))
    console.print(f"[italic]{escape(title)}[/italic]")
    width = room(console)
    gone = omitted(columns, width, LEAST_FIRST)
    print_columns({name: cells for name, cells in columns.items() if name not in gone}, width, console)
    if same:
        console.print(f"The same in every run: {escape(', '.join(same))}.")
    if gone:
        console.print(f"Columns left out for lack of width: {', '.join(gone)}; --json FILE has them.")
    for line in dependencies(priced.plan.runs):
        console.print(line, markup=False)
    console.print(_totals(priced, convention))
    if priced.begun:
        console.print(_left(priced))
    console.print(f"Times: {priced.hardware.title}.")
    console.print(_legend(priced, convention, [name for name in columns if name not in gone]))
    if target is not None and priced.compiled:
        console.print("step: the least time of an update by the peaks of the machine, a bound and no promise.")
        for sentence in compiled.lines(priced.compiled, target):
            console.print(f"{escape(sentence)}.")
    if priced.sparse:
        console.print("experts: per layer, of which a token passes some. active: the parameters that a token passes.")
    if any(columns.get("leaves", ())):
        console.print("leaves: the trunk, and its step, from which a branch starts.")
    if any(row.epochs is None for row in priced.rows):
        console.print("epochs are unknown until the corpus is prepared: `lmscale data SOURCE`, or `lmscale run`.")
    there = [row for row in priced.rows if row.state]
    mixed = corpora_sentence(
        (row.state.data_fingerprint for row in there if row.state), (row.run.stage for row in there)
    )
    large = (*_memory(priced), *_plain_attention(priced)) if target is None else compiled.notes(priced.compiled, target)
    for sentence in (*priced.plan.warnings, *large, *_limits(priced), *filter(None, [mixed])):
        console.print(f"[yellow]note:[/yellow] {escape(sentence)}")
    if priced.verdict is not None:
        show_verdict(priced.verdict, console)
    elif sweep.law:
        console.print(
            f"The runs are fewer than the unknowns of the law {sweep.law!r}: a trial, so its design is not judged."
        )


def _legend(priced: PricedPlan, convention: str, shown: Sequence[str]) -> str:
    """What the columns that are `shown` hold, where the memory is from, and of how many runs in one program it is."""
    most = max(row.packed for row in priced.rows)
    words = {
        "convention": CONVENTION_NAMES[convention],
        "memory": "compiled" if priced.compiled else "estimated",
        "program": "a run" if most == 1 else f"the program that a run shares with those like it, up to {most} in all",
    }
    return " ".join(f"{name}: {text.format(**words)}." for name, text in LEGEND.items() if name in shown)


def _plain_attention(priced: PricedPlan) -> Iterator[str]:
    """A note on runs that no fused kernel serves on the accelerator that the plan is priced for."""
    if (device := priced.hardware.device) is not None:
        plain = without_kernel(priced.plan.runs, device.platform)
        yield from plain_note(plain, len(priced.plan.runs), device.platform)


def _columns(priced: PricedPlan, convention: str) -> Columns:
    """Heading -> the cell of every run."""
    cells = [_cells(row, priced, convention) for row in priced.rows]
    return {name: [row[name] for row in cells] for name in cells[0]}


def _cells(row: PricedRun, priced: PricedPlan, convention: str) -> dict[str, str]:
    config, counts = row.run.config, row.counts
    cells = {
        "run": config.run_id,
        "shape": f"{config.model.width} x {config.model.layers}",
        "stage": row.run.stage,
        "seed": str(config.seed),
        "experts": experts_text(config.model) if config.model.experts > 1 or priced.sparse else "",
        "N": quantity(counts.params),
        "active": quantity(counts.active_params) if priced.sparse else "",
        "D": quantity(counts.tokens),
        "D/N": f"{counts.tokens_per_param:.3g}",
        "C": f"{getattr(counts, convention):.2e}",
        "epochs": "?" if row.epochs is None else "fresh" if row.epochs == 0 else f"{row.epochs:.2g}",
        "steps": f"{config.steps:,}",
        "batch": quantity(config.batch_tokens),
        "lr": f"{config.optimizer.peak_lr:.2g}",
        "MiB": f"{math.ceil(row.price.memory_bytes / 2**20):,}" + " compiled" * (row.compiled is not None),
        "attention": "" if row.compiled is None else row.compiled.attention,
        "step": _least_time(row),
        "time": duration(row.price.seconds),
        "by": row.price.source,
    }
    if priced.hardware.price_per_hour is not None:
        cells["cost"] = f"{priced.hardware.price_per_hour * row.price.device_seconds / 3600:,.2f}"
    if priced.begun:
        cells["there"] = _there(row)
    notes = ["held out"] if row.run.held_out else []
    if not row.price.fits:
        notes.append("does not fit")
    cells["datastore"] = datastores_text(config.exam)
    branch = "" if row.run.branch_step is None else f"{row.run.trunk[:SHORT_ID]} @ {row.run.branch_step:,}"
    return {**cells, "leaves": branch, "": ", ".join(notes)}


def _least_time(row: PricedRun) -> str:
    """The bound of a compiled step in milliseconds."""
    bound = None if row.compiled is None else row.compiled.bound
    return "" if bound is None else f">= {1e3 * bound.seconds:.3g} ms"


def datastores_text(exam: ExamConfig) -> str:
    """The sizes of the datastores that a run is measured with, in tokens; "" of a run that retrieves nothing."""
    if not retrieves(exam.tasks):
        return ""
    sizes = exam.datastore_tokens
    if len(sizes) > MOST_DATASTORES:
        return f"{len(sizes)} sizes from {quantity(min(sizes))} to {quantity(max(sizes))}"
    return ", ".join(map(quantity, sorted(sizes))) or "0 to all"


def _varying(columns: Columns) -> tuple[Columns, list[str]]:
    """The columns that tell runs apart, and a phrase for each of the others that says the same of every run."""
    several = len(columns["run"]) > 1
    equal = {name for name in (*CONSTANTS, *UNSAID) if len(set(columns[name])) == 1}
    same = {name for name in equal if several or name in UNSAID}
    phrases = [
        phrase.format(columns[name][0])
        for name, phrase in CONSTANTS.items()
        if name in same and columns[name][0] not in ("?", "")
    ]
    stages = {"stage"} if set(columns.get("stage", ())) == {PRETRAIN} else set()
    varying = {name: cells for name, cells in columns.items() if name not in same | stages and any(cells)}
    return varying, phrases


def _totals(priced: PricedPlan, convention: str) -> str:
    plan = priced.plan
    held_out = sum(run.held_out for run in plan.runs)
    sentence = f"{counted(len(plan.runs), 'run')}, {held_out} held out; {flops_text(plan)}"
    if convention != "flops":
        sentence += f" ({sum(getattr(row.counts, convention) for row in priced.rows):.3g} as {convention})"
    if plan.flops_apart > plan.flops:
        sentence += f" ({plan.flops_apart:.3g} if no branch shared its trunk)"
    sentence += f", {priced.hardware.at_once} at once: about {rough_duration(priced.seconds)}"
    if priced.hardware.device is not None:
        sentence += f", {priced.device_hours:.3g} device-hours"
    return sentence + (f", {priced.cost:,.2f} in all." if priced.cost is not None else ".")


def _there(row: PricedRun) -> str:
    """What the sweep's folder holds of a run: its state, and how far it is where that is not its end."""
    assert row.state is not None
    if row.state.state == "missing":
        return "-"
    share = row.flops_done / row.run.paid_flops
    return row.state.state if row.ended or not share else f"{row.state.state} {share:.0%}"


def _left(priced: PricedPlan) -> str:
    """What is done of a sweep that has begun, and what is left to pay."""
    done, left = priced.done(), priced.left()
    share = (done["flops"] or 0.0) / priced.plan.flops
    worth = "" if done["cost"] is None else f", worth {done['cost']:,.2f}"
    sentence = (
        f"Done: {done['runs']} of {len(priced.rows)} runs, {done['flops']:.3g} FLOPs ({share:.0%}), in "
        f"{duration(done['seconds'] or 0.0)} of training{worth}. Left: {left['runs']} runs, {left['flops']:.3g} FLOPs, "
        f"{priced.hardware.at_once} at once: about {rough_duration(left['seconds'] or 0.0)}"
    )
    if priced.hardware.device is not None:
        sentence += f", {left['device_hours']:.3g} device-hours"
    return sentence + (f", {left['cost']:,.2f}." if left["cost"] is not None else ".")


def _memory(priced: PricedPlan) -> list[str]:
    large = [row for row in priced.rows if not row.price.fits]
    device = priced.hardware.device
    if not large or device is None:
        return []
    most = max(large, key=lambda row: row.price.memory_bytes)
    return [
        f"{len(large)} of {len(priced.rows)} runs need more than the {device.memory_bytes / 1e9:.0f} GB of one "
        f"{device.title} (run {most.run.config.run_id}: {most.price.memory_bytes / 1e9:.0f} GB"
        f"{in_one_program(most.packed)}): {compiled.less_memory(most.run.config, most.packed)}"
    ]


def _limits(priced: PricedPlan) -> list[str]:
    sweep, sentences = priced.plan.sweep, []
    if sweep.max_flops is not None:
        planned = f"{priced.plan.flops_apart:.3g}"
        planned += ", branches counted in full" if priced.plan.flops_apart > priced.plan.flops else ""
        sentences.append(f"the sweep may spend {sweep.max_flops:.3g} FLOPs, of which the plan takes {planned}")
    if sweep.max_hours is not None:
        sentences.append(
            f"the sweep may take {sweep.max_hours:g} hours of runs, of which these take {priced.run_hours:.3g}"
        )
    return sentences
