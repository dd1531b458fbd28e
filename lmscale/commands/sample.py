"""`lmscale sample`: a trained model goes on with a prompt."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from tyro.conf import Positional, UseAppendAction

from lmscale.commands.answer import write_answer
from lmscale.commands.next_step import print_next
from lmscale.core.config import check, loss_unit
from lmscale.core.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from lmscale.lm.use.load import Opened


@dataclass(frozen=True)
class SampleArgs:
    """Let a trained model continue prompts."""

    run: Positional[Path | None] = None
    """The folder of a run, runs/<sweep>/<run_id>."""
    sweep: Path | None = None
    """Instead of a run: runs/<sweep>, whose models all continue the prompts, the one with least compute first."""
    prompt: UseAppendAction[Annotated[tuple[str, ...], tyro.conf.arg(aliases=("-p",))]] = ()
    """Text to continue, or - for standard input without its last line break; several are continued together. None or
    an empty one begins a document."""
    max_tokens: int = 128
    """Tokens of a continuation, at most."""
    temperature: float = 1.0
    """Logits are divided by it; 0 takes the likeliest token each time."""
    top_k: int | None = None
    """Draw from the k likeliest tokens only."""
    top_p: float = 1.0
    """Draw from the fewest likeliest tokens whose probability together is at least p."""
    min_p: float = 0.0
    """Draw from tokens at least this fraction as likely as the likeliest."""
    repetition_penalty: float = 1.0
    """Above 1, tokens that have occurred become rarer."""
    beam: int | None = None
    """Beam search with so many beams, instead of drawing."""
    length_penalty: float = 1.0
    """Exponent of the length by which beam search divides ln p; 0 prefers short continuations."""
    seed: int = 0
    """Seed of the draws: the same one gives the same text."""
    n: int = 1
    """Continuations of each prompt."""
    stop: UseAppendAction[tuple[str, ...]] = ()
    """Texts at which a continuation ends; they are not part of it."""
    step: int | None = None
    """Checkpoint after this many updates; by default the newest."""
    json: Path | None = None
    """Write the continuations here (- or no file: to standard output, alone)."""


def main(args: SampleArgs, console: "Console") -> None:
    """Sample and print. Raises `UserError` for options that contradict each other, and as `use.generate` does."""
    _check(args)
    args = replace(args, prompt=tuple(map(_prompt, args.prompt)) or ("",))
    from lmscale.lm.devices import machine

    machine.set_up()
    from lmscale.lm.use.load import open_run

    if args.sweep is not None:
        values: Any = [_of_model(folder, label, args, console) for folder, label in _models(args.sweep)]
        if problems := [each["error"] for each in values if "error" in each]:
            check(len(problems) < len(values), f"no model of {args.sweep} continues the prompts: {problems[0]}")
        value: Any = {"models": values}
    else:
        assert args.run is not None
        value = _continue(open_run(args.run, args.step), args, console)
    write_answer(args.json, value)
    if args.run is not None:
        print_next("eval", args.run, "FORMAT:PATH", stderr=True)
    else:
        print_next("report", args.sweep, stderr=True)


def _check(args: SampleArgs) -> None:
    from lmscale.lm.use.sampling import Sampling

    if (args.run is None) == (args.sweep is None):
        raise UserError("name what is to write: either a run, runs/<sweep>/<run_id>, or --sweep runs/<sweep>")
    check(args.n >= 1, f"--n {args.n}: at least 1 continuation of each prompt")
    check(args.prompt.count("-") <= 1, "standard input is one prompt: give --prompt - once")
    check(args.max_tokens >= 1, f"--max-tokens {args.max_tokens}: at least 1")
    check(args.sweep is None or args.step is None, "--step is of one run: leave it out with --sweep")
    sampling = _sampling(args)
    if args.beam is not None:
        check(args.beam >= 1, f"--beam {args.beam}: at least 1")
        drawn = sampling != Sampling() or args.seed != 0
        check(not drawn, "beam search draws nothing: leave out temperature, top-k, top-p, min-p, penalty and seed")
        check(args.n <= args.beam, f"--n {args.n} of --beam {args.beam}: no more continuations than beams")
        check(not args.stop, "beam search ends at the end of a document: leave out --stop")
    else:
        check(args.length_penalty == 1.0, "--length-penalty is of beam search: give --beam too")


def _prompt(word: str) -> str:
    """The text of a prompt. Raises `UserError` where standard input cannot be read or is not UTF-8."""
    from lmscale.commands.score.text_file import STANDARD_INPUT, read_standard_input

    return read_standard_input().decode().removesuffix("\n") if word == STANDARD_INPUT else word


def _sampling(args: SampleArgs) -> Any:
    from lmscale.lm.use.sampling import Sampling

    return Sampling(
        temperature=args.temperature,
        top_k=args.top_k,
        top_p=args.top_p,
        min_p=args.min_p,
        repetition_penalty=args.repetition_penalty,
    )


def _continue(opened: "Opened", args: SampleArgs, console: "Console") -> dict[str, Any]:
    """Continue every prompt with one model: print it, and return what `--json` writes."""
    from lmscale.lm.use.generate import generate

    quiet = str(args.json) == "-"
    prompts = [prompt for prompt in args.prompt for _ in range(args.n)]
    if args.beam is not None:
        return _search(opened, args, console, quiet)
    alone = len(prompts) == 1 and not quiet
    if alone:
        _write(prompts[0])
    generated = generate(
        opened.run,
        prompts,
        max_tokens=args.max_tokens,
        sampling=_sampling(args),
        seed=args.seed,
        stop=args.stop,
        mesh=opened.mesh,
        show=(lambda _, added: _write(added)) if alone else None,
    )
    if alone:
        _write("\n")
    elif not quiet:
        for completion in generated.completions:
            _write(f"{completion.prompt}{completion.text}\n\n")
    if not quiet:
        _note(console, f"{generated.tokens_per_second:,.0f} tokens/s, {_endings(generated.completions)}")
    return {
        "completions": [vars(completion) for completion in generated.completions],
        "tokens_per_second": generated.tokens_per_second,
    }


def _search(opened: "Opened", args: SampleArgs, console: "Console", quiet: bool) -> dict[str, Any]:
    import time

    import jax

    from lmscale.lm.use.beam import beam_search
    from lmscale.lm.use.generate import encode_prompt

    completions, tokens, started = [], 0, time.perf_counter()
    with jax.set_mesh(opened.mesh):
        for prompt in args.prompt:
            hypotheses = beam_search(
                opened.run,
                encode_prompt(prompt, opened.run.tokenizer),
                beams=args.beam or 1,
                max_tokens=args.max_tokens,
                length_penalty=args.length_penalty,
            )
            for one in hypotheses[: args.n]:
                text = opened.run.tokenizer.decode(list(one.tokens))
                tokens += len(one.tokens)
                reason = "stop" if one.ended else "length"
                completion = {"prompt": prompt, "text": text, "tokens": list(one.tokens), "finish_reason": reason}
                completions.append({**completion, "logprob": one.logprob})
                if not quiet:
                    _write(f"{prompt}{text}\n")
                    _note(console, f"ln p = {one.logprob:.4f}")
    return {"completions": completions, "tokens_per_second": tokens / (time.perf_counter() - started)}


def _models(sweep: Path) -> list[tuple[Path, str]]:
    """The run folders of a sweep, by compute and at one compute by size, and a title for each."""
    from lmscale.core.counting import count
    from lmscale.core.plans import read_plan
    from lmscale.core.quantities import model_size, quantity
    from lmscale.study.grouping import group_index

    _, runs = read_plan(sweep)
    counted = [count(run.config) for run in runs]
    budgets = group_index([counts.flops for counts in counted])  # whole batches move the C of runs of one budget
    titled = []
    for run, counts, budget in zip(runs, counted, budgets):
        size = model_size(counts.params, counts.active_params)
        title = f"N = {size}, D = {quantity(counts.tokens)}, C = {quantity(counts.flops)} FLOPs"
        titled.append((int(budget), counts.params, sweep / run.config.run_id, title))
    return [(folder, title) for *_, folder, title in sorted(titled, key=lambda each: each[:2])]


def _of_model(folder: Path, title: str, args: SampleArgs, console: "Console") -> dict[str, Any]:
    """The continuations of one model of a sweep; what stands in the way is said, and the next one goes on."""
    from lmscale.core.results import Outcome
    from lmscale.lm.use.load import open_run

    quiet = str(args.json) == "-"
    try:
        outcome = Outcome.read(folder)
        opened = open_run(folder)
        unit = loss_unit([opened.run.config.stage])
        loss = "" if outcome is None or outcome.loss_nats is None else f", {outcome.loss_nats:.3f} {unit}"
        if not quiet:
            _note(console, f"{folder.name}: {title}{loss}")
        return {"run": folder.name, **_continue(opened, args, console)}
    except UserError as error:
        _note(console, f"{folder.name}: {error}", error=True)
        return {"run": folder.name, "error": str(error)}


def _write(text: str) -> None:
    """Show text at once."""
    print(text, end="", flush=True)


def _note(console: "Console", sentence: str, error: bool = False) -> None:
    """A line about the text, told apart from it."""
    if error:
        print(sentence, file=sys.stderr)
    else:
        console.print(sentence, style="dim", markup=False, highlight=False)


def _endings(completions: Any) -> str:
    stopped = sum(completion.finish_reason == "stop" for completion in completions)
    return f"{stopped} of {len(completions)} ended by themselves" if stopped else "none ended by itself"
