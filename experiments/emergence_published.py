"""Which published abilities emerge, at which scale, and which of them does the metric make?

    python experiments/emergence_published.py --data FOLDER --output figures     # the folder of reference tables

Pythia (Biderman 2023) over size and over training steps, public models on Wei's tasks by training compute (Ruan 2024),
the OLMo ladder (Bhagia 2024), the open_lm testbed (Gadre 2024) and BIG-G on BIG-bench go through one detector. Prints a
page of verdicts and whether each agrees with what is known of the case; writes it and the figures into --output.

Conventions: training FLOPs are 6ND, N without embeddings for Pythia, as in the tables; hard metrics are accuracies with
the chance level of the tables. The numbers of examples of Wei's tasks are read off the scores.

Cost: half a minute on one core. Outcome (2026-11): the nine known cases agree, LAMBADA over steps only when counted
from step 32 on (see FIRST_STEP); the OLMo ladder predicts nine accuracies with mean errors of .005 to .07. Page and
two of the figures: `experiments/outcomes/emergence_published.md`, `emergence_published_hard_and_graded.svg` and
`emergence_published_ladder.svg`.
"""

import argparse
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lmscale.core.files import write_text
from lmscale.study import emergence, plots
from lmscale.study.emergence.finding import Finding
from lmscale.study.emergence.ladder import Ladder, ladder
from lmscale.study.emergence.summary import finding_cells

TOKENS_PER_STEP = 2_097_152
LAST_STEP = 143_000
FIRST_STEP = 32
"""Pythia's learning rate is still a fiftieth of its peak here, and before it perplexity is that of an untrained model.
Counted from step 1, that idle start is a floor of the perplexity too, whose foot (near step 100) then lies in the upper
two thirds of the range: the verdict would be "corroborated". It depends on where the range begins, and this one begins
where training does."""
HARD = ("acc", "acc_norm")
LadderFit = tuple[str, Ladder, pd.DataFrame]
"""A task, its ladder, and the runs of it."""


def pythia(folder: Path) -> pd.DataFrame:
    """All Pythia models (not the deduplicated ones), zero-shot, with their training step."""
    table = pd.read_csv(folder / "pythia_results.csv.gz")
    table = table[(table["model_family"] == "pythia") & (table["shots"] == 0)]
    return table.assign(step=(table["tokens"] / TOKENS_PER_STEP).round(), kind="hard")


def by_size(table: pd.DataFrame) -> pd.DataFrame:
    """Accuracies of the last checkpoints against size; MMLU as one task."""
    last = table[(table["step"] == LAST_STEP) & (table["metric"] == "acc")]
    last = last[last["subtask"].isin(["all", "_micro_avg"])]
    return last[["task", "metric", "kind", "n_params", "score", "n_examples", "chance"]]


def by_step(table: pd.DataFrame) -> pd.DataFrame:
    """LAMBADA of every size against training steps: accuracy, and log perplexity of the same words."""
    part = table[(table["task"] == "lambada_openai") & (table["step"] >= FIRST_STEP)]
    hard = part[part["metric"] == "acc"].assign(higher_is_better=1)
    soft = part[part["metric"] == "ppl"].assign(
        kind="graded", higher_is_better=0, metric="log perplexity", chance=np.nan, n_examples=np.nan,
        stderr=lambda d: d["stderr"] / d["score"], score=lambda d: np.log(d["score"]),
    )  # fmt: skip
    both = pd.concat([hard, soft]).rename(columns={"step": "x", "model_family": "of"})
    columns = ["task", "metric", "kind", "x", "score", "stderr", "n_examples", "chance", "higher_is_better"]
    return both[columns].assign(family=both["model_name"])


def counted(scores: pd.Series, most: int = 20_000, share: float = 0.8) -> int:
    """The smallest n of which nearly all `scores` are whole parts: how many examples a task has."""
    for n in range(2, most):
        right = scores.to_numpy() * n
        if (np.abs(right - np.rint(right)) < 1e-3).mean() > share:
            return n
    raise ValueError("no number of examples explains the scores")


def wei(folder: Path) -> pd.DataFrame:
    """Public model families on tasks that Wei 2022 calls emergent, against training FLOPs."""
    table = pd.read_csv(folder / "obsscaling_emergent_results.csv.gz")
    table = table[(table["metric"] != "bleu") & table["flops"].notna()]
    n = table.groupby("task")["score"].transform(counted)
    table = table[table["model_family"].isin(["Pythia", "OPT"])].assign(kind="hard", n=n)
    return table[["task", "metric", "kind", "flops", "score", "n", "chance", "model_family"]]


def olmo(folder: Path) -> pd.DataFrame:
    """The last checkpoint of every ladder run: accuracy, and three graded metrics of the same answers."""
    table = pd.read_csv(folder / "olmo_ladder_results.csv.gz")
    table = table[(table["is_final"] == 1) & (table["task"] != "val_loss") & ~table["task"].str.startswith("mmlu")]
    hard = table["metric"].isin(HARD)
    return table.assign(
        kind=np.where(hard, "hard", "graded"),
        n=table["n_examples"].where(hard),
        chance=table["chance"].where(hard | (table["metric"] == "p_correct_soft")),
    )[["task", "metric", "kind", "flops", "n_params", "tokens", "score", "n", "chance", "higher_is_better"]]


def open_lm(folder: Path) -> pd.DataFrame:
    """The testbed's accuracies against its validation loss on C4, one curve per training corpus."""
    table = pd.read_csv(folder / "openlm_scaling_results.csv.gz")
    loss = table[table["subtask"] == "c4_val"].set_index("model_name")["score"]
    table = table[(table["metric"] == "accuracy") & (table["n_examples"] > 1)]
    table = table.assign(kind="hard", loss=table["model_name"].map(loss))
    return table[["task", "metric", "kind", "loss", "score", "n_examples", "chance", "model_family"]]


def big_g(folder: Path) -> pd.DataFrame:
    """BIG-G, three-shot, 85 tasks of BIG-bench, on a fifth of the examples."""
    table = pd.read_csv(folder / "bigbench_results.csv.gz").assign(kind="hard")
    return table[["task", "metric", "kind", "n_params", "n_correct", "n_examples", "chance"]]


def ladders(table: pd.DataFrame) -> Iterator[LadderFit]:
    """Every OLMo task predicted from runs below a twelfth of the largest compute; bits per byte is the task loss."""
    for task, part in table.groupby("task"):
        accuracy = part[part["metric"].isin(HARD)].set_index(["n_params", "tokens"])
        loss = part[part["metric"] == "bpb"].set_index(["n_params", "tokens"])["score"]
        runs = accuracy.assign(task_loss=loss).reset_index().rename(columns={"n_params": "params"})
        runs["held_out"] = runs["flops"] > runs["flops"].max() / 12
        runs = runs.sort_values(["held_out", "flops"])
        yield str(task), ladder(runs, chance=float(runs["chance"].iloc[0])), runs


def cases(results: dict[str, emergence.Emergence]) -> list[tuple[str, str, bool]]:
    """What is known of some of these abilities, what was found, and whether they agree."""

    def one(study: str, task: str, metric: str | None = None, **setting: str) -> Finding:
        return results[study].select(task, metric, **setting)[0]

    checks = []
    lambada = one("Pythia by size", "lambada_openai")
    checks.append(("Pythia LAMBADA accuracy by size is smooth", lambada.cls, lambada.cls == "smooth"))
    steps = [one for one in results["Pythia by training step"].findings if one.curve.kind == "hard"]
    verdicts = Counter(str(finding.verdict) for finding in steps)
    most = verdicts.most_common(1)[0][0] == "metric-induced"
    of_models = ", ".join(f"{verdict} for {count} of {len(steps)} sizes" for verdict, count in verdicts.items())
    checks.append(("Pythia LAMBADA over training steps is metric-induced", of_models, most))
    logiqa = one("Pythia by size", "logiqa")
    checks.append(("Pythia LogiQA is at chance", logiqa.cls, logiqa.cls == "flat"))
    for task in ("arithmetic_2da", "arithmetic_3da", "arithmetic_3ds"):
        finding = one("Wei's tasks by compute", task, family="Pythia")
        near = finding.interval is not None and finding.interval[0] <= 10**21.3 <= finding.interval[1]
        checks.append((f"Pythia {task} emerges near 10^21.3 FLOPs", f"{finding.cls} {plots.threshold_text(finding)}",
                     finding.cls == "emergent" and near))  # fmt: skip
    for family in ("Pythia", "OPT"):
        finding = one("Wei's tasks by compute", "parsinlu_qa", family=family)
        checks.append((f"{family} parsinlu_qa is flat", finding.cls, finding.cls == "flat"))
    winogrande = one("OLMo ladder", "winogrande_rc", "acc_norm")
    graded = winogrande.evidence.get("graded", {})
    each = ", ".join(f"{metric} {cls}" for metric, cls in graded.items())
    checks.append(("OLMo winogrande: graded metrics disagree, and are named", each, len(set(graded.values())) > 1))
    return checks


def cells(finding: Finding) -> tuple[str, ...]:
    """The cells of one finding, numbers of the axis as figures write them: 363M, not 3.63e+08."""
    name, metric, cls, _, *others = finding_cells(finding)
    return name, metric, cls, plots.threshold_text(finding) or "–", *others


def page(results: dict[str, emergence.Emergence], predicted: list[LadderFit]) -> str:
    """The verdicts as Markdown."""
    lines = ["# Emergence in published tables", "", "| known | found | agrees |", "|---|---|---|"]
    lines += [f"| {known} | {verdict} | {'yes' if agrees else 'NO'} |" for known, verdict, agrees in cases(results)]
    for study, result in results.items():
        count = Counter(finding.cls for finding in result.findings)
        lines += ["", f"## {study}: {', '.join(f'{n} {cls}' for cls, n in count.most_common())}", ""]
        notable = [f for f in result.findings if f.cls in ("emergent", "u-shaped", "inverse") or f.verdict]
        lines += ["| task | metric | class | threshold [95 %] | score, first to last | chance | verdict |",
                  "|---|---|---|---|---|---|---|"]  # fmt: skip
        lines += [f"| {' | '.join(cells(finding))} |" for finding in notable]
    title = "## OLMo ladder: accuracy of the largest runs predicted from those below a twelfth of the compute"
    lines += [
        "",
        title,
        "",
        "| task | fitted, held out | mean error | inside 95 % | predicted |",
        "|---|---|---|---|---|",
    ]
    for task, fit, _ in predicted:
        warned = "; ".join(status.sentence for status in fit.status if status.severity == "warning")
        lines.append(f"| {task} | {fit.fitted_runs}, {len(fit.held_out)} | {fit.mean_error:.3f} | {fit.inside:.0%} | "
                     f"{'yes' if fit.can_predict else 'no: ' + warned} |")  # fmt: skip
    return "\n".join(lines) + "\n"


def save(figure: Any, path: Path) -> None:
    """As SVG, and as PNG for whoever has no browser at hand."""
    for suffix in (".svg", ".png"):
        plots.save(figure, path.with_suffix(suffix))


def draw(results: dict[str, emergence.Emergence], predicted: list[LadderFit], folder: Path) -> None:
    """The figures of the page."""
    with plots.style():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9.6, 5.6), layout="constrained")
        axes = [[figure.add_subplot(2, 2, 2 * row + column + 1) for row in range(2)] for column in range(2)]
        steps = results["Pythia by training step"]
        hard, soft = (steps.select("lambada_openai", metric, family="1.4b")[0] for metric in ("acc", "log perplexity"))
        plots.hard_and_graded(axes[0], hard, soft, "training step of Pythia 1.4B")
        hard, soft = (
            results["OLMo ladder"].select("winogrande_rc", m, "flops")[0] for m in ("acc_norm", "p_correct_soft")
        )
        plots.hard_and_graded(axes[1], hard, soft)
        save(figure, folder / "emergence_published_hard_and_graded")

        figure, panels = plots.canvas(9.6, 3.4, panels=3)
        for ax, task in zip(panels, ("arithmetic_2da", "arithmetic_3da", "parsinlu_qa")):
            plots.scores(ax, results["Wei's tasks by compute"].select(task, family="Pythia")[0])
            ax.set_title(f"{task}, Pythia")
        save(figure, folder / "emergence_published_wei_tasks")

        figure = Figure(figsize=(12.5, 15), layout="constrained")
        order = {cls: place for place, cls in enumerate(plots.CLASS_COLOUR)}
        tasks = sorted(results["BIG-G by size"].findings, key=lambda f: (order[f.cls], f.threshold or 0, f.curve.task))
        plots.small_multiples(figure, tasks)
        save(figure, folder / "emergence_published_big_g_at_a_glance")

        figure, panels = plots.canvas(9.6, 3.4, panels=3)
        chosen = {task: (fit, runs) for task, fit, runs in predicted}
        for ax, task in zip(panels, ("hellaswag_rc", "arc_challenge_rc", "winogrande_rc")):
            fit, runs = chosen[task]
            plots.ladder(ax, fit, runs["task_loss"].tolist(), runs["score"].tolist())
            ax.set_xlabel("bits per byte of the right answer")
            ax.set_ylabel("accuracy")
            ax.set_title(task.removesuffix("_rc").replace("_", " "))
        save(figure, folder / "emergence_published_ladder")


def main(data: Path, output: Path) -> None:
    """Detect, print, draw."""
    runs = pythia(data)
    tables = {
        "Pythia by size": (by_size(runs), "params"),
        "Pythia by training step": (by_step(runs), "x"),
        "Wei's tasks by compute": (wei(data), "flops"),
        "OLMo ladder": (olmo(data).drop(columns=["n_params", "tokens"]), "flops"),
        "open_lm by C4 loss": (open_lm(data), "loss"),
        "BIG-G by size": (big_g(data), "params"),
    }
    results = {study: emergence.detect(table, axis) for study, (table, axis) in tables.items()}
    predicted = list(ladders(olmo(data)))
    text = page(results, predicted)
    print(text)
    write_text(output / "emergence_published.md", text)
    draw(results, predicted, output)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of reference tables")
    parser.add_argument("--output", type=Path, default=Path("figures"))
    arguments = parser.parse_args()
    main(arguments.data, arguments.output)
