"""`lmscale export`: a trained model as files that other programs read."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from tyro.conf import Positional

from lmscale.commands.answer import write_answer
from lmscale.commands.next_step import print_next
from lmscale.core.errors import UserError
from lmscale.core.run_folder import REPORT_FOLDER

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class ExportArgs:
    """Write a trained model as files that other programs read, with a model card."""

    FOLDERS: ClassVar[tuple[str, ...]] = ("output",)

    run: Positional[Path]
    """The folder of a run, runs/<sweep>/<run_id>."""
    output: Positional[Path]
    """Folder to write; it must not exist yet."""
    format: Literal["hf", "two-file", "stablehlo"] = "hf"
    """hf: config.json, safetensors and a tokenizer, which transformers loads with AutoModelForCausalLM; two-file:
    parameters.npz and a program of one readable file, which generates text with NumPy alone; stablehlo: functions that
    jax.export wrote, for cpu, cuda and tpu, which JAX runs without lmscale."""
    step: int | None = None
    """Checkpoint after this many updates; by default the newest."""
    architecture: str | None = None
    """Class of transformers to write for (hf), such as LlamaForCausalLM; by default the first that fits."""
    shard_bytes: int = 5_000_000_000
    """Largest weights file (hf), in bytes; larger models are written as several."""
    license: str = "unknown"
    """Licence in the model card, such as apache-2.0."""
    json: Path | None = None
    """Write the run, the files and what reads them here (- or no file: to standard output, alone)."""


def main(args: ExportArgs, console: "Console") -> None:
    """Export and say what was written. Raises `UserError` as `use.export.export` does."""
    from lmscale.core.text import checked_line
    from lmscale.lm.devices import machine

    machine.set_up()
    from lmscale.lm.use.export import ExportOptions, export

    license = checked_line(args.license, "--license")
    options = ExportOptions(args.architecture, args.shard_bytes, license, law_sentence(args.run))
    sentence = export(args.run, args.output, args.format, args.step, options)
    console.print(f"{args.output}: {sentence}", markup=False, highlight=False)
    files = [{"file": path.name, "bytes": path.stat().st_size} for path in sorted(args.output.iterdir())]
    write_answer(
        args.json,
        {"run": str(args.run), "output": str(args.output), "format": args.format, "use": sentence, "files": files},
    )
    if args.format == "hf":
        console.print("in Python: transformers.AutoModelForCausalLM.from_pretrained(...) reads it", highlight=False)
        print_next("import-model", args.output, "--output", args.output.with_name(f"{args.output.name}-read"))
    else:
        print_next("sample", args.run, "--prompt", "Once upon a time")


def law_sentence(run: Path) -> str:
    """The law in the report of the run's sweep, and what it predicts at the run's N and D; "" where there is none."""
    from lmscale.commands.plan.prior import fitted_law
    from lmscale.core.results import Outcome

    try:
        outcome = Outcome.read(run)
        fit = fitted_law(run.absolute().parent / REPORT_FOLDER / "fits.json")
    except UserError:
        return ""
    if outcome is None or not outcome.tokens:
        return ""
    params = getattr(outcome, fit.size_column, None)
    if params is None:
        return ""
    loss = float(fit.law.loss(params, outcome.tokens))
    return (
        f"Fitted to {fit.n_runs} runs of the sweep, which may include this one: {fit.law}. At the N and D of the whole "
        f"run it predicts a loss of {loss:.4f} nats per token."
    )
