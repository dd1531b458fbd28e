"""How a sentence that names an option is told on the command line: `resamples=1000` in Python is `--resamples 1000`."""

import re

NAMES = {
    "bootstrap": "bootstrap",
    "clusters": "clusters",
    "columns": "columns",
    "fixed": "fix",
    "given": "given",
    "law": "law",
    "noise_nats": "noise",
    "rates": "rates",
    "resamples": "resamples",
    "shared_noise": "shared-noise",
    "spend": "spend",
    "tied": "tie",
    "where": "where",
}
"""Option of Python that sentences name -> flag."""
NO_QUOTES = re.compile(r"[\w=.,:/-]+")
"""A value that a shell takes as it is."""
OPTION = re.compile(rf"`({'|'.join(NAMES)})(?:=([^`]*))?`")


def as_flags(text: str) -> str:
    """`text` with every option that it names between backticks spelled as the command line has it."""

    def flag(match: re.Match[str]) -> str:
        name, value = match.groups()
        if value is None:
            return f"--{NAMES[name]}"
        bare = value.strip("'\"")
        return f"--{NAMES[name]} {bare if NO_QUOTES.fullmatch(bare) else value}"

    return OPTION.sub(flag, text)
