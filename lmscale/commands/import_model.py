"""`lmscale import-model`: a published model as a run folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from tyro.conf import Positional

from lmscale.commands.answer import write_answer
from lmscale.commands.next_step import print_use
from lmscale.core.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class ImportModelArgs:
    """Read a published model from disk into a run folder, which every verb takes."""

    FOLDERS: ClassVar[tuple[str, ...]] = ("output",)

    path: Positional[Path]
    """Folder with config.json, safetensors and a tokenizer: Llama, Qwen2, Qwen3, Gemma, OLMo, GPT-2, GPT-NeoX (Pythia),
    Arcee, Starcoder2 or StableLM. Pickles are never opened."""
    output: Path | None = None
    """The run folder to write; it must not exist yet."""
    sweep: Path | None = None
    """Instead of --output: a sweep's folder, such as runs/pythia, made where it does not exist; the model becomes one
    of its runs, and so a row of its table and a point of its fits."""
    tokens: float | None = None
    """Tokens that the model was trained on (D), such as 3e11; without it the model has no D and no C in a table."""
    name: str = ""
    """What to call the model; by default the folder's name."""
    json: Path | None = None
    """Write the run folder, N, D and remarks here (- or no file: to standard output, alone)."""


def main(args: ImportModelArgs, console: "Console") -> None:
    """Import and say what was read. Raises `UserError` as `use.import_model.import_model` does."""
    from lmscale.lm.devices import machine

    machine.set_up()
    from lmscale.core.counting import count
    from lmscale.core.quantities import model_size, quantity
    from lmscale.lm.use.import_model import import_into_sweep, import_model

    tokens = None if args.tokens is None else round(args.tokens)
    if (args.output is None) == (args.sweep is None):
        raise UserError("say where the model goes: either --output RUN or --sweep runs/NAME")
    if args.output is not None:
        folder, model = args.output, import_model(args.path, args.output, tokens, args.name)
    else:
        assert args.sweep is not None
        folder, model = import_into_sweep(args.path, args.sweep, tokens, args.name)
    known = "" if model.tokens is None else f", D = {quantity(model.tokens)} tokens"
    counts = count(model.config)
    params = model_size(counts.params, counts.active_params)
    console.print(
        f"{folder}: {model.architecture}, N = {params} parameters, embeddings included{known}",
        markup=False, highlight=False,
    )  # fmt: skip
    for remark in model.remarks:
        console.print(f"  {remark}", markup=False, highlight=False)
    value = {"folder": str(folder), "run_id": model.config.run_id, "architecture": model.architecture}
    sizes = {"params": counts.params, "active_params": counts.active_params, "tokens": model.tokens}
    write_answer(args.json, {**value, **sizes, "remarks": list(model.remarks)})
    print_use(folder)
