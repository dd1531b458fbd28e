"""The lines of a sweep's plan, whose configurations stay text (`core/plan_text.py`): for `lmscale status`."""

from pathlib import Path
from typing import Any, TypeAlias

from lmscale.core.config import LARGEST_INTEGER, RunConfig, from_json
from lmscale.core.counting import count
from lmscale.core.files import parse_json, read_bytes
from lmscale.core.plan_text import has_lines, parse_plan
from lmscale.core.plans import COUNTED, REPEATED, PlannedRun, plan_path, read_plan
from lmscale.core.run_folder import is_run_id
from lmscale.core.run_identity import describes

SEED = b'\n "seed": '
"""The field of a configuration in its own file, behind which its seed stands."""
PEAK_LR = b'"peak_lr": '
"""The field of its optimizer, behind which the rate stands."""
LONGEST_SEED = 19
"""Digits of a whole number of 64 bits."""

ConfigText: TypeAlias = bytes | RunConfig
"""A configuration, or the text that its file should have."""


def read_lines(folder: Path) -> tuple[str, list[dict[str, Any]]]:
    """Name of the sweep in `folder`, and a mapping per run: its fields in the plan, `config` as a `ConfigText`.

    Raises `UserError` for an absent or corrupt plan.
    """
    path = plan_path(folder)
    try:
        plan = parse_plan(read_bytes(path))
    except (OSError, ValueError):
        plan = None
    if _is_plan(plan):
        return plan["sweep"], plan["runs"]
    name, runs = read_plan(folder)  # corrupt, of which it complains, or from before its lines had counts
    return name, [line_of(run) for run in runs]


def line_of(run: PlannedRun) -> dict[str, Any]:
    """The line of one run, as `read_lines` gives it."""
    counts = count(run.config)
    return {"run_id": run.config.run_id, **{name: getattr(counts, name) for name in REPEATED}, **vars(run)}


def seed_of(config: ConfigText) -> int:
    """The seed of a configuration; 0 where its text has none."""
    if isinstance(config, RunConfig):
        return config.seed
    if (begin := config.rfind(SEED)) < 0:
        return 0
    begin += len(SEED)
    digits = config[begin : config.find(b"\n", begin)].rstrip(b",")
    return int(digits) if digits.isdigit() and len(digits) <= LONGEST_SEED else 0


def peak_lr_of(config: ConfigText) -> float | None:
    """The peak learning rate of a configuration; None where its text has none."""
    if isinstance(config, RunConfig):
        return config.optimizer.peak_lr
    if (begin := config.find(PEAK_LR)) < 0:
        return None
    begin += len(PEAK_LR)
    try:
        return float(config[begin : config.find(b"\n", begin)].rstrip(b","))
    except ValueError:
        return None


def is_config(content: bytes, planned: ConfigText) -> bool:
    """Whether the `content` of a configuration's file is the planned one. Raises `ValueError` for what is not JSON."""
    if isinstance(planned, RunConfig):
        return describes(parse_json(content), planned)
    return content == planned or bool(parse_json(content) == parse_json(planned))


def config_of(planned: ConfigText, folder: Path) -> RunConfig:
    """The configuration itself. Raises `UserError` where the plan in `folder` is corrupt there."""
    if isinstance(planned, RunConfig):
        return planned
    try:
        value = parse_json(planned)
    except ValueError:
        read_plan(folder)
        raise
    return from_json(RunConfig, value)


def _is_plan(plan: Any) -> bool:
    """Whether `plan` has, of what is read here, everything in its own type."""
    return has_lines(plan) and isinstance(plan.get("sweep"), str) and all(map(_is_line, plan["runs"]))


def _is_line(line: dict[str, Any]) -> bool:
    for name in COUNTED:
        if type(line.get(name)) is not int or not 0 < line[name] <= LARGEST_INTEGER:
            return False
    return (
        is_run_id(line.get("run_id"))
        and type(active := line.get("active_params", 1)) is int
        and 0 < active <= line["params"]
        and isinstance(line.get("held_out"), bool)
        and isinstance(line.get("config"), bytes)
    )
