"""Which run a folder is of: the run_id that it is named after, and the configuration in it.

A file that was copied from another run's folder is refused with a sentence that names the folder: each file states the
run that it is of, and a configuration hashes to its run_id.
"""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmscale.core.config import RunConfig, check, from_json
from lmscale.core.errors import UserError
from lmscale.core.files import read_bytes, read_json
from lmscale.core.run_folder import CONFIG_FILE, run_id_of_name

SCALARS = frozenset({bool, int, float, str, type(None)})
REQUIRED = object()
_SOURCE = "_source"
"""Beside the fields of a configuration: the text that it was read from, laid out as its own file."""
_DEFAULTS: dict[type[Any], dict[str, Any]] = {}


def read_config(folder: Path) -> RunConfig:
    """The configuration of the run in `folder`.

    Raises `UserError` where it is absent or corrupt, and where it is of another run than the folder is named after.
    """
    path = folder / CONFIG_FILE
    return check_config(from_json(RunConfig, read_json(path, "run configuration"), where=str(path)), folder)


def check_config(config: RunConfig, folder: Path) -> RunConfig:
    """`config`. Raises `UserError` where `folder`, which it is of, is named after another run."""
    name = run_id_of_name(folder)
    check(
        name in (None, config.run_id),
        f"the folder {folder} is of run {name}, but {CONFIG_FILE} is that of run {config.run_id}: it is another "
        f"run's, or was edited; delete it, and `lmscale run` writes the planned one, or train run {config.run_id} in a "
        f"folder of its own",
    )
    return config


def check_file_of(run_id: Any, path: str | Path) -> None:
    """Raise `UserError` where `path`, a file that is of run `run_id`, lies in the folder of another run."""
    folder, file = os.path.split(path)
    folder = folder or os.curdir
    name = run_id_of_name(folder)
    if name not in (None, run_id):
        raise UserError(
            f"the folder {folder} is of run {name}, but {file} is that of run {run_id}: it was copied from "
            f"another run; delete it, and `lmscale run` will make it again"
        )


def check_configured(run_id: str, folder: Path, planned: RunConfig | None = None) -> None:
    """Raise `UserError` where the folder of run `run_id` holds a configuration that is another run's or corrupt.

    One that equals `planned`, the configuration of the run, is not hashed again.
    """
    path = os.path.join(folder, CONFIG_FILE)  # noqa: PTH118 - a Path costs more than reading the file
    if not os.path.lexists(path):
        return
    if planned is not None and _is_source(path, planned):
        return
    value = read_json(path, "run configuration")
    if planned is not None and describes(value, planned):
        return
    config = check_config(from_json(RunConfig, value, where=path), folder)
    check(
        config.run_id == run_id,
        f"{folder} holds the outcome of run {run_id}, but the {CONFIG_FILE} of run {config.run_id}: one of them was "
        f"copied from another run; delete that one",
    )


def remember_source(config: RunConfig, text: bytes) -> None:
    """Keep with `config` the text that it was read from, so that its equal in a run's folder is known at a glance.

    Ten thousand are compared at once, each of a hundred fields.
    """
    vars(config)[_SOURCE] = text


def _is_source(path: str, config: RunConfig) -> bool:
    """Whether the file is, to the letter, the text that `config` was read from."""
    if (source := vars(config).get(_SOURCE)) is None:
        return False
    try:
        return read_bytes(path) == source
    except OSError:
        return False


def describes(value: Any, config: Any) -> bool:
    """Whether the JSON value `value` is the configuration `config`, as `from_json` reads it."""
    if not isinstance(value, Mapping):
        return False
    defaults = _defaults(type(config))
    if not value.keys() <= defaults.keys():
        return False
    fields = vars(config)
    return all(
        _equal(value[name], fields[name]) if name in value else fields[name] == default
        for name, default in defaults.items()
    )


def _defaults(cls: type[Any]) -> dict[str, Any]:
    """The value of every field that a file leaves out; `REQUIRED`, which equals nothing, where it may not.

    It may never leave out `kind`, by which `from_json` tells the parts of several types apart.
    """
    if cls not in _DEFAULTS:
        _DEFAULTS[cls] = {item.name: _default(item) for item in dataclasses.fields(cls)}
    return _DEFAULTS[cls]


def _default(item: "dataclasses.Field[Any]") -> Any:
    if item.default_factory is not dataclasses.MISSING:
        return item.default_factory()
    return REQUIRED if item.default is dataclasses.MISSING or item.name == "kind" else item.default


def _equal(value: Any, field: Any) -> bool:
    if type(value) is type(field) and type(field) in SCALARS:  # nearly all fields of thousands of configurations
        return bool(value == field)
    if hasattr(field, "__dataclass_fields__"):
        return describes(value, field)
    if isinstance(field, tuple):
        return isinstance(value, list) and len(value) == len(field) and all(map(_equal, value, field))
    return isinstance(value, bool) == isinstance(field, bool) and bool(value == field)
