"""How far can a reward model be optimised before the reward that it stands for falls?

    python experiments/overoptimisation_cpu.py                    # trains what is missing in runs/, fits, prints, draws
    python experiments/overoptimisation_cpu.py --output figures

`sweeps/overoptimisation_cpu.py`: a byte model that copies, reverses and sorts three letters, each of two, not well. The
gold reward of an answer is the share of its letters that are in place. Of two answers that the policy itself drew, the
one is chosen whose gold reward is higher after normal noise of one letter, 1/3, is added to both. Reward models of two
widths learn from 50, 200 and 800 such comparisons, which are about the same 24 questions that all is measured on. By
each the best of n of the policy's answers is chosen, and by four the policy is trained on with GRPO and no penalty.
Against d, the square root of the KL to the policy: the gold reward, and the proxy, scaled to the gold reward's spread
over the policy's answers to a question. To the gold reward the two forms of Gao 2022 (arXiv 2210.10760) are fitted,
d (alpha - beta d) and d (alpha - beta ln d), over all questions together by least squares; intervals draw questions
anew. Answers repeat, so the KL of the best of n is counted with ties; that under RL is the exact KL of every next
token, averaged over answers that the trained policy draws.

Cost: 1.1e12 FLOPs of training, 10 minutes on two cores that many others shared. Outcome (2026-11, two cores of an AMD
EPYC, one seed; experiments/outcomes/overoptimisation_cpu.svg):

    reward models  their correlation with the gold reward within a question is .04 to .30, and follows neither width
                   nor comparisons: .21, .30 and .08 at width 8 (50, 200, 800), .04, .11 and .23 at width 32. The
                   comparisons themselves choose the better of two unequal answers in .80
    best of n      up to n = 64 (d = 1.3 to 1.5) the gold reward of .57 gains .13, .09 and .07 at best with three of the
                   six and loses .125 with the worst, while every proxy rises by .24 to .68. With alpha of .095 and beta
                   of .083 [.012, .172] one of the six shows its fall (width 8, 800); the square form is nearer than the
                   logarithmic one in four of six
    RL             no run gains more than .017. Proxies rise by .45 and .72 where the gold reward falls by .37 (width 8,
                   200, d = 4.7) and .05 (width 32, 800, d = 3.2); beta = .050 [.011, .087] in the first, in no other is
                   it told from 0. Both forms miss alike, by rms .002 to .048: these curves do not tell them apart
    peaks          so none is told with an interval, and that larger or better taught reward models have a larger alpha
                   is not shown

So RL goes on to where the proxy is wrong, and the best of n of the same answers does not get so far. An earlier try
with 46,656 questions of each task ended sooner: three reward models chose the right answer to a new question in .50 to
.54 of the comparisons after as many as 4096, and under RL by two of them the KL exploded.
"""

import argparse
import json
import runpy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
from numpy.typing import NDArray

import lmscale
from lmscale import fits, plots
from lmscale.core.best_of_n import drawn_kl_nats, expected_best
from lmscale.core.config import PRETRAIN, REINFORCE, REWARD, ModelConfig
from lmscale.core.plans import PlannedRun, read_plan
from lmscale.lm.eval.scorer import LMScorer
from lmscale.lm.eval.tasks import Shots, Task
from lmscale.lm.eval.tasks.generation import synthetic_tasks
from lmscale.lm.model.parameters import Params
from lmscale.lm.objectives.answer_kl import answer_kl
from lmscale.lm.train.sampled_answers import laid_out
from lmscale.lm.use.drawn_answers import DrawnAnswers, RewardModelReward, draw_answers, item_scores
from lmscale.lm.use.load import open_run
from lmscale.study.fits import LossLaw

SWEEP = Path(__file__).resolve().parents[1] / "sweeps" / "overoptimisation_cpu.py"
NOISE = 1 / 3
"""Standard deviation of what is added to a gold reward when two answers are compared: one letter of three."""
COMPARISONS = 900
"""Different comparisons that are kept."""
COMPARED, ANSWERS, ANSWERS_UNDER_RL = 512, 256, 64
"""Answers to every question, of which two and two are compared, the best are chosen, and under RL."""
SIZES = (2, 4, 8, 16, 32, 64)
RESAMPLES = 200
FORMS = {"best of n": "best-of-n", "RL": "reward-under-rl"}
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """What a reward model is worth to one way of optimising it; K places, Q questions."""

    width: int
    comparisons: int
    way: str
    kl_K: Array
    gold_KQ: Array
    """Above that of the policy."""
    proxy_K: Array

    def fit(self, form: str, resamples: int = RESAMPLES) -> LossLaw:
        """A form of Gao 2022 through the mean over questions; an interval draws questions."""
        return fitted(self.kl_K, self.gold_KQ, form, resamples)


def fitted(kl_K: Array, gold_KQ: Array, form: str, resamples: int) -> LossLaw:
    """Least squares over places and questions, which is least squares through the means."""
    places, questions = gold_KQ.shape
    question = np.tile(np.arange(questions), places)
    table = pd.DataFrame(
        {
            "run": np.arange(gold_KQ.size),
            "question": question,
            "kl": np.repeat(kl_K, questions),
            "reward": gold_KQ.ravel(),
        }
    )
    return fits.loss_law(table, form, loss="squared", clusters="question", resamples=resamples, check=False)


def best_of(sizes: Sequence[int], proxy_QM: Array, gold_QM: Array) -> tuple[Array, Array, Array]:
    """KL [K], and the gold reward and the proxy [K, Q] of the answer that the proxy chooses of n, less the policy's."""
    kl_K = np.array([drawn_kl_nats(proxy_QM, n) for n in sizes])
    gold_KQ, proxy_KQ = (
        np.stack([expected_best(proxy_QM, of_QM, n) - of_QM.mean(axis=1) for n in sizes])
        for of_QM in (gold_QM, proxy_QM)
    )
    return kl_K, gold_KQ, proxy_KQ


@partial(jax.jit, static_argnames=("model", "answers"))
def _kl(params: Params, reference: Params, tokens_BS: Any, scored_BT: Any, model: ModelConfig, answers: int) -> Any:
    pairs = {
        "tokens": tokens_BS.reshape(-1, 2, tokens_BS.shape[1]),
        "scored": scored_BT.reshape(-1, 2, scored_BT.shape[1]),
    }
    return answer_kl(params, reference, pairs, model, model).reshape(-1, answers).mean(axis=1)


class Policy:
    """A policy after some of its steps, and what it draws to the questions of the tasks."""

    def __init__(self, folder: Path, step: int | None = None) -> None:
        opened = open_run(folder, step)
        config, params, tokenizer = opened.run
        self.scorer = LMScorer(params, config.model, tokenizer, opened.mesh)

    def draw(self, tasks: Sequence[Task], answers: int, seed: int) -> list[DrawnAnswers]:
        """Answers to every question."""
        return [draw_answers(self.scorer, task, Shots(0), answers, seed) for task in tasks]

    def kl_nats(self, drawn: Sequence[DrawnAnswers], reference: "Policy") -> float:
        """The KL of its own answers to a reference, the mean over them."""
        values = []
        for one in drawn:
            answers = len(one.texts[0])
            prompts = [prompt for prompt in one.prompts for _ in range(answers)]
            tokens_BS, scored_BT = laid_out(prompts, np.concatenate(one.tokens), self.scorer.config.context)
            with jax.set_mesh(self.scorer.mesh):
                values.append(
                    np.asarray(
                        _kl(
                            self.scorer.params,
                            reference.scorer.params,
                            tokens_BS,
                            scored_BT,
                            self.scorer.config,
                            answers,
                        )
                    )
                )
        return float(np.mean(values))


def scores(tasks: Sequence[Task], drawn: Sequence[DrawnAnswers], proxy: RewardModelReward | None = None) -> Array:
    """[Q, M]: the gold rewards of all answers, or those of a reward model."""
    return np.concatenate(
        [
            item_scores("share_in_place", task, answers) if proxy is None else proxy(task, answers)
            for task, answers in zip(tasks, drawn)
        ]
    )


def questions(language: str) -> list[Task]:
    """The tasks with every question that there is, once."""
    return [
        replace(task, items=tuple({item.question: item for item in task.items}.values()))
        for task in synthetic_tasks(language)
    ]


def write_comparisons(policy: Policy, language: str, file: Path) -> float:
    """Compare pairs of the policy's answers; the share of those with different gold rewards whose better is chosen."""
    rng, end = np.random.default_rng(0), policy.scorer.tokenizer.end_of_document
    tasks = questions(language)
    right, lines = [], list[str]()
    for task, drawn in zip(tasks, policy.draw(tasks, COMPARED, seed=1)):
        gold_QM = item_scores("share_in_place", task, drawn)
        for item, tokens, texts, gold_M in zip(task.items, drawn.tokens, drawn.texts, gold_QM):
            whole = (tokens == end).any(axis=1)
            for one in range(0, COMPARED, 2):
                pair = [one, one + 1]
                if not whole[pair].all() or not all(texts[each] for each in pair) or texts[one] == texts[one + 1]:
                    continue
                noisy = gold_M[pair] + NOISE * rng.normal(size=2)
                worse, better = np.array(pair)[np.argsort(noisy)]
                lines.append(
                    json.dumps({"prompt": item.question, "chosen": texts[better], "rejected": texts[worse]}) + "\n"
                )
                if gold_M[one] != gold_M[one + 1]:
                    right.append(gold_M[better] > gold_M[worse])
    different = list(dict.fromkeys(lines))
    print(f"{len(lines):,} comparisons, {len(different):,} of them different, {COMPARISONS:,} kept")
    chosen = rng.permutation(len(different))[:COMPARISONS]
    file.write_text("".join(different[number] for number in chosen), encoding="utf-8")
    return float(np.mean(right))


def curves(space: dict[str, Any], folder: Path) -> list[Curve]:
    """Both curves of every reward model."""
    runs = read_plan(folder)[1]
    start = Policy(_policy(runs, folder))
    tasks = questions(space["LANGUAGE"])
    drawn = start.draw(tasks, ANSWERS, seed=2)
    gold_QM = scores(tasks, drawn)
    print(f"the policy: {gold_QM.mean():.3f} of the letters in place, {(gold_QM == 1).mean():.3f} of the answers right")
    out = []
    for judge in (run.config for run in runs if run.stage == REWARD):
        pairs = int((judge.data.unique_tokens or 0) / (2 * judge.model.context))
        proxy = RewardModelReward(folder / judge.run_id, start.scorer)
        proxy_QM = scores(tasks, drawn, proxy)
        unit = _spread(gold_QM) / _spread(proxy_QM)
        within = np.corrcoef(_centred(gold_QM).ravel(), _centred(proxy_QM).ravel())[0, 1]
        print(f"reward model of width {judge.model.width}, {pairs} comparisons: correlation with gold {within:.3f}")
        kl_K, gold_KQ, proxy_KQ = best_of(SIZES, proxy_QM, gold_QM)
        out.append(Curve(judge.model.width, pairs, "best of n", kl_K, gold_KQ, unit * proxy_KQ.mean(axis=1)))
        for run in runs:
            if run.stage != REINFORCE or run.config.parents["reward"].run_id != judge.run_id:
                continue
            places = []
            for step in _saved(run, folder):
                policy = Policy(folder / run.config.run_id, step)
                answers = policy.draw(tasks, ANSWERS_UNDER_RL, seed=3)
                gains = [
                    scores(tasks, answers, by).mean(axis=1) - of_QM.mean(axis=1)
                    for by, of_QM in ((None, gold_QM), (proxy, proxy_QM))
                ]
                places.append((policy.kl_nats(answers, start), gains[0], unit * gains[1].mean()))
            kls, golds, proxies = zip(*places)
            out.append(Curve(judge.model.width, pairs, "RL", np.array(kls), np.stack(golds), np.array(proxies)))
    return out


def _policy(runs: Sequence[PlannedRun], folder: Path) -> Path:
    """The folder of the policy that all comparisons are drawn from: what has read least."""
    run = min((run for run in runs if run.stage == PRETRAIN), key=lambda run: run.config.tokens)
    return folder / run.config.run_id


def _saved(run: PlannedRun, folder: Path) -> list[int]:
    """The steps of its checkpoints; one whose KL explodes has none of its end."""
    return sorted(int(path.name) for path in (folder / run.config.run_id / "checkpoints").glob("[0-9]*"))


def _centred(values_QM: Array) -> Array:
    return values_QM - values_QM.mean(axis=1, keepdims=True)


def _spread(values_QM: Array) -> float:
    """Standard deviation within a question."""
    return float(np.sqrt((_centred(values_QM) ** 2).mean()))


def lines(all_curves: list[Curve]) -> Iterator[str]:
    """A line for every curve: the gold reward at its best and at its end, the two numbers of its law, and both rms."""
    yield (
        f"{'way':9} {'width':>6} {'pairs':>5}  {'best':>6}  at d |    end  at d   proxy  {'alpha [95 %]':23} "
        f"{'beta [95 %]':23}  rms of both forms"
    )
    for one in all_curves:
        gold_K, d_K = one.gold_KQ.mean(axis=1), np.sqrt(one.kl_K)
        fit, best = one.fit(FORMS[one.way]), int(gold_K.argmax())
        numbers = []
        for name in ("alpha", "beta"):
            low, high = fit.interval(lambda each, name=name: each.law.values()[name])
            numbers.append(f"{fit.law.values()[name]:6.3f} [{low:6.3f}, {high:6.3f}]")
        yield (
            f"{one.way:9} {one.width:6} {one.comparisons:5}  {gold_K[best]:+.3f} {d_K[best]:5.2f} | {gold_K[-1]:+.3f} "
            f"{d_K[-1]:5.2f}  {one.proxy_K[-1]:+.3f}  {'  '.join(numbers)}  "
            + " ".join(f"{_rms(one, form):.4f}" for form in FORMS.values())
        )


def _rms(one: Curve, form: str) -> float:
    """Root mean square distance of a form from the means over questions."""
    law = one.fit(form, resamples=0).law
    return float(np.sqrt(np.mean((law.loss(one.kl_K) - one.gold_KQ.mean(axis=1)) ** 2)))


def draw(all_curves: list[Curve], file: Path) -> None:
    """Gold rewards with their laws, and proxies, against d: of the best of n, and under RL."""
    amounts = sorted({one.comparisons for one in all_curves})
    widths = sorted({one.width for one in all_curves})
    colours = dict(zip(amounts, plots.SEQUENCE[1::3]))
    with plots.style():
        figure, axes = plots.canvas(10.5, 4.6, panels=2)
        for ax, way in zip(axes, FORMS):
            for one in (one for one in all_curves if one.way == way):
                d_K, colour = np.sqrt(one.kl_K), colours[one.comparisons]
                label = f"{one.comparisons:,} comparisons, width {one.width}"
                ax.plot(d_K, one.gold_KQ.mean(axis=1), "osD"[widths.index(one.width)], color=colour, ms=4, label=label)
                grid = np.linspace(0, d_K.max(), 60)
                ax.plot(grid, one.fit(FORMS[way], resamples=0).law.loss(grid**2), color=colour, lw=1.1)
                ax.plot(d_K, one.proxy_K, ":", color=colour, lw=1)
            ax.axhline(0, color=plots.INK["line"], lw=1)
            ax.set_xlabel("d, square root of the KL to the policy, nats^1/2")
            ax.set_title(f"{way}: gold reward (dots, law) and proxy (dotted)")
        axes[0].set_ylabel("gain in share of letters in place")
        axes[0].legend(frameon=False, fontsize=7)
        plots.save(figure, file)


def main(output: Path) -> None:
    """Train the policy, compare its answers, train the rest, measure, fit, print, draw."""
    space = runpy.run_path(str(SWEEP))
    sweep, comparisons = space["SWEEP"], Path(space["PAIRS"])
    folder = comparisons.parent
    if not comparisons.exists():
        lmscale.run(replace(sweep, points=space["POLICIES"]), folder.parent)
        runs = read_plan(folder)[1]
        share = write_comparisons(Policy(_policy(runs, folder)), space["LANGUAGE"], comparisons)
        print(f"of two answers with different gold rewards the better is chosen in {share:.3f} of the comparisons")
    lmscale.run(sweep, folder.parent)
    all_curves = curves(space, folder)
    print("\n".join(lines(all_curves)))
    draw(all_curves, output / "overoptimisation_cpu.svg")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("figures"), help="folder of the figure")
    main(parser.parse_args().output)
