"""Small texts on disk, and what a prepared corpus holds of them."""

import json
from pathlib import Path

from lmscale.core.config import DataConfig
from lmscale.lm.data import corpora


def write(folder: Path, texts: dict[str, str | bytes]) -> Path:
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return folder


def texts_by_split(corpus: corpora.Corpus) -> dict[str, list[bytes]]:
    return {split: [text for texts in corpus.texts(split) for text in texts] for split in corpora.SPLITS}


def config(source: object, **changes: object) -> DataConfig:
    return DataConfig(source=str(source), **{"validation_fraction": 0.3, **changes})  # type: ignore[arg-type]


def jsonl(texts: list[str], field: str = "text") -> bytes:
    return "".join(json.dumps({field: text}) + "\n" for text in texts).encode()


TEXTS = [f"document {i} é" * (i + 1) for i in range(12)]
