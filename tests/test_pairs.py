"""Corpora of pairs of answers: how records become them, how they lie in batches, what is cut, bad input."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from lmscale.core.config import DataConfig
from lmscale.core.errors import UserError
from lmscale.lm import data
from lmscale.lm.data.document_windows import PADDING

END = 255
PAIRS = [{"prompt": f"Say {n}:", "chosen": f" {n}", "rejected": " no" * (n % 3 + 1)} for n in range(40)]


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMSCALE_CACHE", str(tmp_path / "cache"))


def written(folder: Path, records: list[Any], name: str = "pairs.jsonl") -> str:
    path = folder / name
    if name.endswith(".parquet"):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), path)
    else:
        path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return str(path)


def config(source: str, **changed: Any) -> DataConfig:
    settings = {"template": "preference", "rejected_field": "rejected", "validation_fraction": 0.2, **changed}
    return DataConfig(source=source, **settings)


def texts(windows: Any, scored: Any) -> set[tuple[str, ...]]:
    """(prompt, chosen, prompt, rejected) of each pair; of an answer its end is left out."""
    return {
        tuple(
            bytes(row[1:][(mask == of_answer) & (row[1:] >= 0) & (row[1:] != END)].astype(np.uint8)).decode()
            for row, mask in zip(window, masks)
            for of_answer in (False, True)
        )
        for window, masks in zip(np.asarray(windows), np.asarray(scored))
    }


@pytest.mark.parametrize("name", ["pairs.jsonl", "pairs.parquet"])
@pytest.mark.parametrize("fields", [{}, {"template": None, "prompt_field": "prompt", "text_field": "chosen"}], ids=str)
def test_every_pair_is_read_once_in_an_epoch(tmp_path: Path, name: str, fields: dict[str, Any]) -> None:
    tokens = data.prepare(config(written(tmp_path, PAIRS, name), **fields))
    manifest, context = tokens.manifest, 24
    batches = data.Batches(tokens, context, 4, seed=0)
    assert batches.windows == manifest.train_documents and batches.unique_tokens == 2 * context * batches.windows
    steps = range(-(-batches.windows // 4))
    windows = np.concatenate([batches[t] for t in steps])[: batches.windows]
    scored = np.concatenate([batches.scored(t, 0, 4) for t in steps])[: batches.windows]
    assert windows.shape == (batches.windows, 2, context + 1) and scored.shape == (batches.windows, 2, context)
    assert (windows[..., 0] == END).all() and not scored[windows[..., 1:] == PADDING].any()
    held_out = data.ValidationSet(tokens, context, 10_000, answers_only=True)
    assert held_out.scored is not None
    pair_texts = texts(windows, scored) | texts(held_out.windows, held_out.scored)
    assert pair_texts == {(pair["prompt"], pair["chosen"], pair["prompt"], pair["rejected"]) for pair in PAIRS}
    assert held_out.tokens == held_out.scored.sum() and len(held_out.windows) == manifest.validation_documents
    usage = batches.usage(2 * context * batches.windows)
    assert usage.epochs == 1 and usage.answer_tokens == scored.sum() and usage.repeats_max == 1
    assert usage.padding_tokens == (windows[..., 1:] == PADDING).sum() and usage.cut_tokens == 0


@pytest.mark.parametrize("share", [0.3, 1e-9], ids=["several", "one"])
def test_no_prompt_lies_on_both_sides(tmp_path: Path, share: float) -> None:
    records = [{"prompt": f"Say {n}:", "chosen": f" {m}", "rejected": " no"} for n in range(12) for m in range(5)]
    tokens = data.prepare(config(written(tmp_path, records), validation_fraction=share, test_fraction=share))
    held_out = data.ValidationSet(tokens, 24, 10_000, answers_only=True)
    batches = data.Batches(tokens, 24, 1, seed=0)
    prompts = {
        "train": [texts(batches[t], batches.scored(t, 0, 1)).pop()[0] for t in range(batches.windows)],
        "validation": [text[0] for text in texts(held_out.windows, held_out.scored)],
    }
    counts = {split: len(set(members)) for split, members in prompts.items()}
    assert not set(prompts["train"]) & set(prompts["validation"])
    assert all(len(members) == 5 * counts[split] for split, members in prompts.items())
    assert tokens.manifest.test_documents == 5 * (12 - sum(counts.values())) > 0
    assert share > 0.1 or counts == {"train": 10, "validation": 1}


def test_pairs_of_one_prompt_cannot_be_split(tmp_path: Path) -> None:
    records = [{"prompt": "Say:", "chosen": f" {m}", "rejected": " no"} for m in range(5)]
    with pytest.raises(UserError, match=r"holds one prompt, .* give pairs of answers to at least 2 different prompts"):
        data.prepare(config(written(tmp_path, records)))


def test_both_answers_lose_the_same_beginning_of_a_prompt(tmp_path: Path) -> None:
    records = [{"prompt": f"{n:08}", "chosen": "a", "rejected": "bcd"} for n in range(9)]
    tokens = data.prepare(config(written(tmp_path, records)))
    batches = data.Batches(tokens, 9, 1, seed=0)
    for t in range(batches.windows):
        for prompt, chosen, again, rejected in texts(batches[t], batches.scored(t, 0, 1)):
            assert prompt == again and len(prompt) == 5 and (chosen, rejected) == ("a", "bcd")
    assert batches.usage(batches.unique_tokens).cut_tokens == 2 * 3 * batches.windows
    [sentence] = data.layout_sentences(tokens, 9)
    assert f"{6 * batches.windows} tokens of prompts" in sentence
    with pytest.raises(UserError, match=r"an answer longer than the context of 3 tokens .* at least 4"):
        data.Batches(tokens, 3, 1, seed=0)


def test_the_last_answer_of_a_conversation_is_chosen_or_rejected(tmp_path: Path) -> None:
    talk: list[Any] = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "yes"},
    ]
    records = []
    for n in range(8):
        asked = [*talk, {"role": "user", "content": f"why {n}"}]
        chosen, rejected = ({"role": "assistant", "content": f"{word} {n}"} for word in ("so", "no"))
        record = {"messages": [*asked, chosen], "rejected": rejected["content"] if n % 2 else [*asked, rejected]}
        records.append(record)
    tokens = data.prepare(config(written(tmp_path, records), template="chat"))
    batches = data.Batches(tokens, 160, 1, seed=0)
    for prompt, chosen, again, rejected in texts(batches[0], batches.scored(0, 0, 1)):
        assert prompt == again and "yes" in prompt and prompt.endswith("assistant\n")
        assert chosen.startswith("so ") and rejected.startswith("no ")


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        ({"prompt": "p", "chosen": "a", "rejected": "a"}, "whose two answers are equal"),
        ({"prompt": "p", "chosen": "a", "rejected": " "}, "with an empty answer, the field 'rejected'"),
        ({"prompt": "p", "chosen": "a", "rejected": 3}, "whose field 'rejected' is not text"),
        ({"prompt": "p", "chosen": "a"}, "without the field 'rejected'"),
        ({"prompt": "", "chosen": "a", "rejected": "b"}, "with an empty prompt"),
    ],
    ids=str,
)
def test_a_record_that_is_no_pair_is_named_or_refused(tmp_path: Path, record: Any, problem: str) -> None:
    source = written(tmp_path, [*PAIRS, record])
    [skipped] = data.prepare(config(source)).manifest.skipped
    assert skipped.reason.startswith(f"1 line {problem}, first line 41")
    with pytest.raises(UserError, match=problem):
        data.prepare(config(source, unreadable="refuse"))


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"template": None}, "nothing says which field is the prompt"),
        ({"rejected_field": "chosen"}, "is also the field of the chosen answer"),
        ({"template": None, "prompt_field": "rejected"}, "is also the field of the prompt"),
        ({"layout": "packed"}, "lays every answer out in a sequence of its own"),
        ({"source": "mix: 0.5 * stdlib + 0.5 * a.jsonl"}, "stdlib has no pairs of answers"),
        ({"validation_source": "stdlib"}, "stdlib has no pairs of answers"),
        ({"source": "mix: 0.5 * stdlib:code + 0.5 * a.jsonl"}, "stdlib:code has no pairs of answers"),
    ],
    ids=str,
)
def test_pairs_need_records_with_a_prompt(changed: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        config(**{"source": "a.jsonl", **changed})
