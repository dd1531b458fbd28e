"""Run by a Python with torch and transformers: a tiny random model of every class, as transformers saves it.

python make_models.py FOLDER; each subfolder has the model, `tokens.npy` and `logits.npy`.
"""

import sys
from pathlib import Path

import numpy as np
import torch
import transformers as t

SHARED = {"vocab_size": 61, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": None}
LLAMA = {
    **SHARED, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip
SCALED = {
    "rope_type": "llama3", "rope_theta": 500_000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
NEOX = {name: value for name, value in LLAMA.items() if name != "num_key_value_heads"}
MODELS = {
    "llama": t.LlamaConfig(**LLAMA),
    "llama 3, tied": t.LlamaConfig(**LLAMA, rope_parameters=SCALED, tie_word_embeddings=True, head_dim=16),
    "llama, biases": t.LlamaConfig(**LLAMA, attention_bias=True, mlp_bias=True),
    "qwen2": t.Qwen2Config(**LLAMA),
    "qwen3": t.Qwen3Config(**LLAMA, head_dim=16, tie_word_embeddings=True),
    "gemma": t.GemmaConfig(**LLAMA, head_dim=16),
    "olmo": t.OlmoConfig(**LLAMA),
    "arcee": t.ArceeConfig(**LLAMA),
    "starcoder2": t.Starcoder2Config(**LLAMA),
    "mixtral": t.MixtralConfig(**LLAMA, num_local_experts=4),
    "qwen3 moe": t.Qwen3MoeConfig(
        **LLAMA, num_experts=6, num_experts_per_tok=2, moe_intermediate_size=24, head_dim=16, norm_topk_prob=True
    ),
    "glm4 moe": t.Glm4MoeConfig(
        **LLAMA, n_routed_experts=6, num_experts_per_tok=3, moe_intermediate_size=24, first_k_dense_replace=0,
        attention_bias=True, routed_scaling_factor=1.5,
    ),
    "gpt2": t.GPT2Config(**SHARED, n_embd=32, n_layer=2, n_head=4, n_positions=64),
    "gpt2, untied": t.GPT2Config(**SHARED, n_embd=32, n_layer=2, n_head=4, n_positions=64, tie_word_embeddings=False),
    "pythia": t.GPTNeoXConfig(**NEOX, rope_parameters={"rope_theta": 10_000.0, "partial_rotary_factor": 0.25}),
    "neox, sequential": t.GPTNeoXConfig(**NEOX, use_parallel_residual=False, tie_word_embeddings=True),
}  # fmt: skip

tokens = np.random.default_rng(0).integers(0, 61, (2, 64))
for name, config in MODELS.items():
    torch.manual_seed(0)
    model = t.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        for buffer_name, buffer in model.named_buffers():
            if buffer_name.endswith("e_score_correction_bias"):
                buffer.add_(0.1 * torch.randn_like(buffer))
        folder = Path(sys.argv[1]) / name
        model.save_pretrained(folder, max_shard_size="20kB" if "llama" in name else "5GB")
        np.save(folder / "tokens.npy", tokens)
        np.save(folder / "logits.npy", model(torch.tensor(tokens)).logits.numpy())
