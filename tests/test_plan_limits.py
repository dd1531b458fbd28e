"""A sweep spends no more FLOPs and no more hours than it may."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.outcomes import RUN, outcome_of
from helpers.plans import own_cache, planned  # noqa: F401

from lmscale.commands.plan.limits import check_limits, within_hours
from lmscale.core.counting import count
from lmscale.core.errors import UserError
from lmscale.core.run_folder import STOP_FILE
from lmscale.study.launch import Slot


def test_a_sweep_cannot_spend_more_than_it_may(tmp_path: Path) -> None:
    flops = count(RUN).flops
    plan = planned(max_flops=1.5 * flops)
    with pytest.raises(UserError, match=r"may spend .* 0 are spent and .* are still planned; leave out runs worth"):
        check_limits(plan, tmp_path)
    check_limits(planned(max_flops=2.0 * flops), tmp_path)
    outcome_of(RUN, flops=flops).write(tmp_path / RUN.run_id)
    with pytest.raises(UserError, match="are spent"):
        check_limits(plan, tmp_path)
    outcome_of(RUN, flops=flops // 10, state="diverged", loss_nats=None).write(tmp_path / RUN.run_id)
    check_limits(plan, tmp_path)  # what a diverged run did not use is there for the others


def test_reading_a_teacher_is_spent_too(tmp_path: Path) -> None:
    plan = planned(max_flops=3.0 * count(RUN).flops)
    taught = replace(plan, runs=[replace(plan.runs[0], reference_flops=2 * count(RUN).flops), *plan.runs[1:]])
    check_limits(plan, tmp_path)
    with pytest.raises(UserError, match="are still planned"):
        check_limits(taught, tmp_path)
    outcome_of(RUN, flops=count(RUN).flops, reference_flops=2 * count(RUN).flops).write(tmp_path / RUN.run_id)
    with pytest.raises(UserError, match="are spent"):
        check_limits(plan, tmp_path)


def test_hours_are_limited_by_what_runs_have_taken(tmp_path: Path) -> None:
    outcome_of(RUN, seconds=3000.0, startup_seconds=5.0).write(tmp_path / RUN.run_id)
    check_limits(planned(max_hours=2.0), tmp_path)
    with pytest.raises(UserError, match=r"may take 1 hours of runs, 0.83\d are spent and 0.8\d+ are still planned"):
        check_limits(planned(max_hours=1.0), tmp_path)


class Silent:
    """A watcher that lists its events."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def started(self, *_: Any) -> None:
        self.events.append("started")

    def advanced(self, *_: Any) -> None:
        self.events.append("advanced")

    def ended(self, *_: Any) -> None:
        self.events.append("ended")


def test_runs_that_take_longer_than_the_sweep_may_are_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the clock, however wrong the estimate was: 2 runs at once for 15 minutes each are half an hour."""
    now = [0.0]
    monkeypatch.setattr("lmscale.commands.plan.limits.time.monotonic", lambda: now[0])
    plan, sentences, inner = planned(max_hours=0.5), [], Silent()
    watcher = within_hours(plan, tmp_path, inner, sentences.append)
    first, second = plan.runs
    for run in (first, second):
        watcher.started(Slot("cpu 0"), run)
    now[0] = 850.0
    watcher.advanced(Slot("cpu 0"), first, {})
    assert not list(tmp_path.iterdir()) and not sentences
    watcher.ended(Slot("cpu 0"), first, None, "")
    now[0] = 905.0
    watcher.advanced(Slot("cpu 0"), second, {})
    assert not sentences
    now[0] = 951.0
    watcher.advanced(Slot("cpu 0"), second, {})
    assert [path.name for path in tmp_path.iterdir()] == [STOP_FILE] and len(sentences) == 1
    assert inner.events == ["started", "started", "advanced", "ended", "advanced", "advanced"]
    assert within_hours(planned(), tmp_path, inner, sentences.append) is inner
