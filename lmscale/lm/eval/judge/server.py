"""An OpenAI-compatible server: where it is, how it is asked, and where its key is.

The key is read from an environment variable and stands nowhere else: not in a URL, an option, a file or a message.
"""

import importlib.util
import math
import os
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from lmscale.core.config import check
from lmscale.core.config.judge import check_variable, checked_url

PACKAGES = ("httpx", "tenacity")
LOOPBACK = ("localhost", "127.0.0.1", "::1")
RESERVED = ("model", "messages", "stream")


@dataclass(frozen=True, kw_only=True)
class Server:
    """A model behind an OpenAI-compatible server. Raises `UserError` for what can be none."""

    url: str
    """The base of its API, such as http://localhost:8000/v1."""
    model: str
    key_variable: str | None = None
    """The environment variable that holds the key; None sends none."""
    timeout_seconds: float = 60.0
    """The most time that one whole answer may take."""
    attempts: int = 5
    requests_per_minute: float = math.inf
    parallel: int = 4
    """Requests under way at once."""
    body: dict[str, Any] = field(default_factory=dict)
    """Fields of every request besides ours, or instead of them; one that is None is left out."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", checked_url(self.url))
        check(bool(self.model.strip()), "the judge has no model: name one that the server has")
        check(0 < self.timeout_seconds < math.inf, f"a timeout of {self.timeout_seconds:g} s: above 0")
        check(self.attempts >= 1, f"{self.attempts} attempts at a request: at least 1")
        check(self.requests_per_minute > 0, f"{self.requests_per_minute:g} requests a minute: above 0")
        check(1 <= self.parallel <= 256, f"{self.parallel} requests at once: from 1 to 256")
        for name in RESERVED:
            check(name not in self.body, f"the body of a request cannot say {name!r}, which is set already")

    @property
    def host(self) -> str:
        """Host and port, as messages name the server."""
        return urlsplit(self.url).netloc

    def key(self) -> str:
        """The key, "" for none. Raises `UserError` for a variable that is none or not set, and without encryption."""
        if self.key_variable is None:
            return ""
        check_variable(self.key_variable)
        key = os.environ.get(self.key_variable, "").strip()
        check(
            bool(key), f"the environment variable {self.key_variable} is not set: the key of {self.host} belongs there"
        )
        check(
            key.isascii() and key.isprintable() and " " not in key,
            f"the environment variable {self.key_variable} holds characters that no key has",
        )
        check(
            self.url.startswith("https:") or is_loopback(self.url),
            f"{self.host} is asked without encryption: anybody on the way could read the key; give a URL with https",
        )
        return key


def is_loopback(url: str) -> bool:
    """Whether a URL is of this very machine."""
    return urlsplit(url).hostname in LOOPBACK


def check_installed() -> None:
    """Raise `UserError` where the extra is not installed that asks a server."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    check(not missing, f"to ask a judge needs {' and '.join(missing)}: pip install 'lmscale[judge]'")
