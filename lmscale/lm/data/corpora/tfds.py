"""Text out of data sets that TensorFlow Datasets prepared, by name, without TensorFlow."""

import contextlib
import errno
import importlib
import io
import logging
import os
import re
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from lmscale.core.errors import UserError, nearest
from lmscale.lm.data.corpora.cache import Listing, listing
from lmscale.lm.data.corpora.sources import Document, Skipped, Unreadable

READ_RECORDS = 256
DOWNLOAD_RETRIES = 3
HUB = "huggingface:"
"""How TFDS names data sets of the Hugging Face Hub, which it makes into its own."""


def tfds() -> Any:
    """TensorFlow Datasets, imported on first use."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tensorflow_datasets

    return tensorflow_datasets


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep TFDS from writing bars, notices and warnings into our own output."""
    tfds().disable_progress_bar()
    loggers = [logging.getLogger(name) for name in ("absl", "urllib3", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)


def data_folder() -> Path:
    """Where TFDS keeps prepared data sets: $TFDS_DATA_DIR, else ~/tensorflow_datasets."""
    return Path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser().absolute()


def records_listing(place: Path) -> Listing:
    """The files of one version of a data set, and the versions beside it: a bare name means the newest."""
    versions = [(f"../{path.name}", 0, 0, 0) for path in sorted(place.parent.iterdir()) if path.is_dir()]
    return versions + listing(place, lambda name: True, lambda name: True)


@dataclass
class Records:
    """The records of `splits`, one after the other, of the prepared data set in `folder`; see `sources.Source`."""

    folder: Path
    splits: list[str]
    text_field: str
    name: str = ""
    parts: list[Any] = field(init=False)
    starts: list[int] = field(init=False)

    def __post_init__(self) -> None:
        try:
            with quiet():
                builder = tfds().builder_from_directory(self.folder)
                self.parts = [builder.as_data_source(split) for split in self.splits]
        except NotImplementedError:
            raise UserError(
                f"the data set in {self.folder} is stored as {builder.info.file_format.value}, which gives no record "
                f"by number; prepare it again with file_format='array_record'"
            ) from None
        self.starts = np.cumsum([0, *map(len, self.parts)]).tolist()

    def units(self) -> Iterator[tuple[str, float]]:
        for split, start in zip(self.splits, self.starts):
            yield split, start / max(1, self.starts[-1])

    def documents(self, unit: str, skipped: list[Skipped]) -> Iterator[Document]:
        number = self.splits.index(unit)
        start, stop = self.starts[number : number + 2]
        for first in range(start, stop, READ_RECORDS):
            texts = self.read(range(first, min(stop, first + READ_RECORDS)))
            for index, text in enumerate(texts, start=first - start):
                try:
                    text.decode()
                except UnicodeDecodeError:
                    raise Unreadable(f"record {index} is not UTF-8") from None
                yield Document(f"{unit}:{index}", text, unit)

    def read(self, positions: Sequence[int] | np.ndarray[Any, Any]) -> list[bytes]:
        """The texts at `positions`, counted through all splits."""
        wanted = np.asarray(positions)
        parts = np.searchsorted(self.starts, wanted, side="right") - 1
        texts: list[bytes] = [b""] * len(wanted)
        for part in np.unique(parts):
            places = np.flatnonzero(parts == part)
            records = self.parts[part].__getitems__((wanted[places] - self.starts[part]).tolist())
            for place, record in zip(places, records):
                texts[place] = _bytes(record[self.text_field])
        return texts

    def document(self, position: int) -> Document:
        """The record at `position`, counted through all splits, with its own id or its place in its split."""
        part = int(np.searchsorted(self.starts, position, side="right")) - 1
        index = position - self.starts[part]
        record = self.parts[part][index]
        if {"id", "source"} <= record.keys() and self.text_field == "text":
            name, source = (_bytes(record[key]).decode() for key in ("id", "source"))
            return Document(name, _bytes(record[self.text_field]), source)
        return Document(f"{self.splits[part]}:{index}", _bytes(record[self.text_field]), self.splits[part])


def _bytes(value: str | bytes) -> bytes:
    """TFDS gives text as bytes, its mocked data as str."""
    return value.encode() if isinstance(value, str) else value


def open_by_name(source: str, text_field: str, allow_download: bool) -> Records:
    """The data set `tfds:NAME[/CONFIG][:VERSION]`: its train split, or all where it has none by that name.

    What TFDS's authors held out stays out, so that published test sets can be used for testing. `NAME` may be
    `huggingface:OWNER__REPOSITORY`, whose builder asks the network for what it is: so it is made only to download, and
    what is prepared is read from its files. Raises `UserError` for a name that TFDS does not know, for data that are
    not prepared unless `allow_download`, without a network then, and for a feature that is absent or not text.
    """
    name = source.removeprefix("tfds:")
    hub = name.startswith(HUB)
    builder = _stored_from_hub(name) if hub else _builder(name)
    with quiet():
        prepared = builder is not None and builder.is_prepared()
    if not prepared:
        if not (allow_download or os.environ.get("LMSCALE_ALLOW_DOWNLOAD") == "1"):
            raise UserError(
                f"{source} is not prepared in {data_folder()}, and nothing is downloaded unasked; run "
                f"`lmscale data {source} --allow-download`, or point TFDS_DATA_DIR to where it lies"
            )
        builder = _download(source, lambda: builder or tfds().builder(name, data_dir=str(data_folder())))
    features = builder.info.features
    if text_field not in features:
        raise UserError(
            f"{source} has no feature {text_field!r} (DataConfig.text_field){nearest(text_field, features)}"
        )
    if not _is_text(features[text_field]):
        texts = [key for key, value in features.items() if _is_text(value)]
        raise UserError(f"the feature {text_field!r} of {source} is not text; text are: {', '.join(texts) or 'none'}")
    splits = ["train"] if "train" in builder.info.splits else sorted(builder.info.splits)
    return Records(Path(builder.data_dir), splits, text_field, name=f"tfds:{HUB * hub}{builder.info.full_name}")


def _is_text(feature: Any) -> bool:
    """A string by itself; the Hub's are scalars of that type, not TFDS's `Text`."""
    return isinstance(feature, tfds().features.Tensor) and feature.shape == () and feature.np_dtype == np.object_


def _stored_from_hub(name: str) -> Any:
    """A builder of what was prepared of the Hugging Face Hub before, None where nothing was."""
    library = tfds()
    try:
        with quiet():
            parsed, wanted = library.core.naming.parse_builder_name_kwargs(name, data_dir=str(data_folder()))
            return library.core.read_only_builder.builder_from_files(parsed.name, **wanted)
    except library.core.registered.DatasetNotFoundError:
        return None
    except ValueError:
        raise UserError(f"'tfds:{name}' cannot be read; write tfds:{HUB}OWNER__REPOSITORY[/CONFIG][:VERSION]") from None


def _builder(name: str) -> Any:
    """TFDS's builder of `name`. Raises `UserError` naming what is near."""
    library = tfds()
    bare = re.split("[/:]", name, maxsplit=1)[0]
    with quiet():
        importlib.import_module("tensorflow_datasets.text")  # some builders register only when it is imported
        known = set(library.list_builders(with_community_datasets=False))
        try:
            return library.builder(name, data_dir=str(data_folder()))
        except library.core.registered.DatasetNotFoundError:
            near = get_close_matches(bare, known, n=3, cutoff=0.5) or ["lm1b", "wiki40b", "c4"]
            raise UserError(
                f"TFDS knows no data set {bare!r}, and none of that name lies in {data_folder()}; near are: "
                f"{', '.join(near)}"
            ) from None
        except ImportError as error:
            raise UserError(_missing_package(f"tfds:{name}", error)) from None
        except (ValueError, AssertionError) as error:
            config = name.removeprefix(bare).split(":")[0].removeprefix("/")
            configs = library.builder_cls(bare).builder_configs if bare in known else {}
            if config and config not in configs:
                clause = nearest(config, configs) if configs else "; it has none"
                raise UserError(f"the TFDS data set {bare!r} has no configuration {config!r}{clause}") from None
            raise UserError(
                f"TFDS cannot open {name!r}: {_first_line(error)}; write tfds:NAME[/CONFIG][:VERSION]"
            ) from None


def _missing_package(source: str, error: ImportError) -> str:
    what = "'lmscale[tfds-prepare]'" if error.name == "tensorflow" else error.name
    return f"TFDS needs the package {error.name} for {source}: pip install {what}, then run again"


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
            """Nothing: TFDS would ask the network for facts about our text, and leave an empty folder in /tmp."""

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
    except RuntimeError as error:  # how the ArrayRecord writer says it
        if os.strerror(errno.ENOSPC) in str(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
        raise
    shutil.rmtree(folder / "downloads", ignore_errors=True)


def _download(source: str, make: Callable[[], Any]) -> Any:
    """Let TFDS fetch and prepare; a dead network shows within seconds instead of TFDS's 204. Returns the builder."""
    downloader: Any = importlib.import_module("tensorflow_datasets.core.download.downloader")
    retries = getattr(downloader, "MAX_RETRIES", None)
    if retries is not None:
        downloader.MAX_RETRIES = min(retries, DOWNLOAD_RETRIES)
    try:
        with quiet():
            builder = make()
            builder.download_and_prepare(file_format="array_record")
            return builder
    except Exception as error:
        raise UserError(_download_trouble(source, error)) from error
    finally:
        if retries is not None:
            downloader.MAX_RETRIES = retries


def _download_trouble(source: str, error: Exception) -> str:
    causes: list[BaseException] = [error]
    while (deeper := causes[-1].__cause__ or causes[-1].__context__) is not None and deeper not in causes:
        causes.append(deeper)
    words = " ".join(f"{type(cause).__name__} {cause}" for cause in causes)
    if any(word in words for word in ("ConnectError", "ConnectionError", "ProxyError", "Timeout", "gaierror")):
        return (
            f"{source} could not be downloaded: no network reaches its host; run again with one, or copy a prepared "
            f"data set to {data_folder()}"
        )
    for cause in causes:
        if isinstance(cause, ImportError):
            return _missing_package(source, cause)
    return f"TFDS could not prepare {source}: {_first_line(error)}"


def _first_line(error: BaseException) -> str:
    said = re.sub(r'Failed to construct dataset ".*?", builder_kwargs ".*?": ', "", str(error))
    return next((line.strip(" .") for line in said.splitlines() if line.strip()), type(error).__name__)
