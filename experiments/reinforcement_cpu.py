"""How does the reward grow with the compute of RL on two CPU cores, and does its law see the rest of a run?

    python experiments/reinforcement_cpu.py                     # trains what is missing in runs/, fits, prints, draws
    python experiments/reinforcement_cpu.py --output figures

`sweeps/reinforcement_cpu.py`: byte models of three widths, two seeds each, taught three algorithmic tasks by GRPO with
an exact checker. The compute of RL is that of training, of drawing the answers and of reading the reference, up to each
step. To the first two thirds of every run the sigmoid law of Khatri 2025 (arXiv 2510.13786) is fitted, R0 + (A - R0) /
(1 + (C_mid/C)^B), and its prediction of the last third is compared with what came, and with a reward that stays as it
was at the end of what was fitted.

Cost: 2.5e12 FLOPs, 11 minutes on two cores that many others shared. Outcome (2026-11, two cores of an AMD EPYC;
experiments/outcomes/reinforcement_cpu.svg; rewards are means of the first and of the last eighth of a run):

    start      two seeds of a width differ by more than the widths do: after .75M bytes the policies are right in .28
               and .99 of their answers at width 16, in .99 and .75 at 24, in .78 and .93 at 32
    growth     all six rise, those that have room to by .06 (width 16), .03 (24) and .13 and .05 (32) for 1.6e11, 2.9e11
               and 4.8e11 FLOPs of RL
    law        its prediction of the last third is nearer than a reward that stands still in 5 of 6 runs, by .0004 to
               .0053 where one stretch scatters by .0024 to .0330: rms .0435 and .0445 (width 16), .0390 and .0374 (24,
               where the standstill is nearer), .0246 and .0299, .0116 and .0150 (32); and .0020 and .0038, .0029 and
               .0033 for the two that were right in .99 from the start
    its end    A = .344 [.333, 1.000] and .798 [.788, 1.000] where the reward was low and rose slowly, and no interval
               in a third run: one run of this length does not say where it will end. B lies on its bound of 10 in two

So the sigmoid describes these curves, and what it predicts beyond them is that they stay nearly where they are.
"""

import argparse
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

import lmscale
from lmscale import fits, plots
from lmscale.core.config import REINFORCE
from lmscale.core.plans import PlannedRun, read_plan
from lmscale.core.quantities import quantity
from lmscale.core.results import Outcome
from lmscale.core.run_folder import read_metrics
from lmscale.study.fits import LossLaw

SWEEP = Path(__file__).resolve().parents[1] / "sweeps" / "reinforcement_cpu.py"
BINS = 45
"""Means of so many stretches of a run: the reward of one batch has a noise of some hundredths."""
SEEN = 2 / 3
RESAMPLES = 200
SHARES = {"R0": (0.0, 1.0), "A": (0.0, 1.0)}
"""The reward is a share of right answers, and so are both ends of its law."""


@dataclass(frozen=True)
class Curve:
    """The reward of one run against the compute of RL, and its law."""

    width: int
    seed: int
    table: pd.DataFrame
    """`run`, `flops` and `reward` of every stretch, in order."""
    seen: int
    """The stretches that are fitted."""
    fit: LossLaw

    @property
    def predicted(self) -> np.ndarray:
        """The reward of the stretches that no fit saw."""
        rest = self.table["flops"][self.seen :]
        return np.array([self.fit.predict(flops=float(flops)).loss_nats for flops in rest])

    @property
    def scatter(self) -> float:
        """Root mean square residual of what was fitted: what chance leaves of any prediction."""
        return _rms(self.fit.law.loss(self.table["flops"][: self.seen]) - self.table["reward"][: self.seen])

    @property
    def error(self) -> float:
        """Root mean square error of the prediction."""
        return _rms(self.predicted - self.table["reward"][self.seen :].to_numpy())

    @property
    def error_of_standstill(self) -> float:
        """That of a reward which stays what it was over the last tenth of what was fitted."""
        last = self.table["reward"][self.seen - max(1, self.seen // 10) : self.seen].mean()
        return _rms(last - self.table["reward"][self.seen :].to_numpy())


def _rms(errors: "np.ndarray | pd.Series[float]") -> float:
    return float(np.sqrt(np.mean(np.asarray(errors) ** 2)))


def curve(run: PlannedRun, folder: Path) -> Curve:
    """The curve of a run that has finished. Raises `UserError` for one without an outcome."""
    config, outcome = run.config, Outcome.read(folder / run.config.run_id)
    if outcome is None or outcome.state != "finished":
        raise lmscale.UserError(f"run {config.run_id} has not finished; `lmscale status {folder}` says why")
    rows = pd.DataFrame(read_metrics(folder / config.run_id)[0])
    per_step = (outcome.flops + outcome.batch_flops + outcome.reference_flops) / config.steps
    stretch = np.arange(len(rows)) * BINS // len(rows)
    means = rows.groupby(stretch)[["step", "reward"]].mean()
    table = pd.DataFrame({"run": means.index, "flops": means["step"] * per_step, "reward": means["reward"]})
    seen = round(SEEN * len(table))
    fit = fits.loss_law(table[:seen], "rl-compute", resamples=RESAMPLES, bounds=SHARES, check=False)
    return Curve(config.model.width, config.seed, table, seen, fit)


def lines(curves: list[Curve]) -> list[str]:
    """A table of what was fitted and how well it predicts."""
    out = [f"{'width':>5} {'seed':>4}  first  last   A [95 %]               C_mid     B     fitted  error  standstill"]
    for one in curves:
        reward, law = one.table["reward"], one.fit.law.values()
        interval = "[no interval   ]"
        with suppress(lmscale.UserError):  # fewer resamples converged than an interval takes
            low, high = one.fit.interval("A")
            interval = interval if np.isnan(low) else f"[{low:6.3f}, {high:6.3f}]"
        out.append(
            f"{one.width:5} {one.seed:4}  {reward.iloc[0]:.3f}  {reward.iloc[-1]:.3f}  {law['A']:.3f} "
            f"{interval}  {quantity(law['C_mid']):>8}  {law['B']:5.2f}  {one.scatter:.4f}  {one.error:.4f}  "
            f"{one.error_of_standstill:.4f}"
        )
    better = sum(one.error < one.error_of_standstill for one in curves)
    return [*out, f"the law predicts {better} of {len(curves)} last thirds better than a standstill does"]


def draw(curves: list[Curve], file: Path) -> None:
    """The reward against the compute of RL; the law full where it was fitted, and dashed where it predicts."""
    from matplotlib.figure import Figure

    widths = sorted({one.width for one in curves})
    with plots.style():
        figure = Figure(figsize=(6.4, 4.2), layout="constrained")
        ax = figure.add_subplot()
        for one in curves:
            colour = plots.SEQUENCE[::3][widths.index(one.width)]
            flops, law = one.table["flops"].to_numpy(), one.fit.law
            label = f"width {one.width}" if one.seed == min(other.seed for other in curves) else None
            ax.plot(flops, one.table["reward"], "o", ms=3, color=colour, alpha=0.6, label=label)
            for part, dash in ((slice(0, one.seen), "-"), (slice(one.seen - 1, None), "--")):
                ax.plot(flops[part], law.loss(flops[part]), dash, color=colour, lw=1.3)
        ax.set_xscale("log")
        ax.set_xlabel("compute of RL, FLOPs")
        ax.set_ylabel("reward: share of right answers drawn")
        ax.legend(frameon=False)
        plots.save(figure, file)


def main(runs: Path, output: Path) -> None:
    """Train, fit, predict, print, draw."""
    folder = lmscale.run(SWEEP, runs)
    curves = [curve(run, folder) for run in read_plan(folder)[1] if run.stage == REINFORCE]
    print("\n".join(lines(curves)))
    draw(curves, output / "reinforcement_cpu.svg")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder that holds one folder per sweep")
    parser.add_argument("--output", type=Path, default=Path("figures"), help="folder of the figure")
    arguments = parser.parse_args()
    main(arguments.runs, arguments.output)
