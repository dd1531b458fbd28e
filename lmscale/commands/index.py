"""`lmscale index`: a corpus as vectors of a trained model, for `lmscale ask`. Importing this loads nothing heavy."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from tyro.conf import Positional

from lmscale.commands.answer import write_answer
from lmscale.commands.next_step import print_next
from lmscale.core.config import check

if TYPE_CHECKING:
    from rich.console import Console

    from lmscale.lm.retrieve.build import BuiltIndex


@dataclass(frozen=True)
class IndexArgs:
    """Keep the chunks of a corpus as vectors of a trained model, so that questions find them.

    Called again after it was broken off, it goes on behind the last finished shard.
    """

    FOLDERS: ClassVar[tuple[str, ...]] = ("output",)

    run: Positional[Path]
    """The folder of a run, runs/<sweep>/<run_id>."""
    output: Positional[Path]
    """The folder of the index."""
    source: str | None = None
    """The corpus, as `lmscale data` takes it: stdlib, a file, a folder, tfds:NAME; by default what the run was trained
    on."""
    layer: int | None = None
    """The layer after which the residual stream stands for a text, counted from 0; by default the middle one."""
    pooling: Literal["mean", "last"] = "mean"
    """Take its mean over the tokens of a chunk, or its value at the last one."""
    chunk_tokens: int | None = None
    """Tokens of a chunk, at most; by default 64, or what the context holds."""
    summaries: bool = False
    """Embed a summary of each chunk, which the run writes, in place of the chunk itself."""
    summary_tokens: int = 32
    """Tokens of a summary, at most."""
    kind: Literal["auto", "exact", "hnsw"] = "auto"
    """exact compares a question with every vector, one shard in memory at a time; hnsw adds a graph of all vectors,
    which memory must hold, and states how many of the exact neighbours it finds, and how fast. auto takes the graph of
    a large index where it is measured to be faster, and exact search elsewhere."""
    step: int | None = None
    """Checkpoint after this many updates; by default the newest."""
    json: Path | None = None
    """Write what the index holds here (- or no file: to standard output, alone)."""


def main(args: IndexArgs, console: "Console") -> None:
    """Make the index and say what it holds.

    Raises `UserError` for a run without a checkpoint, a layer that does not exist, a folder with another index and a
    corpus without text.
    """
    check(args.summary_tokens >= 1, f"--summary-tokens {args.summary_tokens}: at least 1")
    check(args.source != "", "--source is empty: name a corpus, or leave it out")
    from lmscale.commands.console import preparing
    from lmscale.lm.devices import machine

    machine.set_up()
    from lmscale.lm.retrieve.build import IndexSettings
    from lmscale.lm.use.make_index import make_index

    settings = IndexSettings(
        layer=args.layer, pooling=args.pooling, chunk_tokens=args.chunk_tokens,
        summary_tokens=args.summary_tokens if args.summaries else 0, search=args.kind,
    )  # fmt: skip
    with preparing(console) as progress:
        built = make_index(args.run, args.output, settings, source=args.source, step=args.step, progress=progress)
    for sentence in sentences(built):
        console.print(sentence, markup=False, highlight=False)
    write_answer(args.json, {"index": str(args.output), **asdict(built.facts), "reused_shards": built.reused})
    print_next("ask", args.run, args.output, "What ...?")


def sentences(built: "BuiltIndex") -> list[str]:
    """What an index holds, what it cost, and how its search was measured."""
    from lmscale.core.quantities import counted, quantity

    facts = built.facts
    lines = [
        f"{counted(facts.chunks, 'chunk')} of {counted(facts.documents, 'document')}, {quantity(facts.tokens)} tokens, "
        f"as vectors of {facts.dimension} numbers in {counted(len(facts.chunks_by_shard), 'shard')}; embedding took "
        f"{facts.flops:.3g} FLOPs"
    ]
    if built.reused:
        lines.append(f"taken from other calls as they are: {counted(built.reused, 'shard')}")
    if facts.without_summary:
        lines.append(f"the run wrote nothing about {counted(facts.without_summary, 'chunk')}, which stand themselves")
    return [*lines, *search_sentences(built)]


def search_sentences(built: "BuiltIndex") -> list[str]:
    """How the index is searched, and why."""
    from lmscale.lm.retrieve.graph import GRAPH_FROM, is_large

    facts, graph = built.facts, built.graph
    lines = [] if graph is None else [graph.sentence(facts.chunks)]
    if facts.graph is not None:
        assert graph is not None
        slower = "" if graph.faster else ", although exact search is as fast or finds more: see `lmscale ask --exact`"
        return [*lines, f"search is by the graph{slower}"]
    if built.search == "exact":
        why = ""
    elif not is_large(facts.chunks, facts.dimension):
        why = f"; a graph pays from about {GRAPH_FROM // facts.dimension:,} chunks on (--kind hnsw)"
    else:
        why = "; memory holds no graph" if graph is None else "; the graph is not faster here, and is not kept"
    return [*lines, f"search is exact: recall 1{why}"]
