"""An index of a corpus by a trained run."""

from pathlib import Path

from lmscale.core.config import check
from lmscale.lm.data.corpora import Progress
from lmscale.lm.inspect.subject import Subject
from lmscale.lm.retrieve.build import BuiltIndex, IndexSettings, build_index
from lmscale.lm.retrieve.embed import embedding_of
from lmscale.lm.retrieve.libraries import load_faiss
from lmscale.lm.retrieve.text import training_text, whole_text
from lmscale.lm.use.load import open_run
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
    subject = Subject(*trained, opened.mesh)
    return build_index(
        subject, opened.step, indexed, folder, settings, None if writer is None else writer.summariser, progress
    )
