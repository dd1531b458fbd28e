"""One call for what each main verb does, for notebooks and scripts; imported as `lmscale.plan`, `lmscale.run`, ..."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lmscale.core.arguments import Count, Natural, NotNegative, checked

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from lmscale.lm.retrieve.build import BuiltIndex
    from lmscale.lm.use.ask import Answer
    from lmscale.lm.use.load import TrainedRun
    from lmscale.study.laws import Law
    from lmscale.study.sweep import Plan, Sweep


@checked
def plan(sweep: "Sweep | Plan | str | Path", *, compile: str | None = None, pack: Count = 1) -> "Plan":
    """The runs of a sweep, counted and checked; nothing is started. `print` shows every run.

    Args:
        sweep: a `Sweep`, a file that defines one as SWEEP, or a file that `lmscale plan --json` wrote. A `Plan` is
            returned as it is.
        compile: a machine that need not be here, as `lmscale plan --compile` takes it: "v5e-16", "h100x8". The plan's
            `compiled` then maps each run_id to what the compiler says: whether it fits, bytes per device, kernels.
        pack: up to this many runs of one shape and length share a compiled program, as `lmscale.run` trains them.

    Raises `UserError` for a sweep that cannot be planned, for an unknown machine and for a compiler that is missing.
    """
    from lmscale.study.sweep import Plan, Sweep, read
    from lmscale.study.sweep import plan as plan_of_sweep

    if isinstance(sweep, Plan):
        planned = sweep
    else:
        planned = plan_of_sweep(sweep) if isinstance(sweep, Sweep) else read(Path(sweep))
    return planned if compile is None else _compiled(planned, compile, pack)


def _compiled(plan: "Plan", name: str, pack: int) -> "Plan":
    """The plan with what the compiler says of each run on the machine called `name`."""
    from dataclasses import replace

    from lmscale.core.machines import machine
    from lmscale.study.compiled import compile_runs

    outcomes = compile_runs(plan.runs, machine(name), pack=pack)
    return replace(plan, compiled={run.config.run_id: outcome for run, outcome in zip(plan.runs, outcomes)})


@checked
def run(
    sweep: "Sweep | Plan | str | Path",
    runs: str | Path = "runs",
    *,
    workers: Count | None = None,
    pack: Count = 1,
    wandb: Literal["off", "offline", "online"] = "off",
    force: bool = False,
) -> Path:
    """Train every run of a sweep that has no outcome yet, each in a process of its own; the sweep's folder.

    The folder is what `fits.fit`, `lmscale.report` and `read_table` take. Runs that diverge stay in the table with
    their state, and no fit sees them. Calling this again continues where an interrupted call stopped.

    Args:
        sweep: as `lmscale.plan` takes it.
        runs: folder that holds one folder per sweep.
        workers: runs at once; None is one per GPU, or one per core.
        pack: up to this many runs of one shape and length share a program, for small models on a GPU.
        wandb: sends metrics to Weights & Biases as well.
        force: trains a plan that cannot identify its law, too.

    Raises `RunsFailed` once all other runs are at an end, with the reasons in `.failed`; `KeyboardInterrupt` where the
    sweep was interrupted or stopped, after every run has saved a checkpoint; and `UserError` for a plan that cannot
    identify its law, that would spend more than the sweep may, or whose folder holds another sweep.
    """
    from lmscale.commands.console import open_console
    from lmscale.commands.plan.verb import check_plan
    from lmscale.commands.run import run_sweep
    from lmscale.core.errors import RunsFailed

    planned, folder = plan(sweep), Path(runs)
    check_plan(planned, force)
    summary = run_sweep(planned, folder, open_console(), workers, pack, wandb)
    folder = folder / planned.sweep.name
    if summary.interrupted:
        raise KeyboardInterrupt(f"{folder} was stopped; the same call continues from its checkpoints")
    if summary.failed:
        raise RunsFailed(summary.failed, folder)
    return folder


@checked
def report(
    source: "str | Path | Sequence[str | Path]",
    output: str | Path | None = None,
    *,
    title: str = "",
    question: str = "",
    resamples: Natural | None = None,
    stage: str | None = None,
    mixed_corpora: bool = False,
    seed: Natural = 0,
    columns: "dict[str, str] | str | None" = None,
    where: str | None = None,
    law: "str | type[Law] | None" = None,
    given: "Mapping[str, float] | None" = None,
) -> Path:
    """Fit a sweep's folder or a table, check its held-out runs and write one self-contained page; the page's path.

    Args:
        source: the folder of a sweep; or a table as `read_table` takes it: a file, or `"chinchilla"` for the published
            runs that ship with lmscale. Several of them, in a list, get a page that compares them with the first.
        output: folder of the report; None is `<source>/report` for a sweep, `reports/<name>` for a table,
            `reports/<a>-<b>` for several.
        title: of the page; empty names the source.
        question: the sentence that the page answers; empty is the sweep's own, or that of its kind.
        resamples: bootstrap resamples behind each interval; None is 4000 for Approach 3 and 1000 for 1 and 2.
        stage: of training that the page is about, where there are several; None is pretraining.
        mixed_corpora: fits runs on several corpora together.
        seed: of the resampling.
        columns: what a table calls our columns, {"params": "n_params"}; usual names are recognised.
        where: keeps only rows of a table for which this expression is true.
        law: the form of Approach 3, a name, class or import path; None is that of the sweep, else Chinchilla's.
        given: values of the law's inputs besides N and D, at which its allocation is stated.

    Raises `UserError` for a folder without a plan, a corrupt file, a law that there is not, or a table that cannot be
    read.
    """
    from lmscale.commands.report import write_comparison, write_report
    from lmscale.core.config import check

    if not isinstance(source, str | Path):
        check(not title and not question, "title and question are for one sweep or table; leave them out for several")
        return write_comparison(
            [str(one) for one in source], None if output is None else Path(output), resamples=resamples, seed=seed,
            stage=stage, mixed_corpora=mixed_corpora, columns=columns, where=where, law=law, given=given,
        )  # fmt: skip
    return write_report(
        source, output, title=title, question=question, resamples=resamples, stage=stage,
        mixed_corpora=mixed_corpora, seed=seed, columns=columns, where=where, law=law, given=given,
    )  # fmt: skip


@checked
def load(folder: str | Path, step: Natural | None = None) -> "TrainedRun":
    """(configuration, parameters, tokenizer) of a trained run, after `step` updates or at its newest checkpoint.

        config, params, tokenizer = lmscale.load("runs/mine/0123456789ab")

    Raises `UserError` for a folder without a run, and for a run without that checkpoint.
    """
    from lmscale.lm.use.load import load as load_run

    return load_run(folder, step)


@checked
def index(
    run: str | Path,
    folder: str | Path,
    *,
    source: str | None = None,
    layer: Natural | None = None,
    pooling: Literal["mean", "last"] = "mean",
    chunk_tokens: Count | None = None,
    summary_tokens: Natural = 0,
    search: Literal["auto", "exact", "hnsw"] = "auto",
    step: Natural | None = None,
) -> "BuiltIndex":
    """Index a corpus by a trained run in `folder`, or finish a broken-off index there; what it holds.

        lmscale.index("runs/mine/0123456789ab", "index", source="books/").facts.chunks

    Args:
        run: folder of the run, runs/<sweep>/<run_id>.
        folder: of the index.
        source: the corpus, as in `DataConfig.source`; None is the training text of the run.
        layer: the one after which the residual stream stands for a text, counted from 0; None is the middle one.
        pooling: its mean over a chunk, or its value at the last token.
        chunk_tokens: of a chunk, at most; None is 64, or what the context holds.
        summary_tokens: of a summary that the run writes and that is embedded in place of each chunk; 0 writes none.
        search: exact, by a graph as well (hnsw), or what was measured to be faster.
        step: checkpoint after this many updates; None is the newest.

    Raises `UserError` for a run without a checkpoint, a layer that it does not have, a folder with another index, and a
    corpus without text.
    """
    from lmscale.lm.retrieve.build import IndexSettings
    from lmscale.lm.use.make_index import make_index

    settings = IndexSettings(
        layer=layer, pooling=pooling, chunk_tokens=chunk_tokens, summary_tokens=summary_tokens, search=search
    )
    return make_index(Path(run), Path(folder), settings, source=source, step=step)


@checked
def ask(
    run: str | Path,
    index: str | Path,
    question: str,
    *,
    passages: Count = 4,
    max_tokens: Count | None = None,
    temperature: NotNegative = 0.0,
    seed: Natural = 0,
    exact: bool = False,
    step: Natural | None = None,
) -> "Answer":
    """Answer a question from the passages of an index that are nearest to it.

        print(*lmscale.ask("runs/mine/0123456789ab", "index", "What does bisect return?").sentences)

    Args:
        run: folder of the run that made the index.
        index: folder of the index.
        question: put behind the passages.
        passages: retrieved; as many of the nearest are read as fit into the context.
        max_tokens: of the answer; None is 128, or a quarter of a short context.
        temperature: 0 takes the likeliest token each time.
        seed: of the draws.
        exact: compares all vectors, though the index has a graph.
        step: checkpoint after this many updates; None is the newest.

    Raises `UserError` for a folder without a whole index, one that another run made, and a question that does not fit.
    """
    from lmscale.lm.use.ask import AskSettings, ask_run
    from lmscale.lm.use.sampling import Sampling

    settings = AskSettings(passages, max_tokens, Sampling(temperature=temperature), seed, exact)
    return ask_run(Path(run), Path(index), question, settings, step)


@checked
def inspect(
    folder: str | Path,
    *,
    text: str | None = None,
    task: str | None = None,
    pairs: str | Path | None = None,
    units: "Sequence[str]" = (),
    most_pairs: Count = 32,
    heads: bool = False,
    step: Natural | None = None,
    seed: Natural = 0,
) -> "dict[str, Any]":
    """What happens inside a trained run, as `lmscale inspect --json` writes it.

        lmscale.inspect("runs/mine/0123456789ab", heads=True)["heads"]["induction"]    # [layer][head]

    Args:
        folder: of the run, runs/<sweep>/<run_id>.
        text: is read: attention of every head, and what each layer would predict.
        task: pairs of prompts are made from it, FORMAT:PATH or synthetic:tasks(...).
        pairs: file of pairs, JSONL.
        units: what is patched on the pairs: heads, attention, mlps, positions, neurons; empty takes the first three.
        most_pairs: pairs of every task, at most.
        heads: scores all heads on repeated random tokens, and ablates the strongest induction heads.
        step: checkpoint after this many updates; None is the newest.
        seed: of random tokens, of pairs that are made and of intervals.

    Raises `UserError` for a folder without a run or a checkpoint, and for what cannot be measured.
    """
    from lmscale.commands.inspect import InspectArgs, measure
    from lmscale.commands.inspect.verb import check_args
    from lmscale.commands.score.models import in_order_of_scale

    args = InspectArgs(
        (Path(folder),), text=text, task=task, pairs=None if pairs is None else Path(pairs), units=tuple(units),
        most_pairs=most_pairs, heads=heads, step=step, seed=seed,
    )  # fmt: skip
    check_args(args)
    return measure.inspect_models(in_order_of_scale(args.runs), args, text, lambda *_: None)[0].to_json()


@checked
def judge(
    *texts: str | Path,
    server: str | None = None,
    model: str | None = None,
    key_variable: str | None = None,
    rubric: str | Path = "tinystories",
    pairs: bool = False,
    samples: Count = 1,
    human: str | Path | None = None,
    offline: bool = False,
    people: str | Path | None = None,
    answers: "Sequence[str | Path]" = (),
    output: str | Path | None = None,
    prompts: str | Path | None = None,
    max_tokens: Count = 200,
    n: Count = 1,
    seed: Natural = 0,
    dry_run: bool = False,
) -> "dict[str, Any]":
    """Texts graded, compared or measured, as `lmscale judge --json` writes it; runs get their scores as well.

        lmscale.judge("runs/mine", offline=True)["rows"]
        lmscale.judge("runs/mine", server="http://localhost:8000/v1", model="NAME", pairs=True)["ratings"]

    Args:
        texts: runs, a sweep's folder, or JSONL files of texts.
        server: OpenAI-compatible, whose `model` judges.
        model: its name on the server.
        key_variable: the environment variable that holds the server's key.
        rubric: what is asked: "tinystories", or a TOML or JSON file.
        pairs: compares texts of different models, in both orders, instead of grading each.
        samples: answers to every question.
        human: file of grades by people, JSONL; agreement with them is measured.
        offline: measures without a judge: readability, variety, repetition.
        people: page of blinded pairs, HTML: written, or with `answers` the one that they answered.
        answers: files that people saved from the page.
        output: file into which what people prefer is written as pairs, JSONL.
        prompts: file of what runs continue; None takes the rubric's openings.
        max_tokens: of a continuation.
        n: continuations of every prompt.
        seed: of the texts, of the choice of pairs and of intervals.
        dry_run: asks nothing; only the cost is returned.

    Raises `UserError` for texts that cannot be judged, a judge that does not answer, and arguments that do not go
    together.
    """
    from rich.console import Console

    from lmscale.commands.judge import JudgeArgs, verb

    def path(name: str | Path | None) -> Path | None:
        return None if name is None else Path(name)

    args = JudgeArgs(
        tuple(map(Path, texts)), server=server, model=model, key_variable=key_variable, rubric=str(rubric),
        pairs=pairs, samples=samples, human=path(human), offline=offline, people=path(people),
        answers=tuple(map(Path, answers)), output=path(output), prompts=path(prompts), max_tokens=max_tokens, n=n,
        seed=seed, dry_run=dry_run,
    )  # fmt: skip
    return verb.judge(args, Console(quiet=True))
