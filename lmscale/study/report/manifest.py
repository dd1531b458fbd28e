"""Which files a report has beside its page, with their hashes: the next report in the folder leaves no old ones."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lmscale.core import files
from lmscale.core.text import NAME

MANIFEST_FILE = "files.json"
"""Path below the report's folder -> SHA-256 of what the report wrote there."""
FIGURES = "figures"
ENDINGS = ("svg", "png", "csv")


def figure_files(names: Iterable[str]) -> list[str]:
    """The files of the figures of these names."""
    return [f"{FIGURES}/{name}.{ending}" for name in names for ending in ENDINGS]


def update(folder: Path, paths: Sequence[str]) -> None:
    """List `paths` as what the report in `folder` has written, and delete what an earlier one wrote besides.

    A file that was changed since, or that no report has written, stays.
    """
    for path, digest in _listed(folder).items():
        file = folder / path
        if path not in paths and not file.is_symlink() and file.is_file() and files.sha256(file) == digest:
            file.unlink(missing_ok=True)
    listed = {path: files.sha256(folder / path) for path in paths if (folder / path).is_file()}
    files.write_json(folder / MANIFEST_FILE, listed)


def _listed(folder: Path) -> dict[str, Any]:
    """What an earlier report has listed; nothing where it cannot be read, and no path that leads elsewhere."""
    try:
        listed = files.parse_json((folder / MANIFEST_FILE).read_bytes())
    except (OSError, ValueError):
        return {}
    if not isinstance(listed, dict) or (folder / FIGURES).is_symlink():
        return {}
    return {path: digest for path, digest in listed.items() if _is_inside(path)}


def _is_inside(path: str) -> bool:
    """Whether a path is that of a file of the report: a name, or one below the folder of figures."""
    return NAME.fullmatch(path.removeprefix(f"{FIGURES}/")) is not None
