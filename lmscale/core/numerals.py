"""Numbers as a reader takes them in: 26.1k, 1,040, 3×10¹²."""

import math


def compact(value: float | None, digits: int = 3) -> str:
    """A count in few characters: 26.1k, 1.40M, 67.3B; "–" where there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size * (1 - 0.5 * 10.0**-digits):
            return f"{value:.2e}" if value >= 1e15 else f"{_digits(value / size, digits)}{letter}"
    return _digits(value, digits)


def number(value: float) -> str:
    """Three digits, thousands set apart, a power of ten from a million on: 20.1, 24.0, 8, 1,040, 2×10¹¹.

    Zeros at the end are digits too, but not of a whole number.
    """
    if abs(value) >= 1e6:
        return power(value, 1)
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 1e-3 or float(value).is_integer() else _digits(value, 3)


def significant(value: float, digits: int) -> str:
    """So many digits, zeros at the end too, a power of ten as `f"{value:g}"` writes it: 24.0, 0.3470, 1.00e+06."""
    return f"{value:#.{digits}g}".replace(".e", "e").removesuffix(".")


def _digits(value: float, digits: int) -> str:
    if value == 0:
        return "0"
    places = max(0, digits - 1 - math.floor(math.log10(abs(float(f"{value:.{digits - 1}e}")))))
    return f"{value:.{places}f}"


def power(value: float, digits: int = 3) -> str:
    """A number as a multiple of a power of ten: 3×10¹², 10¹⁸, 5.8×10²³."""
    mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
    raised = "10" + str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    return raised if mantissa == "1" else f"{mantissa}×{raised}"
