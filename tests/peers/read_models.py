"""Run by a Python with torch and transformers: logits of every model in a folder, as `logits.npy` beside it.

python read_models.py FOLDER; each subfolder is a model with `tokens.npy`. Its tokenizer is tried on `text.json`.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

for folder in sorted(path for path in Path(sys.argv[1]).iterdir() if path.is_dir()):
    model, report = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    unused = {name: sorted(map(str, names)) for name, names in report.items() if names}
    tokens = torch.tensor(np.load(folder / "tokens.npy"))
    with torch.no_grad():
        np.save(folder / "logits.npy", model.eval()(tokens).logits.numpy())
    answer = {"class": type(model).__name__, "report": unused}
    if (folder / "text.json").exists():
        text = json.loads((folder / "text.json").read_text(encoding="utf-8"))
        tokenizer = AutoTokenizer.from_pretrained(folder)
        ids = tokenizer(text, add_special_tokens=False).input_ids
        prompt = torch.tensor([ids[:8]])
        generated = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=40, do_sample=False)
        answer |= {
            "ids": ids, "text": tokenizer.decode(ids), "eos": tokenizer.eos_token_id, "bos": tokenizer.bos_token_id,
            "generated": generated[0, 8:].tolist(), "stops_at": model.generation_config.eos_token_id,
        }  # fmt: skip
    (folder / "answer.json").write_text(json.dumps(answer), encoding="utf-8")
