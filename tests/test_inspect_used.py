"""The share of neurons that tasks use, against N: every task, model and interval stands on the page."""

from pathlib import Path
from typing import Any

import pytest

from lmscale.commands.inspect.measure import InspectedModel
from lmscale.commands.inspect.page import page
from lmscale.commands.inspect.used_by_size import chart, used_by_size


def model(params: int, **share_of_task: float) -> InspectedModel:
    def effects(share: float) -> dict[str, Any]:
        bounds = {"mean": share, "low": share / 2, "high": min(1.0, 2 * share)}
        used = {"share": bounds, "count": 1, "neurons": 8, "score": 0.9, "score_without": 0.5}
        return {"pairs": 4, "total_nats": bounds, "units": {}, "used_neurons": used}

    value = {task: effects(share) for task, share in share_of_task.items()}
    return InspectedModel(Path(f"r{params}"), 1, params, f"{params:,}", 1, 1, True, None, value)


MODELS = [model(1000, sort=0.25, copy=0.5), model(4000, copy=0.125, sort=0.0)]


def test_every_task_is_a_line_over_the_sizes() -> None:
    rows = used_by_size(MODELS)
    assert [(row.task, row.model.params) for row in rows] == [
        ("copy", 1000), ("copy", 4000), ("sort", 1000), ("sort", 4000)
    ]  # fmt: skip
    drawn = chart(rows)
    lines = {mark.name: (list(mark.x), list(mark.y)) for mark in drawn.marks if mark.kind == "line"}
    assert lines == {"copy": ([1000, 4000], [0.5, 0.125]), "sort": ([1000, 4000], [0.25, 0])}
    bars = {mark.name: (list(mark.low), list(mark.high)) for mark in drawn.marks if mark.kind == "bars"}
    assert bars["copy, 95 % interval"] == ([0.25, 0.0625], [1.0, 0.25])
    assert drawn.y.low < 0 and drawn.y.high > 1.0 and drawn.x.low < 1000 and drawn.x.high > 4000
    assert used_by_size(MODELS[:1]) == [] and used_by_size([model(1000), model(4000)]) == []


@pytest.mark.long
def test_the_page_of_a_sweep_has_the_figure_and_its_numbers() -> None:
    shown = page(MODELS, None)
    assert 'aria-label="Share of the neurons that a task uses, by size"' in shown
    assert "12.50% [6.25%, 25.00%]" in shown and "<td class" in shown
    assert "aria-label" not in page(MODELS[:1], None)
