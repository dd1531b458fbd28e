"""A checkpoint by name: which run, and after how many of its steps. A run is named by its id, never by a path."""

import re
from dataclasses import dataclass

from lmscale.core.errors import UserError


@dataclass(frozen=True)
class CheckpointName:
    """`run_id` or `run_id@step`."""

    run_id: str
    step: int | None
    """Updates done; None is the run's last step."""

    @classmethod
    def parse(cls, text: str, field: str) -> "CheckpointName":
        """Raises `UserError` that names `field` for a text of another form."""
        match = re.fullmatch(r"([0-9a-f]{12})(?:@(\d+))?", text)
        if match is None:
            raise UserError(
                f"{field} = {text!r}: write the id of a run and, after @, one of its steps, as in '0123456789ab@500'; "
                f"a run is named by its id, so that what it starts from does not depend on where it lies"
            )
        return cls(match[1], None if match[2] is None else int(match[2]))

    def __str__(self) -> str:
        return self.run_id if self.step is None else f"{self.run_id}@{self.step}"
