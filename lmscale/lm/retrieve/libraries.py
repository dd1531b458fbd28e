"""The libraries of the extra `retrieve`: vectors are searched by FAISS, words by bm25s."""

import importlib
import logging
import warnings
from typing import Any

from lmscale.core.errors import UserError
from lmscale.core.host import usable_cores


def load_faiss() -> Any:
    """The module `faiss`, on the cores that this process may use. Raises `UserError` where it is not installed."""
    faiss = _load("faiss", "faiss-cpu")
    faiss.omp_set_num_threads(len(usable_cores()))
    return faiss


def load_bm25s() -> Any:
    """The module `bm25s`, which logs nothing below a warning. Raises `UserError` where it is not installed."""
    bm25s = _load("bm25s", "bm25s")
    logging.getLogger("bm25s").setLevel(logging.WARNING)  # it sets DEBUG, and other libraries print that
    return bm25s


def _load(module: str, package: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # SWIG's types, on Python 3.12 and later
            return importlib.import_module(module)
    except ImportError:
        raise UserError(f"retrieval needs the package {package}: pip install 'lmscale[retrieve]'") from None
