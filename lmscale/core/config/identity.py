"""Which fields of a configuration make it what it is, so that its name is its content."""

import dataclasses
from typing import Any

PLAIN = frozenset({bool, int, float, str, tuple, type(None)})
"""Types of most fields, none of which is a configuration."""
_IDENTITY = "_identity"
_IDENTITY_FIELDS: dict[type[Any], list[tuple[str, Any, bool]]] = {}


def identity(config: Any) -> dict[str, Any]:
    """The fields that make a run what it is and differ from their defaults, nested alike."""
    fields: dict[str, Any] = {}
    for name, default, always in _identity_fields(type(config)):
        value = getattr(config, name)
        if type(value) not in PLAIN and dataclasses.is_dataclass(value):
            if inner := _identity_of_part(value):
                fields[name] = inner
        elif always or value != default:
            fields[name] = value
    return fields


def _identity_of_part(part: Any) -> dict[str, Any]:
    """`identity` of a part, kept beside its fields: parts never change, and the runs of a plan share theirs."""
    fields: dict[str, Any] | None = vars(part).get(_IDENTITY)
    if fields is None:
        fields = vars(part)[_IDENTITY] = identity(part)
    return fields


def _identity_fields(cls: type[Any]) -> list[tuple[str, Any, bool]]:
    """(name, default, whether the default counts too) of the fields that make a run what it is; read once."""
    if cls not in _IDENTITY_FIELDS:
        _IDENTITY_FIELDS[cls] = [
            (item.name, item.default, item.metadata.get("identity") == "always")
            for item in dataclasses.fields(cls)
            if item.metadata.get("identity", True)
        ]
    return _IDENTITY_FIELDS[cls]
