"""A fitted loss law as it is saved: its JSON, and the fields read back from it."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from lmscale.core.errors import UserError
from lmscale.study.fits.results.common import Dropped, Status, both_levels, clean, shared_json, standard_error
from lmscale.study.fits.results.lack_of_fit import LackOfFit
from lmscale.study.fits.results.noise_split import NoiseSplit
from lmscale.study.fits.results.run_noise import RunNoise
from lmscale.study.fits.results.saved import (
    SavedFields,
    equally_long,
    interval,
    number,
    number_or_nan,
    reading,
    saved_compute,
    saved_size,
    text,
)
from lmscale.study.laws import Law, import_path, saved_form, source_hash


def to_json(fit: Any, samples: bool) -> dict[str, Any]:
    """The JSON of a `LossLaw`, with or without its resampled parameters."""
    draws = fit.all_draws()
    return clean(
        {
            "approach": fit.approach,
            "law": fit.law.NAME,
            **law_source(type(fit.law)),
            "formula": fit.law.FORMULA,
            "source": fit.law.SOURCE,
            "name": fit.name,
            "loss_function": fit.loss_function,
            "delta": fit.delta,
            "residual": fit.residual,
            **shared_json(fit),
            "parameters": fit.law.values(),
            "standard_errors": {k: standard_error(v) if len(v) > 1 else math.nan for k, v in draws.items()},
            "intervals": both_levels(draws),
            "fixed": list(fit.fixed),
            "tied": dict(fit.tied),
            "bounds": {name: list(ends) for name, ends in fit.bounds.items()},
            "given": dict(fit.given),
            "inputs": list(fit.law.INPUTS),
            "target": fit.law.TARGET,
            "at_bounds": list(fit.at_bounds),
            "bootstrap": fit.bootstrap,
            "noise_nats": None if fit.noise is None else fit.noise.sd,
            "noise_source": None if fit.noise is None else fit.noise.source,
            "noise_freedom": None if fit.noise is None else fit.noise.freedom,
            "shared_noise": fit.shared_noise,
            "clusters": fit.clusters,
            "strata": fit.strata,
            "seed": fit.seed,
            "lack_of_fit": None if fit.lack_of_fit is None else fit.lack_of_fit.to_json(),
            "noise_split": None if fit.noise_split is None else fit.noise_split.to_json(),
            "residuals": dict(fit.residuals),
            **(
                {"samples": {k: np.asarray(v) for k, v in fit.samples.values().items()}}
                if samples and fit.samples
                else {}
            ),
        }
    )


def law_source(law: type[Law]) -> dict[str, str]:
    """What a law of the user's is read back by; nothing for the package's own."""
    path = import_path(law)
    return {"law_import": path, "law_source_sha256": source_hash(law)} if path else {}


def fields(value: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a `LossLaw` by name. Raises `UserError` as `LossLaw.from_json` does."""
    with reading("the saved fit"):
        return _fields(SavedFields.of(value, "the saved fit"))


def _fields(saved: SavedFields) -> dict[str, Any]:
    value = saved.value
    shape = saved_form(value["law"], value.get("law_import", ""), value.get("law_source_sha256", ""))
    samples = value.get("samples")
    parameters: dict[str, Any] = dict(saved.numbers("parameters"))
    return {
        "law": shape(**parameters),
        "samples": shape(*equally_long(samples, shape.names(), "'samples' of the saved fit")) if samples else None,
        "loss_function": saved.one_of("loss_function", ("huber", "lad", "squared")),
        "delta": saved.number("delta"),
        "residual": saved.one_of("residual", ("log", "raw")),
        "objective": number_or_nan(saved["objective"], "the objective of the saved fit"),
        "residuals": _residuals(value["residuals"]),
        "compute": saved_compute(saved),
        "largest_flops": number_or_nan(value["largest_flops"], "'largest_flops' of the saved fit"),
        "status": tuple(Status.from_json(one) for one in value["status"]),
        "dropped": tuple(Dropped(str(one["run"]), str(one["reason"])) for one in value["dropped"]),
        "notes": tuple(map(str, saved.each("notes", text))),
        "table_hash": saved.text("table_hash"),
        "size_column": saved_size(saved),
        "seed": saved.count("seed"),
        "at": tuple(number(row["flops"], "'flops' of the saved fit") for row in value["allocations"]),
        "name": saved.text("name"),
        "fixed": tuple(saved.each("fixed", text)),
        "tied": _by_name(saved, "tied", text),
        "bounds": _by_name(saved, "bounds", interval),
        "given": _by_name(saved, "given", number),
        "rates": saved.text("rates"),
        "bootstrap": saved.text("bootstrap"),
        "noise": _noise(value),
        "shared_noise": number(value.get("shared_noise", 0.0), "'shared_noise' of the saved fit"),
        "clusters": text(value.get("clusters", ""), "'clusters' of the saved fit"),
        "strata": text(value.get("strata", ""), "'strata' of the saved fit"),
        "lack_of_fit": LackOfFit.from_json(value["lack_of_fit"]) if value.get("lack_of_fit") else None,
        "noise_split": NoiseSplit.from_json(value["noise_split"]) if value.get("noise_split") else None,
    }


def _by_name(saved: SavedFields, name: str, read: Callable[[Any, str], Any]) -> dict[str, Any]:
    """An object of named values, each read by `read`; empty where an older file has none."""
    if name not in saved.value:
        return {}
    part = saved.part(name)
    return {str(key): read(item, f"{key!r} in {name!r} of the saved fit") for key, item in part.value.items()}


def _noise(value: Mapping[str, Any]) -> RunNoise | None:
    """The noise of one run; None where the fit has none."""
    if value.get("noise_nats") is None:
        return None
    freedom = value["noise_freedom"]
    return RunNoise(
        number(value["noise_nats"], "'noise_nats' of the saved fit"),
        text(value["noise_source"], "'noise_source' of the saved fit"),
        None if freedom is None else number(freedom, "'noise_freedom' of the saved fit"),
    )


def _residuals(value: Mapping[str, Any]) -> dict[str, Any]:
    """The fitted runs: of each its name, measured and predicted loss, and inputs. Raises `UserError` for others."""
    runs = list(value["run"])
    numbers = {name: np.asarray(column, dtype=float) for name, column in value.items() if name != "run"}
    if not runs:
        raise UserError("'residuals' of the saved fit has no run")
    for name in ("measured", "predicted", "residual", *numbers):
        if name not in numbers or numbers[name].shape != (len(runs),):
            raise UserError(f"'residuals' of the saved fit has no {name!r} for each of its {len(runs)} runs")
    return {name: runs if name == "run" else numbers[name] for name in value}
