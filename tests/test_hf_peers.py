"""transformers itself reads what is exported and writes what is imported: the logits, tokens and texts agree."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers.peers import call_peer, peers_python
from helpers.published import VARIANTS, random_params, random_tokens, tiny
from helpers.tiny_runs import run

from lmscale.core.files import read_json
from lmscale.lm.data.tokenizer import ByteTokenizer, FileTokenizer, SymbolTokenizer, Tokenizer, train_bpe
from lmscale.lm.model import transformer
from lmscale.lm.use.hf.published import model_config, parameters, publish
from lmscale.lm.use.hf.weights import read_weights
from lmscale.lm.use.hf.write import write_hf
from lmscale.lm.use.load import TrainedRun

pytestmark = pytest.mark.slow
LOGITS = jax.jit(transformer.logits, static_argnames="config")
TEXT = "The quick brown fox — \U0001f642 naïve\n\n  two  spaces\tand 12,345 <|endoftext|> more"


def a_bpe() -> Tokenizer:
    return FileTokenizer(train_bpe(300, iter([[TEXT.encode()] * 9]), "a text"), "bpe:300")


def without_end() -> Tokenizer:
    spec = json.loads(a_bpe().content)  # type: ignore[attr-defined]
    return FileTokenizer(json.dumps({**spec, "added_tokens": []}), "tokenizer.json")


TOKENIZERS = {"bytes": ByteTokenizer, "bpe": a_bpe, "a file without an end": without_end}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every variant, and every tokenizer, in a folder of its own, read by transformers."""
    peers_python()
    root = tmp_path_factory.mktemp("exported")
    tokenizers = {"symbols": lambda: SymbolTokenizer(61), **TOKENIZERS}
    models = [(name, options, "symbols") for name, (_, options) in VARIANTS.items()]
    models += [(f"with {name}", {}, name) for name in TOKENIZERS]
    for name, options, kind in models:
        tokenizer = tokenizers[kind]()
        vocab = tokenizer.vocab + (7 if kind == "bytes" else 0)  # rows that pad the table are not exported
        config = tiny(**options, vocab=vocab)
        folder = root / name
        folder.mkdir()
        params = {key: jax.numpy.asarray(value) for key, value in random_params(config).items()}
        write_hf(folder, TrainedRun(run("stdlib", 8, model=config), params, tokenizer), {}, shard_bytes=30_000)
        tokens = random_tokens(tiny(vocab=tokenizer.vocab))
        np.save(folder / "tokens.npy", tokens)
        np.save(folder / "expected.npy", LOGITS(params, tokens, config=config)[:, :, : tokenizer.vocab])
        if kind != "symbols":
            (folder / "text.json").write_text(json.dumps(TEXT), encoding="utf-8")
    call_peer("read_models.py", root)
    return root


@pytest.mark.parametrize("name", [*VARIANTS, *(f"with {name}" for name in TOKENIZERS)])
def test_transformers_computes_the_same_logits(exported: Path, name: str) -> None:
    answer = read_json(exported / name / "answer.json")
    assert answer["report"] == {}, "no tensor is missing, and none is left over"
    assert answer["class"] == VARIANTS.get(name, ("LlamaForCausalLM",))[0]
    expected, logits = np.load(exported / name / "expected.npy"), np.load(exported / name / "logits.npy")
    assert logits.shape == expected.shape
    np.testing.assert_allclose(logits, expected, atol=1e-4)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_transformers_reads_the_same_tokens_and_stops_where_a_text_ends(exported: Path, name: str) -> None:
    tokenizer, answer = TOKENIZERS[name](), read_json(exported / f"with {name}" / "answer.json")
    # text that spells the end of a document is text for us, and the end itself for transformers
    spelled = "<|endoftext|>"
    before, after = TEXT.split(spelled)
    end = [tokenizer.end_of_document]
    assert answer["ids"] == [*tokenizer.encode(before).tolist(), *end, *tokenizer.encode(after).tolist()]
    assert answer["text"] == TEXT
    assert answer["eos"] == answer["bos"] == answer["stops_at"] == tokenizer.end_of_document
    assert tokenizer.end_of_document not in answer["generated"][:-1]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    peers_python()
    root = tmp_path_factory.mktemp("published")
    call_peer("make_models.py", root)
    return root


CLASSES = [
    "llama", "llama 3, tied", "llama, biases", "qwen2", "qwen3", "gemma", "olmo", "arcee", "starcoder2", "gpt2",
    "gpt2, untied", "pythia", "neox, sequential", "mixtral", "qwen3 moe", "glm4 moe",
]  # fmt: skip


def test_every_class_was_written(published: Path) -> None:
    assert sorted(path.name for path in published.iterdir()) == sorted(CLASSES)


@pytest.mark.parametrize("name", CLASSES)
def test_what_transformers_saves_is_read_as_the_same_function(published: Path, name: str) -> None:
    """Same logits; and written again, the same bits in every tensor."""
    folder = published / name
    architecture, config = model_config(read_json(folder / "config.json"))
    tensors = read_weights(folder)
    params = parameters(tensors, architecture, config)
    logits = LOGITS(params, np.load(folder / "tokens.npy"), config=config)
    np.testing.assert_allclose(logits, np.load(folder / "logits.npy"), atol=1e-4)
    again = publish(params, config, architecture.name).tensors
    assert set(again) == set(tensors)
    assert all(np.array_equal(again[tensor], tensors[tensor]) for tensor in tensors)
