"""The models that `lmscale score` reads a text with, in order of scale."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmscale.core.config import IMPORTED, RunConfig, check
from lmscale.core.counting import count
from lmscale.core.errors import UserError
from lmscale.core.files import IMPORT_AGAIN, read_json
from lmscale.core.plans import read_plan
from lmscale.core.quantities import model_size
from lmscale.core.run_folder import CHECKPOINT_FOLDER, CONFIG_FILE, IMPORTED_FILE, no_run
from lmscale.core.run_identity import read_config

if TYPE_CHECKING:
    from lmscale.lm.data.tokenizer import Tokenizer
    from lmscale.lm.use.load import Opened
    from lmscale.lm.use.score_text import Alternatives, ScoredText

Progress = Callable[[str, float], None]
"""Called with what is being done and the share of it that is."""
SHOWN = 3
"""Models whose reading is shown: the smallest, the middle and the largest."""


@dataclass(frozen=True)
class Reading:
    """A text as one model reads it, token by token."""

    scored: "ScoredText"
    alternatives: "Alternatives | None"
    """Surprise of its first tokens, for a page."""
    tokenizer: "Tokenizer"


@dataclass(frozen=True)
class ScoredModel:
    """A model and what a text costs it."""

    folder: Path
    params: int
    """N, embeddings included."""
    active_params: int
    """Parameters that one token passes: fewer than N in a model with experts, else the same."""
    training_tokens: int | None
    """D up to the checkpoint; None of an imported model whose D is not known."""
    step: int | None
    """Updates; None of an imported model."""
    sums: dict[str, Any]
    """`ScoredText.to_json`."""
    reading: Reading | None
    """None where only its sums are wanted: the readings of many models would fill the memory."""

    @property
    def size(self) -> str:
        """N as text, with the active part of a model with experts."""
        return model_size(self.params, self.active_params)


@dataclass(frozen=True)
class Choice:
    """What is read with, and how."""

    folders: Sequence[Path]
    """In order of scale."""
    left_out: tuple[str, ...]
    """Why other runs are not."""


def runs_of_sweep(sweep: Path) -> Choice:
    """The runs of a sweep that have a checkpoint. Raises `UserError` where none has."""
    _, planned = read_plan(sweep)
    folders = [sweep / run.config.run_id for run in planned]
    there = [folder for folder in folders if (folder / CONFIG_FILE).is_file() and _has_checkpoint(folder)]
    check(
        bool(there),
        f"no run in {sweep} has a checkpoint; train it with keep_checkpoint=True, as recipes.cpu(keep_checkpoint=True) "
        f"does",
    )
    language = [folder for folder in there if not read_config(folder).model.scalar_head]
    check(bool(language), f"all runs in {sweep} are reward models; score with one of them, runs/<sweep>/<run_id>")
    counts = {
        ("has no checkpoint", "have no checkpoint"): len(folders) - len(there),
        ("is a reward model", "are reward models"): len(there) - len(language),
    }
    left_out = [
        f"{number} of {len(folders)} runs {many} and are left out"
        if number > 1
        else f"1 of {len(folders)} runs {one} and is left out"
        for (one, many), number in counts.items()
        if number
    ]
    return Choice(in_order_of_scale(language), tuple(left_out))


def is_reward_model(folders: Sequence[Path]) -> bool:
    """Whether the run that is given is a reward model. Raises `UserError` for one among several runs."""
    reward = [
        folder for folder in folders if (folder / CONFIG_FILE).is_file() and read_config(folder).model.scalar_head
    ]
    check(
        not reward or len(folders) == 1,
        f"{reward and reward[0]} is a reward model: score with it alone, it gives one number for an answer",
    )
    return bool(reward)


def in_order_of_scale(folders: Sequence[Path]) -> list[Path]:
    """Smaller N first, and of one N fewer training tokens. Raises `UserError` for a folder that is no run's."""
    for folder in folders:
        if not (folder / CONFIG_FILE).is_file():
            raise UserError(no_run(folder))
    return sorted(dict.fromkeys(folders), key=lambda folder: _scale(read_config(folder)))


def shown(number: int) -> list[int]:
    """Which of so many models, in order of scale, are shown."""
    return sorted({0, number // 2, number - 1}) if number > SHOWN else list(range(number))


def score_models(
    choice: Choice,
    documents: Sequence[bytes],
    lines: Sequence[int],
    *,
    end: bool,
    step: int | None,
    ranked_tokens: int,
    keep_all: bool,
    progress: Progress,
) -> list[ScoredModel]:
    """Every model's reading, one model in memory at a time.

    `ranked_tokens` is of how many tokens the alternatives are wanted; with `keep_all` no reading is dropped.
    """
    from lmscale.lm.use import load
    from lmscale.lm.use.score_text import alternatives, score_text

    models, visible = [], shown(len(choice.folders))
    for number, folder in enumerate(choice.folders):
        opened = load.open_run(folder, step)
        read = partial(progress, f"scoring with {folder.name} ({number + 1} of {len(choice.folders)})")
        scored = score_text(opened.run, documents, opened.mesh, end=end, lines=lines, progress=read)
        reading = None
        if keep_all or number in visible:
            ranked = number in visible and ranked_tokens > 0
            others = alternatives(opened.run, scored, ranked_tokens, opened.mesh) if ranked else None
            reading = Reading(scored, others, opened.run.tokenizer)
        counts, sums = count(opened.run.config), scored.to_json()
        training = _training(folder, opened)
        models.append(ScoredModel(folder, counts.params, counts.active_params, *training, sums, reading))
    return models


def _has_checkpoint(folder: Path) -> bool:
    try:
        return any(path.name.isdigit() for path in (folder / CHECKPOINT_FOLDER).iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise UserError(f"{folder / CHECKPOINT_FOLDER} cannot be listed: {error.strerror or error}") from None


def _training(folder: Path, opened: "Opened") -> tuple[int | None, int | None]:
    """D up to the checkpoint and its updates; of an imported model D where its record says, and no updates."""
    if not opened.run.config.data.source.startswith(IMPORTED):
        return opened.step * opened.run.config.batch_tokens, opened.step
    record = read_json(folder / IMPORTED_FILE, "record of an imported model", IMPORT_AGAIN)
    tokens = record.get("tokens") if isinstance(record, dict) else None
    return tokens if type(tokens) is int else None, None


def _scale(config: RunConfig) -> tuple[int, int, str]:
    return count(config).params, config.tokens, config.run_id
