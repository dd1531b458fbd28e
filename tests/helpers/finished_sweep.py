"""The folder of a sweep as training leaves it, made in a moment: for tests of what reads it."""

import json
import math
from pathlib import Path

from helpers.outcomes import outcome_of
from lmscale.core.counting import count
from lmscale.core.plans import write_plan
from lmscale.core.run_folder import CONFIG_FILE, LOG_FILE, METRICS_FILE
from lmscale.study.laws import Chinchilla
from lmscale.study.sweep import load, plan

LAW = Chinchilla(E=1.2, A=25.0, B=45.0, alpha=0.35, beta=0.3)


def write_finished(sweep: Path, runs: Path) -> Path:
    """Every run of a sweep file, finished with the loss of `LAW`; its folder."""
    planned = plan(load(sweep))
    folder = runs / planned.sweep.name
    write_plan(folder, planned.sweep.name, planned.runs)
    for place, run in enumerate(planned.runs):
        config, counts = run.config, count(run.config)
        loss = float(LAW.loss(counts.params, counts.tokens)) + 0.01 * math.sin(7 * place)
        home = folder / config.run_id
        outcome_of(config, loss_nats=loss, bits_per_byte=loss / math.log(2)).write(home)
        (home / CONFIG_FILE).write_text(json.dumps(config.to_json()))
        (home / LOG_FILE).write_text(f"finished: validation loss {loss:.4f} nats per token\n")
        row = {"step": config.steps, "tokens": config.tokens, "flops": counts.flops, "loss_nats": loss,
               "learning_rate": 0.01, "grad_norm": 1.0, "tokens_per_second": 1e5, "mfu": 0.25,
               "validation_loss_nats": loss, "validation_stderr": 0.01}  # fmt: skip
        (home / METRICS_FILE).write_text(json.dumps(row) + "\n")
    return folder
