"""A trained run as files that other programs read."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import lmscale
from lmscale.core.config import check
from lmscale.core.errors import nearest
from lmscale.core.files import check_new_folder, whole_folder
from lmscale.core.results import Outcome
from lmscale.lm.use import stablehlo
from lmscale.lm.use.hf.weights import SHARD_BYTES
from lmscale.lm.use.hf.write import write_hf
from lmscale.lm.use.load import Opened, open_run, without_adapters
from lmscale.lm.use.model_card import UNKNOWN_LICENSE, CardOptions, Record, write_card
from lmscale.lm.use.two_file.write import PARAMETERS_FILE, PROGRAM_FILE, write_two_file


@dataclass(frozen=True)
class ExportOptions:
    """What a format may be asked for."""

    architecture: str | None = None
    """Class of transformers; None takes the first that computes what the model computes."""
    shard_bytes: int = SHARD_BYTES
    license: str = UNKNOWN_LICENSE
    """The field of the model card."""
    law: str = ""
    """A sentence of the model card on the law that the run belongs to."""


Writer = Callable[[Path, Opened, dict[str, Any], ExportOptions], str]
"""(folder, opened run, record, options) -> a sentence on what was written."""


class Format(NamedTuple):
    """One format."""

    write: Writer
    library: str
    """The library that loads it, "" for none."""
    usage: str
    """How its files are used, in Markdown."""


def export(run: Path, output: Path, format: str, step: int | None = None, options: ExportOptions | None = None) -> str:
    """Write the model of the run folder and its card into the folder `output`, which must not exist.

    Returns a sentence on what it is. Nothing is left there unless all of it was written. Raises `UserError` for an
    unknown format, a run without that checkpoint, and an option of the model that the format has no counterpart for.
    """
    check(format in FORMATS, f"there is no format {format!r}{nearest(format, FORMATS)}; take {' or '.join(FORMATS)}")
    check_new_folder(output)
    options = options or ExportOptions()
    opened = open_run(run, step)
    library, usage = FORMATS[format].library, FORMATS[format].usage
    with whole_folder(output) as folder:
        whole = replace(opened, run=without_adapters(opened.run))
        sentence = FORMATS[format].write(folder, whole, record(run, opened), options)
        write_card(folder, Record.read(run, opened), CardOptions(options.license, options.law, library, usage))
    return sentence


def record(run: Path, opened: Opened) -> dict[str, Any]:
    """What an exported model says of its run."""
    outcome, config = Outcome.read(run), opened.run.config
    at_end = outcome is not None and opened.step == config.steps
    tokens = outcome.tokens if outcome is not None and at_end else opened.step * config.batch_tokens
    return {"run_id": config.run_id, "step": opened.step, "tokens": tokens or None}


def _hf(folder: Path, opened: Opened, facts: dict[str, Any], options: ExportOptions) -> str:
    name = write_hf(folder, opened.run, facts, options.architecture, options.shard_bytes)
    return f"transformers loads it as {name}"


def _two_file(folder: Path, opened: Opened, facts: dict[str, Any], options: ExportOptions) -> str:
    tokens = f", {facts['tokens']:,} training tokens" if facts["tokens"] else ""
    write_two_file(
        folder,
        opened.run,
        f"Written by lmscale {lmscale.__version__} from run {facts['run_id']} after {facts['step']:,} updates{tokens}.",
    )
    return f"python {PROGRAM_FILE} PROMPT continues a text with NumPy alone"


def _stablehlo(folder: Path, opened: Opened, facts: dict[str, Any], options: ExportOptions) -> str:
    stablehlo.write_stablehlo(folder, opened.run, facts)
    return f"jax.export.deserialize reads its functions, for {', '.join(stablehlo.PLATFORMS)}"


HF_USAGE = """\
```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model, tokenizer = AutoModelForCausalLM.from_pretrained(PATH), AutoTokenizer.from_pretrained(PATH)
inputs = tokenizer("The", return_tensors="pt", add_special_tokens=False)
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=50)[0]))
```"""
TWO_FILE_USAGE = f"""\
`{PROGRAM_FILE}` and `{PARAMETERS_FILE}` are the whole model; Python and NumPy run it, in float32:

    python {PROGRAM_FILE} "The" --max-tokens 50 --temperature 0.8 --seed 1

The text goes to standard output, the speed to standard error."""
STABLEHLO_USAGE = f"""\
`{stablehlo.DESCRIPTION_FILE}` lists what each function takes and gives. JAX runs them without lmscale:

```python
import jax, numpy as np

logits = jax.export.deserialize(bytearray(open("{stablehlo.LOGITS_FILE}", "rb").read()))
parameters = dict(np.load("{stablehlo.PARAMETERS_FILE}"))
print(logits.call(parameters, np.array([[1, 2, 3]], np.int32)))    # [rows, tokens, vocabulary]
```

One file holds the function for {", ".join(stablehlo.PLATFORMS)}; {stablehlo.COMPATIBILITY}. It needs the package
`flatbuffers`, too."""
FORMATS: dict[str, Format] = {
    "hf": Format(_hf, "transformers", HF_USAGE),
    "two-file": Format(_two_file, "numpy", TWO_FILE_USAGE),
    "stablehlo": Format(_stablehlo, "jax", STABLEHLO_USAGE),
}
"""Every format by its name."""
