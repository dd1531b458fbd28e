"""The names of columns: ours, the usual ones, and units that a header states, as in "N (M)", tokens_B, "loss (bits)".

`--columns` maps our names to the table's, each with a factor where the table counts in another unit:
params=N*1e6,tokens=`D, total`*1e9. A factor is taken at its word; without one, the header's unit is.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lmscale.core.errors import UserError, nearest
from lmscale.study.laws import KNOWN_INPUTS

# Canonical name -> names it goes by, best first. The first of them that a table has is taken.
MOST_COLUMNS = 20_000
LONGEST_STATED = 200
"""Letters in a name that may state a unit: a longer one is no quantity, and the search would take minutes."""
LONGEST_NAME = 10_000
"""Letters in the name of a column: every name is compared with those that are recognised, in many ways."""

KNOWN = {
    "run": ("run", "run_id", "run_name", "name"),
    "params": ("params", "n_params", "num_params", "parameters", "N"),
    "active_params": (
        "active_params",
        "n_active_params",
        "num_active_params",
        "active_parameters",
        "activated_params",
        "N_active",
    ),
    "tokens": ("tokens", "n_tokens", "num_tokens", "D"),
    "flops": ("flops", "C"),
    "loss_nats": ("loss_nats", "loss"),
    "flops_budget": ("flops_budget", "isoflop_budget", "budget"),
    "held_out": ("held_out",),
    "group": ("group",),
    "unique_tokens": ("unique_tokens", "n_unique_tokens"),
    "trunk": ("trunk",),
    "seed": ("seed",),
    "experts": ("experts", "n_experts", "num_experts"),
    "state": ("state", "_state", "status", "run_state", "sys/state", "run_status", "info.status"),
}
MEASURED = ("params", "active_params", "tokens", "flops", "loss_nats", "seed")
"""Columns that exports of trackers keep in mappings: config.params, summary.loss."""
WITHIN = ("config.", "summary.", "params.", "metrics.")
SHORT = {"loss": "loss_nats", "budget": "flops_budget"}
NUMBERS = ("params", "active_params", "tokens", "flops", "loss_nats", "flops_budget", "unique_tokens")
INPUT_NAMES = {
    "streams": ("streams", "n_streams", "num_streams", "parallel_size"),
    "teacher_loss": ("teacher_loss", "teacher_loss_nats"),
    "finetuning_tokens": ("finetuning_tokens", "stage_tokens"),
}
"""Inputs of laws -> names they go by; any other input goes by its own."""
OTHERS = frozenset((*KNOWN_INPUTS, "epochs", "learning_rate", "warmup_fraction", "schedule", "fraction_of_schedule"))
"""Further columns that some law or check reads."""

LOSSES = frozenset(one.name for one in KNOWN_INPUTS.values() if one.role == "loss")
SIZES = frozenset(one.name for one in KNOWN_INPUTS.values() if one.role in ("size", "data"))

COUNTS = {
    "k": 1e3, "thousand": 1e3, "thousands": 1e3, "m": 1e6, "mn": 1e6, "mio": 1e6, "million": 1e6, "millions": 1e6,
    "mega": 1e6, "b": 1e9, "bn": 1e9, "g": 1e9, "billion": 1e9, "billions": 1e9, "giga": 1e9, "t": 1e12,
    "tn": 1e12, "tera": 1e12, "trillion": 1e12, "trillions": 1e12, "p": 1e15, "peta": 1e15, "e": 1e18,
    "exa": 1e18, "z": 1e21, "zetta": 1e21, "y": 1e24, "yotta": 1e24,
}  # fmt: skip
"""What a letter or word multiplies by."""
PF_DAY = 1e15 * 86400
"""FLOPs of one petaFLOP/s for a day (Kaplan et al. 2020, arXiv:2001.08361)."""
STATED = re.compile(
    r"(?P<base>.*?)[\s_]*(?:[(\[]\s*(?:in\s+)?(?P<bracket>[^)\]]+?)\s*[)\]]|(?:,\s*|\s+|_)in[\s_]+(?P<words>\S+)"
    r"|,\s*(?P<after>\S+)|\s*[/x×]\s*(?P<over>1[0e]\S+)|[_\s](?P<end>[^\s_]+))",
    re.IGNORECASE,
)
POWER = re.compile(r"[x×*]?\s*(?:1e\+?(\d{1,2})|10\s*(?:\^|\*\*)\s*(\d{1,2}))", re.IGNORECASE)
COMPUTE = re.compile(r"(k|m|g|t|p|e|z|y|kilo|mega|giga|tera|peta|exa|zetta|yotta)?[-_ ]?flops?", re.IGNORECASE)
DAYS = re.compile(r"(?:pf|pfs|pflops?|pflop/s|pf/s|petaflops?|petaflop/s)[-_ ]*days?", re.IGNORECASE)
TIME = re.compile(r".*(?:hours?|days?|[-_ ]h|seconds?)", re.IGNORECASE)
BITS_PER_BYTE = re.compile(r".*(?:bpb|bpc|bits?[-_ /]*(?:per)?[-_ /]*(?:byte|char)).*", re.IGNORECASE)
BITS = re.compile(r"bits?(?:[-_ /]*(?:per)?[-_ /]*tokens?)?", re.IGNORECASE)
LOGARITHM = re.compile(r"(?:log(?:10|2|e)?|ln|lg)[_(].+")
"""A plain header of logarithms; of a loss it may be the log loss, which is one."""
PERPLEXITY = re.compile(r"ppl|perplexity", re.IGNORECASE)
MEASURED_ON = re.compile(
    r"(?:^|.*[_/.])(?:val|valid|validation|eval|test|final)[_/.]|[_/.](?:val|valid|validation|eval|test|final)$"
)
"""What a measured quantity is measured on, in a plain header."""
NATS = re.compile(r"nats?(?:[-_ /]*(?:per)?[-_ /]*tokens?)?", re.IGNORECASE)
FACTOR = re.compile(r"(?P<column>.+?)\s*\*\s*(?P<factor>[\d.eE+-]+)")
PAIR = re.compile(r"((?:[^,`]|`[^`]*`)+)")


@dataclass(frozen=True)
class Unit:
    """How a column's numbers become ours: multiplied, or the logarithm taken."""

    factor: float = 1.0
    log: bool = False
    text: str = ""
    """The unit as the header or the mapping states it; empty where none is stated."""
    stated: bool = False
    """Whether the mapping gives it."""


@dataclass(frozen=True)
class Column:
    """A column of the source, and its unit."""

    name: str
    unit: Unit = Unit()


def plain(header: str) -> str:
    """A header in lower case, its words joined by underscores."""
    return re.sub(r"[\s\-_]+", "_", header.strip(" #\ufeff").lower())


def find(name: str, present: Sequence[str]) -> Column | None:
    """The column that goes by a canonical name: by its usual names, in other case or spelling, with a unit, nested."""
    usual = _usual(name)
    if exact := next((other for other in usual if other in present), None):
        return Column(exact)
    lower = {other for other in usual if len(other) > 1}
    spelled = [other for other in present if plain(other) in lower]
    if spelled:
        return Column(spelled[0]) if len(spelled) == 1 else None
    if name in NUMBERS and (stated := [column for other in present if (column := _with_unit(other, name, lower))]):
        return stated[0] if len(stated) == 1 else None
    if name in MEASURED:
        ends = [f"{prefix}{other}{end}" for end in ("", ".value") for other in usual for prefix in WITHIN]
        return next((Column(other) for other in ends if other in present), None)
    return None


def _usual(name: str) -> tuple[str, ...]:
    """The names that a column goes by, best first."""
    return KNOWN.get(name) or INPUT_NAMES.get(name, (name,))


def _with_unit(header: str, name: str, lower: set[str]) -> Column | None:
    """A header that is a usual name with a unit, or one of a perplexity; None for any other."""
    base, unit = split_unit(header, name)
    if unit is None or math.isnan(unit.factor):
        return None
    if unit.log:
        return Column(header, unit) if PERPLEXITY.fullmatch(MEASURED_ON.sub("", plain(header))) else None
    return Column(header, unit) if base.strip(" #") in _usual(name) or plain(base) in lower else None


def stated_unit(column: str, name: str) -> Unit:
    """The unit that the header of a mapped column states. Raises `UserError` for one that has no factor."""
    _, unit = split_unit(column.rpartition(".")[2] or column, name)
    return unit or Unit()


def split_unit(header: str, name: str) -> tuple[str, Unit | None]:
    """A header's name and unit as a column of `name`; None where it states no unit.

    Raises `UserError` for a unit from which the numbers cannot be had: GPU-hours, bits per byte.
    """
    if len(header) > LONGEST_STATED:
        return header, None
    if name in LOSSES and (unit := _loss_unit(header)) is not None:
        return "loss", unit
    match = STATED.fullmatch(header.strip())
    if match is None:
        return header, None
    text = next(group for group in match.group("bracket", "words", "after", "over", "end") if group)
    base = match["base"] or header
    if name in LOSSES:
        return base, _loss_unit(text)
    if name in ("flops", "flops_budget"):
        return base, _compute_unit(text, base, bool(match["bracket"] or match["words"] or match["after"]))
    factor = _power(text) or (COUNTS.get(text.lower()) if name in NUMBERS or name in SIZES else None)
    return base, None if factor is None else Unit(factor, text=text)


def _power(text: str) -> float | None:
    match = POWER.fullmatch(text)
    return 10.0 ** int(match[1] or match[2]) if match else None


def _compute_unit(text: str, base: str, certain: bool) -> Unit | None:
    if DAYS.fullmatch(text):
        return Unit(PF_DAY, text=text)
    if match := COMPUTE.fullmatch(text):
        prefix = (match[1] or "").lower()
        return Unit({"": 1.0, "kilo": 1e3}.get(prefix) or COUNTS[prefix], text=text)
    if factor := _power(text) or COUNTS.get(text.lower()):
        return Unit(factor, text=text)
    if certain and TIME.fullmatch(text):
        raise UserError(
            f"the column {base!r} is in {text}, which are no FLOPs: leave it out, or name a column of FLOPs with "
            f"`columns`"
        )
    return None


def _loss_unit(text: str) -> Unit | None:
    if BITS_PER_BYTE.fullmatch(text):
        return Unit(math.nan, text="bits per byte")
    if PERPLEXITY.search(text):
        return Unit(log=True, text="perplexity")
    if BITS.fullmatch(text):
        return Unit(math.log(2), text=text)
    return Unit(text=text) if NATS.fullmatch(text) else None


def parse_columns(columns: Mapping[str, str] | str | None, inputs: Sequence[str] = ()) -> dict[str, str]:
    """{canonical name: source column, with its factor} from a mapping or "params=n_params*1e6,loss=loss".

    `inputs` are names that a law reads besides the known ones. Raises `UserError` for a bad pair.
    """
    if not columns:
        return {}
    if isinstance(columns, str):
        columns = _pairs(columns)
    if not isinstance(columns, Mapping) or not all(isinstance(item, str) for pair in columns.items() for item in pair):
        raise UserError("`columns` maps our names to the table's, both as text: {'params': 'n_params'}")
    columns = {SHORT.get(name, name): column.strip() for name, column in columns.items()}
    for name in columns:
        if name not in KNOWN and not name.isidentifier():
            raise UserError(f"`columns` cannot name a column {name!r}{nearest(name, [*KNOWN, *SHORT])}")
        if not (
            name in KNOWN
            or name in OTHERS
            or name in inputs
            or name.startswith(("params_", "active_params_", "share_"))
        ):
            near = nearest(name, [*KNOWN, *SHORT, *OTHERS, *inputs])
            raise UserError(f"`columns` maps to {name!r}, which no fit reads{near}")
    return columns


def _pairs(text: str) -> dict[str, str]:
    pairs = [pair.partition("=") for pair in PAIR.findall(text) if pair.strip()]
    if bad := [name for name, sign, column in pairs if not (sign and column.strip())]:
        raise UserError(
            f"`columns` has {bad[0]!r} without a source column: write pairs as in params=n_params,loss=loss"
        )
    names = [SHORT.get(name.strip(), name.strip()) for name, _, _ in pairs]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"`columns` names {twice[0]!r} twice: give it one column")
    return {name.strip(): column for name, _, column in pairs}


def mapped(name: str, given: str, present: Sequence[str], source: object, likely: Sequence[str] = ()) -> Column:
    """The source's column that `columns` gives for a canonical name.

    Raises `UserError` where there is none; it names the nearest of those that are `likely` to hold this.
    """
    bare = given.replace("`", "").strip()
    if bare in present:
        if name not in LOSSES and LOGARITHM.fullmatch(plain(bare)):
            raise UserError(
                f"the column {bare!r} holds logarithms, as its name says: give a column of {name} themselves, or "
                f"`columns='{name}={bare}*1'` where they are"
            )
        return Column(bare, stated_unit(bare, name))
    if match := FACTOR.fullmatch(bare):
        column, text = match["column"], match["factor"]
        try:
            factor = float(text)
        except ValueError:
            factor = math.nan
        if column in present and not 0 < factor < math.inf:
            raise UserError(f"`columns` multiplies {column!r} by {text}: a factor is a positive number, as in N*1e6")
        if column in present:
            return Column(column, Unit(factor, text=text, stated=True))
        bare = column
    raise UserError(f"{source} has no column {bare!r} (asked for as {name}){nearest(bare, likely or present)}")
