"""What one run can take from another: each check has one sentence, when a sweep is planned and when a run starts."""

from typing import TYPE_CHECKING

from lmscale.core.config.checks import check
from lmscale.core.config.model import ModelConfig

if TYPE_CHECKING:
    from lmscale.core.config.run import RunConfig

READ_ROLES = ("teacher", "reference")
"""Parents whose parameters lie beside a run's own while it trains."""


def check_start(child: "RunConfig", run_id: str, parent: ModelConfig) -> None:
    """Raise `UserError` where a run would start a language model from the reward model of run `run_id`."""
    check(
        child.model.scalar_head or not parent.scalar_head,
        f"run {child.run_id} cannot start from run {run_id}, a reward model, which has no next token; take the run "
        f"that it started from",
    )


def check_read(child: "RunConfig", role: str, run_id: str, parent: ModelConfig) -> None:
    """Raise `UserError` where the model of run `run_id` cannot be read as a `role` beside the one that is trained."""
    given = f"the {role} of run {child.run_id} is run {run_id}, "
    check(
        not parent.scalar_head or role == "reward",
        f"{given}a reward model, which has no next token; name a language model",
    )
    check(
        parent.scalar_head or role != "reward",
        f"{given}a language model, which gives no reward; name a run whose objective is RewardModel()",
    )
    check(
        child.model.vocab == parent.vocab,
        f"{given}which has {parent.vocab:,} ids, and its own are {child.model.vocab:,}; give both one tokenizer",
    )
    check(
        child.model.context <= parent.context,
        f"{given}which reads at most {parent.context:,} tokens, and its own context is {child.model.context:,}; take a "
        f"context of at most {parent.context:,}",
    )
