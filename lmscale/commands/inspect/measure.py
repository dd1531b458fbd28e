"""What `lmscale inspect` measures of one model after the other."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmscale.commands.inspect.arguments import UNITS, InspectArgs
from lmscale.commands.score.models import shown
from lmscale.core.config import check
from lmscale.core.counting import count
from lmscale.core.errors import UserError
from lmscale.core.quantities import model_size
from lmscale.core.run_identity import read_config

if TYPE_CHECKING:
    from lmscale.lm.inspect.pairs import Pair
    from lmscale.lm.inspect.summary import TextReading
    from lmscale.lm.use.load import Opened

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class InspectedModel:
    """A model and what was measured inside of it."""

    folder: Path
    step: int
    params: int
    size: str
    """N as text, with the active part of a model with experts."""
    layers: int
    heads_per_layer: int
    visible: bool = True
    """Whether text and effects are shown: of many models only the smallest, the middle and the largest."""
    reading: "TextReading | None" = None
    """Of models that are shown."""
    effects: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Name of a task -> `summary.effects`."""
    heads: dict[str, Any] | None = None

    @property
    def caption(self) -> str:
        """Which model it is, in a line."""
        return f"{self.folder.name}: N = {self.size}"

    def to_json(self) -> dict[str, Any]:
        """What was measured; nothing of what was not."""
        value: dict[str, Any] = {"run": str(self.folder), "step": self.step, "params": self.params}
        value |= {} if self.reading is None else {"text": self.reading.to_json()}
        value |= {"effects": self.effects} if self.effects else {}
        return value | ({} if self.heads is None else {"heads": self.heads})


def inspect_models(
    folders: Sequence[Path], args: InspectArgs, text: str | None, progress: Progress
) -> list[InspectedModel]:
    """Every model, one in memory at a time. Raises `UserError` for a head that one of them does not have."""
    from lmscale.lm.use import load

    for folder in folders:  # before anything is measured
        config = read_config(folder).model
        head_numbers(args.head, config.layers, config.heads, folder)
    visible = shown(len(folders))
    models = []
    for number, folder in enumerate(folders):
        opened = load.open_run(folder, args.step)
        say = partial(progress, f"{folder.name} ({number + 1} of {len(folders)})")
        models.append(_inspect(folder, opened, args, text, say, number in visible))
    return models


def _inspect(
    folder: Path,
    opened: "Opened",
    args: InspectArgs,
    text: str | None,
    progress: Callable[[float], None],
    visible: bool,
) -> InspectedModel:
    from lmscale.lm.inspect import summary

    config, counts = opened.run.config.model, count(opened.run.config)
    effects = {}
    for name, pairs in _pairs(opened, args).items():
        effects[name] = summary.effects(
            opened, pairs, args.units or UNITS, name=f"{name}, pair", seed=args.seed, progress=progress
        )
    return InspectedModel(
        folder,
        opened.step,
        counts.params,
        model_size(counts.params, counts.active_params),
        config.layers,
        config.heads,
        visible,
        None if text is None or not visible else summary.read_text(opened, text),
        effects,
        summary.head_scores(opened, args.seed) if args.heads else None,
    )


def _pairs(opened: "Opened", args: InspectArgs) -> "dict[str, list[Pair]]":
    """The pairs of every task, by its name; those of a file by the file's."""
    from lmscale.lm.inspect.pairs import read_pairs
    from lmscale.lm.inspect.task_pairs import pairs_of

    run = opened.run
    made = {} if args.pairs is None else {str(args.pairs): read_pairs(args.pairs)[: args.most_pairs]}
    if args.task is not None:
        made |= pairs_of(args.task, run.tokenizer, run.config.model.context, args.most_pairs, args.seed)
    return made


def head_numbers(words: str | None, layers: int, heads: int, folder: Path) -> tuple[int, int] | None:
    """(layer, head) of LAYER.HEAD. Raises `UserError` for what is none, and for one that the model does not have."""
    if words is None:
        return None
    layer, dot, head = words.partition(".")
    if not (dot and layer.isdecimal() and head.isdecimal()):
        raise UserError(f"--head {words}: write LAYER.HEAD, both counted from 0, as 0.{min(1, heads - 1)}")
    check(
        int(layer) < layers and int(head) < heads,
        f"--head {words}: {folder} has the layers 0 to {layers - 1} with the heads 0 to {heads - 1} each",
    )
    return int(layer), int(head)
