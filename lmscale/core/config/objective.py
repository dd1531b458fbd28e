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


@dataclass(frozen=True, kw_only=True)
class Preference:
    """The policy itself as a reward model of pairs of answers: DPO (Rafailov 2023, eq. 7) or IPO (Azar 2023, eq. 17).

    h is how much more the policy prefers the chosen answer to the rejected one than `RunConfig.reference` does, in
    nats. Per pair dpo has -(1 - e) log sigmoid(beta h) - e log sigmoid(-beta h), ipo (h - 1 / (2 beta))^2. The loss of
    ipo begins at 1 / (4 beta^2), so `RunConfig.divergence_nats` is to be of that size.
    """

    kind: Literal["preference"] = field(default="preference", metadata={"identity": "always"})
    loss: Literal["dpo", "ipo"] = "dpo"
    beta: float = 0.1
    """How strongly the policy is held to the reference; the tau of IPO."""
    label_smoothing: float = 0.0
    """e: share of the pairs whose two answers are taken to be the wrong way round (cDPO, Mitchell 2023); dpo only."""
    kl_limit_nats: float = 100.0
    """A run whose KL to the reference, the mean of a held-out answer, is above this or not finite has diverged."""

    def __post_init__(self) -> None:
        check_types(self)
        positive(self, "beta", "kl_limit_nats")
        check(
            0.0 <= self.label_smoothing < 0.5,
            f"Preference.label_smoothing = {self.label_smoothing:g}: the share of pairs that are the wrong way round, "
            f"at least 0 and below 0.5, where they say nothing; try 0.1",
        )
        check(
            self.loss == "dpo" or not self.label_smoothing,
            f"Preference(loss={self.loss!r}, label_smoothing={self.label_smoothing:g}): smoothing is defined for "
            f"'dpo'; leave it out",
        )


@dataclass(frozen=True, kw_only=True)
class RewardModel:
    """One number for a prompt with its answer, higher for the chosen one of a pair (Ouyang 2022, eq. 1).

    Per pair -log sigmoid(r(chosen) - r(rejected)): the model of Bradley and Terry (1952). The model has a scalar head.
    """

    kind: Literal["reward-model"] = field(default="reward-model", metadata={"identity": "always"})

    def __post_init__(self) -> None:
        check_types(self)


@dataclass(frozen=True, kw_only=True)
class Reinforcement:
    """The expected reward of answers that the policy itself draws: GRPO (Shao 2024, arXiv 2402.03300, eq. 3).

    Prompts are the questions of `synthetic:tasks(...)`, or those of a corpus of prompts and answers. Every prompt gets
    a group of answers at temperature 1; an answer's advantage is its reward against its group's. The penalty is the KL
    to `RunConfig.reference`, by the estimator k3 of each drawn token.
    """

    kind: Literal["reinforcement"] = field(default="reinforcement", metadata={"identity": "always"})
    group: int = 8
    """G: answers per prompt."""
    answer_tokens: int = 16
    """The most tokens of an answer, its end of document included; a longer one is cut there."""
    prompt_tokens: int | None = None
    """The most tokens of a prompt of a corpus, the end of document before it included; a longer one loses its
    beginning. None: all that the context leaves beside the answer. Of tasks the longest prompt is known."""
    checker: Literal["exact", "graded", "number"] = "exact"
    """The reward where no reward model is named: `exact`, 1 for the answer of the task or of the corpus and 0 else;
    `graded`, the share of its characters that are in place; `number`, 1 where the last number is that of the answer of
    the corpus (Cobbe 2021, arXiv 2110.14168)."""
    reward: str = ""
    """`run_id[@step]` of a reward model with the same tokenizer; empty takes the checker."""
    advantage: Literal["grpo", "dr-grpo"] = "grpo"
    """`grpo`: rewards less their group's mean over its standard deviation, and the mean over an answer's tokens;
    `dr-grpo`: neither division, and the sum over an answer's tokens by `answer_tokens` (Liu 2025, arXiv 2503.20783)."""
    kl_weight: float = 0.04
    """beta: weight of the KL to the reference, per token; 0 leaves the penalty out."""
    clip: float = 0.2
    """epsilon: no gain from a probability ratio beyond 1 +- epsilon."""
    updates: int = 1
    """Updates from one batch of answers; from the second on the ratio to the policy that drew them is not 1."""
    kl_limit_nats: float = 100.0
    """A run whose mean KL to the reference, of whole answers, is above it has diverged."""

    def __post_init__(self) -> None:
        check_types(self)
        positive(self, "group", "answer_tokens", "clip", "updates", "kl_limit_nats")
        check(
            self.group >= 2,
            f"Reinforcement.group = {self.group}: an answer is compared with others to its prompt; take at least 2",
        )
        check(self.clip < 1, f"Reinforcement.clip = {self.clip:g}: a share of the ratio, below 1; try 0.2")
        check(
            0 <= self.kl_weight < float("inf"),
            f"Reinforcement.kl_weight = {self.kl_weight:g}: at least 0, which leaves the penalty out; try 0.04",
        )
        check(
            not self.reward or self.checker == "exact",
            f"Reinforcement(reward={self.reward!r}, checker={self.checker!r}): the reward model takes the place of the "
            f"checker; leave one of them out",
        )
        if self.prompt_tokens is not None:
            check(
                self.prompt_tokens >= 2,
                f"Reinforcement.prompt_tokens = {self.prompt_tokens}: the end of document before a prompt and a token "
                f"of it take at least 2",
            )
        if self.reward:
            CheckpointName.parse(self.reward, "Reinforcement.reward")


ObjectiveConfig = NextToken | Completion | Distillation | Preference | RewardModel | Reinforcement
"""One of these, distinguished by `kind`, which is part of a run's identity for all but the default."""
