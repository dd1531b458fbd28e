"""What the public functions are given: the wrong thing is one sentence, whatever it is, and numbers of NumPy work."""

import inspect
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest

import lmscale
from lmscale import design, emergence, fits, laws, plots, presets, recipes
from lmscale.core.arguments import Count, Positive, checked
from lmscale.core.arguments.checked import CHECKED
from lmscale.core.errors import UserError
from lmscale.study.laws import CHINCHILLA_REFIT, CLARK_2022_SBASE

POINTS = lmscale.isoflop([1e11, 3e11], sizes=5)
SWEEP = lmscale.Sweep("mine", POINTS, recipes.cpu)
TABLE = lmscale.read_table("chinchilla")
LAW = fits.loss_law(TABLE, resamples=20, check=False)
LIMIT = laws.training_flops(1e20)
RUNS = design.Runs(np.array([1e8, 1e9, 2e9, 5e8, 1e9, 3e8]), np.array([1e10, 2e10, 9e10, 5e9, 8e9, 7e10]))
FAMILY = recipes.CPU_FAMILY
MODEL = FAMILY.shape(32)
NOWHERE = "no/such/place"


class Case(NamedTuple):
    """A call that works, or is refused in a sentence, argument by argument."""

    function: Callable[..., Any]
    arguments: dict[str, Any]

    @property
    def name(self) -> str:
        return f"{self.function.__module__}.{self.function.__qualname__}"


CASES = [
    Case(laws.CHINCHILLA_REFIT.loss, {"params": 1e9, "tokens": 1e10}),
    Case(lmscale.plan, {"sweep": SWEEP, "compile": "no-such-machine", "pack": 2}),
    Case(lmscale.run, {"sweep": NOWHERE, "runs": NOWHERE, "workers": 1, "pack": 1, "wandb": "off", "force": False}),
    Case(
        lmscale.report,
        {
            "source": NOWHERE, "output": NOWHERE, "title": "t", "question": "q", "resamples": 1, "stage": "pretrain",
            "mixed_corpora": True, "seed": 1, "columns": {"params": "N"}, "where": "params > 1",
        },
    ),
    Case(lmscale.load, {"folder": NOWHERE, "step": 1}),
    Case(
        lmscale.index,
        {
            "run": NOWHERE, "folder": NOWHERE, "source": "s", "layer": 1, "pooling": "mean", "chunk_tokens": 8,
            "summary_tokens": 0, "search": "auto", "step": 1,
        },
    ),
    Case(
        lmscale.ask,
        {
            "run": NOWHERE, "index": NOWHERE, "question": "q", "passages": 2, "max_tokens": 4, "temperature": 0.5,
            "seed": 1, "exact": True, "step": 1,
        },
    ),
    Case(
        lmscale.inspect,
        {
            "folder": NOWHERE, "text": "t", "task": None, "pairs": None, "units": (), "most_pairs": 3, "heads": False,
            "step": 1, "seed": 1,
        },
    ),
    Case(
        lmscale.judge,
        {
            "server": None, "model": None, "key_variable": None, "rubric": "tinystories", "pairs": False, "samples": 1,
            "human": None, "offline": True, "people": None, "answers": (), "output": None, "prompts": None,
            "max_tokens": 5, "n": 1, "seed": 1, "dry_run": False,
        },
    ),
    Case(lmscale.read_table, {"source": TABLE, "columns": {"loss": "loss_nats"}, "where": "params > 1", "inputs": ()}),
    Case(lmscale.chinchilla_params, {"flops": 1e12}),
    Case(
        lmscale.isoflop,
        {"budgets": [1e12], "centre": lmscale.chinchilla_params, "sizes": 3, "spread": 2.0, "seeds": [1]},
    ),
    Case(lmscale.ladder, {"sizes": [1e5], "tokens_per_param": [20], "seeds": [0]}),
    Case(lmscale.over_training, {"sizes": [1e5], "multiples": [1, 2], "optimal": 20.0, "hold_out_from": 2.0}),
    Case(lmscale.fixed_model, {"params": 1e5, "tokens": [1e6], "seeds": [0]}),
    Case(lmscale.repeat_data, {"params": [1e5], "tokens": 1e6, "epochs": [1, 2]}),
    Case(lmscale.lr_transfer, {"widths": [16], "peak_lrs": [0.01], "tokens": 1e6, "parametrizations": ["mup"]}),
    Case(lmscale.with_experts, {"points": POINTS, "experts": [1, 2], "granularity": [1]}),
    Case(lmscale.seeds, {"points": POINTS, "count": 2}),
    Case(lmscale.trunk, {"sizes": [1e5], "tokens": [1e6, 2e6], "tokens_per_param": (), "cooldown": 0.2, "seed": 0}),
    Case(lmscale.grid, {"params": [1e5]}),
    Case(lmscale.where, {"points": POINTS, "keep": lambda point: True}),
    Case(lmscale.hold_out, {"points": POINTS, "chosen": lambda point: True}),
    Case(lmscale.fine_tune, {"parents": POINTS, "tokens": [1e5], "peak_lr": [0.1]}),
    Case(lmscale.distil, {"teachers": POINTS, "students": [1e5], "tokens": [1e5], "peak_lr": [0.1]}),
    Case(lmscale.prefer, {"parents": POINTS, "tokens": 1e5}),
    Case(lmscale.reward, {"parents": POINTS, "tokens": 1e5}),
    Case(lmscale.reinforce, {"parents": POINTS, "tokens": 1e5, "reward": POINTS[0]}),
    Case(
        lmscale.Sweep,
        {
            "name": "mine", "points": POINTS, "recipe": recipes.cpu, "held_out": lambda point: False,
            "tokens_per_param": (1, 9), "exam": None, "question": "q", "device": "h100", "law": "chinchilla",
            "target_flops": 1e12, "max_flops": 1e12, "max_hours": 1.0,
        },
    ),
    Case(fits.fit, {"table": TABLE, "approaches": ["3"], "resamples": 0, "check": False}),
    Case(
        fits.FitOptions,
        {
            "law": "chinchilla", "loss": "huber", "delta": 1e-3, "residual": "log", "resamples": 3, "seed": 1,
            "columns": {"loss": "loss_nats"}, "where": "params > 1", "stage": "pretrain", "mixed_corpora": False,
            "at": [1e20], "rates": "inside", "bootstrap": "auto", "strata": "group", "clusters": "trunk",
            "fixed": {"E": 1.8}, "bounds": {"alpha": (0.1, 0.5)}, "tied": {"beta": "alpha"}, "given": {"experts": 2},
            "valley": "auto", "noise_nats": 0.01, "shared_noise": 0.0, "window": 4.0, "envelope": "bins",
            "line": "inside", "weights": "noise", "budget_flops": "nominal", "tokens_fit": "compute", "check": True,
        },
    ),
    Case(fits.loss_law, {"table": TABLE, "law": "chinchilla", "resamples": 0, "check": False}),
    Case(fits.loss_laws, {"table": TABLE, "targets": ["loss_nats"], "resamples": 0, "check": False}),
    Case(fits.isoflop, {"table": TABLE, "resamples": 0, "check": False}),
    Case(fits.frontier, {"table": TABLE, "bins": 20, "resamples": 0, "check": False}),
    Case(fits.compare, {"table": TABLE[::9], "laws": ["chinchilla"], "resamples": 0}),
    Case(
        fits.compute_multiplier,
        {"baseline": TABLE, "recipe": TABLE, "asymptote": "shared", "resamples": 3, "seed": 1, "losses": [2.5]},
    ),
    Case(fits.estimate, {"fit": LAW, "over": 1.0, "under": 2.0, "level": 0.8, "params": 1e9, "tokens": 2e10}),
    Case(fits.allocate, {"fit": LAW, "constraints": [LIMIT], "free": ("params", "tokens"), "given": {}, "draws": 1}),
    Case(fits.held_out_check, {"fit": LAW, "table": TABLE, "level": 0.9, "stage": None}),
    Case(fits.check, {"path": NOWHERE, "loss_nats": 2.0, "table": None, "stage": None}),
    Case(fits.register, {"fit": LAW, "points": [{"params": 1e9, "tokens": 1e10}], "path": "/dev/null", "saved": "s"}),
    Case(fits.save, {"fits": [LAW], "path": "/dev/null", "table": "t"}),
    Case(fits.load, {"path": NOWHERE}),
    Case(LAW.optimum, {"flops": 1e20}),
    Case(LAW.draws, {"quantity": "a"}),
    Case(LAW.interval, {"quantity": "a", "level": 0.5}),
    Case(LAW.predict, {"level": 0.5, "params": 1e9, "tokens": 2e10}),
    Case(LAW.predict_many, {"points": [{"params": 1e9, "tokens": 2e10}], "level": 0.5}),
    Case(LAW.allocations, {"at": [1e20]}),
    Case(emergence.detect, {"table": NOWHERE, "axis": "params", "columns": None, "where": None, "rho": 0.1, "q": 0.05,
                            "resamples": 1, "seed": 1}),
    Case(design.effective_dense_params, {"law": CLARK_2022_SBASE, "params": 1e8, "experts": 4, "tokens": None}),
    Case(
        design.expert_choices,
        {"law": CLARK_2022_SBASE, "flops": 1e20, "limits": design.ExpertLimits(), "experts": [1, 2], "tokens": 1e10},
    ),
    Case(design.optimal_experts, {"law": CLARK_2022_SBASE, "flops": 1e20, "limits": design.ExpertLimits(),
                                  "tokens": 1e10}),
    Case(design.ExpertLimits, {"memory_bytes": 1e9, "bytes_per_param": 2.0, "flops_per_token": 1e9}),
    Case(design.planned_valley, {"law": CHINCHILLA_REFIT, "flops": 1e20, "params_n": [1e8, 3e8, 1e9]}),
    Case(design.jacobian, {"law": CHINCHILLA_REFIT, "runs": RUNS}),
    Case(design.condition, {"law": CHINCHILLA_REFIT, "runs": RUNS}),
    Case(design.information, {"prior": design.Prior(), "runs": RUNS}),
    Case(design.line_through, {"params_n": [1e8, 1e9], "tokens_n": [1e8, 1e9], "same": 0.2}),
    Case(design.Prior, {"law": CHINCHILLA_REFIT, "name": "n", "noise_nats": 0.01, "shared": 0.1,
                        "smallest_flops": 1e18, "size_column": "params", "given": {}}),
    Case(design.Discrepancy, {"size": 0.02, "length": 6.0}),
    Case(design.published_prior, {"name": "hoffmann-2022", "noise_nats": 0.01, "shared_noise": 0.1}),
    Case(design.normal_draws, {"law": CHINCHILLA_REFIT, "covariance_pp": np.eye(5) * 1e-6, "draws": 3, "seed": 1}),
    Case(design.noise_draws, {"noise_nats": 0.01, "freedom": 5, "draws": 3, "seed": 1}),
    Case(design.inputs_of, {"config": lmscale.plan(SWEEP).runs[0].config, "names": ["params"],
                            "size_column": "active_params"}),
    Case(design.fitted_runs, {"planned": lmscale.plan(SWEEP).runs, "size_column": "params"}),
    Case(design.judge_plan, {"planned": lmscale.plan(SWEEP).runs, "prior": design.Prior(), "target_flops": 1e13}),
    Case(laws.CHINCHILLA_REFIT.optimum, {"flops": 1e20}),
    Case(laws.CHINCHILLA_REFIT.loss_of, {"params": 1e9, "tokens": 1e10}),
    Case(laws.allocate, {"law": CHINCHILLA_REFIT, "constraints": [LIMIT], "free": ("params", "tokens"), "given": {},
                         "near": {"params": 1e9, "tokens": 2e10}}),
    Case(laws.training_flops, {"most": 1e20}),
    Case(laws.lifetime_flops, {"most": 1e20, "inference_tokens": 1e10}),
    Case(laws.weights_memory, {"most_bytes": 1e9, "bytes_per_param": 2.0}),
    Case(laws.vocabulary_flops, {"most": 1e20, "characters_per_token": 4.0}),
    Case(laws.at_most, {"name": "params", "most": 1e9}),
    Case(laws.teacher_flops, {"most": 1e20, "teacher_params": 1e9, "teacher_tokens": 1e10}),
    Case(laws.Constraint, {"name": "n", "most": 1.0, "cost": lambda inputs: 1.0}),
    Case(laws.ComputeModel, {"k": 6.0, "p": 1.0, "largest_residual": None}),
    Case(laws.Input, {"name": "n", "role": "size", "unit": "u", "least": 1.0}),
    Case(laws.Parameter, {"name": "n", "low": 1.0, "high": 2.0, "starts": (1.5,), "log": True}),
    Case(laws.form, {"law": "chinchilla"}),
    Case(laws.mixture, {"domains": 3}),
    Case(laws.annealing_areas, {"learning_rates": [0.1, 0.2, 0.1], "decay": 0.9, "warmup_sum": 0.0}),
    Case(presets.preset, {"name": "gpt2"}),
    Case(recipes.best_cells, {"folder": NOWHERE}),
    Case(recipes.tuned, {"from_": NOWHERE, "recipe": recipes.cpu, "edges": False, "name": "n"}),
    Case(recipes.constant, {"value": 1.0, "source": "s"}),
    Case(recipes.power_of_two, {"value": 5.0}),
    Case(recipes.nearest_model, {"params": 1e5, "family": FAMILY, "active": False}),
    Case(recipes.Family, {"width_multiple": 4, "aspect_ratio": None, "head_width": 16, "min_layers": 2, "min_heads": 1,
                          "max_width": 64, "mlp_multiple": None, "granularity": None}),
    Case(recipes.standard, {"family": FAMILY}),
    Case(recipes.step_law_lr, {"model": MODEL, "tokens": 1e6}),
    Case(recipes.step_law_batch, {"largest_tokens": 1000}),
    Case(recipes.step_law, {"family": FAMILY, "largest_batch": 8}),
    Case(recipes.deepseek, {"family": FAMILY}),
    Case(recipes.olmo_ladder, {"family": FAMILY}),
    Case(recipes.porian_tuned, {"family": FAMILY}),
    Case(recipes.mup, {"family": FAMILY, "base_width": 16, "peak_lr": 0.01, "batch_tokens": 1024}),
    Case(recipes.completep, {"family": FAMILY, "base_width": 16, "peak_lr": 0.01, "batch_tokens": 1024}),
]  # fmt: skip

EXPENSIVE = {case.name for case in CASES if {"table", "baseline"} & case.arguments.keys()}
"""Calls that fit a table each time."""
HOSTILE: list[Any] = [
    None, math.nan, math.inf, -1, 0, 1.5, "1e9", "", "a\0b", [], {}, [[]], [None], True, 2**64, 10**400, 10**5000,
    object(), b"x", 1j, np.array([]), np.array(["a"]), np.datetime64("2024-01-01"), pd.NaT, pd.DataFrame(),
    pd.Series(["a"]), lambda: None, Path(), "/", ["1e9"], {"params": "1e9"}, {1: 2},
]  # fmt: skip


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is written is written into a folder of its own."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_whatever_an_argument_is_the_answer_is_a_value_or_one_sentence(case: Case) -> None:
    refused = 0
    for name in case.arguments:
        for value in HOSTILE:
            try:
                case.function(**{**case.arguments, name: value})
            except UserError as error:
                assert "\n" not in str(error)
                refused += 1
    assert refused > len(HOSTILE) / 3, "hardly anything was refused: the arguments are not looked at"


def public_functions() -> dict[str, Any]:
    """Functions and classes of the public API, but for what is returned, not called: results and configurations."""
    found = {}
    for module in (lmscale, emergence, fits, laws, design, presets, recipes, plots):
        for name in getattr(module, "__all__", None) or vars(module):
            value = getattr(module, name)
            if inspect.isfunction(value) and value.__module__.startswith("lmscale.") and name[0] != "_":
                found[f"{module.__name__}.{name}"] = value
    return found


PLAIN = {
    "import_path", "saved_form", "source_hash", "within_reach",  # of classes of laws and of saved files
    "number", "power", "compact", "style", "lower_frontier", "bias_of_exponent",
    "total_params",  # a rule of arrays
    "nearest", "checked", "dataclass",
}  # fmt: skip
"""Public functions that are called with what other functions of the package gave, or with anything."""


def test_every_public_function_looks_at_its_arguments() -> None:
    functions = public_functions()
    assert len(functions) > 80
    unchecked = {name for name, function in functions.items() if not hasattr(function, CHECKED)}
    assert {name.rpartition(".")[2] for name in unchecked} <= PLAIN, unchecked


@pytest.mark.parametrize("case", [case for case in CASES if case.name not in EXPENSIVE], ids=lambda case: case.name)
def test_numbers_of_numpy_are_numbers(case: Case) -> None:
    """A NumPy scalar, an array without an axis and a NumPy list do what Python's own do."""
    for name, value in case.arguments.items():
        kinds = [np.float64, np.float32, np.array] if isinstance(value, float) else [np.int64, np.uint16, np.array]
        if isinstance(value, int | float) and not isinstance(value, bool):
            for kind in kinds[: 2 if inspect.isclass(case.function) else 3]:
                outcome(case, {name: kind(value)})
        elif isinstance(value, list) and isinstance(value[0], float):
            for listed in (np.array(value), pd.Series(value), tuple(value), iter(value)):
                outcome(case, {name: listed})


def outcome(case: Case, changes: dict[str, Any]) -> None:
    try:
        case.function(**case.arguments)
    except UserError as error:  # what the case itself says, of a place that is not there
        with pytest.raises(UserError, match=re.escape(str(error))):
            case.function(**{**case.arguments, **changes})
        return
    case.function(**{**case.arguments, **changes})


SENTENCES: list[tuple[Callable[[], Any], str]] = [
    (
        lambda: LAW.predict(1.5, params=1e9, tokens=1e10),
        "predict(level=1.5): must be a share of at least 0 and below 1, as 0.95",
    ),
    (
        lambda: LAW.predict(params="1e9", tokens=1e10),  # type: ignore[arg-type]
        "predict(params='1e9'): must be a finite number; write it without quotation marks",
    ),
    (lambda: LAW.predict(params=-1, tokens=1e10), "predict gives params = -1: params is not positive"),
    (lambda: LAW.optimum(math.nan), "optimum(flops=nan): must be a positive number, or an array of them"),
    (lambda: LAW.optimum("1e20"), "must be a positive number, or an array of them; write it without quotation marks"),
    (lambda: lmscale.read_table(None), "read_table(source=None): must be a DataFrame, the path of a CSV"),  # type: ignore[arg-type]
    (lambda: lmscale.plan(None), "plan(sweep=None): must be a Sweep or a Plan or a path"),  # type: ignore[arg-type]
    (lambda: lmscale.plan(5), "plan(sweep=5): must be"),  # type: ignore[arg-type]
    (
        lambda: lmscale.isoflop(["1e12"]),  # type: ignore[list-item]
        "isoflop(budgets='1e12'): must be positive numbers, as in [1e12, 3e12]; write it without quotation marks",
    ),
    (lambda: lmscale.isoflop([]), "isoflop(budgets=[]): must be positive numbers, as in [1e12, 3e12], at least one"),
    (lambda: lmscale.isoflop([1e12], sizes=None), "must be a whole number of at least 1; leave it out for the default"),  # type: ignore[arg-type]
    (lambda: lmscale.fine_tune(POINTS[0], tokens=1e5), "fine_tune(parents={"),  # type: ignore[arg-type]
    (lambda: fits.fit(TABLE, law=5), "FitOptions(law=5): must be a text or a class"),
    (lambda: fits.fit(TABLE, loss="hubber"), "did you mean 'huber'?"),
    (lambda: fits.estimate(LAW, 0, 1, params=1e9, tokens=1e10), "a nat over costs 0: give a positive number"),
    (lambda: lmscale.run("x.py", wandb="onlin"), "must be one of 'off', 'offline', 'online'; did you mean 'online'?"),  # type: ignore[arg-type]
    (lambda: lmscale.report(""), "report(source=''): must be a path or a list of paths"),
    (lambda: lmscale.load("a\0b"), "must be a path"),
    (lambda: CHINCHILLA_REFIT.loss(-1.0, 1e10), "gives params = -1: params is not positive"),
    (lambda: CHINCHILLA_REFIT.loss("1e9", 1e10), "'1e9': a number is needed; write it without quotation marks"),
    (lambda: CHINCHILLA_REFIT.loss([1e9], 1e10), "give a number, or np.array([...])"),
    (lambda: design.published_prior("hofman-2022"), "did you mean 'hoffmann-2022'?"),
    (lambda: laws.ComputeModel(k=0), "ComputeModel(k=0): must be a positive number"),
    (lambda: recipes.step_law(FAMILY, largest_batch=2**64), "must be a whole number of at least 1"),
]


@pytest.mark.parametrize(("call", "sentence"), SENTENCES, ids=[sentence[:40] for _, sentence in SENTENCES])
def test_the_sentence_names_what_was_given_the_rule_and_the_fix(call: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(UserError, match=re.escape(sentence)):
        call()


def test_arrays_of_jax_are_numbers() -> None:
    jnp = pytest.importorskip("jax.numpy")
    assert LAW.predict(params=jnp.float32(1e9), tokens=jnp.asarray(2e10)).loss_nats == pytest.approx(
        LAW.predict(params=1e9, tokens=2e10).loss_nats, rel=1e-6
    )
    assert np.shape(LAW.optimum(jnp.array([1e20, 1e21])).params) == (2,)


def test_a_default_is_taken_and_a_missing_argument_is_left_to_python() -> None:
    @checked
    def power(base: Positive, exponent: Count | None = None) -> float:
        return base ** (exponent or 1)

    assert (power(2), power(2, None), power(np.int32(2), exponent=np.int64(3))) == (2, 2, 8)
    assert type(power(np.float32(2))) is float
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'base'"):
        power()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="unexpected keyword argument 'bass'"):
        power(2, bass=1)  # type: ignore[call-arg]


class DataFrame:
    """A frame of another library, as far as we look at it."""

    def __init__(self, frame: pd.DataFrame | None) -> None:
        self.frame = frame

    def to_pandas(self) -> pd.DataFrame:
        if self.frame is None:
            raise ModuleNotFoundError("pyarrow is required")
        return self.frame


DataFrame.__module__ = "polars.dataframe.frame"


def test_a_frame_of_another_library_is_taken_as_one_of_pandas() -> None:
    ours: Any = DataFrame(TABLE[["params", "tokens", "loss_nats"]])
    assert (lmscale.read_table(ours)["params"] == TABLE["params"]).all()
    fit = fits.loss_law(ours, resamples=0, check=False)
    assert fit.law.values() == fits.loss_law(ours.frame, resamples=0, check=False).law.values()
    none: Any = DataFrame(None)
    with pytest.raises(UserError, match=r"DataFrame of polars becomes none of pandas \(ModuleNotFoundError: pyarrow "):
        lmscale.read_table(none)
