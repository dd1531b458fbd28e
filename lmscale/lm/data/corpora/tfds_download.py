"""TFDS data sets opened by name, and downloaded and prepared where that is allowed."""

import importlib
import os
import re
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from lmscale.core.errors import UserError, nearest
from lmscale.lm.data.corpora.tfds import Records, data_folder, first_line, quiet, tfds, whole

DOWNLOAD_RETRIES = 3
HUB = "huggingface:"
"""How TFDS names data sets of the Hugging Face Hub, which it converts."""


def open_by_name(source: str, text_field: str, prompt_field: str | None, allow_download: bool) -> Records:
    """The data set `tfds:NAME[/CONFIG][:VERSION]`: its train split, or all where it has none by that name.

    The splits that TFDS's authors held out are not read, so that published test sets can be used for testing. `NAME`
    may be `huggingface:OWNER__REPOSITORY`, whose builder asks the network: it is created only to download, and prepared
    data are read from their files. Raises `UserError` for a name that TFDS does not know, for data that are not
    prepared unless `allow_download`, without a network then, and for a feature that is absent or not text.
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
    with whole(Path(builder.data_dir)):
        return _records(builder, source, hub, text_field, prompt_field)


def _records(builder: Any, source: str, hub: bool, text_field: str, prompt_field: str | None) -> Records:
    """The records of a prepared data set. Raises `UserError` for a feature that is absent or not text."""
    features = builder.info.features
    for setting, feature in (("text_field", text_field), ("prompt_field", prompt_field)):
        if feature is not None:
            _check_feature(source, features, setting, feature)
    splits = ["train"] if "train" in builder.info.splits else sorted(builder.info.splits)
    title = f"tfds:{HUB * hub}{builder.info.full_name}"
    return Records(Path(builder.data_dir), splits, text_field, prompt_field, name=title)


def _check_feature(source: str, features: Any, setting: str, name: str) -> None:
    """Raise `UserError` unless the data set has a feature of text by that name."""
    if name not in features:
        raise UserError(f"{source} has no feature {name!r} (DataConfig.{setting}){nearest(name, features)}")
    if not _is_text(features[name]):
        texts = [key for key, value in features.items() if _is_text(value)]
        raise UserError(f"the feature {name!r} of {source} is not text; text are: {', '.join(texts) or 'none'}")


def _is_text(feature: Any) -> bool:
    """A string by itself; the Hub's are scalars of that type, not TFDS's `Text`."""
    return isinstance(feature, tfds().features.Tensor) and feature.shape == () and feature.np_dtype == np.object_


def _stored_from_hub(name: str) -> Any:
    """A builder of a data set of the Hugging Face Hub that was prepared before, None where it was not."""
    library = tfds()
    try:
        with quiet():
            parsed, options = library.core.naming.parse_builder_name_kwargs(name, data_dir=str(data_folder()))
            return library.core.read_only_builder.builder_from_files(parsed.name, **options)
    except library.core.registered.DatasetNotFoundError:
        return None
    except Exception:
        raise UserError(f"'tfds:{name}' cannot be read; write tfds:{HUB}OWNER__REPOSITORY[/CONFIG][:VERSION]") from None


def _builder(name: str) -> Any:
    """TFDS's builder of `name`. Raises `UserError` with the nearest names."""
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
                f"TFDS cannot open {name!r}: {first_line(error)}; write tfds:NAME[/CONFIG][:VERSION]"
            ) from None
        except Exception as error:  # what TFDS raises for a damaged data set is of many kinds
            raise UserError(
                f"TFDS cannot open {name!r} in {data_folder()}: {first_line(error)}; remove it and prepare it again"
            ) from None


def _missing_package(source: str, error: ImportError) -> str:
    what = "'lmscale[tfds-prepare]'" if error.name == "tensorflow" else error.name
    return f"TFDS needs the package {error.name} for {source}: pip install {what}, then run again"


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
    return f"TFDS could not prepare {source}: {first_line(error)}"
