"""The text of a sweep's plan and of a run's configuration: how they are laid out, and read where ten thousand are.

`write_plan` lays a plan out so that the configuration of a run is the text of the run's own config.json, three spaces
further in: the two are compared as text. The configurations of a sweep differ in a few fields, so each field's text is
read once. What is laid out otherwise is read as JSON, as a whole.
"""

import json
from typing import Any

from lmscale.core.config import RunConfig, field_from_json, from_json
from lmscale.core.files import parse_json

CONFIG, CONFIG_END = b'\n   "config": {', b"\n   }"
"""Where a configuration begins and ends in a plan: nothing inside of it stands so far to the left."""
INSIDE = b"\n    "
"""How each line of a configuration in a plan begins, but for the last."""
FIELD = b'\n "'
"""Where a field of a configuration begins in its own file; those of its parts stand further in."""

FieldsRead = dict[bytes, tuple[str, Any]]
"""Name and value of the fields of configurations that were read already, by their text."""


def parse_plan(text: bytes) -> Any:
    """The value of a plan in which `config` is the text of a file, bytes. Raises `ValueError` for what is not JSON."""
    parts, configs, end = [], [], 0
    while (begin := text.find(CONFIG, end)) >= 0:
        begin += len(CONFIG) - 1
        parts += [text[end:begin], b"null"]
        if (end := text.find(CONFIG_END, begin) + len(CONFIG_END)) < begin:
            raise ValueError("a configuration has no end")
        config = text[begin:end]
        if config.count(b"\n") != config.count(INSIDE) + 1:  # it ends elsewhere, perhaps in another run
            return _laid_out_by_hand(text)
        configs.append(config.replace(b"\n   ", b"\n") + b"\n")
    plan = parse_json(b"".join([*parts, text[end:]]))
    if not has_lines(plan):
        return None
    lines = plan["runs"]
    if len(lines) != len(configs) or any(line.get("config", configs) is not None for line in lines):
        return _laid_out_by_hand(text)
    for line, config in zip(lines, configs):
        line["config"] = config
    return plan


def _laid_out_by_hand(text: bytes) -> Any:
    """`parse_plan` where configurations are not where `write_plan` puts them."""
    plan = parse_json(text)
    for line in plan["runs"] if has_lines(plan) else ():
        if isinstance(config := line.get("config"), dict):
            line["config"] = json.dumps(config, indent=1).encode() + b"\n"
    return plan


def has_lines(plan: Any) -> bool:
    """Whether a plan is a mapping with a list of mappings, its runs."""
    lines = plan.get("runs") if isinstance(plan, dict) else None
    return bool(lines) and isinstance(lines, list) and all(isinstance(line, dict) for line in lines)


def parse_config(text: bytes, known: FieldsRead) -> RunConfig:
    """The configuration in the text of its file; `known`, empty at first, is shared by those of a sweep.

    Raises `ValueError` for what is not JSON or laid out otherwise, `UserError` for what is no configuration.
    """
    first, *fields = text.split(FIELD)
    if first != b"{" or not fields or not fields[-1].endswith(b"\n}\n"):
        raise ValueError("it is laid out in another way")
    fields[-1] = fields[-1][: -len(b"\n}\n")] + b","
    values = {}
    for field in fields:
        if field not in known:
            known[field] = _field(field)
        name, values[name] = known[field]
    return from_json(RunConfig, values)


def _field(text: bytes) -> tuple[str, Any]:
    """Name and value of one field of a configuration."""
    if not text.endswith(b","):
        raise ValueError("it is laid out in another way")
    ((name, value),) = parse_json(b'{"' + text[:-1] + b"}").items()
    return name, field_from_json(RunConfig, name, value)
