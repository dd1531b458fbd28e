"""Numbers as people read them: 33.4k parameters, 3 min 05 s."""

import math
from typing import Any

THOUSANDS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))

Z_95 = 1.959964
"""Half the width of a normal 95 % interval, in standard deviations."""


def quantity(value: float) -> str:
    """Three significant digits with the letter of a thousand: 33.4k, 1.2M, 7.25B."""
    for size, letter in THOUSANDS:
        if abs(value) >= 0.9995 * size:  # 999,900 is 1M, not 1e+03k
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def model_size(params: float, active_params: float) -> str:
    """N of a model: "33.4k", of one with experts also what a token passes of it: "2.1M (412k active)"."""
    return quantity(params) + (f" ({quantity(active_params)} active)" if active_params != params else "")


def run_name(params: float, active_params: float, tokens: float, peak_lr: float, seed: int) -> str:
    """A run as people name it: "N 33.4k D 1.2M lr 0.01 s0", s for its seed."""
    return f"N {model_size(params, active_params)} D {quantity(tokens)} lr {peak_lr:.2g} s{seed}"


def finite_number(value: Any) -> float | None:
    """A value as a number; None for what is none, is not finite or is more than a float can hold."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def counted(number: int, noun: str) -> str:
    """A number of things: "1 run", "2,000 runs"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def in_one_program(packed: int) -> str:
    """What follows the memory of a program of several runs: " for 8 runs in one program"; "" where it has one."""
    return f" for {packed} runs in one program" if packed > 1 else ""


def duration(seconds: float) -> str:
    """12 s, 3 min 05 s, 2 h 10 min."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def rough_duration(seconds: float) -> str:
    """An estimate, no finer than it is good: 12 s, 3 min 10 s, 57 min, 2 h 10 min."""
    if seconds < 60:
        return duration(seconds)
    if seconds < 595:
        return duration(10 * round(seconds / 10))
    return duration(60 * round(seconds / 60)).removesuffix(" 00 s")
