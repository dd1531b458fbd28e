"""The program of an exported model computes what the model computes, and reads and writes the same text."""

import json
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from helpers.command_line import call
from helpers.published import COMPLETEP, MUP, VARIANTS, random_params, random_tokens, tiny
from helpers.tiny_runs import run, write_corpus

from lmscale.core.config import ModelConfig, RouterConfig
from lmscale.core.errors import UserError
from lmscale.core.files import write_json
from lmscale.core.run_folder import CONFIG_FILE
from lmscale.lm.data.tokenizer import ByteTokenizer, FileTokenizer, SymbolTokenizer, Tokenizer, train_bpe
from lmscale.lm.model import transformer
from lmscale.lm.train.loop import train
from lmscale.lm.use.generate import generate
from lmscale.lm.use.load import TrainedRun, load
from lmscale.lm.use.sampling import Sampling
from lmscale.lm.use.two_file.patterns import translated
from lmscale.lm.use.two_file.write import PARAMETERS_FILE, PROGRAM_FILE, write_two_file

LOGITS = jax.jit(transformer.logits, static_argnames="config")
OTHERS: dict[str, dict[str, Any]] = {
    "ALiBi, grouped, cap": {"positions": "alibi", "kv_heads": 2, "logit_softcap": 3.0},
    "ALiBi, six heads, muP, documents": {**MUP, "positions": "alibi", "heads": 6, "width": 48, "document_end": 60},
    "no positions, cap, untied": {"positions": "none", "logit_softcap": 5.0, "tied_embeddings": False},
    "documents, embedding scale": {"document_end": 7, "embedding_scale": 3.0},
    "LayerNorm, QK norm, parallel, biases": {
        "norm": "layernorm", "qk_norm": True, "parallel_block": True, "biases": True, "positions": "learned",
    },
    "offset, QK norm, CompleteP, padded": {**COMPLETEP, "norm": "rmsnorm-offset", "qk_norm": True, "vocab": 64},
    "experts, MLPs without a gate": {
        "experts": 3, "experts_per_token": 2, "shared_experts": 1, "mlp": "relu2", "router": RouterConfig(bias_rate=0.1)
    },
    "bfloat16 parameters": {"param_dtype": "bfloat16", "qkv_biases": True},
}  # fmt: skip
MODELS = {name: options for name, (_, options) in VARIANTS.items()} | OTHERS


def trained_run(config: ModelConfig, tokenizer: Tokenizer, seed: int = 1) -> TrainedRun:
    return TrainedRun(replace(run("stdlib", 4), model=config), random_params(config, seed), tokenizer)  # type: ignore[arg-type]


def program_of(folder: Path, model: TrainedRun) -> dict[str, Any]:
    """The names that the exported program defines."""
    folder.mkdir(exist_ok=True)
    write_two_file(folder, model, "Written in a test.")
    assert sorted(path.name for path in folder.iterdir()) == [PROGRAM_FILE, PARAMETERS_FILE]
    return runpy.run_path(str(folder / PROGRAM_FILE))


@pytest.mark.long
@pytest.mark.parametrize("name", MODELS)
def test_logits_are_those_of_the_model(name: str, tmp_path: Path) -> None:
    """At every position of the context: read whole, and token by token with the cache."""
    config = tiny(**MODELS[name])
    model = trained_run(config, SymbolTokenizer(61))
    program = program_of(tmp_path, model)
    tokens = random_tokens(replace(config, vocab=61))
    expected = np.asarray(LOGITS(model.params, tokens, config=config))[..., :61]
    for row, logits in zip(tokens, expected):
        np.testing.assert_allclose(program["logits"](row), logits, atol=1e-5)
    cache = program["Cache"]()
    parts = [program["logits"](part, cache) for part in np.split(tokens[0], [9, 10, 11, 40])]
    np.testing.assert_allclose(np.concatenate(parts), expected[0], atol=1e-5)
    assert parts[0].dtype == np.float32


def test_programs_hold_only_what_their_model_has_and_no_fault(tmp_path: Path) -> None:
    for number, options in enumerate(MODELS.values()):
        program_of(tmp_path / str(number), trained_run(tiny(**options), SymbolTokenizer(61)))
    rules = ["--select", "E,F,W,I,B,UP", "--ignore", "B905", "--line-length", "120", "--isolated"]
    done = subprocess.run([sys.executable, "-m", "ruff", "check", *rules, tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    texts = [(tmp_path / str(number) / PROGRAM_FILE).read_text() for number in range(len(MODELS))]
    assert not any("#:" in text or "{{" in text for text in texts)
    assert max(text.count("\n") for text in texts) < 260
    with_rope = [options.get("positions", "rotary") == "rotary" for options in MODELS.values()]
    assert ["def rotate" in text for text in texts] == with_rope


@pytest.mark.long
def test_greedy_text_is_that_of_sample(tmp_path: Path) -> None:
    """Past the end of the context, too, and after a prompt that is longer than it."""
    model = trained_run(tiny(context=32, vocab=95, layers=1, tied_embeddings=False), SymbolTokenizer(95), seed=3)
    program = program_of(tmp_path, model)
    prompts = ["!", "", "#$%&'()*+,-./" * 8, "abc" * 9]
    expected = generate(model, prompts, max_tokens=90, sampling=Sampling(temperature=0)).completions
    for prompt, completion in zip(prompts, expected):
        assert list(program["generate"](program["encode"](prompt), 90, 0, None)) == completion.tokens
    assert sum(len(completion.tokens) == 90 for completion in expected) >= 2


@pytest.mark.long
def test_draws_follow_the_distribution_of_the_model(tmp_path: Path) -> None:
    program = program_of(tmp_path, trained_run(tiny(vocab=5), SymbolTokenizer(5)))
    logits, rng, draws = np.array([1.0, 0.0, -1.0, 2.0, 0.5], np.float32), np.random.default_rng(0), 20_000
    counts = np.bincount([program["choose"](logits, 0.7, rng) for _ in range(draws)], minlength=5)
    expected = np.exp(logits / 0.7) / np.exp(logits / 0.7).sum()
    assert np.all(np.abs(counts / draws - expected) < 5 * np.sqrt(expected / draws))


BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
GPT4 = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
    r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
)
CASES = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|\P{L}\p{^N}?|\d\p{S}*"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def split(pattern: str, behavior: str = "Isolated") -> dict[str, Any]:
    step = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": behavior == "Removed"}
    return {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [step, BYTE_LEVEL]}}


def spaces(*counts: int, **changed: bool) -> list[dict[str, Any]]:
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    return [{**plain, **changed, "id": 290 + place, "content": count * " "} for place, count in enumerate(counts)]


DIGITS = {"type": "Digits", "individual_digits": True}
TOKENIZERS: dict[str, dict[str, Any]] = {
    "GPT-2": {},
    "no regular expression": {"pre_tokenizer": BYTE_LEVEL},
    "Llama 3": {**split(LLAMA3), "ignore_merges": True},
    "GPT-4": split(GPT4),
    "cases": split(CASES),
    "Qwen": {**split(LLAMA3, "Removed"), "normalizer": {"type": "NFC"}},
    "digits": {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [DIGITS, {**BYTE_LEVEL, "use_regex": True}]}},
    "runs of spaces": {"added_tokens": spaces(2, 3, 8)},
}


def bpe(changed: dict[str, Any]) -> FileTokenizer:
    """Three hundred ids trained on a few words, with these parts of its file changed."""
    words = "low lower lowest, new newer newest; the wide widest 1234 1232 naïve наив\n    return x  # it's don't"
    spec = json.loads(train_bpe(290, iter([[words.encode()] * 9]), "a text"))
    spec["model"]["ignore_merges"] = changed.get("ignore_merges", False)
    parts = {name: value for name, value in changed.items() if name not in ("ignore_merges", "added_tokens")}
    added = [*spec["added_tokens"], *changed.get("added_tokens", [])]
    return FileTokenizer(json.dumps({**spec, **parts, "added_tokens": added}), "a test's")


@pytest.mark.long
@pytest.mark.parametrize("name", TOKENIZERS)
def test_tokens_are_those_of_the_library_tokenizers(name: str, tmp_path: Path) -> None:
    """Beside letters, digits, spaces and quotation marks, on characters of every kind: all that are not ideographs."""
    tokenizer = bpe(TOKENIZERS[name])
    program = program_of(tmp_path, trained_run(tiny(vocab=tokenizer.vocab), tokenizer))
    characters = [chr(code) for code in range(0x30000) if not 0xD800 <= code < 0xE000]
    step = 997 if name == "no regular expression" else 1  # its words have no end, and their merges take a square of it
    text = "".join(f"{one}{' a1xS'[number % 5]}'"[: 2 + number % 2] for number, one in enumerate(characters[::step]))
    tokens = program["encode"](text)
    assert tokens == tokenizer.encode(text).tolist()
    pieces = b"".join(map(program["piece"], tokens))
    assert pieces.decode(errors="replace") == tokenizer.decode(tokens)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"model": {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["a", -1.0]]}}, "its model is Unigram"),
        ({"pre_tokenizer": {**BYTE_LEVEL, "add_prefix_space": True}}, "without a space in front"),
        ({"pre_tokenizer": None}, "does not end in ByteLevel"),
        ({"normalizer": {"type": "Lowercase"}}, "its normalizer Lowercase changes the text"),
        ({"added_tokens": spaces(2, lstrip=True)}, "has lstrip"),
        (split(r"\p{Han}+|\s+"), r"has the class \p{Han}"),
        (split(r"[^\S\n]+"), r"has \S within a class"),
        (split(r"\w+"), r"has \w"),
        (split(r"[a-z&&[^b]]+"), "has &&"),
        (split("[一-龥]+"), "has the character 一"),
        (
            split(r"\s+", "Isolated") | {"normalizer": {"type": "Sequence", "normalizers": []}},
            "its normalizer Sequence",
        ),
    ],
)
def test_a_tokenizer_without_a_counterpart_is_refused(changed: dict[str, Any], reason: str, tmp_path: Path) -> None:
    tokenizer = bpe(changed)
    with pytest.raises(UserError) as refusal:
        write_two_file(tmp_path, trained_run(tiny(vocab=max(61, tokenizer.vocab)), tokenizer), "")
    assert reason in str(refusal.value) and "take --format hf" in str(refusal.value)
    assert list(tmp_path.iterdir()) == []


def test_braces_of_a_regular_expression_are_no_names() -> None:
    assert translated(r"\p{N}{1,3}|[\s{}]\{") == r"[{N}]{{1,3}}|[{SPACES}{{}}]\{{"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a few steps in bytes and its two files."""
    root = tmp_path_factory.mktemp("two")
    (root / "text").mkdir()
    model = ModelConfig(width=32, layers=1, heads=2, context=16, kv_heads=1)
    config = run(write_corpus(root / "text"), 30, model=model)
    write_json(root / "run" / CONFIG_FILE, config.to_json())
    train(config, root / "run")
    assert call("export", root / "run", root / "out", "--format", "two-file") == 0
    return root


def python(exported: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """The program in a Python that has neither JAX nor lmscale."""
    absent = "import sys; sys.modules.update(dict.fromkeys(['jax', 'lmscale', 'tokenizers'])); import runpy; "
    start = f"{absent}sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    command = [sys.executable, "-I", "-c", start, str(exported / "out" / PROGRAM_FILE), *words]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.long
def test_the_command_line_of_the_program(exported: Path) -> None:
    done = python(exported, "the é", "--max-tokens", "40", "--temperature", "0")
    text = generate(load(exported / "run"), ["the é"], max_tokens=40, sampling=Sampling(temperature=0)).completions[0]
    assert done.stdout == f"the é{text.text}\n" and done.returncode == 0
    assert done.stderr.startswith(f"{len(text.tokens)} tokens after 6 in ") and done.stderr.endswith(" tokens/s\n")
    draws = [python(exported, "the", "--seed", seed).stdout for seed in "112"]
    assert draws[0] == draws[1] != draws[2]


@pytest.mark.long
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["a", "--max-tokens", "0"], "--max-tokens must be at least 1"),
        (["a", "--temperature", "-1"], "--temperature and --seed at least 0"),
        (["a", "--temperature", "nan"], "--temperature and --seed at least 0"),
        (["a", "--seed", "-1"], "--temperature and --seed at least 0"),
        (["\udcff"], "the prompt cannot be encoded"),
    ],
)
def test_bad_words_are_one_sentence(exported: Path, words: list[str], sentence: str) -> None:
    done = python(exported, *words)
    assert done.returncode != 0 and sentence in done.stderr and "Traceback" not in done.stderr and not done.stdout


def test_a_document_ends_the_text(tmp_path: Path) -> None:
    """A model whose likeliest token after any other is the end."""
    model = trained_run(tiny(vocab=256), ByteTokenizer())
    table = np.zeros_like(model.params["embedding"])
    table[:255, 0], table[255, 0] = 1, 2
    quiet = {name: 0 * value if name.endswith("_out") else value for name, value in model.params.items()}
    ones = {"embedding": table, "final_norm": np.ones_like(model.params["final_norm"])}
    program = program_of(tmp_path, model._replace(params=quiet | ones))
    assert list(program["generate"](program["encode"]("text"), 9, 0, None)) == []


@pytest.mark.long
def test_lost_parameters_are_one_sentence(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / PROGRAM_FILE).write_bytes((exported / "out" / PROGRAM_FILE).read_bytes())
    done = python(tmp_path, "a")
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "parameters.npz cannot be read" in done.stderr
