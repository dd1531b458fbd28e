"""The account of a study: what was left out and why, what the symbols mean, how the numbers were made."""

import platform
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lmscale
from lmscale.core.results import Outcome
from lmscale.study.laws import SIX_ND
from lmscale.study.plots import held, measured

if TYPE_CHECKING:
    import pandas as pd


def why_not_used(table: "pd.DataFrame", fits: Sequence[Any]) -> dict[str, str]:
    """Run -> why some fit left it out; a run that never finished is said in the words of its state."""
    found: dict[str, list[tuple[str, str]]] = {}
    for fit in fits:
        for item in fit.dropped:
            found.setdefault(item.run, []).append((item.reason, fit.approach))
    for item in table.attrs.get("dropped", []):
        found.setdefault(str(item["run"]), [(str(item["reason"]), fit.approach) for fit in fits])
    states = _states(table)
    said = {}
    for run, reasons in found.items():
        if run in states:
            continue
        by_reason: dict[str, list[str]] = {}
        for reason, approach in reasons:
            by_reason.setdefault(reason, []).append(approach)
        said[run] = "; ".join(
            reason if len(set(whose)) == len(fits) else f"Approach {' and '.join(sorted(set(whose)))}: {reason}"
            for reason, whose in by_reason.items()
        )
    return {**states, **said}


def _states(table: "pd.DataFrame") -> dict[str, str]:
    """Run -> the sentence of its state, for runs that did not finish."""
    if "state" not in table:
        return {}
    said = {}
    for _, row in table.iterrows():
        state = str(row["state"])
        if state != "finished":
            reason = row.get("reason")
            why = (
                reason if isinstance(reason, str) and reason else "no outcome was written" if state == "missing" else ""
            )
            said[str(row["run"])] = f"{state}{': ' + why if why else ''}"
    return said


def left_out(table: "pd.DataFrame", fits: Sequence[Any]) -> list[tuple[str, list[str]]]:
    """(reason, runs) for everything that some fit did not use; held-out runs are kept apart, not left out."""
    groups: dict[str, list[str]] = {}
    for run, reason in why_not_used(table, fits).items():
        if "held out to check" not in reason:
            groups.setdefault(reason, []).append(run)
    return sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))


def conventions(table: "pd.DataFrame", fits: Sequence[Any]) -> list[tuple[str, str]]:
    """(symbol, meaning) of every quantity on the page."""
    runs = measured(table) if len(table) else table
    lines = [
        (
            "N",
            "all trained parameters, embeddings and output head included (column params)"
            if "params_non_embedding" in table
            else "model parameters as the table states them (column params)",
        )
    ]
    if len(runs) and "params_non_embedding" in runs:
        share = runs["params_non_embedding"].astype(float) / runs["params"].astype(float)
        lines.append(
            (
                "N non-embedding",
                f"the matrices of the layers alone (Kaplan 2020): {100 * share.min():.0f} to "
                f"{100 * share.max():.0f} % of N in these runs",
            )
        )
    lines.append(
        (
            "D",
            "training tokens, repeats counted"
            if "unique_tokens" in table
            else "training tokens as the table states them",
        )
    )
    if len(runs):
        share = runs["flops"].astype(float) / SIX_ND.flops(runs["params"].astype(float), runs["tokens"].astype(float))
        exact = (
            "exact training FLOPs: projections, causal attention, MLP, head; forward and backward; without validation"
            if "flops_6n" in runs
            else "training FLOPs as the table states them"
        )
        lines.append(
            (
                "C",
                f"{exact}. C/6ND = {share.min():.3f} to {share.max():.3f} in these runs"
                if share.max() - share.min() > 1e-3
                else f"{exact}. C = {6 * share.mean():.4g} N D on every row",
            )
        )
    for fit in fits[:1]:
        lines.append(("C(N, D)", f"allocations convert with {fit.compute}"))
    tokens = list(runs["validation_tokens"].dropna()) if len(runs) and "validation_tokens" in runs else []
    loss = "cross-entropy in nats per token (natural logarithm)"
    if len(tokens):
        loss += (
            f": validation loss at the last step over {int(min(tokens)):,} fixed tokens that are not trained on; ± is "
            f"its standard error"
        )
    lines.append(("loss", loss))
    lines.append(
        (
            "intervals",
            "80 and 95 % percentiles of resamples: Approach 2 adds one run's noise to every loss and finds the minima "
            "again; Approach 3 draws runs with replacement. An interval of the law is where the law lies; one of a new "
            "run adds a run's own scatter and is wider",
        )
    )
    lines.append(
        (
            "D*/N*",
            "compute-optimal training tokens per parameter, both as above: another count of N or another tokenizer "
            "gives another number",
        )
    )
    return lines


def counted(table: "pd.DataFrame") -> str:
    """How many runs there are, by state."""

    if not len(table):
        return "The table holds no run."
    said = f"{len(table)} runs"
    if "state" in table:
        counts = table["state"].value_counts()
        said += ": " + ", ".join(
            f"{count} {state}" for state, count in sorted(counts.items(), key=lambda item: -item[1])
        )
    if out := int(held(table).sum()):
        said += f"; {out} of them are held out (coloured)"
    return said + "."


def left_out_lines(table: "pd.DataFrame", fits: Sequence[Any], show: int = 12) -> list[str]:

    lines = []
    for reason, runs in left_out(table, fits):
        named = ", ".join(runs[:show]) + (f" and {len(runs) - show} more" if len(runs) > show else "")
        what = "budget" if runs[0].startswith("budget") else "run"
        what = "budget" if runs[0].startswith("budget") else "run"
        lines.append(f"{reason} – {len(runs)} {what}{'s' * (len(runs) > 1)}: {named}.")
    if out := int(held(table).sum()):
        lines.append(f"{out} held-out runs entered no fit: they are the prediction that is checked above.")
    notes = dict.fromkeys([*table.attrs.get("notes", []), *(note for fit in fits for note in fit.notes)])
    return [*lines, *(f"{note}." for note in notes)] or ["Nothing: every run of the table was fitted."]


def parameters(fit: Any) -> str:
    """The law with its numbers in one sentence."""
    stated = fit.to_json()
    numbers = []
    for name, value in stated["parameters"].items():
        edges = stated["intervals"].get("0.95", {}).get(name)
        numbers.append(f"{name} = {value:.5g}" + (f" (95 % {edges[0]:.4g} to {edges[1]:.4g})" if edges else ""))
    return f"{stated['formula']}, {stated['n_runs']} runs: {'; '.join(numbers)}."


def statuses(fit: Any) -> list[str]:
    order = {"warning": 0, "note": 1, "ok": 2}
    return [f"{'Warning – ' if s.severity == 'warning' else ''}{s.name}: {s.sentence}."
            for s in sorted(fit.status, key=lambda s: order[s.severity])]  # fmt: skip


def made(table: "pd.DataFrame", fits: Sequence[Any], runs_folder: str | Path | None) -> list[tuple[str, str]]:
    """Where the numbers come from: versions, devices, data, seeds, hashes."""

    versions: dict[str, set[str]] = {}
    for run in map(str, table["run"]) if runs_folder is not None else ():
        outcome = Outcome.read(Path(runs_folder) / run)  # type: ignore[arg-type]
        for name, version in (outcome.versions if outcome else {}).items():
            versions.setdefault(name, set()).add(version)
    lines = []
    if versions:
        lines.append(
            ("trained with", ", ".join(f"{name} {'/'.join(sorted(found))}" for name, found in sorted(versions.items())))
        )
    for label, column in (("on", "device"), ("data", "source"), ("data fingerprint", "data_fingerprint")):
        values = sorted({str(value) for value in table[column].dropna()}) if column in table else []
        if values:
            lines.append((label, ", ".join(shown(value) for value in values)))
    if "seconds" in table and table["seconds"].notna().any():
        lines.append(
            ("training time", f"{float(table['seconds'].sum()) / 60:.1f} minutes over all runs, start-up left out")
        )
    for fit in fits:
        drawn = f"{fit.resamples} resamples" + (f", seed {fit.seed}" if hasattr(fit, "seed") else "")
        lines.append((f"Approach {fit.approach}", f"{drawn}; SHA-256 of the fitted rows {fit.table_hash[:16]}"))
    return [*lines, ("report by", f"lmscale {lmscale.__version__}, Python {platform.python_version()}")]


def shown(path: str | Path) -> str:
    """A path as it may be printed: relative where it can be, else its name."""
    path_ = Path(path)
    if not path_.is_absolute():
        return str(path)
    return str(path_.relative_to(Path.cwd())) if path_.is_relative_to(Path.cwd()) else path_.name
