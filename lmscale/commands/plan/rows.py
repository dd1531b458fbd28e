"""A priced plan: what each run is, costs and takes, for the table on the terminal and for `--json`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from lmscale.core.compiled import CompiledRun
from lmscale.core.config import DataConfig
from lmscale.core.config.packable import pack_sizes
from lmscale.core.counting import Counts, count
from lmscale.core.plans import PlannedRun
from lmscale.lm import data
from lmscale.lm.data import Manifest
from lmscale.study.design import Verdict
from lmscale.study.launch.states import RunState, state_of
from lmscale.study.prices import Hardware, Price, elapsed, money, price
from lmscale.study.sweep import Plan


@dataclass(frozen=True)
class PricedRun:
    """One run of a plan, counted and priced."""

    run: PlannedRun
    counts: Counts
    price: Price
    epochs: float | None
    """Passes over the training text; None while the corpus is not prepared, 0 where it is endless."""
    state: RunState | None = None
    """What the sweep's folder holds of the run; None where it was not looked at."""
    compiled: CompiledRun | None = None
    """What the compiler says of it on a named machine; its memory is then in `price`."""
    packed: int = 1
    """Runs that may share its program, whose memory is in `price`."""

    @property
    def ended(self) -> bool:
        """Whether the run has an outcome, so that nothing of it is left to train."""
        return self.state is not None and self.state.state in ("finished", "diverged")

    @property
    def flops_done(self) -> float:
        """FLOPs that this run has spent; those that a branch shares are its trunk's."""
        if self.state is None:
            return 0.0
        trained = self.run.trained_flops
        done = min(float(trained), max(0.0, self.state.flops_done - (self.counts.flops - trained)))
        return done * self.run.paid_flops / trained

    @property
    def flops_left(self) -> float:
        """Training FLOPs that are still to be spent."""
        return 0.0 if self.ended else self.run.paid_flops - self.flops_done

    @property
    def price_left(self) -> Price:
        """The price of what is left: the same share of the time as of the FLOPs."""
        share = self.flops_left / self.run.paid_flops
        return replace(self.price, seconds=share * self.price.seconds, device_seconds=share * self.price.device_seconds)

    def to_json(self) -> dict[str, Any]:
        """Plain numbers."""
        config = self.run.config
        return {
            "run_id": config.run_id,
            **asdict(self.counts),
            "experts": config.model.experts,
            "experts_per_token": config.model.experts_per_token,
            "tokens_per_param": self.counts.tokens_per_param,
            "paid_flops": self.run.paid_flops,
            "epochs": self.epochs,
            "steps": config.steps,
            "batch_tokens": config.batch_tokens,
            "peak_lr": config.optimizer.peak_lr,
            "datastore_tokens": list(config.exam.datastore_tokens),
            "memory_bytes": self.price.memory_bytes,
            "packed": self.packed,
            "memory_source": "estimated" if self.compiled is None else "compiled",
            "fits_memory": self.price.fits,
            "seconds": self.price.seconds,
            "seconds_source": self.price.source,
            "held_out": self.run.held_out,
            "stage": self.run.stage,
            "parents": {role: str(name) for role, name in config.parents.items()},
            "reference_flops": self.run.reference_flops,
            "batch_flops": self.run.batch_flops,
            "state": None if self.state is None else self.state.state,
            "flops_done": self.flops_done,
            "flops_left": self.flops_left,
            "seconds_left": self.price_left.seconds,
        }


@dataclass(frozen=True)
class PricedPlan:
    """A plan with the price of every run."""

    plan: Plan
    hardware: Hardware
    rows: tuple[PricedRun, ...]
    verdict: Verdict | None
    """None where the sweep is not meant to identify a law."""

    @property
    def sparse(self) -> bool:
        """Whether a model has experts, so that total and active parameters differ."""
        return any(row.counts.active_params != row.counts.params for row in self.rows)

    @property
    def begun(self) -> bool:
        """Whether the sweep's folder holds anything of its runs."""
        return any(row.state is not None and row.state.state != "missing" for row in self.rows)

    def left(self) -> dict[str, float | None]:
        """What is still to be trained, and its price: runs, FLOPs, seconds until the last ends, device-hours, cost."""
        rows = [row for row in self.rows if not row.ended]
        prices = [row.price_left for row in rows]
        return {
            "runs": len(rows),
            "flops": sum(row.flops_left for row in rows),
            "seconds": elapsed([row.run for row in rows], prices, self.hardware),
            "device_hours": sum(one.device_seconds for one in prices) / 3600,
            "cost": money(prices, self.hardware),
        }

    def done(self) -> dict[str, float | None]:
        """What the sweep's folder holds: runs at an end, FLOPs of all runs, seconds that those at an end took, cost.

        The cost is that of the same work on the hardware of this plan.
        """
        cost, left = self.cost, self.left()["cost"]
        ended = [row for row in self.rows if row.ended]
        return {
            "runs": len(ended),
            "flops": sum(row.flops_done for row in self.rows),
            "seconds": sum(row.state.seconds for row in ended if row.state),
            "cost": None if cost is None or left is None else cost - left,
        }

    @property
    def seconds(self) -> float:
        """Seconds until the last run ends."""
        return elapsed([row.run for row in self.rows], [row.price for row in self.rows], self.hardware)

    @property
    def run_hours(self) -> float:
        """Hours summed over runs, as `Sweep.max_hours` counts them."""
        return sum(row.price.seconds for row in self.rows) / 3600

    @property
    def device_hours(self) -> float:
        """Hours summed over runs and the devices of each."""
        return sum(row.price.device_seconds for row in self.rows) / 3600

    @property
    def cost(self) -> float | None:
        """Cost of all runs in the currency of `--price`; None without a price."""
        return money([row.price for row in self.rows], self.hardware)

    @property
    def compiled(self) -> list[tuple[PlannedRun, CompiledRun]]:
        """The runs that were compiled, and what the compiler says of each."""
        return [(row.run, row.compiled) for row in self.rows if row.compiled is not None]

    def to_json(self) -> dict[str, Any]:
        """What `--json` writes: a plan that `lmscale run` takes, with everything that was printed."""
        sweep, hardware = self.plan.sweep, self.hardware
        compiled = {run.config.run_id: {"compiled": one.to_json()} for run, one in self.compiled}
        return {
            "sweep": sweep.name,
            **sweep.purpose,
            "runs": [row.run.to_json() | compiled.get(row.run.config.run_id, {}) for row in self.rows],
            "rows": [row.to_json() for row in self.rows],
            "totals": {
                "runs": len(self.rows),
                "held_out": sum(row.run.held_out for row in self.rows),
                "flops": self.plan.flops,
                "flops_apart": self.plan.flops_apart,
                "seconds": self.seconds,
                "device_hours": self.device_hours,
                "cost": self.cost,
                "done": self.done(),
                "left": self.left(),
            },
            "place": {
                "title": hardware.title,
                "device": None if hardware.device is None else hardware.device.name,
                "devices": hardware.count,
                "at_once": hardware.at_once,
                "price_per_hour": hardware.price_per_hour,
            },
            "warnings": list(self.plan.warnings),
            "design": None if self.verdict is None else self.verdict.to_json(),
        }


def price_plan(
    plan: Plan,
    hardware: Hardware,
    verdict: Verdict | None,
    folder: Path | None = None,
    compiled: Mapping[str, CompiledRun] | None = None,
    pack: int = 1,
) -> PricedPlan:
    """Count and price every run, and look into the sweep's `folder` for what is there of it.

    `compiled` maps the run_id of what was compiled to what the compiler says: its memory takes the place of the
    estimate. Where up to `pack` runs share a program, memory is that of the program. Raises `UserError` where a
    prepared corpus is too small for a run.
    """
    corpora = manifests(plan.runs)
    there = partial(state_of, folder) if folder is not None and folder.is_dir() else lambda run: None
    rows = []
    sizes = pack_sizes([run.config for run in plan.runs], pack)
    for run, packed in zip(plan.runs, sizes):
        one = (compiled or {}).get(run.config.run_id)
        cost = _with_compiled_memory(price(run, hardware, packed), run, one)
        epochs = _epochs(run, corpora[run.config.data])
        rows.append(PricedRun(run, count(run.config), cost, epochs, there(run), one, packed))
    return PricedPlan(plan, hardware, tuple(rows), verdict)


def _with_compiled_memory(price: Price, run: PlannedRun, compiled: CompiledRun | None) -> Price:
    """A price whose memory is the compiler's, where it was asked."""
    if compiled is None:
        return price
    whole = compiled.bytes_per_device * run.config.mesh.devices
    return replace(price, memory_bytes=whole, fits=compiled.fits)


def manifests(runs: Sequence[PlannedRun]) -> dict[DataConfig, Manifest | None]:
    """The manifest of every run's corpus, None while not prepared. Raises `UserError` for one too small for its run."""
    corpora: dict[DataConfig, Manifest | None] = {}
    for run in runs:
        if run.config.data not in corpora:
            corpora[run.config.data] = data.find_manifest(run.config.data)
        if (manifest := corpora[run.config.data]) is not None:
            data.check_enough(manifest, run.config)
    return corpora


def _epochs(run: PlannedRun, manifest: Manifest | None) -> float | None:
    config = run.config
    if manifest is not None:
        return data.epochs_of(manifest, config)
    return config.tokens / config.data.unique_tokens if config.data.unique_tokens else None
