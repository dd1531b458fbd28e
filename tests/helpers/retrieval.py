"""A trained run of seconds and its corpus, for what is retrieved by it."""

from pathlib import Path

import numpy as np
import pytest

from helpers.tiny_runs import run, write_corpus
from lmscale.core.config import ModelConfig, RunConfig
from lmscale.core.files import write_json
from lmscale.core.run_folder import CONFIG_FILE
from lmscale.lm.devices import machine
from lmscale.lm.inspect.subject import Subject
from lmscale.lm.train.loop import train
from lmscale.lm.use.load import open_run

MODEL = ModelConfig(width=16, layers=2, heads=2, context=32)


def trained(root: Path, model: ModelConfig = MODEL, steps: int = 20, corpus: str | None = None) -> Path:
    """The folder of a run on forty documents of random words, or on another corpus."""
    if corpus is None:
        (root / "text").mkdir(exist_ok=True)
        corpus = write_corpus(root / "text")
    return train_in(root, run(corpus, steps, model=model))


def train_in(root: Path, config: RunConfig) -> Path:
    folder = root / "sweep" / config.run_id
    folder.mkdir(parents=True)
    write_json(folder / CONFIG_FILE, config.to_json())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine, "matmul_peak", lambda dtype: 1e11)
        train(config, folder)
    return folder


def subject_of(folder: Path) -> tuple[Subject, int]:
    """The model of a run, and its step."""
    opened = open_run(folder)
    return Subject(*opened.run, opened.mesh), opened.step


def documents(seed: int, count: int, words: int = 120, vocabulary: int = 300) -> list[str]:
    """Different texts of random words, no two of which share five in a row."""
    rng = np.random.default_rng(seed)
    names = ["".join(rng.choice(list("abcdefghijklmnop"), 4)) for _ in range(vocabulary)]
    return [" ".join(rng.choice(names, words)) for _ in range(count)]


def nearly(text: str, seed: int = 0) -> str:
    """A copy of a text in which every fifteenth word is another."""
    words = text.split()
    for place in range(seed % 15, len(words), 15):
        words[place] = f"other{place}"
    return " ".join(words)
