"""Parts of an exam are measured one by one: what one of them cannot give takes nothing from the others."""

from pathlib import Path
from typing import NamedTuple

import pytest

from lmscale.core.errors import StorageError, UserError
from lmscale.core.run_folder import SCORING_FILE
from lmscale.lm.eval.measurement import Measurement, each_measured
from lmscale.lm.eval.tasks import Score

SCORE = Score("a", "m", "graded", 0, 1.0, None, 1, None, True)


class Part(NamedTuple):
    task: str


def test_a_part_that_cannot_be_measured_is_a_problem_of_its_own(tmp_path: Path) -> None:
    """What it had given before stays; `lmscale status` sees which part is at work, and nothing afterwards."""

    def measure(part: Part, measurement: Measurement) -> None:
        assert f'"{part.task}"' in (tmp_path / SCORING_FILE).read_text("utf-8")
        measurement.scores.append(SCORE)
        if part.task == "bad":
            raise UserError("no text")

    good, bad, last = each_measured([Part("good"), Part("bad"), Part("last")], tmp_path, measure)
    assert (good.problem, bad.problem, last.problem) == ("", "bad: no text", "")
    assert good.scores == bad.scores == last.scores == [SCORE]
    assert next(bad.sentences()) == "not scored: bad: no text" and len([*good.sentences()]) == 1
    assert not (tmp_path / SCORING_FILE).exists()


def test_a_full_disk_ends_the_exam(tmp_path: Path) -> None:
    def measure(part: Part, measurement: Measurement) -> None:
        raise StorageError("full")

    with pytest.raises(StorageError, match="full"):
        list(each_measured([Part("a")], tmp_path, measure))
