"""Corpora of documents of one letter each, and mixtures of them."""

from pathlib import Path

from lmscale.core.config import DataConfig


def folder(path: Path, letter: str, documents: int) -> str:
    """Documents of one letter each, of different lengths."""
    path.mkdir()
    for i in range(documents):
        (path / f"{i}.txt").write_text(letter * (40 + i) + f"{i}")
    return str(path)


def mixed(sources: list[str], weights: list[str], **changes: object) -> DataConfig:
    formula = "mix: " + " + ".join(f"{weight} * {source}" for weight, source in zip(weights, sources))
    return DataConfig(source=formula, validation_fraction=0.2, **changes)  # type: ignore[arg-type]
