"""How fast is a training step beside PyTorch's, on the same machine, for models of the same shape?

    pip install -e '.[peers]'                                   # on a CPU: a CPU build of torch
    python experiments/bench_train_step.py                      # three shapes on the CPU: about 15 minutes
    python experiments/bench_train_step.py --python PEER/bin/python   # peers in an environment of their own
    python experiments/bench_train_step.py --gpu                # 350M and 1.3B parameters in bfloat16 on one GPU

Peers are Hugging Face's Llama, with exactly as many parameters as ours, and GPT-2 of the same width and depth, each
eager and under torch.compile, all with fused AdamW, clipping by the global norm, scaled-dot-product attention and the
same batch; on a CPU in float32 on all cores, on a GPU under bfloat16 autocast with float32 weights. Every measurement
is the median step of a process of its own; they take turns, and the table has the median over the rounds. The ratio is
ours over the best peer.

Outcome (2026-11, two cores of an AMD EPYC, idle; JAX 0.10.2, torch 2.13.0, transformers 5.23.0), tokens/s, median of
three rounds; earlier, in an hour in which both were faster, the ratios were .87, .96 and 1.07:

    d, L, heads, context, vocab, batch   lmscale  Llama eager  compile  GPT-2 eager  compile   ratio   MFU
     64, 3, 2, 128,  256, 32              56,115       55,159   67,657       38,951   52,235     .83   .30
    128, 4, 4, 256,  256, 16              15,269       14,154   14,677       12,949   13,902    1.04   .43
    256, 6, 4, 256, 4096,  8               3,321        2,718    3,075        2,682    3,202    1.04   .62

The goal is 1.1. Without torch.compile it is reached or nearly so (1.02, 1.08, 1.22); beside compiled peers it is not.
Large products run at the peak in both. Some third of the smallest model's step is attention (`lmscale bench --profile`
shows it): XLA writes scores and weights to memory where torch's kernel keeps them in the core's cache.
Not on a GPU: none was at hand.
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

BALANCE_LOSS = 0.01
"""Weight in models with experts; `RouterConfig`'s default."""
PEERS = ("llama eager", "llama compile", "gpt2 eager", "gpt2 compile")
WARM_STEPS = 3


@dataclass(frozen=True)
class Shape:
    """A model and its batch; with experts, only `bench_experts.py` asks for it."""

    width: int
    layers: int
    heads: int
    context: int
    vocab: int
    batch: int
    experts: int = 1
    experts_per_token: int = 1

    @property
    def hidden(self) -> int:
        """Hidden units of the MLP: `ModelConfig`'s default for SwiGLU."""
        return 8 * -(-self.width // 3)


CPU_SHAPES = (Shape(64, 3, 2, 128, 256, 32), Shape(128, 4, 4, 256, 256, 16), Shape(256, 6, 4, 256, 4096, 8))
GPU_SHAPES = (Shape(1024, 24, 16, 2048, 32_768, 16), Shape(2048, 24, 16, 2048, 32_768, 8))


def ours(shape: Shape, steps: int, gpu: bool) -> dict[str, Any]:
    """What `lmscale bench` says."""
    words = [f"--{name}={getattr(shape, name)}" for name in ("width", "layers", "heads", "context", "vocab", "batch")]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "speed.json"
        command = [sys.executable, "-m", "lmscale", "bench", *words, f"--steps={steps}", f"--json={file}"]
        subprocess.run([*command, *["--compute-dtype=bfloat16"] * gpu], check=True, capture_output=True)
        return json.loads(file.read_text())


def theirs(python: str, peer: str, shape: Shape, steps: int, gpu: bool) -> dict[str, Any]:
    """The same of one peer, measured by this file in a process of its own."""
    line = json.dumps([peer, [*vars(shape).values()], steps, gpu])
    done = subprocess.run([python, __file__, "--measure", line], check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{peer} could not be measured:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(peer: str, shape: Shape, steps: int, gpu: bool) -> dict[str, Any]:
    """Tokens per second and parameters of a peer, in this process.

    A peer is a model, how Mixtral multiplies its experts, and whether torch compiles it: "llama compile", "mixtral
    grouped_mm eager".
    """
    import os

    import torch

    torch.manual_seed(0)
    device = "cuda" if gpu else "cpu"
    if gpu:
        torch.set_float32_matmul_precision("high")
    else:
        torch.set_num_threads(len(os.sched_getaffinity(0)))
    kind, *implementation, how = peer.split()
    make = {"llama": _llama, "gpt2": _gpt2, "mixtral": _mixtral}[kind]
    model = make(shape, *implementation).to(device).train()
    params = sum(p.numel() for p in model.parameters())
    run = torch.compile(model) if how == "compile" else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    batches = torch.randint(0, shape.vocab, (8, shape.batch, shape.context), device=device)

    def step(t: int) -> None:
        tokens = batches[t % len(batches)]
        with torch.autocast(device, torch.bfloat16, enabled=gpu):
            loss = run(input_ids=tokens, labels=tokens, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    ends = []
    for t in range(WARM_STEPS + steps + 1):
        step(t)
        if gpu:
            torch.cuda.synchronize()
        ends.append(time.perf_counter())
    seconds = [end - start for start, end in zip(ends[WARM_STEPS:], ends[WARM_STEPS + 1 :])]
    return {"tokens_per_second": shape.batch * shape.context / statistics.median(seconds), "params": params}


def _llama(shape: Shape) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=shape.vocab,
            hidden_size=shape.width,
            intermediate_size=shape.hidden,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.heads,
            max_position_embeddings=shape.context,
            tie_word_embeddings=True,
            attn_implementation="sdpa",
        )
    )


def _gpt2(shape: Shape) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=shape.vocab,
            n_embd=shape.width,
            n_layer=shape.layers,
            n_head=shape.heads,
            n_positions=shape.context,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=0,
            eos_token_id=0,
            attn_implementation="sdpa",
        )
    )


def _mixtral(shape: Shape, experts_implementation: str) -> Any:
    from transformers import MixtralConfig, MixtralForCausalLM

    return MixtralForCausalLM(
        MixtralConfig(
            vocab_size=shape.vocab,
            hidden_size=shape.width,
            intermediate_size=shape.hidden // shape.experts_per_token,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.heads,
            max_position_embeddings=shape.context,
            num_local_experts=shape.experts,
            num_experts_per_tok=shape.experts_per_token,
            output_router_logits=True,
            router_aux_loss_coef=BALANCE_LOSS,
            tie_word_embeddings=True,
            sliding_window=None,
            attn_implementation="sdpa",
            experts_implementation=experts_implementation,
        )
    )


def _row(shape: Shape) -> str:
    return ", ".join(str(value) for value in (*vars(shape).values(),)[:6])


def compare(shapes: tuple[Shape, ...], python: str, rounds: int, steps: int, gpu: bool) -> None:
    """Print a row per shape: tokens/s of all, and the ratio of ours to the best of the others."""
    measurements: dict[tuple[Shape, str], list[dict[str, Any]]] = {}
    for number in range(rounds):
        for shape in shapes:
            measurements.setdefault((shape, "lmscale"), []).append(ours(shape, steps, gpu))
            for peer in PEERS:
                measurements.setdefault((shape, peer), []).append(theirs(python, peer, shape, steps, gpu))
            print(f"round {number + 1} of {rounds}: {_row(shape)}", file=sys.stderr, flush=True)
    print(f"median tokens/s of {rounds} rounds on {measurements[shapes[0], 'lmscale'][0]['device']}")
    print(
        f"{'(d, L, heads, context, vocab, batch)':38} {'lmscale':>9} "
        + " ".join(f"{p:>13}" for p in PEERS)
        + "  ratio  MFU"
    )
    for shape in shapes:
        rate = {
            who: statistics.median(one["tokens_per_second"] for one in measurements[shape, who])
            for who in ("lmscale", *PEERS)
        }
        mine = measurements[shape, "lmscale"]
        mfu = statistics.median(one["mfu_of_datasheet"] or one["mfu"] for one in mine)
        params = [measurements[shape, who][0]["params"] for who in ("lmscale", "llama eager")]
        if params[0] != params[1]:
            sys.exit(f"{shape}: Llama has {params[1]:,} parameters, ours {params[0]:,}")
        print(
            f"{_row(shape):38} {rate['lmscale']:9,.0f} "
            + " ".join(f"{rate[peer]:13,.0f}" for peer in PEERS)
            + f"  {rate['lmscale'] / max(rate[peer] for peer in PEERS):5.2f}  {mfu:.2f}"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpu", action="store_true", help="the large shapes, in bfloat16 on one GPU")
    parser.add_argument("--python", default=sys.executable, help="a Python that has torch and transformers")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--shapes", type=int, nargs="+", metavar="N", help="only these of them, counted from 0")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        peer, values, steps, gpu = json.loads(arguments.measure)
        print(json.dumps(measure(peer, Shape(*values), steps, gpu)))
    else:
        every = GPU_SHAPES if arguments.gpu else CPU_SHAPES
        chosen = tuple(every[number] for number in arguments.shapes or range(len(every)))
        compare(chosen, arguments.python, arguments.rounds, arguments.steps, arguments.gpu)
