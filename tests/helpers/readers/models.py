"""Checkpoints, and published models as files."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from helpers.published import random_params, tiny
from helpers.readers.reader import Reader
from helpers.tiny_runs import run
from lmscale.core.errors import UserError
from lmscale.core.files import read_json
from lmscale.core.run_folder import CHECKPOINT_FOLDER, DATA_FILE
from lmscale.lm.data.tokenizer import FileTokenizer
from lmscale.lm.data.tokenizer import load as load_tokenizer
from lmscale.lm.train import checkpoint_content
from lmscale.lm.train.checkpoint import Checkpoints
from lmscale.lm.train.training_data import check_noted, note_data
from lmscale.lm.use.hf.published import model_config, parameters
from lmscale.lm.use.hf.tokenizer_files import read_tokenizer_content
from lmscale.lm.use.hf.weights import INDEX_FILE, WEIGHTS_FILE, read_weights
from lmscale.lm.use.hf.write import write_hf
from lmscale.lm.use.import_model import import_model
from lmscale.lm.use.load import TrainedRun, load

MODEL = tiny(vocab=256)


@flax.struct.dataclass
class State:
    """A small train state."""

    step: jax.Array
    params: dict[str, jax.Array]


def _state() -> State:
    return State(jnp.int32(7), {"a": jnp.arange(8.0), "b": jnp.full((2, 8), 0.5, jnp.bfloat16)})


def _checkpoint(pattern: str) -> Callable[[Path], Path]:
    """A checkpoint; the largest of its files that `pattern` names."""

    def write(folder: Path) -> Path:
        checkpoints = Checkpoints(folder, "abc")
        checkpoints.save(_state(), {"seconds": 2.5, "losses": [3.0, 2.5], "data_fingerprint": "5f0c"})
        checkpoints.close()
        files = [path for path in (folder / CHECKPOINT_FOLDER / "7").glob(pattern) if path.is_file()]
        return max(files, key=lambda path: (path.stat().st_size, path.name))

    return write


def _restored(path: Path) -> Any:
    """The state alone: facts that are read beside it have no checksum."""
    folder = next(parent for parent in path.parents if parent.name == CHECKPOINT_FOLDER)
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), _state())
    state, _ = Checkpoints(folder.parent, "abc").restore_step(7, like)
    return int(state.step), state.params


def _facts(path: Path) -> Any:
    """Facts, as the loop reads them: what is not whole is a `ValueError` that becomes a sentence."""
    folder = next(parent for parent in path.parents if parent.name == "7")
    facts, problem = checkpoint_content._attempt(lambda: checkpoint_content.read_facts(folder))
    if problem:
        raise UserError(problem)
    return facts


def _published(name: str, shard_bytes: int = 10**9) -> Callable[[Path], Path]:
    """A published model; its file `name`, or the first that the pattern `name` finds."""

    def write(folder: Path) -> Path:
        (folder / "model").mkdir()
        config = run("stdlib", 8, model=MODEL)
        trained = TrainedRun(config, random_params(MODEL), load_tokenizer("bytes"))
        write_hf(folder / "model", trained, {"tokens": 1024}, shard_bytes=shard_bytes)
        return next(iter(sorted((folder / "model").glob(name))))

    return write


def _merges(name: str) -> Callable[[Path], Path]:
    """A tokenizer as GPT-2's two files."""

    def write(folder: Path) -> Path:
        (folder / "vocab.json").write_text('{"a": 0, "b": 1, "c": 2, "ab": 3, "abc": 4, "<|endoftext|>": 5}', "utf-8")
        (folder / "merges.txt").write_text("#version: 0.2\na b\nab c\n", "utf-8")
        return folder / name

    return write


def _options(path: Path) -> Any:
    values = read_json(path, "config.json of a published model")
    if not isinstance(values, dict):
        raise UserError("no mapping of fields")
    architecture, config = model_config(values)
    return architecture.name, config


def _parameters(path: Path) -> Any:
    architecture, config = model_config(read_json(path.with_name("config.json")))
    return parameters(read_weights(path.parent), architecture, config)


def _tokens(path: Path) -> Any:
    return FileTokenizer(read_tokenizer_content(path.parent), "tokenizer.json").encode("abc ab")


def _imported(path: Path) -> Any:
    folder = path.parent.with_name("imported")
    shutil.rmtree(folder, ignore_errors=True)
    import_model(path.parent, folder)
    return load(folder).params


def _import_of(folder: Path) -> Path:
    source = _published("config.json")(folder)
    import_model(source.parent, folder / "imported")
    return folder / "imported" / "imported.json"


def _note(folder: Path) -> Path:
    note_data(IDENTITY, folder)
    return folder / DATA_FILE


IDENTITY = checkpoint_content.Identity("abc", "5f0c", "books", "77aa")
READERS = (
    Reader("note of a run's data", _note, lambda path: check_noted(IDENTITY, path.parent), "json"),
    Reader("facts of a checkpoint", _checkpoint("facts/*"), _facts, "json", finite=False),
    Reader("arrays of a checkpoint", _checkpoint("state/**/d/*"), _restored, exact=True, slow=True),
    Reader("index of a checkpoint", _checkpoint("state/manifest.ocdbt"), _restored, exact=True, slow=True),
    Reader("metadata of a checkpoint", _checkpoint("state/_METADATA"), _restored, "json", exact=True, slow=True),
    Reader("published configuration", _published("config.json"), _options, "json"),
    Reader("published weights", _published(WEIGHTS_FILE), _parameters, finite=False),
    Reader("index of published weights", _published(INDEX_FILE, 30_000), _parameters, "json", exact=True),
    Reader("one of published weights", _published("model-00002*", 30_000), _parameters, finite=False),
    Reader("published tokenizer", _published("tokenizer.json"), _tokens, "json"),
    Reader("vocabulary of gpt2", _merges("vocab.json"), _tokens, "json"),
    Reader("merges of gpt2", _merges("merges.txt"), _tokens, "text"),
    Reader("imported", _import_of, lambda path: load(path.parent).params, "json", exact=True, slow=True),
    *(
        Reader(f"import of {name}", _published(name), _imported, form, slow=True, changes=True, finite=False)
        for name, form in (("config.json", "json"), (WEIGHTS_FILE, "binary"), ("tokenizer.json", "json"))
    ),
)  # fmt: skip
