"""How fast is text drawn beside Hugging Face's `generate`, from the same weights on the same machine?

    pip install -e '.[peers]'                                   # on a CPU: a CPU build of torch
    python experiments/bench_generate.py                        # about a quarter of an hour
    python experiments/bench_generate.py --python PEER/bin/python   # peers in an environment of their own

A Llama of random weights is exported with `lmscale export --format hf` and read by transformers: greedy, 32 tokens of
prompt and 192 drawn, on all cores, in float32. Peers are `generate` as it comes, and with its static cache, whose
forward pass it compiles. Every measurement is a process of its own, which draws three times after a warm-up and takes
the fastest; they take turns, and the table has the median over the rounds. The texts are compared: all are the same.
The ratio is ours over the best peer.

Tokens per second, medians of three rounds, on two shared cores of a CPU (x86-64), torch 2.13, transformers 5.24; the
last shape with a batch of 16 is not measured yet:

    d, L, heads, vocab, batch     lmscale     eager   static cache, compiled  ratio
     128, 4, 4,  256,  1            1,938       284                      681   2.85
     128, 4, 4,  256, 16            5,204     2,297                    2,757   1.89
     384, 6, 6, 4096,  1              176        95                      103   1.70
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROMPT, DRAWN, REPEATS = 32, 192, 3
PEERS = ("eager", "static cache, compiled")


@dataclass(frozen=True)
class Shape:
    """A model."""

    width: int
    layers: int
    heads: int
    vocab: int
    context: int = 256


SHAPES = (Shape(128, 4, 4, 256), Shape(384, 6, 6, 4096))
BATCHES = (1, 16)


def ours(folder: Path, batch: int) -> dict[str, Any]:
    """Tokens per second of `lmscale.lm.use.generate` in this process, and the tokens of the first text."""
    from lmscale.lm.devices import machine

    machine.set_up()
    import jax.numpy as jnp
    import numpy as np

    from lmscale.core.files import read_json
    from lmscale.lm.data.tokenizer import SymbolTokenizer
    from lmscale.lm.use.generate import Writer
    from lmscale.lm.use.hf.published import model_config, parameters
    from lmscale.lm.use.hf.weights import read_weights
    from lmscale.lm.use.sampling import Sampling

    architecture, config = model_config(read_json(folder / "config.json"))
    params = {
        name: jnp.asarray(value) for name, value in parameters(read_weights(folder), architecture, config).items()
    }
    prompts = [np.array(tokens, np.int32) for tokens in prompt_tokens(batch, config.vocab)]
    seconds, texts = [], []
    for _ in range(REPEATS + 1):
        writer = Writer(params, config, SymbolTokenizer(config.vocab), Sampling(temperature=0), seed=0)
        started = time.perf_counter()
        writer.start(prompts)
        texts = [writer.write() for _ in range(-(-DRAWN // writer.steps))]
        seconds.append(time.perf_counter() - started)
    tokens = np.concatenate(texts, axis=1)[0, :DRAWN].tolist()
    return {"tokens_per_second": batch * DRAWN / min(seconds[1:]), "tokens": tokens}


def prompt_tokens(batch: int, vocab: int) -> list[list[int]]:
    """Rows of tokens, none of them the last id, which ends a document."""
    return [[(7 * row + 13 * at) % (vocab - 1) for at in range(PROMPT)] for row in range(batch)]


def theirs(folder: Path, batch: int, peer: str) -> dict[str, Any]:
    """The same of transformers."""
    import os

    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    prompts = torch.tensor(prompt_tokens(batch, model.config.vocab_size))
    options: dict[str, Any] = {
        "max_new_tokens": DRAWN, "min_new_tokens": DRAWN, "do_sample": False, "pad_token_id": 0, "eos_token_id": None,
        "attention_mask": torch.ones_like(prompts),
    }  # fmt: skip
    if peer != "eager":
        options["cache_implementation"] = "static"  # transformers compiles the forward pass then, on a GPU by itself
        model.forward = torch.compile(model.forward)
    seconds = []
    with torch.inference_mode():
        for _ in range(REPEATS + 1):
            started = time.perf_counter()
            texts = model.generate(prompts, **options)
            seconds.append(time.perf_counter() - started)
    return {"tokens_per_second": batch * DRAWN / min(seconds[1:]), "tokens": texts[0, PROMPT:].tolist()}


def export_model(shape: Shape, folder: Path) -> None:
    """Write a model of random weights as `lmscale export --format hf` does."""
    import jax

    from lmscale.core.config import ModelConfig, OptimizerConfig, RunConfig
    from lmscale.lm.data.tokenizer import SymbolTokenizer
    from lmscale.lm.model.parameters import init
    from lmscale.lm.use.hf.write import write_hf
    from lmscale.lm.use.load import TrainedRun

    model = ModelConfig(**vars(shape), tied_embeddings=False)
    optimizer = OptimizerConfig(peak_lr=1e-3, batch_sequences=1)
    config = RunConfig(model=model, optimizer=optimizer, tokens=shape.context, validations=1)
    params = jax.jit(lambda key: init(model, key))(jax.random.key(0))
    write_hf(folder, TrainedRun(config, params, SymbolTokenizer(shape.vocab)), {})


def measured(python: str, name: str, folder: Path, batch: int) -> dict[str, Any]:
    """What this file measures in a process of its own."""
    command = [python, __file__, "--measure", json.dumps([name, str(folder), batch])]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{name} could not be measured:\n{done.stderr[-2000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def compare(python: str, rounds: int) -> None:
    """Print the table."""
    print(f"{'d, L, heads, vocab, batch':27} {'lmscale':>9} {PEERS[0]:>9} {PEERS[1]:>24}  ratio")
    for shape in SHAPES:
        with tempfile.TemporaryDirectory() as folder:
            export_model(shape, Path(folder))
            for batch in BATCHES:
                rates: dict[str, list[float]] = {}
                texts = set()
                for _ in range(rounds):
                    for name in ("lmscale", *PEERS):
                        interpreter = sys.executable if name == "lmscale" else python
                        answer = measured(interpreter, name, Path(folder), batch)
                        rates.setdefault(name, []).append(answer["tokens_per_second"])
                        texts.add(tuple(answer["tokens"]))
                median = {name: statistics.median(values) for name, values in rates.items()}
                ratio = median["lmscale"] / max(median[peer] for peer in PEERS)
                row = f"{shape.width:4}, {shape.layers}, {shape.heads}, {shape.vocab:4}, {batch:2}"
                same = "" if len(texts) == 1 else "  THE TEXTS DIFFER"
                numbers = f"{median['lmscale']:9,.0f} {median[PEERS[0]]:9,.0f} {median[PEERS[1]]:24,.0f}"
                print(f"{row:27} {numbers}  {ratio:5.2f}{same}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--python", default=sys.executable, help="a Python that has torch and transformers")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure is None:
        compare(arguments.python, arguments.rounds)
        return
    name, folder, batch = json.loads(arguments.measure)
    answer = ours(Path(folder), batch) if name == "lmscale" else theirs(Path(folder), batch, name)
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
