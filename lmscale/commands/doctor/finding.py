"""One thing that `lmscale doctor` looked at."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

State = Literal["ok", "missing", "wrong"]


@dataclass(frozen=True)
class Finding:
    """What was looked at, how it stands, and the nearest fix."""

    name: str
    state: State
    """"missing": something optional is not there. "wrong": training would fail or waste the machine."""
    text: str
    fix: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    """Plain numbers for --json."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)
