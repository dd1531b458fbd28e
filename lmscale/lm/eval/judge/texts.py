"""The texts that are judged, each a continuation of a prompt by one model."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmscale.core.config import check
from lmscale.lm.eval.tasks.files import field, read_lines

MOST_CHARACTERS = 100_000
"""Characters of a text that is judged: beyond them it is a book, which no judge reads at once."""


@dataclass(frozen=True)
class Text:
    """What a model wrote after a prompt."""

    prompt: str
    text: str
    model: str
    """Which model wrote it: a run_id, or whatever its file says."""
    id: str
    """Unique among the texts that are judged together."""

    @property
    def hash(self) -> str:
        """A hash of prompt and text, which two equal texts share, whoever wrote them."""
        return hashlib.sha256(json.dumps([self.prompt, self.text]).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Author:
    """A model whose texts are judged."""

    name: str
    params: float | None = None
    """N of the model, where it is known."""
    columns: tuple[tuple[str, Any], ...] = ()
    """What stands in every row of its scores: run, step, N, D, C, loss."""
    folder: Path | None = None
    """The run's folder, into which its scores are written."""


def read_texts(path: Path) -> tuple[list[Text], list[Author]]:
    """Texts of a JSONL file, and their authors in the order of the file.

    Each line is an object with `text` and, as far as there are any, `prompt`, `model`, `params` (N) and `id`. Raises
    `UserError` for a file without texts, a field of the wrong type, an id that occurs twice, or a model of two sizes.
    """
    texts: list[Text] = []
    sizes: dict[str, float | None] = {}
    for where, row in read_lines(path):
        strings = {name: str(field(row, name, str, where)) for name in ("prompt", "model") if name in row}
        text, model = str(field(row, "text", str, where)), strings.get("model", path.stem)
        check(bool(text.strip()), f"{where}: the field 'text' is empty; leave the line out")
        check(len(text) <= MOST_CHARACTERS, f"{where}: a text of {len(text):,} characters; at most {MOST_CHARACTERS:,}")
        params = field(row, "params", (int, float), where) if "params" in row else None
        check(params is None or params > 0, f"{where}: params = {params}: N of a model is above 0")
        check(sizes.setdefault(model, params) == params, f"{where}: the model {model!r} has another N than before")
        name = str(field(row, "id", (str, int), where)) if "id" in row else f"{path.stem}-{len(texts)}"
        texts.append(Text(strings.get("prompt", ""), text, model, name))
    check(bool(texts), f'{path} has no texts: write one JSON object a line, {{"prompt": ..., "text": ...}}')
    check_ids(texts)
    return texts, [Author(name, params) for name, params in sizes.items()]


def check_ids(texts: Sequence[Text]) -> None:
    """Raise `UserError` where two texts have one id."""
    seen: set[str] = set()
    for text in texts:
        check(text.id not in seen, f"the id {text.id!r} names two texts: give each its own")
        seen.add(text.id)


def read_prompts(path: Path) -> list[str]:
    """Prompts that models continue: a YAML list, JSONL with a field `prompt`, or one prompt a line.

    Raises `UserError` where there are none or the file cannot be read.
    """
    from lmscale.lm.eval.tasks.files import read_text, read_yaml

    if path.suffix in (".yaml", ".yml"):
        value = read_yaml(path)
        check(
            isinstance(value, list) and all(isinstance(prompt, str) for prompt in value),
            f"{path}: a list of texts is expected",
        )
        prompts = [prompt.strip() for prompt in value]
    elif path.suffix in (".jsonl", ".json"):
        prompts = [str(field(row, "prompt", str, where)) for where, row in read_lines(path)]
    else:
        prompts = read_text(path).split("\n")
    prompts = [prompt for prompt in prompts if prompt.strip()]
    check(bool(prompts), f"{path} has no prompts: write one a line, or a YAML list, or JSONL with a field 'prompt'")
    return prompts
