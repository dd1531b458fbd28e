"""The texts that are judged: read from files, or written by runs just now."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lmscale.commands.judge.arguments import JudgeArgs
from lmscale.core.config import check
from lmscale.core.run_folder import CONFIG_FILE, OUTCOME_FILE, PLAN_FILE
from lmscale.lm.eval.judge.rubric import Rubric
from lmscale.lm.eval.judge.texts import Author, Text, check_ids, read_prompts, read_texts

if TYPE_CHECKING:
    from lmscale.lm.use.load import Opened

ROWS_AT_ONCE = 32
"""Continuations that a run writes together."""
CHARACTERS_PER_TOKEN = 4
"""What a token has about, for the cost of texts that are not written yet."""


@dataclass(frozen=True)
class Texts:
    """All texts of a call, and who wrote them."""

    texts: list[Text]
    authors: list[Author]


def prompts_of(args: JudgeArgs, rubric: Rubric) -> list[str]:
    """What runs continue. Raises `UserError` where neither the rubric nor the call has prompts."""
    if args.prompts is not None:
        return read_prompts(args.prompts)
    check(bool(rubric.openings), f"the rubric {rubric.name!r} has no openings: name prompts with --prompts FILE")
    return list(rubric.openings)


def gather(args: JudgeArgs, rubric: Rubric, *, write: bool) -> Texts:
    """The texts of files and runs. Without `write`, runs get placeholders of full length, which cost as much.

    Raises `UserError` for a path that is neither, and as `read_texts` and `lm.use.load.open_run` do.
    """
    check(bool(args.texts), "name what is to be judged: runs, a sweep's folder or JSONL files of texts")
    texts: list[Text] = []
    authors: dict[str, Author] = {}
    runs: list[Path] = []
    for path in args.texts:
        if path.is_dir():
            runs += runs_in(path)
            continue
        more, by = read_texts(path)
        texts += more
        for author in by:
            check(
                authors.setdefault(author.name, author) == author,
                f"{path}: the model {author.name!r} has another N before",
            )
    for folder in dict.fromkeys(runs):
        own, author = _texts_of_run(folder, args, rubric) if write else _placeholders(folder, args, rubric)
        check(author.name not in authors, f"two sources of texts have the name {author.name!r}")
        texts += own
        authors[author.name] = author
    check_ids(texts)
    return Texts(texts, sorted(authors.values(), key=lambda author: (author.params is None, author.params or 0)))


def runs_in(folder: Path) -> list[Path]:
    """A run's folder itself, or the trained runs of a sweep. Raises `UserError` for any other folder."""
    if (folder / CONFIG_FILE).is_file():
        return [folder]
    check(
        (folder / PLAN_FILE).is_file(), f"{folder} is neither a run nor a sweep: it has no {CONFIG_FILE} or {PLAN_FILE}"
    )
    trained = sorted(file.parent for file in folder.glob(f"*/{OUTCOME_FILE}"))
    check(bool(trained), f"no run of {folder} has been trained: lmscale run {folder / PLAN_FILE}")
    return trained


def _placeholders(folder: Path, args: JudgeArgs, rubric: Rubric) -> tuple[list[Text], Author]:
    """Texts of full length that differ from each other, or equal ones would be asked about and paid once."""
    name, length = folder.resolve().name, args.max_tokens * CHARACTERS_PER_TOKEN
    prompts = [prompt for prompt in prompts_of(args, rubric) for _ in range(args.n)]
    ids = [f"{name}-{number}" for number in range(len(prompts))]
    return [Text(prompt, id.ljust(length, "x"), name, id) for prompt, id in zip(prompts, ids)], Author(
        name, folder=folder
    )


def _texts_of_run(folder: Path, args: JudgeArgs, rubric: Rubric) -> tuple[list[Text], Author]:
    """Continuations by a run, the same for the same seed."""
    from lmscale.core.results import Outcome
    from lmscale.lm.devices import machine
    from lmscale.lm.eval.task_eval import model_columns
    from lmscale.lm.use.load import open_run

    machine.set_up()
    opened = open_run(folder)
    outcome, config = Outcome.read(folder), opened.run.config
    loss_nats = outcome.loss_nats if outcome is not None and opened.step == config.steps else None
    columns = model_columns(config, opened.step, loss_nats)
    name = config.run_id
    prompts = [prompt for prompt in prompts_of(args, rubric) for _ in range(args.n)]
    continuations = _continuations(opened, prompts, args)
    texts = [Text(prompt, text, name, f"{name}-{i}") for i, (prompt, text) in enumerate(zip(prompts, continuations))]
    return texts, Author(name, columns["params"], tuple(columns.items()), folder)


def _continuations(opened: "Opened", prompts: Sequence[str], args: JudgeArgs) -> list[str]:
    from lmscale.lm.use.generate import generate
    from lmscale.lm.use.sampling import Sampling

    sampling = Sampling(temperature=args.text_temperature)
    texts: list[str] = []
    for start in range(0, len(prompts), ROWS_AT_ONCE):
        rows = prompts[start : start + ROWS_AT_ONCE]
        generated = generate(
            opened.run, rows, max_tokens=args.max_tokens, sampling=sampling, seed=args.seed + start, mesh=opened.mesh
        )
        texts += [completion.text for completion in generated.completions]
    return texts
