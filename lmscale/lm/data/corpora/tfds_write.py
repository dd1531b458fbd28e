"""Documents written as a TFDS data set."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lmscale.lm.data.corpora.tfds import quiet, tfds


def write_dataset(
    folder: Path, splits: Sequence[str], examples: Callable[[str], Iterator[tuple[int, dict[str, Any]]]]
) -> None:
    """Write `documents/1.0.0` under `folder`: numbered records with features id, text and source, in their order.

    `examples(split)` yields number and record. Raises what `examples` raises, and OSError for a full disk.
    """
    library = tfds()
    text = library.features.Text

    class LocalInfo(library.core.DatasetInfo):  # type: ignore[name-defined]
        def initialize_from_bucket(self) -> None:
            """Do nothing: TFDS would ask the network about our text, and leave an empty temporary folder."""

    class Documents(library.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[name-defined, call-arg]
        name = "documents"
        VERSION = library.core.Version("1.0.0")

        def _info(self) -> Any:
            return LocalInfo(
                builder=self,
                description="Texts without exact duplicates, split by their SHA-256.",
                features=library.features.FeaturesDict({"id": text(), "text": text(), "source": text()}),
                disable_shuffling=True,
            )

        def _split_generators(self, dl_manager: Any) -> Any:
            return {split: self._generate_examples(split) for split in splits}

        def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
            return examples(split)

    try:
        with quiet():
            Documents(data_dir=str(folder), file_format="array_record").download_and_prepare()
    except RuntimeError as error:  # how the ArrayRecord writer reports a full disk
        if os.strerror(errno.ENOSPC) in str(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
        raise
    shutil.rmtree(folder / "downloads", ignore_errors=True)
