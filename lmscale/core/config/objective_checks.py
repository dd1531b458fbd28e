"""What a run's objective needs of its data, its start and its reference, each in one sentence."""

from typing import Protocol

from lmscale.core.config import mixture
from lmscale.core.config.checks import check
from lmscale.core.config.data import DataConfig
from lmscale.core.config.exam import ExamConfig
from lmscale.core.config.model import ModelConfig
from lmscale.core.config.objective import (
    Completion,
    Distillation,
    ObjectiveConfig,
    Preference,
    Reinforcement,
    RewardModel,
)
from lmscale.core.config.optimizer import OptimizerConfig
from lmscale.core.config.start import CheckpointName
from lmscale.core.config.synthetic import is_tasks
from lmscale.core.errors import UserError


class Run(Protocol):
    """What these checks read of a `RunConfig`, which calls them."""

    @property
    def model(self) -> ModelConfig: ...
    @property
    def optimizer(self) -> OptimizerConfig: ...
    @property
    def data(self) -> DataConfig: ...
    @property
    def objective(self) -> ObjectiveConfig: ...
    @property
    def init_from(self) -> str | None: ...
    @property
    def reference(self) -> str | None: ...
    @property
    def kept_steps(self) -> tuple[int, ...]: ...
    @property
    def exam(self) -> ExamConfig: ...
    @property
    def prompt_tokens(self) -> int: ...


def check_objective(run: Run) -> None:
    """Raise `UserError` unless a run has what its objective learns from."""
    _check_pairs(run)
    if isinstance(run.objective, Reinforcement):
        _check_reinforcement(run, run.objective)
    check(
        not isinstance(run.objective, Completion) or run.data.prompts,
        "objective = Completion() scores answers alone, so the data must say which text is a prompt: give "
        "DataConfig(prompt_field=...) or a template, or take NextToken()",
    )
    if isinstance(run.objective, Distillation):
        _check_teacher(run, run.objective)


def _check_teacher(run: Run, settings: Distillation) -> None:
    """Raise `UserError` for a student without a teacher, or one that starts as its teacher and has nothing to learn."""
    check(
        bool(settings.teacher),
        "objective = Distillation() names no teacher: give Distillation(teacher='0123456789ab'), the id of a run, "
        "or in a sweep a point with a teacher",
    )
    if run.init_from is None:
        return
    model = run.model
    changed = settings.text_weight or settings.top_k or model.residual_dropout or model.attention_dropout
    check(
        bool(changed) or settings.teacher != run.init_from,
        f"the teacher, run {settings.teacher}, is also what the student starts from, so there is nothing to learn "
        f"from it; name another teacher, or give Distillation(text_weight=...)",
    )


def _check_pairs(run: Run) -> None:
    """Raise `UserError` unless the objective and the data agree on pairs, and the model and what it reads on it."""
    preference, reward = isinstance(run.objective, Preference), isinstance(run.objective, RewardModel)
    if not (preference or reward or run.data.pairs or run.reference or run.model.scalar_head):
        return  # as nearly always: a plan has ten thousand configurations
    check(
        run.data.pairs == (preference or reward),
        f"objective = {type(run.objective).__name__}() learns from pairs of answers: give DataConfig(template="
        f"'preference', rejected_field='rejected'), or the fields that your records have"
        if preference or reward
        else f"DataConfig.rejected_field = {run.data.rejected_field!r} makes pairs of answers, which objective = "
        f"{type(run.objective).__name__}() does not read; take Preference() or RewardModel(), or leave it out",
    )
    check(
        not preference or run.reference is not None,
        "objective = Preference() compares the policy with a reference, and RunConfig.reference names none: give "
        "it the id of a run, as a rule that of init_from, or in a sweep a point with a reference",
    )
    check(
        run.reference is None or isinstance(run.objective, Preference | Reinforcement),
        f"RunConfig.reference = {run.reference!r} is read by the objectives Preference() and Reinforcement() "
        f"alone; leave it out",
    )
    check(
        not preference or run.init_from is not None,
        "objective = Preference() starts from random numbers, which prefer nothing: give RunConfig(init_from=...) "
        "a run that can answer, as a rule a fine-tuned one",
    )
    check(
        reward == run.model.scalar_head,
        "objective = RewardModel() gives one number, and the model has logits: give ModelConfig(scalar_head=True)"
        if reward
        else f"ModelConfig.scalar_head gives one number per token in place of logits, which objective = "
        f"{type(run.objective).__name__}() needs; take RewardModel(), or leave it out",
    )
    check(
        not (reward and run.exam.tasks),
        "RunConfig.exam names tasks, which a reward model cannot answer: it has no next token; leave them out",
    )
    check(
        not (preference or reward) or not run.optimizer.z_loss,
        f"OptimizerConfig.z_loss = {run.optimizer.z_loss:g} is a penalty per scored token, which pairs of answers "
        f"do not have; take 0",
    )
    if run.reference is not None:
        CheckpointName.parse(run.reference, "RunConfig.reference")


def _check_reinforcement(run: Run, settings: Reinforcement) -> None:
    """Raise `UserError` unless a policy that draws its own answers has prompts, a start, and whole groups."""
    _check_prompts(run, settings)
    check(
        run.init_from is not None,
        "objective = Reinforcement() starts from random numbers, whose answers earn nothing: give "
        "RunConfig(init_from=...) a run that has read such prompts and answers",
    )
    check(
        run.reference is not None or not settings.kl_weight,
        f"Reinforcement.kl_weight = {settings.kl_weight:g} holds the policy to a reference, and "
        f"RunConfig.reference names none: give it the id of a run, as a rule that of init_from, or kl_weight=0",
    )
    sequences, group = run.optimizer.batch_sequences, settings.group
    check(
        sequences % group == 0,
        f"batch_sequences = {sequences} is not a whole number of groups of {group} answers; the nearest batch is "
        f"{max(1, round(sequences / group)) * group}",
    )
    check(
        not run.model.residual_dropout and not run.model.attention_dropout,
        "objective = Reinforcement() compares the probability of an answer with that of drawing it, which dropout "
        "changes at random; take residual_dropout=0 and attention_dropout=0",
    )
    check(
        not run.optimizer.z_loss,
        f"OptimizerConfig.z_loss = {run.optimizer.z_loss:g} is no part of the reward of an answer; take 0",
    )
    if apart := [step for step in run.kept_steps if step % settings.updates]:
        raise UserError(
            f"kept_steps has {apart[0]}, amid {settings.updates} updates from one batch of answers, where nothing "
            f"is saved; take multiples of {settings.updates}"
        )


def _check_prompts(run: Run, settings: Reinforcement) -> None:
    """Raise `UserError` unless there are prompts to draw answers to, right answers as the checker compares them, and
    room for both."""
    source, context = run.data.source, run.model.context
    check(
        is_tasks(source) or run.data.prompts,
        f"objective = Reinforcement() draws answers to prompts, of which DataConfig.source = {source!r} has none; take "
        f"'synthetic:tasks(only=\"copy\")', or records with a prompt and give DataConfig(template=...)",
    )
    check(
        not source.startswith(mixture.PREFIX),
        f"objective = Reinforcement() draws answers to the prompts of one source, and DataConfig.source = {source!r} "
        f"is a mixture; put the records of all into one folder",
    )
    check(
        is_tasks(source) or run.data.unique_tokens is None,
        f"DataConfig.unique_tokens = {run.data.unique_tokens} limits text, and objective = Reinforcement() learns from "
        f"answers that it draws; leave it out, and give fewer records for fewer prompts",
    )
    for name in ("prompt_tokens", "checker"):
        check(
            not is_tasks(source) or getattr(settings, name) in (None, "exact", "graded"),
            f"Reinforcement.{name} = {getattr(settings, name)!r} is for the prompts of a corpus; of tasks the longest "
            f"prompt is known, and answers are 'exact' or 'graded': leave it out",
        )
    longest = run.prompt_tokens
    check(
        longest >= 2,
        f"answers of {settings.answer_tokens} tokens leave no room for a prompt in context = {context}; take "
        f"answer_tokens of at most {context - 1}, or a longer context",
    )
    check(
        longest + settings.answer_tokens <= context + 1,
        f"prompts of up to {longest} tokens and answers of {settings.answer_tokens} do not fit into context = "
        f"{context}; take a context of at least {longest + settings.answer_tokens - 1}",
    )
