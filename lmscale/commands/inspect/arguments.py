"""The arguments of `lmscale inspect`."""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional, UseAppendAction

UNITS = ("heads", "attention", "mlps")
"""Kinds of units whose effects are measured where none is named: those that need neither time nor equal lengths."""


@dataclass(frozen=True)
class InspectArgs:
    """Look inside trained models: attention, predictions layer by layer, and which parts cause an answer.

    --text shows what every head attends to and what each layer would predict. --task and --pairs measure on pairs of
    prompts that differ in one fact how much of its effect passes through each head, layer, position or neuron (causal
    mediation, activation patching). --heads finds induction heads on repeated random tokens, and compares what is lost
    without them with what is lost without random ones.
    """

    runs: Positional[tuple[Path, ...]] = ()
    """The folders of one run or several, runs/<sweep>/<run_id>."""
    sweep: Path | None = None
    """Instead of runs: every run of runs/NAME that has a checkpoint, the smallest first."""
    text: str | None = None
    """A text to read, or - for standard input."""
    head: str | None = None
    """The head whose attention to the text is listed and is shown first on the page, as LAYER.HEAD, counted from 0."""
    task: str | None = None
    """Make pairs from a task, as `lmscale eval` reads it: FORMAT:PATH or synthetic:tasks(...)."""
    pairs: Path | None = None
    """Read pairs from a JSONL file: every line an object with prompt, answer, other_prompt and other_answer."""
    units: UseAppendAction[tuple[str, ...]] = ()
    """What is patched: heads, attention, mlps, positions, neurons; may be given several times. Neurons are many, and
    are followed by the smallest share of them that keeps 90 % of the task's score."""
    most_pairs: int = 32
    """Pairs of every task, at most."""
    heads: bool = False
    """Score all heads on repeated random tokens, and ablate the strongest induction heads."""
    html: Path | None = None
    """Write a self-contained page: the text with the attention of every head, what each layer predicts, and effects, of
    up to three models side by side."""
    json: Path | None = None
    """Write everything that was measured, of several models as a list (- or no file: to standard output, alone)."""
    seed: int = 0
    """Seed of random tokens, of pairs that are made and of intervals."""
    step: int | None = None
    """Checkpoint after this many updates; by default the newest."""
