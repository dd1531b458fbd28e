"""Two runs, and outcomes as a training writes them."""

from dataclasses import asdict, fields, replace
from typing import Any

from lmscale.core.config import ModelConfig, OptimizerConfig, RunConfig
from lmscale.core.counting import count
from lmscale.core.results import Outcome

RUN = RunConfig(
    model=ModelConfig(width=16, layers=1, heads=2, context=16),
    optimizer=OptimizerConfig(peak_lr=0.01, batch_sequences=4),
    tokens=64_000,
    name="first",
)
OTHER = replace(RUN, seed=1)


def outcome_of(config: RunConfig, **changes: Any) -> Outcome:
    """A finished run as `train` writes it."""
    counts = count(config)
    facts: dict[str, Any] = {
        **{name: value for name, value in asdict(counts).items() if name in {item.name for item in fields(Outcome)}},
        "run_id": config.run_id,
        "state": "finished",
        "loss_nats": 2.5,
        "loss_stderr": 0.01,
        "unique_tokens": config.tokens,
        "epochs": 0.25,
        "data_fingerprint": "5f0c",
        "seconds": 2.0,
        "startup_seconds": 1.0,
        "tokens_per_second": config.tokens / 2,
        "mfu": 0.25,
        "device": "cpu",
        "versions": {"jax": "0.10"},
    }
    return Outcome(**{**facts, **changes})
