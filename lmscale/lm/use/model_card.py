"""The model card of an exported model: a README.md with front matter, from the run's own record.

The front matter is that of model cards on hubs of models: a mapping in YAML between two lines of three dashes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

import lmscale
from lmscale.core.config import ModelConfig, RunConfig
from lmscale.core.counting import active_params_non_embedding, active_params_total, count
from lmscale.core.errors import UserError
from lmscale.core.files import IMPORT_AGAIN, read_json, write_text
from lmscale.core.results import Outcome
from lmscale.core.run_folder import IMPORTED_FILE, SCORES_FILE, read_metrics
from lmscale.core.scores import best_measured, read_rows
from lmscale.core.text import one_line
from lmscale.lm.use.load import Opened

CARD_FILE = "README.md"
UNKNOWN_LICENSE = "unknown"
INTENDED_USE = """\
It was trained to measure how loss falls with size and data, and is meant for that: to be scored, compared and looked
into. It continues text. It was not taught to follow instructions or to answer questions, and nobody examined what it
says for truth, for harm, or for passages that it repeats from its training text: do not rely on what it writes."""
NO_LICENSE = """\
The record of a run knows of no licence, so the field says `unknown`: who publishes the model chooses one
(`lmscale export --license`), which the licence of the training text must allow."""


@dataclass(frozen=True)
class CardOptions:
    """What a card says that the run's own record does not know."""

    license: str = UNKNOWN_LICENSE
    law: str = ""
    """A sentence on the law that the run belongs to, and on the loss that it predicts."""
    library: str = ""
    """The library that loads the model, "" for none."""
    usage: str = ""
    """How the exported files are used, in Markdown."""


class Loss(NamedTuple):
    """The validation loss of a checkpoint."""

    nats: float
    stderr: float | None
    bits_per_byte: float | None = None
    tokens: int | None = None
    """How many were scored."""


@dataclass(frozen=True)
class Record:
    """What the run folder knows of the checkpoint that is exported."""

    config: RunConfig
    step: int
    tokenizer_fingerprint: str
    outcome: Outcome | None
    loss: Loss | None
    scores: tuple[dict[str, Any], ...]
    imported: dict[str, Any] | None
    """What `imported.json` says of a model that was trained elsewhere."""

    @property
    def tokens(self) -> int | None:
        """D: the tokens trained on up to the step, None where nobody knows."""
        if self.imported is not None:
            tokens = self.imported.get("tokens")
            return tokens if type(tokens) is int else None
        return self.step * self.config.batch_tokens

    @classmethod
    def read(cls, folder: Path, opened: Opened) -> "Record":
        """The record of the run in `folder`. Raises `UserError` for a file that cannot be read."""
        config, step = opened.run.config, opened.step
        outcome = Outcome.read(folder)
        rows = [row for row in read_rows(folder / SCORES_FILE) if row.get("step") == step]
        is_imported = (folder / IMPORTED_FILE).exists()
        return cls(
            config=config,
            step=step,
            tokenizer_fingerprint=opened.run.tokenizer.fingerprint,
            outcome=outcome,
            loss=_loss(folder, config, step, outcome),
            scores=tuple(best_measured(rows)[0]),
            imported=_mapping(folder / IMPORTED_FILE) if is_imported else None,
        )


def _mapping(path: Path) -> dict[str, Any]:
    value = read_json(path, "record of an imported model", IMPORT_AGAIN)
    if not isinstance(value, dict):
        raise UserError(f"{path} is no mapping of fields; import the model again")
    return value


def _loss(folder: Path, config: RunConfig, step: int, outcome: Outcome | None) -> Loss | None:
    """The loss in the outcome at the last step, else that in the metrics of an earlier one."""
    if outcome is not None and outcome.loss_nats is not None and step == config.steps:
        return Loss(outcome.loss_nats, outcome.loss_stderr, outcome.bits_per_byte, outcome.validation_tokens)
    for row in read_metrics(folder, config.run_id)[0]:
        if row["step"] == step and "validation_loss_nats" in row:
            return Loss(row["validation_loss_nats"], row.get("validation_stderr"))
    return None


def write_card(folder: Path, record: Record, options: CardOptions) -> None:
    """Write `README.md` into the folder of an exported model."""
    write_text(folder / CARD_FILE, card(record, options))


def card(record: Record, options: CardOptions) -> str:
    """The text of the card."""
    front = yaml.safe_dump(_front_matter(options), sort_keys=False, allow_unicode=True)
    sections = [
        f"# {one_line(record.config.name or record.config.run_id)}",
        _summary(record),
        _numbers(record),
        f"## Data\n\n{_data(record)}",
        *([f"## Tasks\n\n{_tasks(record.scores)}"] if record.scores else []),
        *([f"## The law it belongs to\n\n{options.law}"] if options.law else []),
        *([f"## How to use it\n\n{options.usage}"] if options.usage else []),
        f"## Intended use and limits\n\n{INTENDED_USE}",
        f"## Licence\n\n{_license(options.license)}",
        f"## How it was made\n\n{_making(record)}",
    ]
    return f"---\n{front}---\n\n" + "\n\n".join(sections) + "\n"


def _front_matter(options: CardOptions) -> dict[str, Any]:
    library = {"library_name": options.library} if options.library else {}
    return {
        "license": options.license,
        **library,
        "pipeline_tag": "text-generation",
        "tags": ["lmscale", "scaling-laws"],
    }


def _license(name: str) -> str:
    return NO_LICENSE if name == UNKNOWN_LICENSE else f"`{name}`."


def _summary(record: Record) -> str:
    model = record.config.model
    heads = (
        f"{model.heads} heads"
        if model.kv_heads is None
        else f"{model.heads} heads ({model.kv_heads} of keys and values)"
    )
    return (
        f"A language model of {count(record.config).params:,} parameters: a decoder-only transformer with "
        f"{model.layers} layers of width {model.width}, {heads}, a context of {model.context:,} tokens, "
        f"{model.norm}, {model.positions} positions and {model.mlp}.{_experts(model)}"
    )


def _experts(model: ModelConfig) -> str:
    if not model.sparse:
        return ""
    reads = "reads" if model.experts_per_token == 1 else "read"
    every = f", and {model.shared_experts} that read every token" if model.shared_experts else ""
    return (
        f" Each layer is a mixture of {model.experts} experts, of which {model.experts_per_token} {reads} a "
        f"token{every}: a token is multiplied by {active_params_total(model):,} of the parameters."
    )


def _numbers(record: Record) -> str:
    counts = count(record.config, record.tokens or 0)
    model = record.config.model
    lines = [
        ("N", f"{counts.params:,}", "all trained numbers, the token table included"),
        ("N without tables", f"{counts.params_non_embedding:,}", "matrices of the layers only (Kaplan 2020)"),
    ]
    if model.sparse:
        active = "without the experts that a token does not take (Clark 2022)"
        lines += [
            ("active N", f"{active_params_total(model):,}", f"N {active}"),
            ("active N without tables", f"{active_params_non_embedding(model):,}", f"the same {active}"),
        ]
    if record.tokens is None:
        lines.append(("D", "unknown", "training tokens: nobody recorded how many"))
    else:
        lines += [
            ("D", f"{record.tokens:,}", "training tokens, repeats counted"),
            ("C", f"{counts.flops:.4g}", "exact training FLOPs, 3 x forward"),
            ("6 N D", f"{counts.flops_6n:.4g}", "the usual estimate of C, in FLOPs"),
        ]
    table = [
        "| | value | convention |",
        "|---|---|---|",
        *(f"| {' | '.join(line)} |" for line in [*lines, *_losses(record)]),
    ]
    return "\n".join(table)


def _of_loss(config: RunConfig) -> str:
    if config.data.pairs:
        return f"{config.objective.kind} loss on held-out pairs of answers, the mean of a pair,"
    return "validation cross-entropy in nats per token"


def _losses(record: Record) -> Iterator[tuple[str, str, str]]:
    loss = record.loss
    if loss is None:
        yield "loss", "not measured", "no validation loss of this checkpoint is recorded"
        return
    error = "" if loss.stderr is None else f" ± {loss.stderr:.4f}"
    scored = "" if loss.tokens is None else f" over {loss.tokens:,} tokens"
    yield (
        "loss",
        f"{loss.nats:.4f}{error}",
        f"{_of_loss(record.config)}{scored}, and its standard error",
    )
    if loss.bits_per_byte is not None:
        yield "bits per byte", f"{loss.bits_per_byte:.4f}", "the same loss over ln 2 and the bytes of text"


def _data(record: Record) -> str:
    config, outcome = record.config, record.outcome
    if record.imported is not None:
        source, architecture = (_code(record.imported.get(name)) for name in ("source", "architecture"))
        return (
            f"The model was trained elsewhere and imported from a folder {source} of the class {architecture}; its "
            f"record says nothing of the text. The fingerprint of its parameters is "
            f"{_code(record.imported.get('parameters_fingerprint'))}, that of its tokenizer "
            f"{_code(record.tokenizer_fingerprint)}."
        )
    lines = [
        f"- source: {_code(config.data.source)}",
        f"- tokenizer: {_code(config.data.tokenizer)}, fingerprint {_code(record.tokenizer_fingerprint)}",
    ]
    if outcome is not None:
        lines.append(f"- fingerprint of the text and the tokenizer: {_code(outcome.data_fingerprint)}")
        if record.step == config.steps:
            lines.append(f"- {outcome.unique_tokens:,} distinct training tokens, {outcome.epochs:.3g} passes")
    return "\n".join(lines)


def _tasks(rows: Sequence[dict[str, Any]]) -> str:
    lines = ["| task | metric | worked examples | items | score |", "|---|---|---|---|---|"]
    for row in rows:
        value, error = row.get("score"), row.get("stderr")
        score = "" if value is None else f"{value:.4f}" + ("" if error is None else f" ± {error:.4f}")
        cells = (row.get("task"), row.get("metric"), row.get("shots"), row.get("n"), score)
        lines.append(f"| {' | '.join('' if cell is None else _cell(cell) for cell in cells)} |")
    return "\n".join(lines)


def _making(record: Record) -> str:
    config, outcome = record.config, record.outcome
    lines = [f"- exported by lmscale {lmscale.__version__}", f"- run {_code(config.run_id)}"]
    if record.imported is None:
        lines[1] += f", seed {config.seed}, after {record.step:,} of {config.steps:,} updates"
        if outcome is not None:
            versions = ", ".join(f"{one_line(name)} {one_line(version)}" for name, version in outcome.versions.items())
            lines.append(f"- trained in {outcome.seconds:,.0f} s on {one_line(outcome.device)}, with {versions}")
    return "\n".join(lines)


def _code(value: object) -> str:
    """`value` as code within a line of Markdown."""
    return f"`{one_line(str(value)).replace('`', chr(39))}`"


def _cell(value: object) -> str:
    return one_line(str(value)).replace("|", "\\|")
