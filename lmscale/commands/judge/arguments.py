"""What `lmscale judge` takes."""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional, UseAppendAction


@dataclass(frozen=True)
class JudgeArgs:
    """Grade, compare and measure what models write: by a language model, by people, or offline."""

    texts: Positional[tuple[Path, ...]] = ()
    """Runs, runs/<sweep>/<run_id>, or a sweep, runs/<sweep>, whose models continue the prompts; or JSONL files with
    `text`, and where there are any `prompt`, `model`, `params` and `id`."""
    server: str | None = None
    """An OpenAI-compatible server that judges, such as http://localhost:8000/v1."""
    model: str | None = None
    """The judge's name on that server."""
    key_variable: str | None = None
    """Name of the environment variable that holds the server's key; it is written nowhere."""
    rubric: str = "tinystories"
    """What is asked: tinystories, or a TOML or JSON file."""
    pairs: bool = False
    """Compare the texts of different models in pairs, each in both orders, instead of grading them one by one."""
    most_pairs: int = 1000
    """Compare at most so many pairs, drawn evenly over the prompts."""
    samples: int = 1
    """Answers to every question; several show whether the judge agrees with itself."""
    temperature: float = 0.0
    """Temperature at which the judge answers."""
    answer_tokens: int = 256
    """The most tokens that an answer of the judge may have."""
    body: str | None = None
    """JSON of further fields of every request; null leaves one of ours out: {"max_tokens": null}."""
    requests_per_minute: float = float("inf")
    """Ask no faster than this many times a minute."""
    parallel: int = 4
    """How many requests are under way at once."""
    timeout: float = 60.0
    """Seconds for one answer; then, as after errors of the server, it is asked again."""
    attempts: int = 5
    """How often one request is tried before the call fails."""
    price: tuple[float, float] | None = None
    """Price of a million tokens read and of a million written, for the cost of the call."""
    dry_run: bool = False
    """Show the cost and the first question, and ask nothing."""
    human: Path | None = None
    """Grades of people as JSONL: `id` or `text` (and `prompt`), `rater`, and the rubric's criteria."""
    offline: bool = False
    """Measure without a judge: readability, distinct n-grams, repetition, self-BLEU, grammar."""
    people: Path | None = None
    """An HTML page of blinded pairs for people, to be written; with --answers, the one that they answered."""
    answers: UseAppendAction[tuple[Path, ...]] = ()
    """JSON files that people saved from the page."""
    output: Path | None = None
    """Where --answers writes what people prefer: JSONL of prompt, chosen and rejected."""
    prompts: Path | None = None
    """What runs continue: a YAML list, JSONL with `prompt`, or one a line; by default the rubric's openings."""
    max_tokens: int = 200
    """The most tokens of a continuation that a run writes."""
    text_temperature: float = 1.0
    """Temperature at which the judged models write."""
    n: int = 1
    """How many continuations each prompt gets."""
    seed: int = 0
    """Seed of the texts, of the choice of pairs and of the bootstrap."""
    resamples: int = 1000
    """Draws of the bootstrap behind each interval."""
    json: Path | None = None
    """Write every grade, row and sentence here (- or no file: to standard output, alone)."""
