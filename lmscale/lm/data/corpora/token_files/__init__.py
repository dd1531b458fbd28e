"""Text that others tokenised already, and data sets that `datasets` saved: `tokens:PATH` as a source.

`locate` finds the files of a path by their names, `read` maps their ids, checked against each other, with the bounds of
documents where a format has them. Nothing is copied. Every format's source is named where it is read.

Files of a folder are of the split that a word in their names means (train, val, valid, validation, dev, eval, test),
and of training where none does.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lmscale.core import files
from lmscale.core.config import TOKENS, DataConfig
from lmscale.core.errors import UserError
from lmscale.lm.data.corpora.cache import Listing, listing
from lmscale.lm.data.corpora.sources import Skipped, printable
from lmscale.lm.data.corpora.token_files import arrow
from lmscale.lm.data.corpora.token_files.flat import beside, read_bin, read_ds, read_npy
from lmscale.lm.data.corpora.token_files.layout import Piece, by_split
from lmscale.lm.data.corpora.token_files.megatron import read_megatron

__all__ = ["Located", "Piece", "listing_of", "locate", "of_text", "read"]

SUFFIXES = (".bin", ".npy", ".ds", ".arrow")
ALONE = {".bin": read_bin, ".npy": read_npy, ".ds": read_ds}
DS_COMPANIONS = (".index", ".metadata", ".loss")


@dataclass(frozen=True)
class Located:
    """The files of a source, by their names alone."""

    root: Path
    kind: str
    """The ending of the files of ids; ".idx" for Megatron's."""
    splits: dict[str, list[Path]]
    """The files of ids of each split, in order."""
    companions: list[Path] = field(default_factory=list)
    """Files that say how those are read."""
    skipped: tuple[Skipped, ...] = ()

    @property
    def paths(self) -> list[Path]:
        """The files of ids of all splits."""
        return [path for group in self.splits.values() for path in group]


def path_of(config: DataConfig) -> Path:
    """The path that a `tokens:` source names."""
    return files.resolved(config.source.removeprefix(TOKENS).strip())


def locate(path: Path) -> Located:
    """The files that `path` means: a file, what it is the beginning of, or those of a folder.

    Raises `UserError` where there are none, or files of several formats.
    """
    pair = path.with_name(path.name + ".bin"), path.with_name(path.name + ".idx")
    if not path.exists() and all(half.is_file() for half in pair):
        return _of_files([pair[0]], pair[0].parent, {"train": [pair[0]]})
    if not path.exists():
        raise UserError(
            f"there is no file or folder {printable(str(path))} to read tokens from; give tokens:PATH of one, or of "
            f"what Megatron's .bin and .idx begin with"
        )
    if path.is_file():
        path = path.with_suffix(".bin") if path.suffix == ".idx" else path
        if path.suffix not in SUFFIXES:
            raise UserError(
                f"{printable(str(path))} is no file of tokens by its name, which ends in none of "
                f"{', '.join(SUFFIXES)}; give one of those formats, or without tokens: a file of text"
            )
        return _of_files([path], path.parent, {"train": [path]})
    if (folders := arrow.data_set_folders(path)) is not None:
        return _of_data_set(path, folders)
    return _of_folder(path)


def _of_data_set(path: Path, folders: dict[str, list[Path]]) -> Located:
    records = [folder / arrow.STATE_FILE for group in folders.values() for folder in group]
    records += [path / arrow.SPLITS_FILE] * (path / arrow.SPLITS_FILE).is_file()
    splits = {split: [file for one in group for file in arrow.data_files(one)] for split, group in folders.items()}
    return Located(path, ".arrow", splits, records)


def _of_folder(path: Path) -> Located:
    visible = listing(path, lambda name: not name.startswith((".", "__")), lambda name: not name.startswith("."), True)
    names = [name for name, *_ in visible]
    paths = [path / name for name in names if Path(name).suffix in SUFFIXES]
    if not paths:
        raise UserError(
            f"{printable(str(path))} holds no tokens: no {', '.join(SUFFIXES)} and no data set of `datasets` that "
            f"save_to_disk wrote; give a folder that does, or without tokens: a folder of text"
        )
    located = _of_files(paths, path, by_split(paths, path))
    read_ = {*located.paths, *located.companions}
    others = [printable(name) for name in names if path / name not in read_]
    skipped = tuple(Skipped(name, "no file of tokens", foreign=True) for name in others)
    return Located(located.root, located.kind, located.splits, located.companions, skipped)


def _of_files(paths: list[Path], root: Path, splits: dict[str, list[Path]]) -> Located:
    kinds = {_kind(path) for path in paths}
    if len(kinds) > 1:
        first = {_kind(path): printable(str(path.relative_to(root))) for path in reversed(paths)}
        raise UserError(
            f"{printable(str(root))} holds tokens in several formats ({', '.join(sorted(first.values()))}); name one "
            f"file, or a folder of one format"
        )
    kind = kinds.pop()
    companions = [path.with_suffix(".idx") for path in paths] if kind == ".idx" else []
    if kind == ".ds":
        companions = [beside(path, ending) for path in paths for ending in DS_COMPANIONS]
    return Located(root, kind, splits, [path for path in companions if path.exists()])


def _kind(path: Path) -> str:
    return ".idx" if path.suffix == ".bin" and path.with_suffix(".idx").exists() else path.suffix


def listing_of(located: Located) -> Listing:
    """Every file that is read, as it is now: a change of any shows."""
    return [
        (str(path), *entry[1:])
        for path in (*located.paths, *located.companions)
        for entry in listing(path, lambda name: True, lambda name: True)
    ]


def of_text(config: DataConfig, located: Located) -> str | None:
    """The column of text that is read, where the source is a data set whose rows are text; None for ids."""
    if located.kind != ".arrow":
        return None
    name, content = arrow.column(located.paths[0], config.text_field)
    return name if content == "text" else None


def read(located: Located, text_field: str, vocab: int) -> Iterator[tuple[str, Piece]]:
    """The ids of every file, each with its split, in order.

    `vocab` is the number of ids that the tokenizer has, by which files without a header are read as uint16 or uint32.
    Raises `UserError` for files that are cut, damaged or disagree, and for masks.
    """
    name = arrow.column(located.paths[0], text_field)[0] if located.kind == ".arrow" else ""
    alone: Callable[[Path, int], Piece] | None = ALONE.get(located.kind)
    for split, paths in located.splits.items():
        for path in paths:
            if located.kind == ".arrow":
                yield from ((split, piece) for piece in arrow.read_rows(path, name))
            else:
                yield split, read_megatron(path) if alone is None else alone(path, vocab)
