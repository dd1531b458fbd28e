"""What `lmscale plan` says: every run whole, where times come from, the verdict, the next runs, the optimal run."""

import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.outcomes import OTHER, RUN, outcome_of
from rich.console import Console

from lmscale.commands.columns import omitted, print_columns, width_of
from lmscale.commands.plan.arguments import PlanArgs
from lmscale.commands.plan.hardware import hardware_of
from lmscale.commands.plan.limits import check_limits, within_hours
from lmscale.commands.plan.rows import price_plan
from lmscale.commands.plan.show import LEAST_FIRST, show
from lmscale.commands.plan.verb import check_plan, main
from lmscale.core import measured_speeds
from lmscale.core.accelerators import ACCELERATORS, by_name
from lmscale.core.config import DataConfig, MeshConfig, ModelConfig, RunConfig
from lmscale.core.counting import count, memory_bytes, validation_flops
from lmscale.core.errors import UserError
from lmscale.core.files import write_json
from lmscale.core.host import usable_cores
from lmscale.core.measured_speeds import MeasuredSpeed
from lmscale.core.plans import PlannedRun, write_plan
from lmscale.core.quantities import quantity
from lmscale.core.run_folder import STOP_FILE
from lmscale.study import laws, prices, recipes, sweep
from lmscale.study.launch import Slot
from lmscale.study.laws import CHINCHILLA_REFIT
from lmscale.study.prices import Hardware
from lmscale.study.sweep import Plan, Sweep

FAMILY = recipes.Family(
    width_multiple=4, aspect_ratio=32, head_width=16, base=ModelConfig(width=16, layers=1, heads=1, context=32)
)
RECIPE = recipes.step_law(FAMILY, validation_tokens=4096)
HEAD = "from lmscale import recipes\nfrom lmscale.core.config import ModelConfig\nfrom lmscale.study.sweep import *\n"
FAMILY_TEXT = (
    "FAMILY = recipes.Family(width_multiple=4, aspect_ratio=32, head_width=16, "
    "base=ModelConfig(width=16, layers=1, heads=1, context=32))\n"
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No figures of another test."""
    monkeypatch.setenv("LMSCALE_CACHE", str(tmp_path_factory.mktemp("cache")))


def screen(width: int = 160) -> Console:
    return Console(file=io.StringIO(), width=width, highlight=False, color_system=None)


def said(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def planned(**changes: Any) -> Plan:
    points = [{"seed": 0, "flops": 1e9}, {"seed": 1, "flops": 3e9}]
    made = Sweep("two", points, lambda p: replace(RUN, seed=p["seed"]), lambda p: p["flops"] > 1e9, **changes)
    return sweep.plan(made)


def shown(plan: Plan, folder: Path, width: int = 160, **place: Any) -> str:
    console = screen(width)
    show(price_plan(plan, hardware_of(plan.runs, folder, **place), None), console)
    return said(console)


@pytest.mark.parametrize("width", [40, 160])
def test_a_plan_keeps_every_digit_on_any_screen(tmp_path: Path, width: int) -> None:
    text, counts = shown(planned(question="Which?"), tmp_path, width), count(RUN)
    assert "two: Which?" in text and "…" not in text
    (first,) = (line for line in text.splitlines() if RUN.run_id in line)
    assert first.split()[:8] == [
        RUN.run_id, "16", "x", "1", "0", quantity(counts.params), "64k", f"{counts.tokens_per_param:.3g}",
    ]  # fmt: skip
    assert f"{counts.flops:.2e}" in first and "1,000" in first and "held out" not in first
    assert "lr 0.01, time by what is assumed" in re.sub(r"\s+", " ", text) and " MiB " in text
    assert max(map(len, text.splitlines()[:4])) <= 100
    assert "held out" in next(line for line in text.splitlines() if OTHER.run_id in line)
    assert "2 runs, 1 of them held out" in re.sub(r"\s+", " ", text) and not list(tmp_path.iterdir())


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
    found = hardware_of(plan.runs, tmp_path).speed(RUN)
    assert (found.source, found.compile_seconds) == ("bench", 1.0) and found.flops_per_second == pytest.approx(4e6)
    outcome_of(RUN, seconds=1000.0).write(tmp_path / RUN.run_id)
    finished = hardware_of(plan.runs, tmp_path).speed(RUN)
    done = count(RUN).flops + validation_flops(RUN)
    assert finished.source == "measured" and finished.flops_per_second == pytest.approx(done / 1000)
    text = shown(plan, tmp_path, 400, device="h100", count=8, price_per_hour=2.0)
    assert "Times: 8 x H100, 35% of 989 TFLOP/s in bfloat16" in text and "SXM module." in text
    assert "time by what is h100" in text and " cost" in text.splitlines()[1]


def test_a_narrow_window_leaves_columns_out_and_names_them(tmp_path: Path) -> None:
    columns = {"run": ["0123456789ab"], "N": ["1.23M"], "MiB": ["1,234"], "by": ["finished"], "": ["held out"]}
    assert omitted(columns, 100, LEAST_FIRST) == []
    assert omitted(columns, width_of(columns, 1), LEAST_FIRST) == []
    assert omitted(columns, width_of(columns, 1) - 1, LEAST_FIRST) == ["by"]
    assert omitted(columns, 20, LEAST_FIRST) == ["by", "MiB"]
    console = screen(80)
    print_columns(columns, width_of(columns, 2) - 1, console)
    assert said(console).splitlines() == [
        "run              N   MiB by",
        "0123456789ab 1.23M 1,234 finished held out",
    ]


def test_branches_fit_a_terminal_of_80_columns(root: Path, tmp_path: Path) -> None:
    plan = sweep.read(root / "sweeps" / "trunk_cpu.py")
    console = Console(width=80, file=io.StringIO(), force_terminal=True, color_system=None, highlight=False)
    show(price_plan(plan, hardware_of(plan.runs, tmp_path, "h100", price_per_hour=2.0), None), console)
    text = said(console)
    assert max(map(len, text.splitlines())) <= 80 and "For want of width without MiB" in text
    assert all(f"{run.config.run_id} " in text for run in plan.runs) and "…" not in text


def test_a_plan_says_what_is_there_and_what_is_left(tmp_path: Path) -> None:
    """Of three equal runs one has finished, one has done a quarter and one has not begun."""
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
    found = hardware_of([PlannedRun(RUN)], tmp_path / "runs")
    assert found.speed(RUN).flops_per_second == pytest.approx(2e6)
    assert "taken on 4 cores and divided among the runs" in found.title


def test_a_speed_between_two_measured_ones() -> None:
    """At a measured shape the figure itself; between two, between their rates; nearer to the nearer."""
    small, middle, large = (RECIPE({"width": width, "tokens": 1e6, "batch_sequences": 8}) for width in (16, 64, 128))
    made = [
        MeasuredSpeed(config=config, flops_per_second=rate, compile_seconds=1.0, device="cpu", cores=1)
        for config, rate in ((small, 1e9), (large, 1e10))
    ]
    assert prices.between(made, small)[0] == pytest.approx(1e9, rel=1e-3)
    assert prices.between(made, large)[0] == pytest.approx(1e10, rel=1e-3)
    assert 10**9.5 < prices.between(made, middle)[0] < 1e10


def test_what_a_run_costs_on_a_device() -> None:
    config = replace(RUN, validations=3, validation_tokens=1_000)
    place = prices.on_devices(by_name("H100"), 8, 0.5, 3.0)
    peak = 0.5 * ACCELERATORS["h100"].float32
    found = prices.price(PlannedRun(config), place)
    overhead = prices.STARTUP_SECONDS + prices.COMPILE_SECONDS
    slow = prices.price(PlannedRun(config), prices.Hardware("a slow one", 1, assumed=1e6))
    assert slow.seconds == pytest.approx(overhead + (count(config).flops + validation_flops(config)) / 1e6)
    assert found.seconds == pytest.approx(overhead + (count(config).flops + validation_flops(config)) / peak)
    assert prices.money([found] * 2, place) == pytest.approx(2 * 3.0 * found.seconds / 3600)
    wide = replace(config, mesh=MeshConfig(data=4))
    spread = prices.price(PlannedRun(wide), place)
    assert spread.device_seconds == pytest.approx(4 * spread.seconds) and found.fits
    # 10 runs on 8 devices take two rounds; of 4 devices each, five.
    for run, rounds in ((config, 2), (wide, 5)):
        runs = [PlannedRun(run)] * 10
        costs = [prices.price(one, place) for one in runs]
        assert prices.elapsed(runs, costs, place) == pytest.approx(rounds * costs[0].seconds)
    half = PlannedRun(config, trunk="a" * 12, branch_step=config.steps // 2)
    assert prices.price(half, place).seconds < found.seconds and half.paid_flops == count(config).flops // 2


def test_a_run_that_does_not_fit_is_marked(tmp_path: Path) -> None:
    large = RECIPE({"width": 128, "tokens": 1e8, "batch_sequences": 4096})
    large = replace(large, model=replace(large.model, context=2048, layers=64), tokens=4096 * 2048)
    plan = Plan(Sweep("one", [{}], lambda point: large), [PlannedRun(large)])
    assert memory_bytes(large, accelerator=True) > ACCELERATORS["v5e"].memory_bytes
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


def write(folder: Path, body: str, name: str = "s") -> Path:
    path = folder / f"{name}.py"
    path.write_text(f"{HEAD}{FAMILY_TEXT}SWEEP = Sweep({body})\n")
    return path


LINE = "'line', ladder([2e4, 4e4, 8e4, 16e4, 32e4, 64e4], [20]), recipes.step_law(FAMILY, validation_tokens=4096)"
GRID = "'grid', ladder([2e4, 6e4, 18e4, 54e4], [5, 20, 80]), recipes.step_law(FAMILY, validation_tokens=4096)"


def test_a_line_is_shown_and_refused_with_the_fix_unless_forced(tmp_path: Path) -> None:
    path, console = write(tmp_path, LINE), screen()
    with pytest.raises(UserError, match=r"cannot identify the law: all runs lie on the line D = .* N.*smallest sizes"):
        main(PlanArgs(path, runs=tmp_path, json=tmp_path / "p.json"), console)
    assert "6 runs, 0 of them held out" in said(console) and "This plan cannot identify the law" in said(console)
    value = json.loads((tmp_path / "p.json").read_text())
    assert value["design"]["identified"] is False and value["design"]["sd"]["a"] is None
    main(PlanArgs(path, runs=tmp_path, force=True), screen())
    with pytest.raises(UserError, match="cannot identify the law"):
        check_plan(sweep.read(path))
    check_plan(sweep.read(path), force=True)
    main(PlanArgs(write(tmp_path, LINE + ", law=''"), runs=tmp_path), screen())


def test_a_trial_of_a_few_runs_is_not_judged_but_a_short_line_is(tmp_path: Path) -> None:
    check_plan(planned())
    assert "a trial, so its design is not judged" in shown(planned(), tmp_path)
    few = "'few', ladder([2e4, 6e4], [5, 80]), recipes.step_law(FAMILY, validation_tokens=4096)"
    check_plan(sweep.read(write(tmp_path, few)))
    with pytest.raises(UserError, match="cannot identify the law: all runs lie on the line"):
        check_plan(sweep.read(write(tmp_path, few.replace("[2e4, 6e4], [5, 80]", "[2e4, 6e4, 2e5], [20]"))))


def test_json_holds_all_that_is_printed_and_can_be_run(tmp_path: Path) -> None:
    path, out = write(tmp_path, GRID + ", max_flops=1e16"), tmp_path / "p.json"
    main(PlanArgs(path, runs=tmp_path, json=out, device="h200", price=2.0), screen())
    value = json.loads(out.read_text())
    assert len(value["rows"]) == 12 and value["totals"]["cost"] > 0 and value["place"]["device"] == "h200"
    assert value["rows"][0]["flops"] == count(RunConfig.from_json(value["runs"][0]["config"])).flops
    assert value["runs"][0]["origins"]["optimizer.peak_lr"].startswith("Step Law")
    assert value["design"]["prior"]["name"] == "chinchilla-refit" and value["design"]["identified"] is True
    assert sweep.read(out).runs == sweep.read(path).runs and sweep.read(out).sweep.max_flops == 1e16


def test_another_convention_and_another_prior(tmp_path: Path) -> None:
    path = write(tmp_path, GRID)
    outputs = {}
    for name, asked in {
        "plain": PlanArgs(path, runs=tmp_path),
        "kaplan": PlanArgs(path, runs=tmp_path, convention="flops_kaplan"),
        "hoffmann": PlanArgs(path, runs=tmp_path, prior="hoffmann-2022", noise=0.02, target=1e15),
    }.items():
        main(asked, console := screen(400))
        outputs[name] = said(console)
    runs = sweep.read(path).runs
    assert f"{count(runs[-1].config).flops_kaplan:.2e}" in outputs["kaplan"]
    assert f"{count(runs[-1].config).flops:.2e}" in outputs["plain"] and "(Kaplan)" in outputs["kaplan"]
    assert "under hoffmann-2022 and noise 0.02 nats" in outputs["hoffmann"]
    assert "ln D/N at 1e+15 FLOPs (--target)" in outputs["hoffmann"]
    with pytest.raises(UserError, match="no prior is called 'hofman-2022'; did you mean 'hoffmann-2022'"):
        main(PlanArgs(path, runs=tmp_path, prior="hofman-2022"), screen())


def test_repeated_data_is_judged_by_its_own_law(tmp_path: Path) -> None:
    body = (
        "'again', chain(*(repeat_data([2e4, 8e4, 3e5], t, (1, 4, 16)) for t in (1e6, 8e6))), "
        "recipes.step_law(FAMILY, validation_tokens=4096), law='data-constrained'"
    )
    main(PlanArgs(write(tmp_path, body), runs=tmp_path), console := screen(400))
    text = said(console)
    assert "Design, under muennighoff-2023" in text and "R_D" in text and "repeated up to 16" in text


def test_the_next_runs_are_made_by_the_recipe_and_bring_what_is_said(tmp_path: Path) -> None:
    path, out = write(tmp_path, GRID), tmp_path / "more.json"
    asked = PlanArgs(path, runs=tmp_path, json=out, improve=True, spend=3e13, most=4, target=1e15)
    main(asked, console := screen(400))
    before, after = sweep.read(path), sweep.read(out)
    new = after.runs[len(before.runs) :]
    assert after.runs[: len(before.runs)] == before.runs and 1 <= len(new) <= 4
    spent = sum(count(run.config).flops for run in new)
    assert spent <= 1.1 * 3e13 and all(run.origins["point"] == "proposed by --improve" for run in new)
    told = re.search(r"of ln D/N at 1e\+15 FLOPs goes from ([\d.]+) to (0[\d.]*\d)", said(console))
    assert told and float(told[2]) < 0.9 * float(told[1])
    # What was promised is what the grown plan is judged to have.
    from lmscale.study.design import judge_plan

    assert judge_plan(after.runs, target_flops=1e15).sd_log_ratio == pytest.approx(float(told[2]), rel=0.02)
    with pytest.raises(UserError, match="--improve needs the training FLOPs that it may spend"):
        main(replace(asked, spend=None), screen())
    with pytest.raises(UserError, match="buys no run"):
        main(replace(asked, spend=1e6), screen())


def test_a_proposed_run_belongs_to_the_planned_budget_that_it_costs_but_for_rounding() -> None:
    from lmscale.commands.plan.improve import _budget

    plan = Plan(Sweep("one", [{}], RECIPE), [replace(PlannedRun(RUN), flops_budget=c) for c in (1e12, 3e12)])
    assert [_budget(plan, flops) for flops in (1e12, 1.009e12, 0.992e12, 3.02e12)] == [1e12, 1e12, 1e12, 3e12]
    assert _budget(plan, 2e12) is None and _budget(planned(), 1e12) is None


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """fits.json of a law fitted to simulated runs in a CSV beside it."""
    from lmscale.study import fits
    from lmscale.study.fits.uncertainty.simulate import isoflop_design, simulate
    from lmscale.study.tables import read_table

    folder = tmp_path_factory.mktemp("fitted")
    table = simulate(CHINCHILLA_REFIT, isoflop_design(CHINCHILLA_REFIT, [1e12, 3e12, 1e13]), 0.003, rng())
    table.to_csv(folder / "runs.csv", index=False)
    found = fits.loss_law(read_table(folder / "runs.csv"), resamples=20, check=False)
    write_json(folder / "fits.json", {"table": str(folder / "runs.csv"), "fits": [found.to_json()]})
    return folder / "fits.json"


def rng() -> Any:
    import numpy as np

    return np.random.default_rng(0)


def test_from_a_law_to_one_run(tmp_path: Path, fitted: Path) -> None:
    path, out = write(tmp_path, GRID), tmp_path / "one.json"
    main(PlanArgs(path, runs=tmp_path, optimal=fitted, flops=1e13, json=out), console := screen(400))
    (run,) = sweep.read(out).runs
    assert count(run.config).flops == pytest.approx(1e13, rel=0.02) and run.held_out
    optimum = CHINCHILLA_REFIT.optimum(1e13)
    assert count(run.config).params == pytest.approx(float(optimum.params), rel=0.3)
    assert run.origins["optimizer.peak_lr"].startswith("Step Law")
    value = json.loads(out.read_text())["optimal"]["prediction"]
    true = float(CHINCHILLA_REFIT.loss(count(run.config).params, run.config.tokens))
    assert value["interval"][0] < true < value["interval"][1]
    assert f"predicted loss {value['loss_nats']:.4f} nats per token; the law lies in" in said(console).lower()
    asked = PlanArgs(path, runs=tmp_path, optimal=fitted, flops=1e13, tokens_per_param=100.0, json=out)
    main(asked, screen())
    assert count(sweep.read(out).runs[0].config).tokens_per_param == pytest.approx(100, rel=0.2)
    main(PlanArgs(path, runs=tmp_path, prior=str(fitted)), console := screen(400))
    assert f"under {fitted}" in said(console)


def test_a_plan_is_judged_at_a_law_of_ones_own(tmp_path: Path, fitted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chinchilla's form under another class, named by its import path in the sweep, fitted, and given as the prior."""
    from lmscale.study import fits
    from lmscale.study.tables import read_table

    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(
        "from lmscale.study.laws import Chinchilla\nclass Own(Chinchilla):\n    NAME = 'own'\n", encoding="utf-8"
    )
    law = fits.loss_law(read_table(fitted.parent / "runs.csv"), "own.py:Own", resamples=0, check=False)
    write_json(Path("own.json"), {"table": "runs.csv", "fits": [law.to_json()]})
    path = write(tmp_path, f"{GRID}, law='own.py:Own'")
    assert sweep.load(path).law == "own.py:Own"
    with pytest.raises(UserError, match=r"no constants of the law 'own\.py:Own' are known .* --prior FITS\.json"):
        main(PlanArgs(path, runs=tmp_path), screen())
    main(PlanArgs(path, runs=tmp_path, prior="own.json", json=tmp_path / "p.json"), console := screen(400))
    assert "under own.json" in said(console)
    value = json.loads(Path("p.json").read_text())
    assert value["law"] == "own.py:Own" and value["design"]["prior"]["law"] == "own"
    assert sweep.read(tmp_path / "p.json").sweep.law == "own.py:Own"


def test_a_sweep_is_for_a_law_of_params_and_tokens() -> None:
    with pytest.raises(UserError, match="did you mean 'chinchilla'"):
        Sweep("one", [{}], RECIPE, law="chinchila")
    with pytest.raises(UserError, match=r"Sweep\.law = 'compute' is a law of flops"):
        Sweep("one", [{}], RECIPE, law=laws.ComputeLaw)
    assert Sweep("one", [{}], RECIPE, law=laws.PowerMean).law == "power-mean"


def test_what_an_optimal_run_needs(tmp_path: Path, fitted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for asked, sentence in (
        (PlanArgs(optimal=fitted), "--optimal needs a budget"),
        (PlanArgs(optimal=fitted, flops=1e13), "give the sweep whose recipe is to make the run"),
        (PlanArgs(write(tmp_path, GRID), optimal=fitted, flops=1e30), "give a sweep whose family reaches it"),
        (PlanArgs(write(tmp_path, GRID), optimal=tmp_path / "no.json", flops=1e13), "there is no fit at"),
        (PlanArgs(), "needs a sweep file, or --optimal"),
    ):
        with pytest.raises(UserError, match=sentence):
            main(asked, screen())


def test_the_sweep_of_a_fitted_table_is_found_by_name(tmp_path: Path, fitted: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweeps").mkdir()
    write(tmp_path / "sweeps", GRID, "grid")
    write_plan(tmp_path / "runs" / "grid", "grid", sweep.read(Path("sweeps/grid.py")).runs)
    value = json.loads(fitted.read_text())
    write_json(tmp_path / "own.json", {**value, "table": "runs/grid"})
    main(PlanArgs(optimal=tmp_path / "own.json", flops=1e13), console := screen(400))
    assert "grid-optimal-1e13" in said(console) and "no interval, since the fit's table is not here" in said(console)


def test_a_sweep_cannot_spend_more_than_it_may(tmp_path: Path) -> None:
    flops = count(RUN).flops
    plan = planned(max_flops=1.5 * flops)
    with pytest.raises(UserError, match=r"may spend .* 0 are spent and .* are still planned; leave out runs worth"):
        check_limits(plan, tmp_path)
    check_limits(planned(max_flops=2.0 * flops), tmp_path)
    outcome_of(RUN, flops=flops).write(tmp_path / RUN.run_id)
    with pytest.raises(UserError, match="are spent"):
        check_limits(plan, tmp_path)
    outcome_of(RUN, flops=flops // 10, state="diverged", loss_nats=None).write(tmp_path / RUN.run_id)
    check_limits(plan, tmp_path)  # what a diverged run did not use is there for the others


def test_hours_are_limited_by_what_runs_have_taken(tmp_path: Path) -> None:
    outcome_of(RUN, seconds=3000.0, startup_seconds=5.0).write(tmp_path / RUN.run_id)
    check_limits(planned(max_hours=2.0), tmp_path)
    with pytest.raises(UserError, match=r"may take 1 hours of runs, 0.83\d are spent and 0.8\d+ are still planned"):
        check_limits(planned(max_hours=1.0), tmp_path)


class Silent:
    """A watcher that counts what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def started(self, *_: Any) -> None:
        self.told.append("started")

    def advanced(self, *_: Any) -> None:
        self.told.append("advanced")

    def ended(self, *_: Any) -> None:
        self.told.append("ended")


def test_runs_that_take_longer_than_the_sweep_may_are_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the clock, however wrong the estimate was: 2 runs at once for 15 minutes each are half an hour."""
    now = [0.0]
    monkeypatch.setattr("lmscale.commands.plan.limits.time.monotonic", lambda: now[0])
    plan, said_lines, inner = planned(max_hours=0.5), [], Silent()
    watcher = within_hours(plan, tmp_path, inner, said_lines.append)
    first, second = plan.runs
    for run in (first, second):
        watcher.started(Slot("cpu 0"), run)
    now[0] = 850.0
    watcher.advanced(Slot("cpu 0"), first, {})
    assert not list(tmp_path.iterdir()) and not said_lines
    watcher.ended(Slot("cpu 0"), first, None, "")
    now[0] = 905.0
    watcher.advanced(Slot("cpu 0"), second, {})
    assert not said_lines
    now[0] = 951.0
    watcher.advanced(Slot("cpu 0"), second, {})
    assert [path.name for path in tmp_path.iterdir()] == [STOP_FILE] and len(said_lines) == 1
    assert inner.told == ["started", "started", "advanced", "ended", "advanced", "advanced"]
    assert within_hours(planned(), tmp_path, inner, said_lines.append) is inner
