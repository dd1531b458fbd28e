"""Are N, D, C and the loss counts, FLOPs and nats per token, or thousands, billions, petaFLOPs, bits, perplexity?

C/(6 N D) is near 1 under every way of counting, so a ratio near a power of a thousand is a unit; and no model has a
fraction of a parameter. A table in doubt is refused with the factors to give; `columns` with a factor is not doubted.
"""

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np

from lmscale.core.errors import UserError
from lmscale.study.tables.headers import PF_DAY, Column
from lmscale.study.tables.numerals import numbers
from lmscale.study.tables.sizes import params_of_flops

if TYPE_CHECKING:
    import pandas as pd

STATED = "units_stated"
"""Key of a table's `attrs`: canonical columns whose unit the user has stated."""
OURS = "data_fingerprint"
"""A column that only tables of this package's own sweeps have, whose units are known however small a model is."""
DECADES_OFF = 1.5
"""log10 of C/(6 N D) that no way of counting reaches: all experts for the active ones, tiny models with large heads."""
DECADES_NEAR = 0.6
"""How near to 1 a change of units must bring C/(6 N D): attention's share, embeddings, the forward pass alone."""
SPREAD = 1.0
"""Decades over the middle 80 % of rows beyond which C/(6 N D) is not one unit away, but something else than C."""
COUNTED = {1.0: "", 1e3: "thousands", 1e6: "millions", 1e9: "billions", 1e12: "trillions"}
COMPUTED = {
    1.0: "", 1e3: "thousands of FLOPs", 1e6: "megaFLOPs", 1e9: "gigaFLOPs", 1e12: "teraFLOPs", 1e15: "petaFLOPs",
    1e18: "exaFLOPs", 1e21: "zettaFLOPs", 1e24: "yottaFLOPs", PF_DAY: "petaFLOP/s-days",
}  # fmt: skip
SIZES = {"params": (1e3, 1e14), "tokens": (1e4, 1e16)}
"""Sizes of models and training sets, generously."""
RATIOS = (0.05, 3e3)
"""Tokens per parameter of most runs that were ever trained."""
FRACTIONS = 1000.0
"""Numbers all below this, some with fractions, count no parameters or tokens one by one."""
GUESSING_NATS = 12.6
"""ln of 300,000: no tokenizer in use has more tokens, and guessing costs no more nats."""


def check(table: "pd.DataFrame") -> None:
    """Raises `UserError` where the numbers of a table in canonical columns are in units of something."""
    if OURS in table:
        return
    stated = set(table.attrs.get(STATED, ()))
    values = {name: _positive(table, name) for name in ("params", "tokens") if name in table and name not in stated}
    fractions = [name for name, numbers in values.items() if _fractions(numbers)]
    for cost in ("flops", "flops_budget"):
        if {"params", "tokens", cost} <= set(map(str, table.columns)) and cost not in stated:
            _check_ratio(table, cost, fractions)
    for name in values:
        if name not in fractions:
            _refuse_some_fractions(table, name)
    if fractions:
        _refuse_fractions(fractions, values, table.attrs.get("columns", {}))


def doubts(table: "pd.DataFrame", target: str = "loss_nats") -> list[str]:
    """Sentences about units that are unlikely and yet possible."""
    if OURS in table:
        return []
    stated = set(table.attrs.get(STATED, ()))
    sentences = []
    for name, least in (("params", 1e4), ("tokens", 1e5)):
        if name in table and name not in stated and len(numbers := _positive(table, name)) and numbers.max() < least:
            sentences.append(
                f"the largest {name} is {numbers.max():.4g}: if it counts thousands, millions or billions, say so with "
                f"`columns='{name}={table.attrs.get('columns', {}).get(name, name)}*1e6'`"
            )
    sentences += _ratio_doubts(table, stated)
    if target == "loss_nats" and target in table and target not in stated:
        sentences += _loss_doubts(table, _positive(table, target))
    return sentences


def _ratio_doubts(table: "pd.DataFrame", stated: set[str]) -> list[str]:
    """A sentence where half of the runs have more or fewer tokens per parameter than runs have: units of one column."""
    if not {"params", "tokens"} <= set(map(str, table.columns)) or {"params", "tokens"} <= stated:
        return []
    params, tokens = (np.asarray(numbers(table, name), dtype=float) for name in ("params", "tokens"))
    with np.errstate(all="ignore"):
        ratio = tokens / params
    ratio = ratio[np.isfinite(ratio) & (ratio > 0)]
    middle = float(np.median(ratio)) if len(ratio) else math.nan
    if not (middle < RATIOS[0] or middle > RATIOS[1]):
        return []
    return [
        f"half of the runs have {'more' if middle > 1 else 'fewer'} than {middle:.3g} tokens per parameter: if params "
        f"or tokens count thousands, millions or billions, say so with `columns`, as params=N*1e6"
    ]


def _positive(table: "pd.DataFrame", name: str) -> np.ndarray:
    import pandas as pd

    values = np.asarray(pd.to_numeric(table[name], errors="coerce"), dtype=float)
    return values[np.isfinite(values) & (values > 0)]


def _fractions(numbers: np.ndarray) -> bool:
    return bool(len(numbers)) and bool(numbers.max() < FRACTIONS) and bool((numbers % 1 != 0).any())


def _check_ratio(table: "pd.DataFrame", cost: str, fractions: list[str]) -> None:
    """Raises `UserError` where other units of N, D and C bring C/(6 N D) from far away to near 1."""
    import pandas as pd

    columns = table[cost], params_of_flops(table), table["tokens"]
    flops, params, tokens = (np.asarray(pd.to_numeric(values, errors="coerce"), dtype=float) for values in columns)
    good = np.isfinite(flops) & np.isfinite(params) & np.isfinite(tokens) & (flops > 0) & (params > 0) & (tokens > 0)
    if not good.any():
        return
    off = np.log10(flops[good]) - np.log10(6 * params[good]) - np.log10(tokens[good])
    far = np.abs(off) > DECADES_OFF
    if not far.any() or (not far.all() and not _few(off, far)):
        return
    low, high = np.quantile(off[far], [0.1, 0.9])
    if high - low > SPREAD:
        return
    units = _units(float(np.median(off[far])), np.median(params[good][far]), np.median(tokens[good][far]), fractions)
    if units is None:
        return
    columns = table.attrs.get("columns", {})
    names = dict(zip(("params", "tokens", cost), units, strict=True))
    words = [f"{name} in {(COMPUTED if name == cost else COUNTED)[unit]}" for name, unit in names.items() if unit != 1]
    pairs = [f"{name}={columns.get(name, name)}*{_factor(unit)}" for name, unit in names.items() if unit != 1]
    rows = "" if far.all() else f" in {int(far.sum())} of {len(far)} rows"
    first = "" if far.all() or "run" not in table else f" (first: {table['run'][good][far].iloc[0]})"
    advice = f"give `columns='{','.join(pairs)}'`" if far.all() else "bring all rows to one unit"
    label = "C" if cost == "flops" else "the budget"
    right = ",".join(pair.rpartition("*")[0] + "*1" for pair in pairs)
    raise UserError(
        f"{label}/(6 N D) is near 1e{round(float(np.median(off[far])))}{rows}{first}, where every way of counting "
        f"gives about 1: the numbers look like {' and '.join(words)}; {advice}, or `{right}` where they are right"
    )


def _factor(unit: float) -> str:
    """1e6, 8.64e19."""
    return "8.64e19" if unit == PF_DAY else f"1e{round(math.log10(unit))}"


def _few(off: np.ndarray, far: np.ndarray) -> bool:
    """Whether the rows that are far off stand apart from others that are near 1."""
    return bool(np.abs(off[~far]).max() < DECADES_OFF) and bool(np.ptp(off[far]) < SPREAD)


def _units(off: float, params: float, tokens: float, fractions: list[str]) -> tuple[float, float, float] | None:
    """Units of N, D and C that explain a ratio 10^off with sizes that occur; the plainest of them."""
    fitting = []
    for n, d, c in itertools.product(COUNTED, COUNTED, COMPUTED):
        left = off + math.log10(c / (n * d))
        sizes = all(
            SIZES[name][0] <= size <= SIZES[name][1] for name, size in (("params", n * params), ("tokens", d * tokens))
        )
        whole = all(unit > 1 for name, unit in (("params", n), ("tokens", d)) if name in fractions)
        if abs(left) < DECADES_NEAR and sizes and whole and (n, d, c) != (1, 1, 1):
            rarity = c in (1e3, 1e6, 1e24) or (n == 1e12)
            fitting.append(
                (
                    not RATIOS[0] < d * tokens / (n * params) < RATIOS[1],
                    sum(unit != 1 for unit in (n, d, c)),
                    rarity,
                    abs(math.log10(d * tokens / (n * params)) - 1.3),
                    (n, d, c),
                )
            )
    return min(fitting)[-1] if fitting else None


def _refuse_some_fractions(table: "pd.DataFrame", name: str) -> None:
    """Raises `UserError` where a few rows hold small fractions and the others count in thousands or more."""
    import pandas as pd

    values = np.asarray(pd.to_numeric(table[name], errors="coerce"), dtype=float)
    values = np.where(np.isfinite(values), values, 0.0)
    small = (values > 0) & (values < FRACTIONS) & (values % 1 != 0)
    if small.any() and values.max() > FRACTIONS**2:
        first = f"{values[small][0]:.6g}" + (f" in run {table['run'][small].iloc[0]}" if "run" in table else "")
        raise UserError(
            f"{name} are fractions in {int(small.sum())} of {len(values)} rows (first: {first}), and up to "
            f"{values.max():.4g} in others: rows look to be in different units; bring all to one unit, or "
            f"`columns='{name}={table.attrs.get('columns', {}).get(name, name)}*1'` where they are right"
        )


def _refuse_fractions(names: list[str], values: dict[str, np.ndarray], columns: dict[str, str]) -> None:
    name = names[0]
    example = f"{values[name].min():.4g} to {values[name].max():.4g}"
    pairs = ",".join(f"{each}={columns.get(each, each)}*1e9" for each in names)
    fractions = values[name][values[name] % 1 != 0]
    if np.abs(fractions * 1000 - np.round(fractions * 1000)).max() < 1e-9:
        example += f"; {fractions[0]:.3f} may also be {1000 * fractions[0]:.0f} with a separator, to be left out"
    raise UserError(
        f"{' and '.join(names)} are fractions ({name}: {example}), which count no whole {name}: if they are in "
        f"millions or billions, say so with `columns='{pairs}'` (1e6 for millions, 1 where they are right)"
    )


def _loss_doubts(table: "pd.DataFrame", losses: np.ndarray) -> list[str]:
    import pandas as pd

    name = next((name for name in ("vocab", "vocab_size", "n_vocab") if name in table), None)
    most, why = GUESSING_NATS, "no tokenizer is so large that guessing costs more than 12.6 nats"
    if name is not None:
        vocab = np.asarray(pd.to_numeric(table[name], errors="coerce"), dtype=float)
        if np.isfinite(vocab).any() and np.nanmin(vocab) > 1:
            most = float(np.log(np.nanmax(vocab)))
            why = f"guessing among {np.nanmax(vocab):.0f} tokens costs {most:.3g} nats"
    if len(losses) and float(np.median(losses)) > most * 1.02:
        column = table.attrs.get("columns", {}).get("loss_nats", "loss")
        return [
            f"half of the losses exceed {most:.3g}, and {why}: are they perplexities or bits? "
            f"`columns='loss={column}*0.693147'` takes bits; of a perplexity give the logarithm"
        ]
    return []


def converted(values: np.ndarray, name: str, column: Column) -> tuple[np.ndarray, str]:
    """A column's numbers in our units, and the sentence that says so; empty where nothing was to do.

    Raises `UserError` for bits per byte, which are no nats per token.
    """
    unit = column.unit
    if math.isnan(unit.factor):
        raise UserError(
            f"the column {column.name!r} is in {unit.text}, which depends on the tokenizer: give a loss in nats per "
            f"token, or `columns='loss={column.name}*1'` to fit it as it is"
        )
    if unit.log:
        with np.errstate(all="ignore"):
            logs = np.log(values)
        return logs, f"{name} is the natural logarithm of {column.name!r}, a perplexity"
    if unit.factor == 1:
        return values, ""
    stated = "as was stated" if unit.stated else f"as its name says ({unit.text})"
    return values * unit.factor, f"{name} is {column.name!r} times {unit.factor:.6g}, {stated}"
