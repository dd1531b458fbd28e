"""What a training step minimises, as a field of the run's configuration."""

from dataclasses import dataclass, field
from typing import Literal

from lmscale.core.config.checks import check, check_types, fraction, positive
from lmscale.core.config.start import CheckpointName


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


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """Cross-entropy to the distribution of a teacher, mixed with that of the text (Hinton 2015, arXiv 1503.02531).

    Per token (1 - text_weight) tau^2 KL(teacher at tau || student at tau) + text_weight times the text's own nats. Of a
    corpus with prompts answers alone are learned.
    """

    kind: Literal["distillation"] = field(default="distillation", metadata={"identity": "always"})
    teacher: str = ""
    """`run_id[@step]` of a run, or of a model that was imported, with the same tokenizer."""
    temperature: float = 1.0
    """tau: the logits of both are divided by it."""
    text_weight: float = 0.0
    """Share of the text's own cross-entropy; 0 learns from the teacher alone (Busbridge 2025, section 3)."""
    top_k: int | None = None
    """Keep only so many of the teacher's largest logits, renormalised; None keeps all."""

    def __post_init__(self) -> None:
        check_types(self)
        positive(self, "temperature")
        fraction(self, "text_weight")
        check(
            self.text_weight < 1 and self.top_k != 0,
            f"Distillation(text_weight={self.text_weight:g}, top_k={self.top_k}): nothing is learned from the teacher; "
            f"take NextToken(), or a text_weight below 1 and a top_k of at least 1",
        )
        if self.top_k is not None:
            positive(self, "top_k")
        if self.teacher:
            CheckpointName.parse(self.teacher, "Distillation.teacher")


ObjectiveConfig = NextToken | Completion | Distillation
"""One of these, distinguished by `kind`, which is part of a run's identity for all but the default."""
