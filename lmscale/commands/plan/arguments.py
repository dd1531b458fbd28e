"""The arguments of `lmscale plan`. Importing this loads nothing heavy."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from lmscale.commands.constraints import CHOICES, VALUES
from lmscale.commands.several_values import Joined


@dataclass(frozen=True)
class PlanArgs:
    """Print every run of a sweep with its size, length, cost and time, and what the sweep can identify; start nothing.

    With --improve: propose runs to add. With --optimal: the run that a fitted law predicts to be best for a budget.
    """

    sweep: Positional[Path | None] = None
    """A file that defines SWEEP, a plan that --json wrote, or the config.json of one run."""
    runs: Path = Path("runs")
    """Folder that holds one folder per sweep."""
    json: Path | None = None
    """Write the plan, with everything that is printed, here; `lmscale run` takes the file (- or no file: to
    standard output, alone)."""
    device: str | None = None
    """Where the sweep is to run: h200, h100, a100, a100-40, b200, gb200, v4, v5e, v5p or v6e; by default the sweep's
    own choice, else this machine."""
    devices: int = 1
    """Number of these devices."""
    compile: str | None = None
    """Compile every distinct run for a machine that need not be here: v5e-16, v5p-128, v6e-8, h100x8, a100-80x4,
    h200x8, b200x8, gb200x72, or FILE.txtpb:8 for GPUs that a file describes to XLA. Says whether it fits, its memory,
    kernels and collectives, and the least time of a step; outcomes are kept."""
    compile_effort: Literal["low", "full"] = "low"
    """How hard a TPU's compiler tries to make programs fast: as little as it can, in a quarter of the time, unless
    that leaves open whether they fit; or as in training. With little effort they take somewhat more memory."""
    pack: int = 1
    """Memory of up to this many runs of one shape and length in one program, as `lmscale run --pack` trains them."""
    utilisation: float | None = None
    """Share of the device's peak that training reaches; by default 0.35 is assumed."""
    price: float | None = None
    """Price of one device for an hour, in any currency."""
    convention: Literal[
        "flops", "flops_6n", "flops_kaplan", "flops_with_head", "flops_full_attention", "flops_deepseek"
    ] = "flops"
    """How the column C is counted."""
    prior: str | None = None
    """The law to judge the design by: a published one by name, or a file of `lmscale fit --json`; by default the refit
    of the published Chinchilla runs (for repeated data, Muennighoff's)."""
    noise: float | None = None
    """Standard deviation of a run's loss about the law, in nats; by default 0.01, or that of the fitted runs of a
    --prior FITS.json."""
    shared_noise: float = 0.0
    """Share of that variance which the branches of a trunk have in common."""
    discrepancy: float | Literal["fit"] | None = None
    """How far the truth may lie from the law, smoothly, as a standard deviation of ln L (0.02 is 2 % of the loss), or
    fit: as far as the runs of a --prior FITS.json cannot rule out, whether or not its law fits them. By default the law
    is taken to be exact, that of a fit, too. --improve then adds runs nearer to the target."""
    target: float | None = None
    """Training FLOPs at which the law is to be used; by default the largest held-out run, else ten times the largest
    run."""
    force: bool = False
    """Accept a plan that cannot identify its law."""
    improve: bool = False
    """Propose the runs to add that narrow the target quantity most per FLOP."""
    spend: float | None = None
    """Training FLOPs that --improve may spend."""
    most: int = 12
    """Most runs that --improve may add."""
    quantity: Literal["ratio", "params", "loss"] = "ratio"
    """What --improve narrows at the target: D/N, N* or the loss."""
    optimal: Path | None = None
    """A file of `lmscale fit --json`."""
    flops: float | None = None
    """Training FLOPs of the run that --optimal plans; with --inference-tokens those of training and inference."""
    inference_tokens: float | None = None
    """Tokens that the model of --optimal will read in its life."""
    memory: str | None = None
    """Most memory of its weights in bfloat16, as in 80GB; of a law with experts, of the weights of all experts."""
    unique_tokens: float | None = None
    """Tokens of text that there are: the most that it is trained on, or what a law of repeated data repeats."""
    teacher_params: float | None = None
    """N of a teacher, whose logits --flops pays too."""
    teacher_tokens: float | None = None
    """D of that teacher where --flops pays its training too."""
    given: Annotated[Mapping[str, float] | None, arg(metavar="experts=8"), VALUES, Joined()] = None
    """Values of the law's inputs besides params and tokens, for --optimal and --improve."""
    choose: Annotated[Mapping[str, tuple[float, float]] | None, arg(metavar="experts=1:64"), CHOICES, Joined()] = None
    """Inputs of the law that --optimal chooses beside params and tokens, each within a range."""
    tokens_per_param: float | None = None
    """D/N of that run; by default the law's optimum."""
