"""Questions to a server, and what is done when it fails.

Requests go to URL/chat/completions. What may be better in a moment (no connection, no answer in time, a connection that
breaks off, broken JSON, the statuses 408, 409, 429 and 500 to 599) is tried again after a pause; anything else is one
sentence at once. The key is blotted out of whatever the server says before anybody sees or keeps it.
"""

import email.utils
import json
import re
import threading
import time
from typing import TYPE_CHECKING, Any

from lmscale.core.config import check
from lmscale.core.config.judge import LONGEST_SHOWN
from lmscale.core.errors import UserError
from lmscale.core.files import parse_json
from lmscale.core.text import one_line
from lmscale.lm.eval.judge.replies import Reply
from lmscale.lm.eval.judge.server import Server, check_installed, is_loopback

if TYPE_CHECKING:
    import httpx
    import tenacity

TEMPORARY = (408, 409, 429, *range(500, 600))
"""Statuses after which the same request may succeed."""
LONGEST_PAUSE_SECONDS = 60.0
"""A server that asks for a longer one is left alone."""
FIRST_PAUSE_SECONDS = 0.5
MOST_BYTES = 8 * 2**20
"""An answer of a few numbers is a thousandth of this."""


class Temporary(Exception):
    """A failure that may be over in a moment."""

    def __init__(self, reason: str, pause_seconds: float | None = None) -> None:
        super().__init__(reason)
        self.pause_seconds = pause_seconds
        """How long the server asks to wait."""


class Pace:
    """Requests no faster than so many a minute, whichever thread sends them."""

    def __init__(self, per_minute: float) -> None:
        self._seconds = 60.0 / per_minute
        self._lock, self._next = threading.Lock(), 0.0

    def wait(self, stopped: threading.Event) -> None:
        """Return when the next request may go, or when all is to stop."""
        with self._lock:
            now = time.monotonic()
            due = max(now, self._next)
            self._next = due + self._seconds
        if due > now:
            stopped.wait(due - now)


class Client:
    """Asks one server, from several threads. Raises `UserError` as `Server.key` and `check_installed` do."""

    def __init__(self, server: Server) -> None:
        check_installed()
        import httpx

        self.server, self._key = server, server.key()
        headers = {"authorization": f"Bearer {self._key}"} if self._key else {}
        # proxies of the environment are for other machines than this one
        self._http = httpx.Client(
            headers=headers, timeout=server.timeout_seconds, trust_env=not is_loopback(server.url),
            limits=httpx.Limits(max_connections=server.parallel),
        )  # fmt: skip
        self._pace = Pace(server.requests_per_minute)
        self.stopped = threading.Event()
        """Set to give up: no pause goes on, no request begins."""

    def close(self) -> None:
        """Close all connections."""
        self.stopped.set()
        self._http.close()

    def ask(self, body: dict[str, Any]) -> Reply:
        """The reply to one request. Raises `UserError` where there is none after all attempts."""
        import tenacity

        attempts = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(Temporary),
            stop=tenacity.stop_after_attempt(self.server.attempts) | tenacity.stop_when_event_set(self.stopped),
            wait=_pause,
            sleep=tenacity.sleep_using_event(self.stopped),
            reraise=True,
        )
        try:
            return attempts(self._ask_once, body)
        except Temporary as failure:
            tries = self.server.attempts
            raise UserError(
                f"{self.server.host} {failure}, in {tries} attempt{'s' * (tries != 1)}; see to the server, or ask it "
                "more slowly (--requests-per-minute, --parallel)"
            ) from None

    def _ask_once(self, body: dict[str, Any]) -> Reply:
        import httpx

        self._pace.wait(self.stopped)
        if self.stopped.is_set():
            raise UserError("stopped")
        try:
            with self._http.stream("POST", f"{self.server.url}/chat/completions", json=body) as response:
                content = self._content(response)
        except httpx.TimeoutException:
            raise Temporary(f"gave no answer within {self.server.timeout_seconds:g} s") from None
        except httpx.ConnectError as error:
            raise Temporary(f"cannot be reached ({self._shown(str(error))})") from None
        except httpx.TransportError:
            raise Temporary("broke the connection off before its answer had ended") from None
        except httpx.HTTPError as error:
            raise UserError(f"{self.server.host} gave no answer: {self._shown(str(error))}") from None
        return self._reply(response, content)

    def _content(self, response: "httpx.Response") -> bytes:
        """The body of an answer. Raises `Temporary` for one that takes too long, `UserError` for one without end."""
        ends, parts, size = time.monotonic() + self.server.timeout_seconds, [], 0
        for part in response.iter_bytes():
            parts.append(part)
            size += len(part)
            check(size <= MOST_BYTES, f"{self.server.host} answers with more than {MOST_BYTES:,} bytes: it is no judge")
            if time.monotonic() > ends:
                raise Temporary(f"gave no whole answer within {self.server.timeout_seconds:g} s")
        return b"".join(parts)

    def _reply(self, response: "httpx.Response", content: bytes) -> Reply:
        """Raises `Temporary` for what may be better in a moment, `UserError` for what will not."""
        self._check_status(response.status_code, self._message(content), response.headers.get("retry-after", ""))
        self._check_kind(response.headers.get("content-type", ""), content)
        return self._parsed(content)

    def _check_status(self, status: int, clause: str, retry_after: str) -> None:
        host, named = self.server.host, self.server.key_variable
        if status in TEMPORARY:
            pause = _retry_after(retry_after)
            check(
                pause is None or pause <= LONGEST_PAUSE_SECONDS,
                f"{host} answers with status {status} and asks for a pause of {pause or 0:.0f} s: call this again then",
            )
            raise Temporary(f"answers with status {status}{clause}", pause)
        fix = f"see to the key in {named}" if named else "name the environment variable of a key, --key-variable NAME"
        check(status not in (401, 403), f"{host} refuses the request (status {status}{clause}): {fix}")
        check(
            status != 404,
            f"{host} has no model {self.server.model!r}, or no API at {self.server.url} (status 404{clause}): give "
            "a model that it has, and the base of its API, which often ends in /v1",
        )
        check(
            not 300 <= status < 400,
            f"{host} sends elsewhere (status {status}): give the URL of the API itself, with https where it wants that",
        )
        check(status == 200, f"{host} does not take the request (status {status}{clause}): change it with --body JSON")

    def _check_kind(self, kind: str, content: bytes) -> None:
        host = self.server.host
        check(
            "html" not in kind and content.lstrip()[:1] != b"<",
            f"{host} answers with a web page, not with JSON: {self.server.url} is not the base of an API, which often "
            "ends in /v1",
        )
        check(
            "event-stream" not in kind, f"{host} answers with a stream, though asked for a whole answer: it is no judge"
        )

    def _parsed(self, content: bytes) -> Reply:
        """Raises `Temporary` for what is no answer of a chat model."""
        try:
            value = parse_json(content)
        except ValueError:
            raise Temporary("answers with broken JSON") from None
        try:
            choice = value["choices"][0]
            message, usage = choice["message"], value.get("usage") or {}
            text = message.get("content") or ""
            if isinstance(text, list):
                text = "".join(part.get("text", "") for part in text)
            counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
            prompt_tokens, answer_tokens = (count if type(count) is int and count >= 0 else None for count in counts)
            refusal = self._blotted(str(message.get("refusal") or ""))
            reason = str(choice.get("finish_reason"))
            return Reply(self._blotted(str(text)), reason, refusal, prompt_tokens, answer_tokens)
        except (KeyError, IndexError, TypeError, AttributeError):
            raise Temporary(f"answers with JSON that is no chat completion{self._message(content)}") from None

    def _message(self, content: bytes) -> str:
        """What the server says of an error, as a clause; "" where it says nothing that can be read."""
        try:
            value = parse_json(content)
            error = value.get("error") or value.get("detail") or value.get("message")
            text = error.get("message") if isinstance(error, dict) else error
        except (ValueError, AttributeError):
            return ""
        return f": {self._shown(text if isinstance(text, str) else json.dumps(text))}" if text else ""

    def _shown(self, text: str) -> str:
        line = one_line(self._blotted(text))
        return line if len(line) <= LONGEST_SHOWN else f"{line[:LONGEST_SHOWN]}..."

    def _blotted(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text


def _pause(state: "tenacity.RetryCallState") -> float:
    """What the server asks for, else twice as long after every attempt."""
    failure = state.outcome.exception() if state.outcome else None
    if isinstance(failure, Temporary) and failure.pause_seconds is not None:
        return failure.pause_seconds
    return float(min(FIRST_PAUSE_SECONDS * 2 ** (state.attempt_number - 1), LONGEST_PAUSE_SECONDS))


def _retry_after(value: str) -> float | None:
    """The seconds of a header Retry-After, which is a number or a date (RFC 9110, 10.2.3)."""
    if re.fullmatch(r"\d{1,9}", value.strip()):
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None
