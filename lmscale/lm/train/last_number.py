"""The last number of a text, by which answers in words are compared: "so 1,200 + 34 = 1,234." gives 1234."""

import re
from decimal import Decimal

NUMBER = re.compile(
    r"(?:(?<![\w.)])-)?"  # a minus behind a number, a word or a bracket takes away
    r"(?:(?:\d{1,3}(?:,\d{3})+(?![\d,])|\d+)(?:\.\d+)?|\.\d+)",
    re.ASCII,
)


def last_number(text: str) -> Decimal | None:
    """The last decimal number of a text, without commas between thousands; None where there is none."""
    numbers = NUMBER.findall(text)
    return Decimal(numbers[-1].replace(",", "")) if numbers else None
