"""What makes documents of the records of a source, by the settings of its data."""

from collections.abc import Mapping
from typing import Any

from lmscale.core.config import DataConfig
from lmscale.core.config.template import TEMPLATES, parse_template
from lmscale.lm.data.corpora.pairs import Pairs, prompt_and_answer
from lmscale.lm.data.corpora.records import Fields, Filled, Writer


def writer_of(config: DataConfig) -> Writer:
    """The writer of documents; of pairs of answers one that writes both."""
    write = _of_one_answer(config)
    return write if config.rejected_field is None else Pairs(write, config.rejected_field)


def lacking(config: DataConfig) -> str:
    """What plain text lacks that a writer asks for; "" where it lacks nothing."""
    if config.template is not None:
        return f"fields for the {f'template {config.template!r}' if config.template in TEMPLATES else 'template'}"
    return "" if config.prompt_field is None else f"field {config.prompt_field!r}"


def prompt_and_answers(config: DataConfig, record: Mapping[str, Any]) -> list[str]:
    """The prompt of a record and its answer, or of a pair both, the chosen one first. Raises `Problem`."""
    if config.rejected_field is None or record.get(config.rejected_field) is None:
        return prompt_and_answer(_of_one_answer(config), record)
    [[prompt, chosen, _, rejected]] = writer_of(config)(record)
    return [prompt, chosen, rejected]


def _of_one_answer(config: DataConfig) -> Fields | Filled:
    if config.template is not None:
        return Filled(parse_template(config.template))
    return Fields(config.text_field, config.prompt_field)
