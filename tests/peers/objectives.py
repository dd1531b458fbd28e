"""Run by a Python with torch and transformers: objectives in plain PyTorch on exported weights.

python objectives.py FOLDER; it has `student` and `teacher` as transformers reads them, `batch.npz` with tokens
[B, T + 1] and scored [B, T], and `cases.json`. Prints the mean objective and the norm of its gradient for every case.
"""

import json
import math
import sys
from pathlib import Path

import numpy as np
import torch
import transformers as t

folder = Path(sys.argv[1])
student = t.AutoModelForCausalLM.from_pretrained(folder / "student", dtype=torch.float32).eval()
teacher = t.AutoModelForCausalLM.from_pretrained(folder / "teacher", dtype=torch.float32).eval()
batch = np.load(folder / "batch.npz")
tokens, scored = torch.tensor(batch["tokens"]).long(), torch.tensor(batch["scored"])
inputs, targets = tokens[:, :-1], tokens[:, 1:]


def completion(case):
    logits = student(inputs).logits[scored]
    return torch.nn.functional.cross_entropy(logits, targets[scored])


def distillation(case):
    tau, weight, top_k = case["temperature"], case["text_weight"], case["top_k"]
    ours = student(inputs).logits[scored]
    with torch.no_grad():
        theirs = teacher(inputs).logits[scored]
        if top_k is not None:
            theirs = theirs.masked_fill(theirs < theirs.topk(top_k, dim=-1).values[:, -1:], -math.inf)
        p = (theirs / tau).softmax(dim=-1)
    log_q = (ours / tau).log_softmax(dim=-1)
    kl = torch.nn.functional.kl_div(log_q, p, reduction="batchmean")
    return (1 - weight) * tau**2 * kl + weight * torch.nn.functional.cross_entropy(ours, targets[scored])


OBJECTIVES = {"completion": completion, "distillation": distillation}
found = {}
for name, case in json.loads((folder / "cases.json").read_text()).items():
    student.zero_grad()
    loss = OBJECTIVES[case["kind"]](case)
    loss.backward()
    norm = math.sqrt(sum(float((p.grad.double() ** 2).sum()) for p in student.parameters() if p.grad is not None))
    found[name] = {"objective": float(loss.detach()), "gradient_norm": norm}
print(json.dumps(found))
