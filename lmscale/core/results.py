"""The `Outcome` of one run, and the table that joins a plan with its outcomes.

A row of the table is a planned run with its outcome, so a run that never finished is a row whose `state` says so, not
an absent row. Columns that a fit reads have the package's canonical names and units.
"""

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from lmscale.core.config import ModelConfig, RunConfig, check, check_types, finite, from_json, not_negative
from lmscale.core.counting import count, trained_params
from lmscale.core.errors import UserError
from lmscale.core.files import read_json, write_json
from lmscale.core.plans import PlannedRun, read_plan
from lmscale.core.run_folder import OUTCOME_FILE, failure_reason
from lmscale.core.run_identity import check_configured, check_file_of

if TYPE_CHECKING:
    import pandas as pd

NOT_IN_TABLE = (
    "run_id", "versions", "loss_by_position_nats", "reported", "validation_reported", "experts", "tokens_by_source",
    "epochs_by_source",
)  # fmt: skip
"""Fields of an `Outcome` that are no columns: the first is the column `run`, the others are not one value. Those
of `reported` have columns `reported_NAME`, those of `validation_reported` `validation_NAME`."""

COUNTS = ("params", "params_non_embedding", "tokens", "flops", "flops_6n", "unique_tokens", "epochs", "seconds")
NAMED = 3
"""Most corpora that a sentence names."""

State = Literal["finished", "diverged", "failed", "imported"]
"""`imported`: trained elsewhere, so that no loss is known."""
STATES: tuple[str, ...] = get_args(State)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one run achieved: written once, last and atomically, by the run itself."""

    run_id: str
    state: State
    reason: str = ""
    """Why a run that did not finish ended: one sentence."""
    loss_nats: float | None = None
    """Validation cross-entropy at the last step, natural log, mean over the scored tokens."""
    loss_stderr: float | None = None
    """Standard error of `loss_nats` over the windows of the validation set."""
    bits_per_byte: float | None = None
    """`loss_nats` in bits per byte of text: document ends are scored and count no byte."""
    loss_by_position_nats: tuple[float, ...] | None = None
    """Validation loss of the tokens predicted from 2^i to 2^(i+1) - 1 tokens, i = 0, 1, ...: what context is worth."""
    train_loss_nats: float | None = None
    """Mean training loss over the last logged interval."""
    reported: dict[str, float | None] | None = None
    """What the objective reports besides, by name: means over the last logged interval; null where not finite."""
    validation_reported: dict[str, float | None] | None = None
    """What the objective reports of the held-out pairs of answers, by name: means over them at the last step."""
    experts: dict[str, list[Any]] | None = None
    """What the experts of each layer did over the last logged interval, None in a dense model: `load`, the share of a
    layer's choices that each expert got; nats of the entropy of that load, and of the distribution that the router
    gives a token, on average; the share of choices that found no room; how many experts no token chose."""
    validation_tokens: int | None = None
    spikes: int = 0
    """Steps whose training loss was more than six standard deviations from the recent ones."""
    params: int
    params_non_embedding: int
    active_params: int | None = None
    """Parameters that one token passes; an outcome without them is of a dense model, which has no others."""
    active_params_non_embedding: int | None = None
    tokens: int
    """Tokens trained on, repeats counted."""
    flops: int
    """Exact training FLOPs (`counting.count`), validation left out."""
    flops_6n: int
    batch_flops: int = 0
    """FLOPs of making the batches, beside `flops`: of samples that the model itself draws; 0 for text from disk."""
    reference_flops: int = 0
    """Forward FLOPs of the teacher or reference that the run has read, beside `flops`."""
    answer_tokens: int | None = None
    """Tokens that are no prompt, out of `tokens`; None where documents have no prompts."""
    padding_tokens: int | None = None
    """Tokens that fill sequences up behind whole documents, out of `tokens`; None where text is one stream."""
    cut_tokens: int | None = None
    """Tokens of the beginnings of documents that are too long for a sequence, each once; None for a stream."""
    unique_tokens: int
    """Distinct training tokens seen."""
    epochs: float
    """Passes over the training tokens available, 0 where they have no end."""
    tokens_by_source: dict[str, int] | None = None
    """`tokens` by the source that they come from."""
    epochs_by_source: dict[str, float] | None = None
    repeats_min: float | None = None
    """How often the tokens of a document were scored, the least of all documents; None where all text was fresh."""
    repeats_mean: float | None = None
    repeats_max: float | None = None
    data_fingerprint: str
    seconds: float
    """Time of training, summed over resumed attempts: without start-up and compilation, and without the pauses for
    validation, scoring and saving. Rates in metrics are on the same clock."""
    paused_seconds: float | None = None
    """Wall time of those pauses; None in an old outcome, whose `seconds` include validation."""
    startup_seconds: float
    """From process start to the first finished step."""
    tokens_per_second: float | None = None
    mfu: float | None = None
    """`flops` and `reference_flops` over `seconds`, over the matmul peak of the compute dtype in the same process."""
    matmul_peak_flops_per_second: float | None = None
    device: str
    versions: dict[str, str]

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("params", "params_non_embedding"):
            if getattr(self, f"active_{name}") is None:
                object.__setattr__(self, f"active_{name}", getattr(self, name))

    @property
    def wall_seconds(self) -> float:
        """Wall time of the run: start-up, training and its pauses."""
        return self.startup_seconds + self.seconds + (self.paused_seconds or 0.0)

    def write(self, folder: Path) -> None:
        """Write `outcome.json` into the run's folder."""
        write_json(folder / OUTCOME_FILE, asdict(self))

    @classmethod
    def read(cls, folder: Path, planned: RunConfig | None = None) -> "Outcome | None":
        """The outcome in a run's folder, None where there is none.

        `planned` is the configuration that the run should have, if the caller knows it. Raises `UserError` for a
        corrupt file, and where outcome or configuration are of another run than the folder.
        """
        path = os.path.join(folder, OUTCOME_FILE)  # noqa: PTH118 - a Path costs more than reading the file
        if not os.path.lexists(path):
            return None
        outcome = cls._parsed(read_json(path, "outcome"), path)
        check_file_of(outcome.run_id, path)
        if planned is not None and outcome.run_id != planned.run_id:
            raise UserError(
                f"{path} is the outcome of run {outcome.run_id}, and not of {planned.run_id}; delete it, and `lmscale "
                f"run` will make it again"
            )
        check_configured(outcome.run_id, folder, planned)
        return outcome

    @classmethod
    def _parsed(cls, value: Any, path: str) -> "Outcome":
        try:
            outcome = from_json(cls, value)
            finite(outcome)
            not_negative(outcome, *COUNTS, "active_params", "active_params_non_embedding")
            check((outcome.active_params or 0) <= outcome.params, "a token passes no more parameters than there are")
            check(outcome.state != "finished" or outcome.loss_nats is not None, "a finished run has a loss")
        except (UserError, TypeError) as error:
            raise UserError(
                f"the outcome {path} is corrupt or of another version ({error}); delete it, and `lmscale run` will "
                f"make it again"
            ) from None
        return outcome


def outcome_or_problem(folder: Path, planned: RunConfig | None = None) -> tuple[Outcome | None, str]:
    """What `Outcome.read` returns, and "" or the sentence that it raises: one run must not stop the others."""
    try:
        return Outcome.read(folder, planned), ""
    except UserError as error:
        return None, str(error)


def corpora_sentence(fingerprints: Iterable[Any], stages: Iterable[Any] | None = None) -> str:
    """A sentence where `fingerprints`, one per run, are of several data sets; "" where all are of one, or unknown.

    Runs of several `stages` are told apart: those of one stage alone can be mixed.
    """
    if stages is not None:
        by_stage: dict[Any, list[Any]] = {}
        for stage, fingerprint in zip(stages, fingerprints):
            by_stage.setdefault(stage, []).append(fingerprint)
        return next(filter(None, map(corpora_sentence, by_stage.values())), "")
    numbers = Counter(value for value in fingerprints if isinstance(value, str) and value)
    if len(numbers) < 2:
        return ""
    corpora = ", ".join(f"{number} on {fingerprint}" for fingerprint, number in numbers.most_common(NAMED))
    more = f" and {len(numbers) - NAMED} more corpora" if len(numbers) > NAMED else ""
    return (
        f"{len(numbers)} corpora are mixed in these runs ({corpora}{more}, by data fingerprint), and losses on "
        f"different data belong to different laws"
    )


OUTCOME_COLUMNS = tuple(item.name for item in fields(Outcome) if item.name not in NOT_IN_TABLE)
_COLUMNS_OF = itemgetter(*OUTCOME_COLUMNS)


def collect(folder: str | Path) -> "pd.DataFrame":
    """The table of a sweep's folder: one row per planned run, joined with its outcome.

    Canonical columns: `run` (run_id), `params` (N, all parameters), `active_params` (those that one token passes, of a
    dense model the same), `tokens` (D), `flops` (C, exact), `loss_nats`, `flops_budget`, `held_out`, `group`; then
    `state` ("missing" where nothing has come out, "corrupt" where that cannot be believed), the other counting
    conventions, the configuration's main fields, `teacher_loss_nats` (that of a teacher that is planned here, too) and
    the rest of the `Outcome`.
    `attrs["corrupt"]` has the sentence for every corrupt row, `attrs["notes"]` one where corpora are mixed. Raises
    `UserError` as `read_plan` does.
    """
    import pandas as pd

    folder = Path(folder)
    _, runs = read_plan(folder)
    table = pd.DataFrame([_row(run, folder / run.config.run_id) for run in runs])
    table["flops_budget"] = table["flops_budget"].astype(float)
    table["loss_nats"] = table["loss_nats"].astype(float)
    table["teacher_loss_nats"] = table["teacher"].map(table.set_index("run")["loss_nats"]).astype(float)
    if trunks := {run.trunk for run in runs if run.trunk}:  # the longest branch is its trunk
        table["trunk"] = [run.trunk or (name if (name := run.config.run_id) in trunks else None) for run in runs]
    # A run without an outcome counts with the corpus that it was planned for.
    fingerprints = (
        own if isinstance(own, str) else run.data_fingerprint for own, run in zip(table["data_fingerprint"], runs)
    )
    mixed = corpora_sentence(fingerprints, table["stage"])
    table.attrs = {
        "corrupt": list(table["reason"][table["state"] == "corrupt"]),
        "notes": [mixed] * bool(mixed),
    }
    return table


def _experts(model: ModelConfig) -> dict[str, float]:
    """What says how experts are arranged; a dense model has one, of granularity 1, and no idle share (sparsity 0)."""
    return {
        "experts": model.experts,
        "experts_per_token": model.experts_per_token,
        "shared_experts": model.shared_experts,
        "granularity": model.granularity,
        "sparsity": 1 - model.experts_per_token / model.experts,
    }


def _row(run: PlannedRun, folder: Path) -> dict[str, Any]:
    config, counts, parents = run.config, count(run.config), run.config.parents
    outcome, problem = outcome_or_problem(folder, config)
    row: dict[str, Any] = {
        "run": config.run_id,
        "name": config.name,
        "state": "missing",
        "held_out": run.held_out,
        "group": run.group or config.run_id,
        "flops_budget": run.flops_budget,
        **vars(counts),
        "tokens_per_param": counts.tokens_per_param,
        "width": config.model.width,
        "layers": config.model.layers,
        "heads": config.model.heads,
        **_experts(config.model),
        "vocab": config.model.vocab,
        "context": config.model.context,
        "parametrization": config.model.parametrization,
        "steps": config.steps,
        "batch_sequences": config.optimizer.batch_sequences,
        "batch_tokens": config.batch_tokens,
        "peak_lr": config.optimizer.peak_lr,
        "seed": config.seed,
        "source": config.data.source,
        "trained_params": trained_params(config.model),
        "lora_rank": None if config.model.lora is None else config.model.lora.rank,
        "stage": run.stage,
        "parent": None if config.init_from is None else parents["init_from"].run_id,
        "teacher": name.run_id if (name := parents.get("teacher")) else None,
        "teacher_loss_nats": None,
        "reference": name.run_id if (name := parents.get("reference")) else None,
        "reward_model": name.run_id if (name := parents.get("reward")) else None,
        "stage_tokens": config.tokens,
        "parent_tokens": run.parent_tokens,
    }
    result: dict[str, Any] = {}
    if outcome is not None:
        result = dict(zip(OUTCOME_COLUMNS, _COLUMNS_OF(vars(outcome))))
        if not outcome.tokens:  # trained elsewhere, nobody says on how much
            result |= dict.fromkeys(("tokens", "flops", "flops_6n", "tokens_per_param"))
        result |= {f"reported_{name}": value for name, value in (outcome.reported or {}).items()}
        held_out = (outcome.validation_reported or {}).items()
        result |= {f"validation_{name}": value for name, value in held_out}
    elif problem:
        result = {"state": "corrupt", "reason": problem}
    elif (reason := failure_reason(folder)) is not None:
        result = {"state": "failed", "reason": reason}
    blank = {} if outcome is not None else {name: None for name in OUTCOME_COLUMNS if name not in row}
    return {**row, **blank, **result}
