"""Run by a Python with torch and transformers: attention and residual streams of every model in a folder.

python read_activations.py FOLDER; each subfolder is a model with `tokens.npy`, and gets `activations.npz` beside it.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM

for folder in sorted(path for path in Path(sys.argv[1]).iterdir() if path.is_dir()):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    tokens = torch.tensor(np.load(folder / "tokens.npy"))
    with torch.no_grad():
        output = model(tokens, output_attentions=True, output_hidden_states=True)
    np.savez(
        folder / "activations.npz",
        attentions=torch.stack(output.attentions).numpy(),  # [L, B, H, T, S]
        hidden_states=torch.stack(output.hidden_states).numpy(),  # the embedding, each layer's output; the last normed
    )
