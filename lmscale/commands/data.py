"""`lmscale data`: prepare a corpus and report what is in it: counts, rank and frequency, lengths, baselines."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from tyro.conf import Positional

from lmscale.commands.answer import write_answer
from lmscale.commands.console import preparing
from lmscale.commands.next_step import print_next
from lmscale.core.quantities import quantity

if TYPE_CHECKING:
    from rich.console import Console

    from lmscale.core.config import DataConfig, synthetic
    from lmscale.lm.data import Manifest
    from lmscale.lm.data.statistics import Statistics

WIDTH, HEIGHT = 60, 14
"""Characters of the plot of rank and frequency."""
BAR = 40
SHOWN_SKIPPED = 20
CONTEXT = 128
FAR = 2.0
"""A split that is too large or too small by this factor is reported."""


@dataclass(frozen=True)
class DataArgs:
    """Prepare a corpus, once, and report what is in it."""

    FOLDERS: ClassVar[tuple[str, ...]] = ("output",)

    source: Positional[str] = "stdlib"
    """`stdlib`, `stdlib:code`, `stdlib:docstrings`, a file or folder of text, JSONL or Parquet, tfds:NAME,
    synthetic:LANGUAGE(...), tokens:PATH (ids that others wrote: nanoGPT, llm.c, Megatron, OLMo, datatrove, Hugging
    Face `datasets`), or a mixture of these: "mix: 0.7 * stdlib + 0.3 * books/"."""
    text_field: str = "text"
    """Field of JSONL rows, Parquet columns or TFDS examples that holds the text; column of a saved data set."""
    prompt_field: str | None = None
    """Field that holds a prompt, which is put before the text."""
    template: str | None = None
    """How records become prompts and answers: alpaca, completion, preference, chat, or a text with fields in braces."""
    rejected_field: str | None = None
    """Field that holds a rejected answer: records are pairs of answers to a prompt."""
    tokenizer: str = "bytes"
    """`bytes`, `bpe:V` trained on the training split, or a tokenizer.json."""
    validation_fraction: float = 0.05
    """Share of the documents for the validation split."""
    validation_source: str | None = None
    """Validate on this source of its own, and hold nothing of SOURCE out for it."""
    test_fraction: float = 0.0
    """Share of the documents for the test split."""
    unreadable: Literal["skip", "refuse"] = "skip"
    """What to do with files and lines that are not UTF-8 text."""
    near_duplicates: float | None = None
    """Remove documents that share this fraction of their five-word sequences with another (needs datasketch)."""
    unique_tokens: int | None = None
    """Use only this many training tokens, from the first on."""
    allow_download: bool = False
    """Allow TFDS to download the data set."""
    output: Path | None = None
    """Folder for a figure of the same."""
    json: Path | None = None
    """Write what was prepared, and the statistics of each of its corpora here (- or no file: to standard output,
    alone)."""


def main(args: DataArgs, console: "Console") -> None:
    """Prepare the corpus and print what is in it. Raises `UserError` as `data.prepare` does."""
    from lmscale.core.config import DataConfig

    settings = {item.name for item in fields(DataConfig)}
    config = DataConfig(**{item.name: getattr(args, item.name) for item in fields(args) if item.name in settings})
    show(config, console, args.output, allow_download=args.allow_download, json=args.json)
    print_next("plan", "SWEEP.py")


def show(
    config: "DataConfig",
    console: "Console",
    output: Path | None = None,
    allow_download: bool = False,
    json: Path | None = None,
) -> None:
    """Prepare the corpus of `config`, print what is in it, draw it into the folder `output`, and write it to `json`.

    Raises `UserError` as `data.prepare` does.
    """
    from rich.markup import escape

    from lmscale.lm import data
    from lmscale.lm.data.statistics import corpus_statistics

    with preparing(console) as progress:
        tokens = data.prepare(config, progress=progress, allow_download=allow_download)
        parts, held_out = tokens.components or (tokens,), tokens.held_out
        statistics = {
            part.manifest.fingerprint: corpus_statistics(part, progress, held_out)
            for part in parts
            if not (part.manifest.endless or (held_out is not None and held_out.manifest.endless))
        }
    if json is not None:
        write_answer(json, _value(tokens.manifest, statistics.values()))
    weights, used = tokens.manifest.weights or (1,), [0] * len(parts)
    if config.unique_tokens is not None:
        used = tokens.manifest.unique_windows(CONTEXT)
    for weight, part, leading in zip(weights, parts, used):
        manifest = part.manifest
        share = f", {weight / sum(weights):.4g} of the training tokens" if len(parts) > 1 else ""
        _print_source(manifest, share, console)
        if held_out is None and not manifest.endless:
            _print_held_out(manifest, config, console)
        if manifest.fingerprint in statistics:
            _print_statistics(statistics[manifest.fingerprint], console)
        if config.unique_tokens is not None:
            console.print(
                f"of it the leading {leading * CONTEXT:,} training tokens are used, in sequences of {CONTEXT}"
            )
        if output is not None and manifest.fingerprint in statistics:
            path = _figure(statistics[manifest.fingerprint], output)
            console.print(f"figure: {escape(str(path))}")
    if held_out is not None:
        _print_source(held_out.manifest, ", to validate on", console)


def _value(manifest: "Manifest", statistics: "Iterable[Statistics]") -> dict[str, Any]:
    """The manifest and the statistics of every corpus that has an end, baselines among them."""
    of_corpora = [{**asdict(one), "baselines_bits_per_byte": one.baselines} for one in statistics]
    return {"manifest": manifest.to_json(), "statistics": of_corpora}


def _print_source(manifest: "Manifest", share: str, console: "Console") -> None:
    """Print what is known of a corpus, or of a language without end."""
    from lmscale.core.config import synthetic

    if manifest.endless:
        _print_language(synthetic.parse(manifest.source), share, console)
    else:
        _print_corpus(manifest, share, console)


def _print_corpus(manifest: "Manifest", share: str, console: "Console") -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("split", "documents", "bytes", "tokens", "bytes per token"):
        table.add_column(heading, justify="left" if heading == "split" else "right")
    if manifest.train_scored_tokens is not None:
        table.add_column("tokens of answers", justify="right")
    for split in ("train", "validation", "test"):
        if tokens := manifest.tokens(split):
            documents, text_bytes = (getattr(manifest, f"{split}_{name}") for name in ("documents", "bytes"))
            scored = getattr(manifest, f"{split}_scored_tokens")
            answers = [] if scored is None else [f"{scored:,}"]
            table.add_row(
                split, f"{documents:,}", f"{text_bytes:,}", f"{tokens:,}", f"{text_bytes / tokens:.3f}", *answers
            )
    console.print(f"corpus {escape(manifest.source)}{share}")
    console.print(table)
    near = f", {manifest.near_duplicates_removed:,} near duplicates" if manifest.near_duplicates_removed else ""
    in_file = f", in {manifest.tokenizer_file}" if manifest.tokenizer.startswith("bpe:") else ""
    removed = f"removed: {manifest.duplicates_removed:,} duplicates{near}, {manifest.empty_removed:,} empty documents\n"
    console.print(
        f"{'' if manifest.tokens_path else removed}"
        f"tokenizer {escape(manifest.tokenizer)}, vocabulary {manifest.vocab:,}, end of document "
        f"{manifest.end_of_document}{escape(in_file)}\n{escape(str(manifest.folder))}"
    )
    if manifest.template:
        console.print("template, whose last field and what follows it are the answer:", markup=False)
        for line in manifest.template.splitlines():
            console.print(f"    {line}", markup=False)
    for remark in manifest.remarks:
        console.print(escape(remark))
    for skipped in manifest.skipped[:SHOWN_SKIPPED]:
        console.print(f"skipped {escape(skipped.path)}: {escape(skipped.reason)}")
    if (more := len(manifest.skipped) - SHOWN_SKIPPED) > 0:
        console.print(f"and {more:,} more skipped")


def _print_held_out(manifest: "Manifest", config: "DataConfig", console: "Console") -> None:
    """Print a sentence for each split far from the size asked for: whole documents are assigned by their hash."""
    total = manifest.train_bytes + manifest.validation_bytes + manifest.test_bytes
    documents = manifest.train_documents + manifest.validation_documents + manifest.test_documents
    for split, asked in (("validation", config.validation_fraction), ("test", config.test_fraction)):
        share = getattr(manifest, f"{split}_bytes") / total
        if split in manifest.own_splits:
            continue
        if asked and not asked / FAR < share < asked * FAR:
            console.print(
                f"{split} has {share:.2%} of the text, {asked:.2%} were asked for: {documents:,} documents "
                f"of different lengths fall into the splits whole; give more, or another {split}_fraction"
            )


def _print_language(spec: "synthetic.Language", share: str, console: "Console") -> None:
    from rich.markup import escape

    from lmscale.core.config import synthetic
    from lmscale.lm.data import languages

    console.print(f"language {escape(spec.spec)}{share}: endless, {spec.vocab:,} ids, written as {spec.tokenizer}")
    if (entropy := languages.entropy_nats(spec, CONTEXT)) is not None:
        console.print(f"no model can have a loss below {entropy:.6f} nats per token at context {CONTEXT}")
    if isinstance(spec, synthetic.ZipfFacts):
        model, of_data = languages.zipf_facts.exponents(spec)
        console.print(f"exponents of the excess loss in theory: model {model:.4g}, data {of_data:.4g}")
    if isinstance(spec, synthetic.Tasks):
        for task in languages.tasks.all_tasks(spec):
            exact, graded = task.chance
            console.print(f"{task.name}: chance {exact:.3g} all or nothing, {graded:.3g} graded")


def _print_statistics(statistics: "Statistics", console: "Console") -> None:
    series = {
        "tokens": (statistics.token_ranks, statistics.token_counts),
        "words": (statistics.word_ranks, statistics.word_counts),
    }
    console.print("\ntimes counted by rank, both logarithmic (o tokens, + words)")
    for line in _scatter(list(series.values()), "o+"):
        console.print(line, markup=False)
    console.print("\ntraining documents by length in tokens")
    most = max(statistics.length_counts)
    for low, high, count in zip(statistics.length_edges, statistics.length_edges[1:], statistics.length_counts):
        bar = "█" * math.ceil(BAR * count / most)
        console.print(f"{quantity(low):>6} to {quantity(high):<6} {bar} {count:,}", markup=False)
    baselines = ", ".join(f"{name} {bits:.4f}" for name, bits in statistics.baselines.items())
    console.print(
        f"\nbaselines in bits per byte of validation text: {baselines}\n({statistics.scored_tokens:,} tokens scored, "
        f"{statistics.compressed_bytes:,} bytes compressed)"
    )


def _scatter(series: Sequence[tuple[Sequence[int], Sequence[int]]], marks: str) -> list[str]:
    """A scatter plot in characters, both axes logarithmic, with the ends of both labelled."""
    top = max(max(counts) for _, counts in series)
    right = max(max(ranks) for ranks, _ in series)
    grid = [[" "] * WIDTH for _ in range(HEIGHT)]
    for (ranks, counts), mark in zip(series, marks):
        for rank, count in zip(ranks, counts):
            x = round((WIDTH - 1) * math.log(rank) / max(1e-9, math.log(right)))
            y = round((HEIGHT - 1) * math.log(count) / max(1e-9, math.log(top)))
            grid[HEIGHT - 1 - y][x] = mark
    names = [quantity(top), *[""] * (HEIGHT - 2), "1"]
    lines = [f"{name:>7} │{''.join(row).rstrip()}" for name, row in zip(names, grid)]
    return [*lines, f"{'':7} └{'─' * WIDTH}", f"{'':8} 1{quantity(right):>{WIDTH - 1}}"]


def _figure(statistics: "Statistics", folder: Path) -> Path:
    """Draw rank and frequency beside document lengths as one SVG; its path."""
    from lmscale.study import plots
    from lmscale.study.plots import corpus

    with plots.style():
        figure, (left, right) = plots.canvas(9, 3.8, panels=2)
        tokens = statistics.token_ranks, statistics.token_counts
        words = statistics.word_ranks, statistics.word_counts
        corpus.rank_frequency(left, {"tokens": tokens, "words": words})
        corpus.lengths(right, statistics.length_edges, statistics.length_counts)
        return plots.save(figure, folder / f"corpus_{statistics.fingerprint}.svg")
