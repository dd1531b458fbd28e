"""A sweep's folder as a training would leave it, with losses drawn from a known law: plan, outcomes, metrics."""

import json
import math
from pathlib import Path

import numpy as np

from lmscale.core.config import ModelConfig, OptimizerConfig, RunConfig
from lmscale.core.counting import count, flops_per_token
from lmscale.core.plans import PlannedRun, write_plan
from lmscale.core.results import Outcome
from lmscale.core.run_folder import METRICS_FILE
from lmscale.study.laws import Chinchilla

TRUTH = Chinchilla(E=1.05, A=60.0, B=300.0, alpha=0.42, beta=0.38)
BUDGETS = (3e11, 1e12, 3e12, 1e13)
WIDTHS = {
    3e11: (8, 12, 16, 20, 28, 40, 56),
    1e12: (12, 16, 20, 28, 40, 56, 80),
    3e12: (16, 20, 28, 40, 56, 80, 112),
    1e13: (20, 28, 40, 56, 80, 112, 160),
}
NOISE = 0.008


def write_sweep(folder: Path, *, lost: bool = True, points: int = 60) -> Path:
    """Write the folder and return it; the largest budget is held out. `lost`: one run each missing and diverged."""
    rng = np.random.default_rng(0)
    planned = []
    for budget in BUDGETS:
        for width in WIDTHS[budget]:
            model = ModelConfig(width=width, layers=2, heads=2)
            tokens = max(1, round(budget / flops_per_token(model) / 2048)) * 2048
            optimizer = OptimizerConfig(peak_lr=0.01 * (32 / width) ** 0.5, batch_sequences=16)
            config = RunConfig(model=model, optimizer=optimizer, tokens=tokens, name=f"c{budget:.0e}-w{width}")
            planned.append(PlannedRun(config, held_out=budget == BUDGETS[-1], flops_budget=budget))
    write_plan(folder, "isoflop_simulated", planned)
    for index, run in enumerate(planned):
        if lost and index == 6:
            continue
        config, counts = run.config, count(run.config)
        loss = float(TRUTH.loss(counts.params, counts.tokens)) + NOISE * rng.standard_normal()
        diverged = lost and index == 13
        Outcome(
            run_id=config.run_id,
            state="diverged" if diverged else "finished",
            reason="the loss became NaN at step 212" if diverged else "",
            loss_nats=None if diverged else loss,
            loss_stderr=None if diverged else 0.006,
            bits_per_byte=None if diverged else loss / math.log(2),
            validation_tokens=131_072,
            params=counts.params,
            params_non_embedding=counts.params_non_embedding,
            tokens=counts.tokens,
            flops=counts.flops,
            flops_6n=counts.flops_6n,
            unique_tokens=counts.tokens,
            epochs=0.4,
            data_fingerprint="5f0c9a7e21",
            seconds=counts.flops / 6e10,
            startup_seconds=4.0,
            tokens_per_second=6e10 / flops_per_token(config.model),
            mfu=0.31,
            matmul_peak_flops_per_second=2e11,
            device="2 CPU cores",
            versions={"jax": "0.11.2", "lmscale": "0.1.0", "python": "3.12.4"},
        ).write(folder / config.run_id)
        _metrics(folder / config.run_id / METRICS_FILE, config, counts.params, points, rng)
    return folder


def _metrics(path: Path, config: RunConfig, params: int, points: int, rng: np.random.Generator) -> None:
    """A training curve: above the law while the rate is high, noisy, meeting it as the rate decays."""
    lines = []
    for step in np.unique(np.linspace(1, config.steps, points).astype(int)):
        done, tokens = step / config.steps, int(step) * config.batch_tokens
        loss = float(TRUTH.loss(params, tokens)) + 0.12 * (1 - done**2) + 0.02 * rng.standard_normal()
        loss = min(math.log(256), loss)
        lines.append(
            json.dumps(
                {
                    "step": int(step),
                    "tokens": tokens,
                    "flops": tokens * flops_per_token(config.model),
                    "loss_nats": loss,
                    "learning_rate": config.optimizer.peak_lr * (1 - done),
                    "grad_norm": 0.5,
                    "tokens_per_second": 1e5,
                    "mfu": 0.3,
                }
            )
        )
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
