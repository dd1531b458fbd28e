"""An index of a corpus by a trained run."""

from pathlib import Path

import jax

from lmscale.core.config import MeshConfig, check
from lmscale.lm.data.corpora import Progress
from lmscale.lm.devices.sharding import make_mesh, replicated
from lmscale.lm.inspect.subject import Subject
from lmscale.lm.retrieve.build import BuiltIndex, IndexSettings, build_index
from lmscale.lm.retrieve.embed import embedding_of
from lmscale.lm.retrieve.libraries import load_faiss
from lmscale.lm.retrieve.text import training_text, whole_text
from lmscale.lm.use.load import Opened, open_run
from lmscale.lm.use.summaries import SummaryWriter


def make_index(
    run: Path, folder: Path, settings: IndexSettings, *, source: str | None = None, step: int | None = None,
    progress: Progress = lambda what, share: None,
) -> BuiltIndex:  # fmt: skip
    """Index the training text of the run in `run`, or all of `source`, in `folder`; or finish a broken-off index there.

    Raises `UserError` for a run without a checkpoint, and as `build_index` does.
    """
    load_faiss()
    opened = open_run(run, step)
    trained = opened.run
    embedding_of(trained.config.model, settings.layer, settings.pooling)  # before a corpus is prepared
    writer = None
    if settings.summary_tokens:
        check(
            not trained.config.model.scalar_head,
            f"{run} is a reward model, which writes no summaries; leave --summaries out, or name a language model",
        )
        writer = SummaryWriter(trained, opened.mesh, settings.summary_tokens)
    indexed = whole_text(source, progress) if source else training_text(trained.config.data, progress)
    return build_index(
        on_all_devices(opened),
        opened.step,
        indexed,
        folder,
        settings,
        None if writer is None else writer.summariser,
        progress,
    )


def on_all_devices(opened: Opened) -> Subject:
    """The model on every device of this machine, each of which embeds a share of the texts; on the run's own mesh where
    that has several."""
    config, params, tokenizer = opened.run
    if opened.mesh.size > 1 or jax.device_count() == 1:
        return Subject(config, params, tokenizer, opened.mesh)
    mesh = make_mesh(MeshConfig(data=jax.device_count()))
    return Subject(config, jax.device_put(params, replicated(mesh)), tokenizer, mesh)
