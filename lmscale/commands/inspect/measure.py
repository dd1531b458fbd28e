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
    from lmscale.lm.inspect.subject import Subject
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
    """What the model makes of the text, where it is shown."""
    effects: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Name of a task -> `summary.effects`."""
    heads: dict[str, Any] | None = None
    remarks: tuple[str, ...] = ()
    """What was left out."""

    @property
    def caption(self) -> str:
        """Which model it is, in a line."""
        return f"{self.folder.name}: N = {self.size}"

    def to_json(self) -> dict[str, Any]:
        """What was measured; nothing of what was not."""
        value: dict[str, Any] = {"run": str(self.folder), "step": self.step, "params": self.params}
        value |= {} if self.reading is None else {"text": self.reading.to_json()}
        value |= {"effects": self.effects} if self.effects else {}
        value |= {} if self.heads is None else {"heads": self.heads}
        return value | ({"remarks": self.remarks} if self.remarks else {})


def inspect_models(
    folders: Sequence[Path], args: InspectArgs, text: str | None, progress: Progress
) -> list[InspectedModel]:
    """Every model, one in memory at a time. Raises `UserError` for a kind of unit that does not exist, for a head that
    one of them does not have, and for a run without a checkpoint."""
    from lmscale.lm.inspect.patching import mediator
    from lmscale.lm.use import load

    for name in args.units:
        mediator(name)
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
    from lmscale.lm.inspect.subject import Subject

    subject = Subject(*opened.run, opened.mesh)
    config, counts = subject.config.model, count(subject.config)
    pairs_by_task, remarks = _pairs(subject, args)
    effects = {}
    for name, pairs in pairs_by_task.items():
        effects[name] = summary.effects(
            subject, pairs, args.units or UNITS, name=f"{name}, pair", seed=args.seed, progress=progress
        )
        if "neurons" in args.units and len(pairs) == 1:
            remarks.append(f"{name}: which share of the neurons it uses is measured on 2 pairs or more, and it has one")
    return InspectedModel(
        folder,
        opened.step,
        counts.params,
        model_size(counts.params, counts.active_params),
        config.layers,
        config.heads,
        visible,
        None if text is None or not visible else summary.read_text(subject, text),
        effects,
        summary.head_scores(subject, args.seed) if args.heads else None,
        tuple(remarks),
    )


def _pairs(subject: "Subject", args: InspectArgs) -> "tuple[dict[str, list[Pair]], list[str]]":
    """The pairs of every task by its name, those of a file by the file's; and which are left out."""
    from lmscale.lm.inspect.pairs import read_pairs
    from lmscale.lm.inspect.task_pairs import pairs_of

    pairs: dict[str, list[Pair]] = {}
    remarks: list[str] = []
    most = args.most_pairs
    if args.pairs is not None:
        rows = read_pairs(args.pairs)
        pairs[str(args.pairs)] = rows[:most]
        if len(rows) > most:
            remarks.append(f"{args.pairs}: its first {most:,} of {len(rows):,} pairs are measured; more: --most-pairs")
    if args.task is not None:
        task_pairs = pairs_of(
            args.task,
            subject.tokenizer,
            subject.config.model.context,
            most,
            args.seed,
            one_length="positions" in args.units,
        )
        pairs |= task_pairs.by_task
        remarks += [
            f"{name}: {len(rows):,} of the {most:,} pairs asked for, since it has no more that can be compared"
            for name, rows in task_pairs.by_task.items()
            if len(rows) < most
        ]
        if task_pairs.without:
            remarks.append(f"left out, for no two of their questions can be compared: {', '.join(task_pairs.without)}")
    return pairs, remarks


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
