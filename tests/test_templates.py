"""Corpora of instructions: templates by name or as a text, JSON and JSONL, packed or padded, what is cut, bad input."""

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from helpers.tiny_runs import BATCH, MODEL, outcome, run
from rich.console import Console

from lmscale.commands.data import DataArgs, main
from lmscale.core.config import Completion, DataConfig, ModelConfig, RunConfig
from lmscale.core.config.template import TEMPLATES, parse_template
from lmscale.core.errors import UserError
from lmscale.lm import data
from lmscale.lm.data.document_windows import PADDING, best_fit
from lmscale.lm.model.parameters import init
from lmscale.lm.model.transformer import token_losses
from lmscale.lm.train.loop import train

END = 255
ALPACA = [
    {"instruction": f"Add {n} and {n % 7}.", "input": "" if n % 3 else f"n = {n}", "output": f"It is {n + n % 7}."}
    for n in range(60)
]
CHATS = [
    {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": f"What is {n}?"},
            {"role": "assistant", "content": f"A number {n}."},
            *([{"role": "user", "content": "And?"}, {"role": "assistant", "content": "No more é."}] * (n % 3)),
            *([{"role": "user", "content": "never answered"}] * (n % 2)),
        ]
    }
    for n in range(40)
]


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMSCALE_CACHE", str(tmp_path / "cache"))


def written(folder: Path, records: list[Any], name: str = "data.jsonl") -> str:
    """The path of a file of records: JSON lines, one JSON array, or Parquet."""
    path = folder / name
    if name.endswith(".parquet"):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), path)
    elif name.endswith(".json"):
        path.write_text(json.dumps(records, indent=1), encoding="utf-8")
    else:
        path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return str(path)


def config(source: str, template: str = "alpaca", **changed: Any) -> DataConfig:
    return DataConfig(
        source=source, **{"template": template, "validation_fraction": 0.2, "max_epochs": 1000.0, **changed}
    )


def parts(tokens: data.Tokens) -> list[list[str]]:
    """Prompts and answers in turn of every document, from the tokens on disk and what they say is scored."""
    documents = []
    for split in ("train", "validation"):
        row, starts = tokens.split(split)
        scored = tokens.scored(split)
        assert scored is not None
        for start, stop in itertools.pairwise(starts.tolist()):
            assert row[stop - 1] == END and scored[stop - 1]
            marked = zip(scored[start : stop - 1].tolist(), row[start : stop - 1].tolist())
            groups = itertools.groupby(marked, key=lambda pair: pair[0])
            documents.append([bytes(token for _, token in group).decode() for _, group in groups])
    return sorted(documents)


def alpaca_by_hand(record: dict[str, str]) -> list[str]:
    instruction, given, answer = record["instruction"], record["input"], record["output"]
    if given:
        first = "Below is an instruction that describes a task, paired with an input that provides further context. "
        middle = f"### Instruction:\n{instruction}\n\n### Input:\n{given}\n\n### Response:\n"
    else:
        first = "Below is an instruction that describes a task. "
        middle = f"### Instruction:\n{instruction}\n\n### Response:\n"
    return [first + "Write a response that appropriately completes the request.\n\n" + middle, answer]


@pytest.mark.parametrize("name", ["data.jsonl", "data.json", "data.parquet"])
def test_alpaca_with_and_without_input(tmp_path: Path, name: str) -> None:
    chosen = config(written(tmp_path, ALPACA, name))
    tokens = data.prepare(chosen)
    assert parts(tokens) == sorted(map(alpaca_by_hand, ALPACA))
    assert tokens.manifest.template == parse_template("alpaca").text
    assert all(text in tokens.manifest.template for text in TEMPLATES["alpaca"])
    assert data.find_manifest(chosen) == tokens.manifest


def test_a_record_with_instances_is_a_document_for_each(tmp_path: Path) -> None:
    records = [
        {
            "instruction": f"Do {n}.",
            "instances": [{"input": f"in {n} {i}", "output": f"out {i}"} for i in range(n % 3 + 1)],
        }
        for n in range(12)
    ]
    tokens = data.prepare(config(written(tmp_path, records)))
    flat = [{"instruction": r["instruction"], **instance} for r in records for instance in r["instances"]]
    assert parts(tokens) == sorted(map(alpaca_by_hand, flat))


@pytest.mark.parametrize("name", ["data.jsonl", "data.json", "data.parquet"])
def test_every_answer_of_a_conversation_is_scored(tmp_path: Path, name: str) -> None:
    tokens = data.prepare(config(written(tmp_path, CHATS, name), "chat"))
    expected = []
    for record in CHATS:
        document, before = [], ""
        for message in record["messages"]:
            start = f"<|im_start|>{message['role']}\n"
            if message["role"] == "assistant":
                document += [before + start, f"{message['content']}<|im_end|>\n"]
                before = ""
            else:
                before += f"{start}{message['content']}<|im_end|>\n"
        expected.append(document)
    assert parts(tokens) == sorted(expected)
    scored = tokens.manifest.train_scored_tokens, tokens.manifest.validation_scored_tokens
    answers = sum(len(part.encode()) for document in expected for part in document[1::2])
    assert scored[0] is not None and scored[1] is not None and sum(scored) == answers + len(CHATS)


def test_a_template_of_ones_own_and_prompt_with_completion(tmp_path: Path) -> None:
    records = [{"prompt": f"p{n} ", "completion": f"c{n}"} for n in range(30)]
    source = written(tmp_path, records)
    assert parts(data.prepare(config(source, "completion"))) == sorted([r["prompt"], r["completion"]] for r in records)
    own = data.prepare(config(source, "Q: {prompt}{{x}}\nA: {completion} <end>"))
    assert parts(own) == sorted([f"Q: {r['prompt']}{{x}}\nA: ", f"{r['completion']} <end>"] for r in records)
    assert own.manifest.template.startswith("Q: {prompt}")


def test_best_fit_is_best_fit() -> None:
    lengths = np.random.default_rng(0).integers(1, 33, 300)
    windows, free = best_fit(lengths, 32), {}
    for number in np.argsort(-lengths, kind="stable"):  # by hand
        able = [(space, window) for window, space in free.items() if space >= lengths[number]]
        least = min(able)[0] if able else 32
        assert free.get(windows[number], 32) == least
        free[windows[number]] = least - lengths[number]
    assert len(free) <= 11 / 9 * np.ceil(lengths.sum() / 32) + 1


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_documents_are_whole_in_their_sequences(tmp_path: Path, layout: Any) -> None:
    chosen = config(written(tmp_path, ALPACA), "Q: {instruction} {input}\n{output}", layout=layout)
    tokens, context = data.prepare(chosen), 64
    row, starts = tokens.split("train")
    mask = tokens.scored("train")
    assert mask is not None
    pieces = [(bytes(row[a:b].astype(np.uint8)), tuple(mask[a:b])) for a, b in itertools.pairwise(starts.tolist())]
    batches = data.Batches(tokens, context, 1, seed=0)
    documents = []
    for t in range(batches.windows):
        window, scored = batches[t][0], batches.scored(t, 0, 1)[0]
        assert window[0] == END and not scored[window[1:] == PADDING].any()
        text = window[1:][window[1:] != PADDING].astype(np.uint8)
        ends = [0, *(np.flatnonzero(text == END) + 1).tolist()]
        assert ends[-1] == len(text) and (layout == "packed" or len(ends) == 2)
        documents += [(bytes(text[a:b]), tuple(scored[a:b].tolist())) for a, b in itertools.pairwise(ends)]
    assert sorted(documents) == sorted(pieces), "every document once and whole"
    total = batches.windows * context
    usage = batches.usage(2 * total)
    assert usage.padding_tokens == 2 * (total - starts[-1]) and usage.cut_tokens == 0
    assert usage.answer_tokens == 2 * mask.sum() and usage.repeats_min == usage.repeats_max == 2
    [sentence] = data.layout_sentences(tokens, context)
    assert f"{len(pieces)} documents" in sentence and sentence.endswith("nothing is cut")
    assert (layout == "packed") == (batches.windows < len(pieces))


def test_prompts_that_are_too_long_lose_their_beginning_and_it_is_said(tmp_path: Path) -> None:
    records = [{"prompt": f"{'x' * n} {n}:", "completion": f"answer {n}"} for n in range(40)]
    tokens = data.prepare(config(written(tmp_path, records), "completion"))
    row, starts = tokens.split("train")
    context, batches = 24, data.Batches(tokens, 24, 1, seed=0)
    texts = [bytes(row[a:b].astype(np.uint8)) for a, b in itertools.pairwise(starts.tolist())]
    rows = [batches[t][0, 1:] for t in range(batches.windows)]
    joined = b"".join(bytes(window[window != PADDING].astype(np.uint8)) for window in rows)
    assert sorted(joined.split(b"\xff")[:-1]) == sorted(text[-context:-1] for text in texts)
    cut = [len(text) - context for text in texts if len(text) > context]
    [sentence] = data.layout_sentences(tokens, context)
    assert f"{len(cut)} documents longer than that lost {sum(cut):,} tokens" in sentence
    assert sentence.endswith("none of an answer") and batches.usage(context).cut_tokens == sum(cut)


@pytest.mark.long
def test_packed_documents_do_not_see_each_other(tmp_path: Path) -> None:
    """Each answer costs what it costs alone in a sequence."""
    model = replace(MODEL, document_end=END, context=64)
    params = init(model, jax.random.key(0))
    nats = {}
    for layout in ("packed", "padded"):
        chosen = config(written(tmp_path, ALPACA), "{instruction} {input}: {output}", layout=layout)
        batches = data.Batches(data.prepare(chosen), 64, 1, seed=0)
        rows = np.concatenate([batches[t] for t in range(batches.windows)])
        scored = np.concatenate([batches.scored(t, 0, 1) for t in range(batches.windows)])
        nats[layout] = np.sort(np.asarray(token_losses(params, rows, model, None, scored)[0])[scored])
    np.testing.assert_allclose(nats["packed"], nats["padded"], rtol=2e-5, atol=2e-5)


def fine_tuned(source: str, **changed: Any) -> RunConfig:
    plain = run("stdlib", 4)
    model = replace(MODEL, context=64, document_end=END)
    chosen = config(source, "{instruction} {input}: {output}", **changed)
    return replace(plain, model=model, data=chosen, objective=Completion(), tokens=4 * BATCH * 64)


@pytest.mark.long
@pytest.mark.usefixtures("known_peak")
def test_a_run_on_packed_answers_validates_on_answers_and_says_how(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = fine_tuned(written(tmp_path, ALPACA))
    result = train(chosen, tmp_path / "run")
    assert "nothing is cut" in capsys.readouterr().out
    tokens = data.prepare(chosen.data)
    windows = data.ValidationSet(tokens, 64, chosen.validation_tokens, answers_only=True)
    assert windows.scored is not None and windows.tokens == windows.scored.sum() == result.validation_tokens
    assert windows.bytes == (windows.windows[:, 1:][windows.scored] != END).sum()
    read = outcome(tmp_path / "run")
    assert read["padding_tokens"] > 0 == read["cut_tokens"] and read["answer_tokens"] < read["tokens"]


def test_bad_settings_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"template = 'alpacca' holds no field of a record; .* did you mean 'alpaca'"):
        DataConfig(source="a.jsonl", template="alpacca")
    for template, reason in {
        "{a": "a field is a name in braces",
        "{} {b}": r"\{\} is no field",
        "{a.b} c": r"\{a.b\} is no field",
        "{a:>9}": r"\{a\} is no field",
        "{text}": "there is no prompt; give text_field='text' instead",
    }.items():
        with pytest.raises(UserError, match=reason):
            DataConfig(source="a.jsonl", template=template)
    for source in ("stdlib", "synthetic:tasks(documents=20)", "tfds:some", "tokens:a.bin"):
        with pytest.raises(UserError, match="has no records with fields to fill it"):
            DataConfig(source=source, template="alpaca")
    with pytest.raises(UserError, match="both say what a prompt is"):
        DataConfig(source="a.jsonl", template="alpaca", prompt_field="prompt")
    with pytest.raises(UserError, match="layout = 'packed' is for documents with prompts"):
        DataConfig(source="a.jsonl", layout="packed")
    plain = run("stdlib", 4)
    with pytest.raises(UserError, match=r"must not see each other: give ModelConfig\(document_end=...\)"):
        replace(plain, data=config("a.jsonl"), objective=Completion())
    other = replace(fine_tuned(written(tmp_path, ALPACA)), model=replace(MODEL, context=64, document_end=7))
    with pytest.raises(
        UserError, match=r"document_end = 7, .* ends documents with 255, .*; set model.document_end = 255"
    ):
        data.check_enough(data.prepare(other.data), other)


def test_records_that_do_not_fill_a_template_are_counted_and_named(tmp_path: Path) -> None:
    bad = [
        {"instruction": "no output", "input": ""},
        {"instruction": "nothing", "input": "", "output": " \n"},
        {"instruction": "nothing either", "input": "", "output": ""},
        {"instruction": 3, "input": "", "output": "a number"},
        {"instruction": "none", "instances": []},
        {"instruction": "null", "output": None},
    ]
    for name, noun in (("a.jsonl", "line"), ("a.json", "record")):
        tokens = data.prepare(config(written(tmp_path, [*ALPACA, *bad], name)))
        assert parts(tokens) == sorted(map(alpaca_by_hand, ALPACA))
        reasons = " ".join(item.reason for item in tokens.manifest.skipped)
        for reason in (
            f"1 {noun} without the field 'output', first {noun} 61 with fields 'instruction', 'input'",
            f"2 {noun}s with an empty answer, the field 'output', first {noun} 62",
            f"1 {noun} whose field 'instruction' is not text, first {noun} 64: int",
            f"1 {noun} whose list 'instances' is empty",
            f"1 {noun} whose field 'output' is not text, first {noun} 66: NoneType",
        ):
            assert reason in reasons
        with pytest.raises(UserError, match=r"5 parts of .* cannot be read: .*without the field 'output'"):
            data.prepare(config(written(tmp_path, [*ALPACA, *bad], name), unreadable="refuse"))
    with pytest.raises(UserError, match=r"no text to use in .*2 lines without the field 'messages'"):
        data.prepare(config(written(tmp_path, ALPACA[:2], "b.jsonl"), "chat"))
    chats = [{"messages": "hello"}, {"messages": [{"role": "user", "content": "hi"}]}, {"messages": [{"role": "user"}]}]
    tokens = data.prepare(config(written(tmp_path, [*CHATS, *chats], "c.jsonl"), "chat"))
    reasons = " ".join(item.reason for item in tokens.manifest.skipped)
    assert "whose field 'messages' is no list of objects" in reasons and "without the field 'content'" in reasons
    assert "without a message whose role is 'assistant'" in reasons
    (tmp_path / "plain.txt").write_text("some text\n\n" * 50)
    with pytest.raises(UserError, match="plain text, which has no fields for the template 'alpaca'"):
        data.prepare(config(str(tmp_path / "plain.txt")))
    (tmp_path / "cut.json").write_text(json.dumps(ALPACA)[:-9])
    with pytest.raises(UserError, match="not a whole JSON array"):
        data.prepare(config(str(tmp_path / "cut.json")))


def test_an_answer_longer_than_the_context_is_refused_before_compute_is_spent(tmp_path: Path) -> None:
    records = [*ALPACA, *({"instruction": f"long {n}", "input": "", "output": "y" * (70 + n)} for n in range(30))]
    chosen = fine_tuned(written(tmp_path, records))
    pattern = r"answers of the training documents .* are longer than the context of 64 tokens .* of at least \d+"
    with pytest.raises(UserError, match=pattern):
        data.check_enough(data.find_manifest(chosen.data) or data.prepare(chosen.data), chosen)
    with pytest.raises(UserError, match=pattern):
        train(chosen, tmp_path / "run")
    stream = replace(chosen, data=replace(chosen.data, layout="stream"))
    data.check_enough(data.prepare(stream.data), stream)


@pytest.mark.long
def test_replayed_text_stays_a_stream_beside_packed_answers(tmp_path: Path) -> None:
    source = f"mix: 0.5 * {written(tmp_path, ALPACA)} + 0.5 * synthetic:tasks(documents=200)"
    tokens = data.prepare(config(source, "{instruction} {input}: {output}"))
    assert [part.manifest.layout for part in tokens.components] == ["packed", "stream"]
    rows = data.Batches(tokens, 64, 8, seed=0)
    assert sorted((row == PADDING).any() or row[0] == END for row in rows[0])[:4] == [False] * 4
    model = ModelConfig(width=8, layers=1, heads=1, vocab=256, context=64, document_end=END)
    check = replace(run("stdlib", 4), model=model, data=config(source, "{instruction} {input}: {output}"), tokens=2048)
    data.check_enough(tokens, check)


def test_the_verb_that_describes_a_corpus_shows_its_template_and_its_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = [*ALPACA, {"instruction": "long", "input": "", "output": "y" * 900}, {"instruction": "none"}]
    source = written(tmp_path, records)
    main(DataArgs(source=source, template="alpaca", validation_fraction=0.2), Console(width=200, markup=True))
    shown = capsys.readouterr().out
    for text in TEMPLATES["alpaca"]:
        assert all(line in shown for line in text.splitlines())
    scored = data.prepare(config(source)).manifest.train_scored_tokens
    assert f"{scored:,}" in shown and "tokens of answers" in shown
    assert "1 line without the field 'output', first line 62" in shown
