"""Run by a Python with torch and transformers: objectives in plain PyTorch on exported weights.

python objectives.py FOLDER; it has `student` and `teacher` as transformers reads them, `batch.npz` with tokens
[B, T + 1] and scored [B, T], `pairs.npz` with the same of pairs, [P, 2, ...], and the scalar head of a reward model
[D, 1], `answers.npz` with drawn answers and their rewards, and `cases.json`. Prints the mean objective and the norm of
its gradient for every case.
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


pairs = np.load(folder / "pairs.npz")
pair_tokens, pair_scored = torch.tensor(pairs["tokens"]).long(), torch.tensor(pairs["scored"])
scalar_head = torch.tensor(pairs["scalar_head"], requires_grad=True)


def answer_log_probs(model):
    """[P, 2]: the sum over an answer's tokens of log p."""
    read, predicted = pair_tokens[..., :-1].clamp(min=0), pair_tokens[..., 1:].clamp(min=0)
    log_p = model(read.flatten(0, 1)).logits.log_softmax(dim=-1).unflatten(0, read.shape[:2])
    return (log_p.gather(-1, predicted[..., None])[..., 0] * pair_scored).sum(dim=-1)


def preference(case):
    with torch.no_grad():
        reference = answer_log_probs(teacher)
    ratios = answer_log_probs(student) - reference
    h, beta, smoothing = ratios[:, 0] - ratios[:, 1], case["beta"], case["label_smoothing"]
    if case["loss"] == "ipo":
        return torch.square(h - 1 / (2 * beta)).mean()
    sigmoid = torch.sigmoid(beta * h)
    return -((1 - smoothing) * torch.log(sigmoid) + smoothing * torch.log(1 - sigmoid)).mean()


def reward_model(case):
    rewards = []
    for both, scored in zip(pair_tokens, pair_scored):
        for row, mask in zip(both, scored):
            last = int(mask.nonzero()[-1])
            final = student.model(row[None, : last + 1]).last_hidden_state[0, -1]
            rewards.append(final @ scalar_head[:, 0])
    chosen, rejected = torch.stack(rewards).reshape(-1, 2).unbind(dim=1)
    return -torch.log(torch.sigmoid(chosen - rejected)).mean()


answers = {name: torch.tensor(value) for name, value in np.load(folder / "answers.npz").items()}


def token_log_probs(model):
    """[B, T]: ln p of every token of the drawn answers."""
    tokens = answers["tokens"].long().clamp(min=0)
    log_p = model(tokens[:, :-1]).logits.log_softmax(dim=-1)
    return log_p.gather(-1, tokens[:, 1:, None])[..., 0]


def reinforcement(case):
    log_p, mask = token_log_probs(student), answers["scored"].float()
    with torch.no_grad():
        reference = token_log_probs(teacher)
    drawn = log_p.detach() + (answers["moved"] if case["updates"] > 1 else 0)
    groups = answers["reward"].reshape(-1, case["group"])
    advantage = groups - groups.mean(dim=1, keepdim=True)
    if case["advantage"] == "grpo":
        advantage = advantage / (groups.std(dim=1, keepdim=True, unbiased=False) + 1e-4)
    advantage = advantage.reshape(-1, 1)
    ratio = torch.exp(log_p - drawn)
    clipped = torch.clamp(ratio, 1 - case["clip"], 1 + case["clip"])
    penalty = torch.exp(reference - log_p) - (reference - log_p) - 1
    loss = -torch.minimum(ratio * advantage, clipped * advantage) + case["kl_weight"] * penalty
    divided_by = mask.sum(dim=1) if case["advantage"] == "grpo" else case["answer_tokens"]
    return ((loss * mask).sum(dim=1) / divided_by).mean()


OBJECTIVES = {
    "completion": completion,
    "distillation": distillation,
    "preference": preference,
    "reward-model": reward_model,
    "reinforcement": reinforcement,
}
trained = [*student.parameters(), scalar_head]
results = {}
for name, case in json.loads((folder / "cases.json").read_text()).items():
    student.zero_grad()
    scalar_head.grad = None
    loss = OBJECTIVES[case["kind"]](case)
    loss.backward()
    norm = math.sqrt(sum(float((p.grad.double() ** 2).sum()) for p in trained if p.grad is not None))
    results[name] = {"objective": float(loss.detach()), "gradient_norm": norm}
print(json.dumps(results))
