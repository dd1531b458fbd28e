"""A published model as a run folder: the same files as those of a run that was trained here."""

import dataclasses
import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from lmscale.core.config import IMPORTED, DataConfig, ModelConfig, OptimizerConfig, RunConfig, check
from lmscale.core.counting import count
from lmscale.core.files import (
    FETCH_AGAIN,
    check_new_folder,
    read_json,
    storage_error,
    whole_folder,
    write_json,
    write_text,
)
from lmscale.core.plans import PlannedRun, read_plan, write_plan
from lmscale.core.results import Outcome
from lmscale.core.run_folder import CONFIG_FILE, IMPORTED_FILE, PLAN_FILE
from lmscale.lm.data.tokenizer import FileTokenizer
from lmscale.lm.model.parameters import Params
from lmscale.lm.train.checkpoint import Checkpoints
from lmscale.lm.train.step import TrainState
from lmscale.lm.use.hf.fields import MODEL_FILE
from lmscale.lm.use.hf.published import model_config, parameters
from lmscale.lm.use.hf.tokenizer_files import TOKENIZER_FILE, read_tokenizer_content
from lmscale.lm.use.hf.weights import read_weights
from lmscale.lm.use.hf.write import RECORD

NO_TOKENS = (
    "how many tokens it was trained on is not known, so its row of a table has no D and no C; give --tokens, such as "
    "--tokens 3e11 for Pythia"
)


@dataclass(frozen=True)
class ImportedModel:
    """What was read."""

    config: RunConfig
    architecture: str
    tokens: int | None
    """D: training tokens, None where neither the folder nor the caller says."""
    remarks: tuple[str, ...]
    """What the reader should know, in sentences."""


def import_into_sweep(
    source: Path, sweep: Path, tokens: int | None = None, name: str = ""
) -> tuple[Path, ImportedModel]:
    """Import a model as a run of the sweep in the folder `sweep`, which is made where it does not exist.

    Returns the run's folder too.
    """
    planned = read_plan(sweep) if (sweep / PLAN_FILE).exists() else (sweep.resolve().name, [])
    with tempfile.TemporaryDirectory(prefix=".import.", dir=_new_folder(sweep)) as scratch:
        model = import_model(source, Path(scratch) / "run", tokens, name)
        folder = sweep / model.config.run_id
        twins = [run.config.run_id for run in planned[1] if run.config.data.source == model.config.data.source]
        check(not twins, f"{source} is in {sweep} already, as {', '.join(twins)}; remove that folder to import it anew")
        write_plan(sweep, planned[0], [*planned[1], PlannedRun(model.config)])
        (Path(scratch) / "run").replace(folder)
    return folder, model


def _new_folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(folder, error) from error
    return folder


def import_model(source: Path, output: Path, tokens: int | None = None, name: str = "") -> ImportedModel:
    """Read the published model in the folder `source` into the run folder `output`, which must not exist.

    `tokens` is D, the tokens that the model was trained on: by default what config.json records, else unknown. Raises
    `UserError` for a folder that is no such model, is damaged, or has an option without a counterpart.
    """
    check_new_folder(output)
    values = read_json(source / MODEL_FILE, f"{MODEL_FILE} of a published model", FETCH_AGAIN)
    check(isinstance(values, dict), f"{source / MODEL_FILE} is no mapping of fields")
    architecture, model = model_config(values)
    tensors = read_weights(source)
    dtypes = {str(tensor.dtype) for tensor in tensors.values()}
    model = dataclasses.replace(model, param_dtype="bfloat16" if dtypes == {"bfloat16"} else "float32")
    content = read_tokenizer_content(source)
    tokenizer, remarks = _tokenizer(content, values, model.vocab)
    params = parameters(tensors, architecture, model)
    stated = tokens if tokens is not None else _recorded_tokens(values.get(RECORD))
    if stated is None:
        remarks = (*remarks, NO_TOKENS)
    fingerprint = _fingerprint(params)
    config = _run_config(model, stated, f"{name or _safe(source.resolve().name)}@{fingerprint[:8]}")
    with whole_folder(output) as folder:
        write_json(folder / CONFIG_FILE, config.to_json())
        write_text(folder / TOKENIZER_FILE, content)
        origin = {
            "architecture": architecture.name,
            "source": source.resolve().name,
            "parameters_fingerprint": fingerprint,
            "end_of_document": tokenizer.end_of_document,
            "tokens": stated,
        }
        write_json(folder / IMPORTED_FILE, origin)
        checkpoints = Checkpoints(folder, config.run_id)
        arrays = {name: jnp.asarray(value) for name, value in params.items()}
        checkpoints.save(TrainState(jnp.int32(config.steps), arrays, (), None, None), {})  # type: ignore[arg-type]
        checkpoints.close()
        _outcome(config, stated, fingerprint).write(folder)
    return ImportedModel(config, architecture.name, stated, remarks)


def _recorded_tokens(record: Any) -> int | None:
    """D, as a folder that lmscale exported records it."""
    tokens = record.get("tokens") if isinstance(record, dict) else None
    return tokens if type(tokens) is int and tokens > 0 else None


def _safe(name: str) -> str:
    """A folder's name without what a mixture of sources would read as its own signs."""
    return "".join(char if char.isalnum() or char in "-_." else "-" for char in name) or "model"


def _run_config(model: ModelConfig, tokens: int | None, name: str) -> RunConfig:
    """One step per sequence, the nearest whole number of them; a single one where D is unknown."""
    sequences = max(1, round((tokens or 0) / model.context))
    return RunConfig(
        model=model,
        optimizer=OptimizerConfig(peak_lr=1e-3, batch_sequences=1),
        data=DataConfig(source=f"{IMPORTED}{name}", tokenizer=TOKENIZER_FILE, max_epochs=1e12),
        tokens=sequences * model.context,
        validations=1,
        name=name.rpartition("@")[0],
    )


def _tokenizer(content: str, values: dict[str, Any], vocab: int) -> tuple[FileTokenizer, tuple[str, ...]]:
    """The tokenizer with the end of a text that config.json names, and remarks."""
    end = values.get("eos_token_id")
    ends = [number for number in (end if isinstance(end, list) else [end]) if type(number) is int]
    tokenizer = FileTokenizer(content, TOKENIZER_FILE, ends[0] if ends else None)
    check(
        tokenizer.vocab <= vocab,
        f"the tokenizer has {tokenizer.vocab:,} ids, but the model only {vocab:,}: they do not belong together; copy "
        f"both from one model",
    )
    padding = vocab - tokenizer.vocab
    remark = f"{padding:,} of the {vocab:,} rows of the token table stand for no token: they are never sampled"
    return tokenizer, (remark,) * bool(padding)


def _fingerprint(params: Params | dict[str, Any]) -> str:
    digest = hashlib.sha256()
    for name in sorted(params):
        digest.update(name.encode())
        digest.update(memoryview(params[name]).cast("B"))
    return digest.hexdigest()[:16]


def _outcome(config: RunConfig, tokens: int | None, fingerprint: str) -> Outcome:
    """What is known of a run that took place elsewhere: its size, and its length where somebody says it."""
    counts = count(config)
    return Outcome(
        run_id=config.run_id,
        state="imported",
        params=counts.params,
        params_non_embedding=counts.params_non_embedding,
        active_params=counts.active_params,
        active_params_non_embedding=counts.active_params_non_embedding,
        tokens=0 if tokens is None else config.tokens,
        flops=0 if tokens is None else counts.flops,
        flops_6n=0 if tokens is None else counts.flops_6n,
        unique_tokens=0,
        epochs=0.0,
        data_fingerprint=f"{IMPORTED}{fingerprint}",
        seconds=0.0,
        startup_seconds=0.0,
        device="elsewhere",
        versions={},
    )
