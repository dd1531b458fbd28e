"""What `lmscale plan` prints: every run whole, where times come from, what is done and left, what does not fit."""

import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.outcomes import OTHER, RUN, outcome_of
from helpers.plans import output_of, own_cache, planned, screen, shown  # noqa: F401
from rich.console import Console
from threadpoolctl import threadpool_info

from lmscale.commands.columns import omitted, print_columns, width_of
from lmscale.commands.plan import hardware
from lmscale.commands.plan.hardware import hardware_of
from lmscale.commands.plan.rows import price_plan
from lmscale.commands.plan.show import LEAST_FIRST, show
from lmscale.core import measured_speeds
from lmscale.core.accelerators import ACCELERATORS, by_name
from lmscale.core.config import DataConfig, MeshConfig, ModelConfig
from lmscale.core.counting import count, memory_bytes, validation_flops
from lmscale.core.errors import UserError
from lmscale.core.host import usable_cores
from lmscale.core.measured_speeds import MeasuredSpeed
from lmscale.core.plans import PlannedRun
from lmscale.core.quantities import quantity
from lmscale.study import prices, recipes, sweep
from lmscale.study.launch import Slot
from lmscale.study.prices import Hardware
from lmscale.study.sweep import Plan, Sweep

FAMILY = recipes.Family(
    width_multiple=4, aspect_ratio=32, head_width=16, base=ModelConfig(width=16, layers=1, heads=1, context=32)
)
RECIPE = recipes.step_law(FAMILY, validation_tokens=4096)


@pytest.mark.parametrize("width", [40, 160])
def test_a_plan_keeps_every_digit_on_any_screen(tmp_path: Path, width: int) -> None:
    text, counts = shown(planned(question="Which?"), tmp_path, width), count(RUN)
    assert "two: Which?" in text and "…" not in text
    (first,) = (line for line in text.splitlines() if RUN.run_id in line)
    assert first.split()[:8] == [
        RUN.run_id, "16", "x", "1", "0", quantity(counts.params), "64k", f"{counts.tokens_per_param:.3g}",
    ]  # fmt: skip
    assert f"{counts.flops:.2e}" in first and "1,000" in first and "held out" not in first
    words = re.sub(r"\s+", " ", text)
    assert "peak learning rate 0.01. " in words and " MiB " in text
    assert "shape: width x layers. N: all parameters." in words and "MiB: estimated peak memory" in words
    assert not re.search(r"(lr|by|batch): ", words), "a column that is not there is not explained"
    assert max(map(len, text.splitlines()[:4])) <= 100
    assert "held out" in next(line for line in text.splitlines() if OTHER.run_id in line)
    assert "2 runs, 1 held out" in re.sub(r"\s+", " ", text) and not list(tmp_path.iterdir())


def test_a_speed_of_few_steps_takes_the_place_of_none_of_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMSCALE_CACHE", str(tmp_path))
    for steps, rate in ((30, 4e6), (2, 9e6), (0, 8e6)):
        MeasuredSpeed(
            config=RUN, flops_per_second=rate, compile_seconds=1.0, device="cpu", cores=1, steps=steps,
            machine=measured_speeds.platform.node(),
        ).write()  # fmt: skip
    (speed,) = measured_speeds.of_this_machine()
    assert speed.flops_per_second == 4e6


def test_every_run_says_where_its_time_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMSCALE_CACHE", str(tmp_path / "cache"))
    plan = planned()
    assert hardware_of(plan.runs, tmp_path).speed(RUN).source == "assumed"
    measured = MeasuredSpeed(
        config=RUN, flops_per_second=4e6, compile_seconds=1.0, device="cpu x 1",
        machine=measured_speeds.platform.node(),
        cores=max(1, len(usable_cores()) // hardware_of(plan.runs, tmp_path).at_once),
    )  # fmt: skip
    measured.write()
    replace(measured, machine="elsewhere", flops_per_second=9e9).write()
    bench = hardware_of(plan.runs, tmp_path).speed(RUN)
    assert (bench.source, bench.compile_seconds) == ("bench", 1.0) and bench.flops_per_second == pytest.approx(4e6)
    outcome_of(RUN, seconds=1000.0).write(tmp_path / RUN.run_id)
    finished = hardware_of(plan.runs, tmp_path).speed(RUN)
    done = count(RUN).flops + validation_flops(RUN)
    assert finished.source == "measured" and finished.flops_per_second == pytest.approx(done / 1000)
    text = shown(plan, tmp_path, 400, device="h100", count=8, price_per_hour=2.0)
    assert "Times: 8 x H100, 35% of 989 TFLOP/s in bfloat16" in text and "SXM module." in text
    assert " cost" in text.splitlines()[1] and " by" not in text.splitlines()[1]


def test_the_peak_of_a_busy_machine_is_timed_on_one_core_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """The threads of one product wait for one another, so another program on one core would slow all of them."""
    threads: list[int] = []
    clock = iter(0.5 * tick for tick in range(1000))

    def ticking() -> float:
        threads.extend(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")
        return next(clock)

    monkeypatch.setattr(hardware.time, "perf_counter", ticking)
    monkeypatch.setattr(hardware, "usable_cores", lambda: [0, 1, 2])
    assert hardware.matmul_peak() == pytest.approx(3 * 2 * 512**3 / 0.5)
    assert threads and set(threads) == {1}


def test_a_narrow_window_leaves_columns_out_and_names_them(tmp_path: Path) -> None:
    columns = {"run": ["0123456789ab"], "N": ["1.23M"], "MiB": ["1,234"], "by": ["finished"], "": ["held out"]}
    assert omitted(columns, 100, LEAST_FIRST) == []
    assert omitted(columns, width_of(columns, 1), LEAST_FIRST) == []
    assert omitted(columns, width_of(columns, 1) - 1, LEAST_FIRST) == ["by"]
    assert omitted(columns, 20, LEAST_FIRST) == ["by", "MiB"]
    console = screen(80)
    print_columns(columns, width_of(columns, 2) - 1, console)
    assert output_of(console).splitlines() == [
        "run              N   MiB by",
        "0123456789ab 1.23M 1,234 finished held out",
    ]


def test_branches_fit_a_terminal_of_80_columns(root: Path, tmp_path: Path) -> None:
    plan = sweep.read(root / "sweeps" / "trunk_cpu.py")
    console = Console(width=80, file=io.StringIO(), force_terminal=True, color_system=None, highlight=False)
    show(price_plan(plan, hardware_of(plan.runs, tmp_path, "h100", price_per_hour=2.0), None), console)
    text = output_of(console)
    assert (
        max(map(len, text.splitlines())) <= 80
        and "Columns left out for lack of width: MiB" in text
        and "MiB: " not in text
    )
    assert all(f"{run.config.run_id} " in text for run in plan.runs) and "…" not in text


def test_a_plan_says_what_is_there_and_what_is_left(tmp_path: Path) -> None:
    """One of three equal runs has finished, one has done a quarter and one has not begun."""
    configs = [replace(RUN, seed=seed) for seed in (1, 2, 3)]
    plan = Plan(Sweep("three", [{}], lambda point: RUN, law=""), [PlannedRun(config) for config in configs])
    hardware = Hardware("a machine", at_once=1, assumed=1e9, price_per_hour=3600.0)
    assert not price_plan(plan, hardware, None, tmp_path / "absent").begun
    outcome_of(configs[0], seconds=50.0).write(tmp_path / configs[0].run_id)
    whole = count(RUN).flops
    (tmp_path / configs[1].run_id).mkdir()
    (tmp_path / configs[1].run_id / "metrics.jsonl").write_text(json.dumps({"step": 250, "flops": whole / 4}) + "\n")
    priced = price_plan(plan, hardware, None, tmp_path)
    each = priced.rows[0].price.seconds
    assert priced.done() == {"runs": 1, "flops": 1.25 * whole, "seconds": 50.0, "cost": pytest.approx(1.25 * each)}
    left = {"runs": 2, "flops": 1.75 * whole, "seconds": 1.75 * each, "device_hours": 1.75 * each / 3600}
    assert priced.left() == pytest.approx({**left, "cost": 1.75 * each})
    assert [row["state"] for row in priced.to_json()["rows"]] == ["finished", "stopped", "missing"]
    console = Console(file=io.StringIO(), width=200)
    show(priced, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    lines = {config.seed: next(line for line in text.splitlines() if config.run_id in line) for config in configs}
    assert lines[1].split()[-1] == "finished" and lines[2].split()[-2:] == ["stopped", "25%"]
    assert lines[3].split()[-1] == "-"
    assert "Done: 1 of 3 runs" in text and "Left: 2 runs" in text


def test_speeds_measured_on_more_cores_are_shared_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMSCALE_CACHE", str(tmp_path))
    monkeypatch.setattr("lmscale.commands.plan.hardware.usable_cores", lambda: [0, 1, 2, 3])
    monkeypatch.setattr("lmscale.study.launch.slots", lambda: [Slot(f"cpu {i}") for i in range(4)])
    MeasuredSpeed(
        config=RUN, flops_per_second=8e6, compile_seconds=1.0, device="cpu x 1", cores=4,
        machine=measured_speeds.platform.node(),
    ).write()  # fmt: skip
    hardware = hardware_of([PlannedRun(RUN)], tmp_path / "runs")
    assert hardware.speed(RUN).flops_per_second == pytest.approx(2e6)
    assert "taken on 4 cores and divided among the runs" in hardware.title


def test_a_speed_between_two_measured_ones() -> None:
    """At a measured shape the figure itself; between two, between their rates; nearer to the nearer."""
    small, middle, large = (RECIPE({"width": width, "tokens": 1e6, "batch_sequences": 8}) for width in (16, 64, 128))
    speeds = [
        MeasuredSpeed(config=config, flops_per_second=rate, compile_seconds=1.0, device="cpu", cores=1)
        for config, rate in ((small, 1e9), (large, 1e10))
    ]
    assert prices.between(speeds, small)[0] == pytest.approx(1e9, rel=1e-3)
    assert prices.between(speeds, large)[0] == pytest.approx(1e10, rel=1e-3)
    assert 10**9.5 < prices.between(speeds, middle)[0] < 1e10


def test_what_a_run_costs_on_a_device() -> None:
    config = replace(RUN, validations=3, validation_tokens=1_000)
    place = prices.on_devices(by_name("H100"), 8, 0.5, 3.0)
    peak = 0.5 * ACCELERATORS["h100"].float32
    cost = prices.price(PlannedRun(config), place)
    overhead = prices.STARTUP_SECONDS + prices.COMPILE_SECONDS
    slow = prices.price(PlannedRun(config), prices.Hardware("a slow one", 1, assumed=1e6))
    assert slow.seconds == pytest.approx(overhead + (count(config).flops + validation_flops(config)) / 1e6)
    assert cost.seconds == pytest.approx(overhead + (count(config).flops + validation_flops(config)) / peak)
    assert prices.money([cost] * 2, place) == pytest.approx(2 * 3.0 * cost.seconds / 3600)
    wide = replace(config, mesh=MeshConfig(data=4))
    spread = prices.price(PlannedRun(wide), place)
    assert spread.device_seconds == pytest.approx(4 * spread.seconds) and cost.fits
    # 10 runs on 8 devices take two rounds; of 4 devices each, five.
    for run, rounds in ((config, 2), (wide, 5)):
        runs = [PlannedRun(run)] * 10
        costs = [prices.price(one, place) for one in runs]
        assert prices.elapsed(runs, costs, place) == pytest.approx(rounds * costs[0].seconds)
    half = PlannedRun(config, trunk="a" * 12, branch_step=config.steps // 2)
    assert prices.price(half, place).seconds < cost.seconds and half.paid_flops == count(config).flops // 2


def test_a_run_that_does_not_fit_is_marked(tmp_path: Path) -> None:
    large = RECIPE({"width": 128, "tokens": 1e8, "batch_sequences": 4096})
    large = replace(large, model=replace(large.model, context=2048, layers=64), tokens=4096 * 2048)
    plan = Plan(Sweep("one", [{}], lambda point: large), [PlannedRun(large)])
    assert memory_bytes(large, "tpu") > ACCELERATORS["v5e"].memory_bytes
    text = re.sub(r"\s+", " ", shown(plan, tmp_path, device="v5e"))
    assert "does not fit" in text and "runs need more than the 16 GB of one TPU v5e" in text
    assert "does not fit" not in shown(planned(), tmp_path, device="v5e")


def test_unknown_devices_and_impossible_numbers() -> None:
    with pytest.raises(UserError, match="no device is called 'h1000'; did you mean 'h100'"):
        by_name("h1000")
    for arguments, sentence in (
        ((0, None, None), "--devices 0"),
        ((1, 1.5, None), "--utilisation 1.5"),
        ((1, None, -1.0), "--price -1"),
    ):
        with pytest.raises(UserError, match=sentence):
            prices.on_devices(by_name("h100"), *arguments)


def test_a_corpus_too_small_is_refused_once_it_is_known(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "text.txt").write_text("\n\n".join(f"row {number} of few" for number in range(5000)))
    config = replace(RUN, data=DataConfig(source=str(tmp_path / "text.txt")), tokens=6_400_000)
    plan = sweep.plan(Sweep("one", [{}], lambda point: config))
    assert "epochs are unknown until the corpus is prepared" in shown(plan, tmp_path)
    from lmscale.lm import data

    data.prepare(config.data)
    with pytest.raises(UserError, match=r"D = 6,400,000 tokens would be [\d.]+ epochs of the .* unique tokens"):
        shown(plan, tmp_path)
