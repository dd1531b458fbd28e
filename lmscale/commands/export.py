"""`lmscale export`: a trained model as files that other programs read."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tyro.conf import Positional

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class ExportArgs:
    """Write a trained model as files that other programs read."""

    run: Positional[Path]
    """The folder of a run, runs/<sweep>/<run_id>."""
    output: Positional[Path]
    """Folder to write; it must not exist yet."""
    format: Literal["hf"] = "hf"
    """hf: config.json, safetensors and a tokenizer, which transformers loads with AutoModelForCausalLM."""
    step: int | None = None
    """Checkpoint after this many updates; by default the newest."""
    architecture: str | None = None
    """Class of transformers to write for, such as LlamaForCausalLM; by default the first that fits."""
    shard_bytes: int = 5_000_000_000
    """Largest weights file, in bytes; larger models are written as several."""


def main(args: ExportArgs, console: "Console") -> None:
    """Export and say what was written. Raises `UserError` as `use.export.export` does."""
    from lmscale.lm.devices import machine

    machine.set_up()
    from lmscale.lm.use.export import ExportOptions, export

    sentence = export(args.run, args.output, args.format, args.step, ExportOptions(args.architecture, args.shard_bytes))
    console.print(f"{args.output}: {sentence}", markup=False, highlight=False)
