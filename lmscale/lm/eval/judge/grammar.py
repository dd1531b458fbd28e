"""Errors of grammar and spelling, counted by LanguageTool where its command line is installed on this machine."""

import json
import shutil
import subprocess

from lmscale.core.errors import UserError
from lmscale.core.text import one_line

COMMANDS = ("languagetool", "languagetool-commandline")
"""Names that packages give it."""
LANGUAGE = "en-US"
STYLE = ("style", "register", "locale-violation", "whitespace")
"""Kinds of remarks that are no errors."""
PATIENCE_SECONDS = 600


def grammar_tool() -> str | None:
    """The path of the tool; None where there is none."""
    return next((path for path in map(shutil.which, COMMANDS) if path is not None), None)


def grammar_errors(texts: list[str], tool: str) -> int:
    """How many errors the tool finds in all texts together. Raises `UserError` where it fails."""
    command = [tool, "--language", LANGUAGE, "--json", "-"]
    try:
        done = subprocess.run(
            command,
            input="\n\n".join(texts),
            capture_output=True,
            encoding="utf-8",
            timeout=PATIENCE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError) as error:
        raise UserError(f"{tool} cannot count errors of grammar: {error}; fix it, or take it out of the PATH") from None
    try:
        matches = json.loads(done.stdout[done.stdout.index("{") :])["matches"]
        return sum(match["rule"].get("issueType") not in STYLE for match in matches)
    except (ValueError, KeyError, TypeError, AttributeError):
        last = one_line((done.stderr.strip().split("\n") or [""])[-1])[:200]
        raise UserError(
            f"{tool} did not list errors of grammar as JSON (status {done.returncode}: {last or 'it said nothing'}); "
            "fix it, or take it out of the PATH"
        ) from None
