"""What one part of an exam gives that no items of a task do: measured inside a model, with retrieval, or by a judge."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

from lmscale.core.errors import StorageError, UserError
from lmscale.lm.eval.score_files import being_scored
from lmscale.lm.eval.tasks import Score


@dataclass
class Measurement:
    """The scores of one part, and what to know about them."""

    task: str
    scores: list[Score] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    seconds: float = 0.0
    problem: str = ""
    """Why there are no scores, or no further ones."""

    def sentences(self) -> Iterator[str]:
        """What to know about the result besides its scores."""
        if self.problem:
            yield f"not scored: {self.problem}"
        yield from self.remarks
        yield f"measured in {self.seconds:.1f} s, compilation included"


class Part(Protocol):
    """One thing that is measured, under a name of its own among the tasks."""

    @property
    def task(self) -> str:
        """The name."""


AnyPart = TypeVar("AnyPart", bound=Part)


def each_measured(
    parts: Sequence[AnyPart], folder: Path, measure: Callable[[AnyPart, Measurement], None]
) -> Iterator[Measurement]:
    """The measurement of every part, which `measure` fills; a `UserError` is a problem of that part alone.

    Raises `StorageError` for a disk that takes nothing, so that the same call can be made again.
    """
    for number, part in enumerate(parts, 1):
        measurement, start = Measurement(part.task), time.perf_counter()
        with being_scored(folder, part.task, number, len(parts)):
            try:
                measure(part, measurement)
            except StorageError:
                raise
            except UserError as error:
                measurement.problem = f"{part.task}: {error}"
        measurement.seconds = time.perf_counter() - start
        yield measurement
