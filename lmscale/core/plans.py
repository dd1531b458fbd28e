"""One line of a plan, `PlannedRun`, and the plan of a sweep on disk."""

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lmscale.core.config import Parts, RunConfig, check, check_types, finite, from_json
from lmscale.core.counting import count
from lmscale.core.errors import UserError
from lmscale.core.files import read_bytes, read_json, write_text
from lmscale.core.plan_text import FieldsRead, parse_config, parse_plan
from lmscale.core.run_folder import CONFIG_FILE, PLAN_FILE, is_run_id
from lmscale.core.run_identity import remember_source
from lmscale.core.text import checked_name

COUNTED = ("params", "tokens", "flops")
"""Counts that the line of a run in every plan repeats."""
REPEATED = (*COUNTED, "active_params")
"""Counts that it repeats now; plans of before models had experts have only the others."""
NO_FIELDS = frozenset(("run_id", "compiled", *REPEATED))
"""What a line of a plan holds beside the fields of its `PlannedRun`."""
PURPOSE = ("question", "law", "target_flops", "max_flops", "max_hours")
"""Fields of a sweep that its plan keeps beside its runs; plans of earlier versions lack them."""
SHOWN = 8
"""Folders of sweeps that a sentence names."""

_NEWEST: dict[tuple[Any, ...], tuple[str, list["PlannedRun"]]] = {}
"""The plan that was read last, by path, file, size and time of its last change: a verb asks for it several times."""


@dataclass(frozen=True)
class PlannedRun:
    """A run to be trained, and what it is for."""

    config: RunConfig
    held_out: bool = False
    """True where no fit may see the run: it is the prediction to be checked."""
    flops_budget: float | None = None
    """The compute budget that the run was planned for, in exact training FLOPs."""
    group: str = ""
    """Runs that share noise (the seeds of one point, the branches of one trunk)."""
    trunk: str = ""
    """run_id of the planned run whose first `branch_step` steps are this run's too: started from its checkpoint there,
    the run ends as it would from its own first step. Empty where it shares none."""
    branch_step: int | None = None
    """Updates done where it leaves its trunk: before its cooldown, after the warmup."""
    origins: dict[str, str] = field(default_factory=dict)
    """Where the values of the configuration come from, by field: "optimizer.peak_lr" -> "Step Law ..."."""
    stage: str = ""
    """Which part of a model's life the run is: that of its configuration, unless its point names another."""
    parent_tokens: int | None = None
    """Training tokens of the runs that it starts from, one after the other; 0 for random numbers, None where one of
    them is not planned here."""
    reference_flops: int = 0
    """Forward FLOPs of the teacher or reference that the run reads, where that is planned here too."""
    batch_flops: int = 0
    """FLOPs of making the batches: of answers that the run itself draws, and of the reward model that reads them where
    that is planned here too."""
    reference_bytes: int = 0
    """Estimated memory of that teacher or reference."""
    data_fingerprint: str = ""
    """The corpus and the tokenizer that the run was planned for; empty while the corpus is not prepared."""

    def __post_init__(self) -> None:
        check_types(self)
        finite(self, "flops_budget")
        if not self.stage:
            object.__setattr__(self, "stage", self.config.stage)
        if self.trunk and not is_run_id(self.trunk):
            raise UserError(f"PlannedRun.trunk = {self.trunk!r}: must be the run_id of the planned run that it leaves")
        if self.branch_step is not None and not 0 < self.branch_step < self.config.steps:
            raise UserError(
                f"PlannedRun.branch_step = {self.branch_step}: must lie after the first of the run's steps and before "
                f"the last of its {self.config.steps:,}"
            )

    @property
    def trained_flops(self) -> int:
        """Training FLOPs that this run adds to the sweep: the trunk pays those of its own steps."""
        steps = self.config.steps
        return count(self.config).flops * (steps - (self.branch_step or 0)) // steps

    @property
    def paid_flops(self) -> int:
        """FLOPs that this run adds to the sweep: those of its training, of drawing its answers, and of the models
        that it reads."""
        return self.trained_flops + self.reference_flops + self.batch_flops

    def to_json(self) -> dict[str, Any]:
        """A line of `plan.json`, with counts for readers of thousands of lines, who should not need to count again."""
        counts = asdict(count(self.config))
        return {"run_id": self.config.run_id, **{name: counts[name] for name in REPEATED}, **asdict(self)}

    @classmethod
    def from_json(cls, value: dict[str, Any], parts: Parts | None = None) -> "PlannedRun":
        """The inverse of `to_json`; `parts` as `from_json` of a configuration takes them. `config` may be made already.

        Raises `UserError` where the stored run_id is not that of the configuration.
        """
        fields_only = {name: item for name, item in value.items() if name not in NO_FIELDS}
        if isinstance(config := fields_only.get("config"), dict):  # no two runs share theirs, but its parts
            fields_only["config"] = from_json(RunConfig, config, f"{cls.__name__}.config", parts)
        run = from_json(cls, fields_only, parts=parts)
        if run.config.run_id != value.get("run_id"):
            raise UserError(
                f"the plan names run {str(value.get('run_id'))[:40]} but its configuration is that of "
                f"{run.config.run_id}: the plan is of another version of lmscale; plan the sweep again"
            )
        return run


def write_plan(folder: Path, name: str, runs: list[PlannedRun], purpose: Mapping[str, Any] | None = None) -> None:
    """Write the plan of the sweep `name` atomically: as `plan.json` of its folder, or to a path that ends in .json.

    `purpose` holds what the sweep is for, by the names in `PURPOSE`.

    An identical plan there is left alone, so that a sweep can be continued on a full disk.
    """
    path = folder if folder.suffix == ".json" else folder / PLAN_FILE
    text = (
        json.dumps(
            {"sweep": name, **(purpose or {}), "runs": [run.to_json() for run in runs]}, indent=1, allow_nan=False
        )
        + "\n"
    )
    with suppress(OSError):
        if read_bytes(path) == text.encode():
            return
    write_text(path, text)


def plan_path(folder: Path) -> Path:
    """The path of the plan in a sweep's folder. Raises `UserError` where `folder` is not one."""
    path = folder / PLAN_FILE
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file: give the folder of a sweep, runs/<sweep>")
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; `lmscale run SWEEP.py` makes it")
    if not os.path.lexists(path):
        raise UserError(f"{folder} is no sweep's folder: {_instead(folder)}")
    return path


def _instead(folder: Path) -> str:
    """Which folder to give instead of one without a plan."""
    if sweeps := sorted(str(plan.parent) for plan in folder.glob(f"*/{PLAN_FILE}")):
        return f"give one of {', '.join(sweeps[:SHOWN])}{', ...' * (len(sweeps) > SHOWN)}"
    if (folder / CONFIG_FILE).is_file():
        sweep = folder.parent if (folder.parent / PLAN_FILE).is_file() else "runs/<sweep>"
        return f"it is the folder of a run; give that of its sweep, {sweep}"
    return f"there is no plan at {folder / PLAN_FILE}; `lmscale run SWEEP.py` makes a folder with one"


def read_plan(folder: Path) -> tuple[str, list[PlannedRun]]:
    """Name and runs of the sweep whose plan stands in `folder`. Raises `UserError` when it is absent or corrupt."""
    path = plan_path(folder)
    try:
        facts = path.stat()
    except OSError:
        return _read(path)
    file = (path, folder.resolve(), facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns)
    if file not in _NEWEST:
        plan = _read(path)
        _NEWEST.clear()
        _NEWEST[file] = plan
    name, runs = _NEWEST[file]
    return name, list(runs)


def _read(path: Path) -> tuple[str, list[PlannedRun]]:
    """Name and runs of a plan. Raises as `read_plan` does."""
    try:
        return _parsed(path, _with_configs(read_bytes(path)))
    except (OSError, ValueError, UserError):
        return _parsed(path, read_json(path, "plan"))  # as a whole, which says what is wrong


def _with_configs(text: bytes) -> Any:
    """The value of a plan whose configurations are made. Raises as `parse_plan` and `parse_config` do."""
    plan, known = parse_plan(text), FieldsRead()
    for line in plan["runs"] if plan else ():
        if isinstance(source := line.get("config"), bytes):
            line["config"] = parse_config(source, known)
            remember_source(line["config"], source)
    return plan


def _parsed(path: Path, value: Any) -> tuple[str, list[PlannedRun]]:
    """Name and runs of a plan as it was read. Raises `UserError` for one that is corrupt."""
    parts: Parts = {}
    try:
        name = checked_name(value["sweep"], f"the sweep of the plan {path}")
        runs = [PlannedRun.from_json(line, parts) for line in value["runs"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"the plan {path} is corrupt ({error!r}); run `lmscale run` on the sweep file again") from None
    check(bool(runs), f"the plan {path} holds no runs; run `lmscale run` on the sweep file again")
    check_plan_of(path.parent, [run.config.run_id for run in runs])
    return name, runs


def check_plan_of(folder: Path, run_ids: Sequence[str]) -> None:
    """Raise `UserError` where a plan of these runs is not that of the sweep in `folder`, or names a run twice."""
    twice = [run_id for run_id, number in Counter(run_ids).items() if number > 1]
    check(
        not twice,
        f"the plan {folder / PLAN_FILE} names run {twice and twice[0]} twice; run `lmscale run` on the sweep again",
    )
    try:
        run_folders = {name for name in os.listdir(folder) if is_run_id(name)}  # noqa: PTH208 - ten thousand at once
    except OSError:
        return
    check(
        not run_folders or not run_folders.isdisjoint(run_ids),
        f"the plan in {folder} names none of the {len(run_folders)} runs that lie there: it is the plan of another "
        f"sweep; put the sweep's own back, or run `lmscale run` on its sweep file with another --runs",
    )


def read_purpose(folder: Path) -> dict[str, Any]:
    """What the sweep in `folder` is for, as far as its plan says, by the names in `PURPOSE`. Raises as `read_plan`."""
    path = plan_path(folder)
    try:
        value = parse_plan(read_bytes(path)) or read_json(path, "plan")  # the first leaves configurations unread
    except (OSError, ValueError):
        value = read_json(path, "plan")
    stated = {name: value[name] for name in PURPOSE if name in value} if isinstance(value, dict) else {}
    for name in ("question", "law"):
        check(isinstance(stated.get(name, ""), str), f"the plan in {folder} is corrupt: its {name} is no text")
    return stated
