"""What `lmscale plan` says of a design: identified or not, under which prior; the next runs and the optimal one."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.outcomes import RUN
from helpers.plans import output_of, own_cache, planned, screen, shown  # noqa: F401

from lmscale.commands.plan.arguments import PlanArgs
from lmscale.commands.plan.verb import check_plan, main
from lmscale.core.config import ModelConfig, RunConfig
from lmscale.core.counting import count
from lmscale.core.errors import UserError
from lmscale.core.files import write_json
from lmscale.core.plans import PlannedRun, write_plan
from lmscale.study import laws, recipes, sweep
from lmscale.study.laws import CHINCHILLA_REFIT
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
    assert "6 runs, 0 held out" in output_of(console) and "This plan cannot identify the law" in output_of(console)
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
        outputs[name] = output_of(console)
    runs = sweep.read(path).runs
    assert f"{count(runs[-1].config).flops_kaplan:.2e}" in outputs["kaplan"]
    assert f"{count(runs[-1].config).flops:.2e}" in outputs["plain"] and "(Kaplan)" in outputs["kaplan"]
    assert "the law hoffmann-2022, and final losses that scatter by 0.02 nats" in outputs["hoffmann"]
    assert "ln D/N at 1e+15 FLOPs (--target)" in outputs["hoffmann"]
    with pytest.raises(UserError, match="no prior is called 'hofman-2022'; did you mean 'hoffmann-2022'"):
        main(PlanArgs(path, runs=tmp_path, prior="hofman-2022"), screen())


def test_repeated_data_is_judged_by_its_own_law(tmp_path: Path) -> None:
    body = (
        "'again', chain(*(repeat_data([2e4, 8e4, 3e5], t, (1, 4, 16)) for t in (1e6, 8e6))), "
        "recipes.step_law(FAMILY, validation_tokens=4096), law='data-constrained'"
    )
    main(PlanArgs(write(tmp_path, body), runs=tmp_path), console := screen(400))
    text = output_of(console)
    assert "assumed: the law muennighoff-2023" in text and "R_D" in text and "repeated up to 16" in text


@pytest.mark.long
def test_the_next_runs_follow_the_recipe_and_bring_the_predicted_error(tmp_path: Path) -> None:
    path, out = write(tmp_path, GRID), tmp_path / "more.json"
    asked = PlanArgs(path, runs=tmp_path, json=out, improve=True, spend=3e13, most=4, target=1e15)
    main(asked, console := screen(400))
    before, after = sweep.read(path), sweep.read(out)
    new = after.runs[len(before.runs) :]
    assert after.runs[: len(before.runs)] == before.runs and 1 <= len(new) <= 4
    spent = sum(count(run.config).flops for run in new)
    assert spent <= 1.1 * 3e13 and all(run.origins["point"] == "proposed by --improve" for run in new)
    sd_change = re.search(r"of ln D/N at 1e\+15 FLOPs goes from ([\d.]+) to (0[\d.]*\d)", output_of(console))
    assert sd_change and float(sd_change[2]) < 0.9 * float(sd_change[1])
    # The predicted standard deviation is that of the grown plan.
    from lmscale.study.design import judge_plan

    assert judge_plan(after.runs, target_flops=1e15).sd_log_ratio == pytest.approx(float(sd_change[2]), rel=0.02)
    stages = GRID.replace("ladder(", "(lambda base: chain(base, fine_tune(base, tokens=[3e4, 3e7])))(ladder(")
    stages = stages.replace("[5, 20, 80])", "[5, 20, 80]))")
    main(replace(asked, sweep=write(tmp_path, stages, "stages")), screen())
    proposed = [run for run in sweep.read(out).runs if run.origins.get("point") == "proposed by --improve"]
    assert [run.config for run in proposed] == [run.config for run in new], "what follows pretraining changes nothing"
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
    law = fits.loss_law(read_table(folder / "runs.csv"), resamples=20, check=False)
    write_json(folder / "fits.json", {"table": str(folder / "runs.csv"), "fits": [law.to_json()]})
    return folder / "fits.json"


def rng() -> Any:
    import numpy as np

    return np.random.default_rng(0)


@pytest.mark.long
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
    assert f"predicted loss {value['loss_nats']:.4f} nats per token; the law lies in" in output_of(console).lower()
    asked = PlanArgs(path, runs=tmp_path, optimal=fitted, flops=1e13, tokens_per_param=100.0, json=out)
    main(asked, screen())
    assert count(sweep.read(out).runs[0].config).tokens_per_param == pytest.approx(100, rel=0.2)
    main(PlanArgs(path, runs=tmp_path, prior=str(fitted)), console := screen(400))
    assert f"the law {fitted}" in output_of(console)


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
    assert "the law own.json" in output_of(console)
    value = json.loads(Path("p.json").read_text())
    assert value["law"] == "own.py:Own" and value["design"]["prior"]["law"] == "own"
    assert sweep.read(tmp_path / "p.json").sweep.law == "own.py:Own"


def test_a_sweep_is_for_a_law_of_params_and_tokens() -> None:
    with pytest.raises(UserError, match="did you mean 'chinchilla'"):
        Sweep("one", [{}], RECIPE, law="chinchila")
    with pytest.raises(UserError, match=r"Sweep\.law = 'compute' is a law of flops"):
        Sweep("one", [{}], RECIPE, law=laws.ComputeLaw)
    assert Sweep("one", [{}], RECIPE, law=laws.PowerMean).law == "power-mean"


@pytest.mark.long
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
    assert "grid-optimal-1e13" in output_of(console) and "no interval, since the fit's table is not here" in output_of(
        console
    )
