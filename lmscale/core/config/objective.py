"""What a training step minimises, as a field of the run's configuration."""

from dataclasses import dataclass, field
from typing import Literal

from lmscale.core.config.checks import check_types


@dataclass(frozen=True, kw_only=True)
class NextToken:
    """Cross-entropy of every token given those before it in its sequence."""

    kind: Literal["next-token"] = "next-token"

    def __post_init__(self) -> None:
        check_types(self)


@dataclass(frozen=True, kw_only=True)
class Completion:
    """Cross-entropy of the answers alone: prompts are read and not scored. The corpus says which tokens are which."""

    kind: Literal["completion"] = field(default="completion", metadata={"identity": "always"})

    def __post_init__(self) -> None:
        check_types(self)


ObjectiveConfig = NextToken | Completion
"""One of these, distinguished by `kind`, which is part of a run's identity for all but the default."""
