"""Many requests to a judge: each answer kept by the content of its request, so that none is paid twice.

A call that was stopped goes on where it was: what had been answered lies in the cache, one file per answer, each whole.
"""

import hashlib
import json
import math
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lmscale.core.config import check
from lmscale.core.errors import UserError
from lmscale.core.files import cache_dir, parse_json, read_bytes, write_json
from lmscale.lm.eval.judge.client import Client
from lmscale.lm.eval.judge.replies import Reply
from lmscale.lm.eval.judge.rubric import Messages
from lmscale.lm.eval.judge.server import Server

BYTES_PER_TOKEN = 4
"""About what English text has under the tokenizers of large models; for what a call costs before it is made."""
TOKENS_PER_MESSAGE = 4
WAIT_SECONDS = 0.2


@dataclass(frozen=True, kw_only=True)
class Asking:
    """How a judge is asked."""

    temperature: float = 0.0
    samples: int = 1
    """Answers to every question."""
    seed: int = 0
    """Sent with the first sample; the next ones take the next numbers."""
    max_tokens: int = 256
    """The most tokens of an answer."""

    def __post_init__(self) -> None:
        check(0 <= self.temperature < math.inf, f"a judge's temperature of {self.temperature:g}: 0 or more")
        check(1 <= self.samples <= 1000, f"{self.samples} samples of every answer: from 1 to 1,000")
        check(self.max_tokens >= 1, f"{self.max_tokens} tokens of an answer: at least 1")


@dataclass(frozen=True)
class Request:
    """One question to one server."""

    url: str
    body: str
    """JSON, its keys in order."""

    @property
    def hash(self) -> str:
        """The name of its answer in the cache."""
        return hashlib.sha256(f"{self.url}\n{self.body}".encode()).hexdigest()


def request(server: Server, messages: Messages, asking: Asking, sample: int) -> Request:
    """The request for one sample of an answer. The key is no part of it."""
    body = {
        "model": server.model, "messages": messages, "temperature": asking.temperature,
        "max_tokens": asking.max_tokens, "seed": asking.seed + sample, "stream": False, **server.body,
    }  # fmt: skip
    body = {name: value for name, value in body.items() if value is not None}
    return Request(server.url, json.dumps(body, sort_keys=True))


class Cache:
    """Answers on disk, each under the hash of its request."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or cache_dir() / "judge"

    def read(self, hash: str) -> Reply | None:
        """An answer; None where there is none, or what there is cannot be read and is asked for again."""
        try:
            value = parse_json(read_bytes(self._path(hash)))
            return Reply(**value) if isinstance(value, dict) and _fits(value) else None
        except (OSError, ValueError, TypeError):
            return None

    def write(self, hash: str, reply: Reply) -> None:
        """Keep an answer. Raises `UserError` as `core.files.write_json` does."""
        write_json(self._path(hash), asdict(reply))

    def _path(self, hash: str) -> Path:
        return self.folder / hash[:2] / f"{hash[2:]}.json"


def _fits(value: dict[str, Any]) -> bool:
    texts = (value.get(name) for name in ("content", "finish_reason", "refusal"))
    counts = (value.get(name) for name in ("prompt_tokens", "answer_tokens"))
    return all(isinstance(text, str) for text in texts) and all(
        count is None or (type(count) is int and count >= 0) for count in counts
    )


@dataclass(frozen=True)
class Prices:
    """What a million tokens cost, in any currency."""

    prompt: float
    answer: float

    def __post_init__(self) -> None:
        check(
            0 <= self.prompt < math.inf and 0 <= self.answer < math.inf,
            f"prices of {self.prompt:g} and {self.answer:g} for a million tokens: 0 or more",
        )


@dataclass(frozen=True)
class Cost:
    """What requests cost: estimated before, counted after."""

    requests: int
    cached: int
    """Answered already, at no cost."""
    prompt_tokens: int
    answer_tokens: int
    """An estimate counts answers of full length."""

    def money(self, prices: Prices) -> float:
        """The price of the tokens."""
        return (self.prompt_tokens * prices.prompt + self.answer_tokens * prices.answer) / 1e6


def estimate(requests: Sequence[Request], cache: Cache) -> Cost:
    """What it costs to have all requests answered. Tokens are guessed from bytes; equal requests are sent once."""
    unique = {one.hash: one for one in requests}
    open_ones = [json.loads(one.body) for hash, one in unique.items() if cache.read(hash) is None]
    prompt = sum(
        math.ceil(len(message["content"].encode()) / BYTES_PER_TOKEN) + TOKENS_PER_MESSAGE
        for body in open_ones
        for message in body["messages"]
    )
    answer = sum(body.get("max_tokens") or body.get("max_completion_tokens") or 0 for body in open_ones)
    return Cost(len(unique), len(unique) - len(open_ones), prompt, answer)


@dataclass(frozen=True)
class Answers:
    """The answer to every request, in their order, and what those cost that were asked for just now."""

    replies: list[Reply]
    cost: Cost


def ask_all(
    requests: Sequence[Request], server: Server, cache: Cache, progress: Callable[[int, int], None] | None = None
) -> Answers:
    """Have every request answered; those in the cache are not asked for.

    `progress` is called with the number of answers so far and of all. Raises `UserError` for the first request that
    stays without an answer; whatever was answered before is kept.
    """
    unique = {one.hash: one for one in requests}
    replies = {hash: reply for hash in unique if (reply := cache.read(hash)) is not None}
    missing = {hash: one for hash, one in unique.items() if hash not in replies}
    try:
        for hash, reply in _asked(missing, server, cache):
            replies[hash] = reply
            if progress is not None:
                progress(len(replies), len(unique))
    except UserError as error:
        raise UserError(
            f"{error}; {len(replies):,} of {len(unique):,} answers are there and kept: the same call goes on from them"
        ) from None
    fresh = [replies[hash] for hash in missing]
    tokens = [sum(getattr(reply, name) or 0 for reply in fresh) for name in ("prompt_tokens", "answer_tokens")]
    return Answers([replies[one.hash] for one in requests], Cost(len(unique), len(unique) - len(missing), *tokens))


def _asked(requests: dict[str, Request], server: Server, cache: Cache) -> Iterator[tuple[str, Reply]]:
    """Hashes and replies as they come. Threads ask for them that do not hold the program up when it is stopped."""
    if not requests:
        return
    client = Client(server)
    work: queue.SimpleQueue[tuple[str, Request]] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[str, Reply | BaseException]] = queue.SimpleQueue()
    for item in requests.items():
        work.put(item)
    threads = [
        threading.Thread(target=_work, args=(client, cache, work, done), daemon=True)
        for _ in range(min(server.parallel, len(requests)))
    ]
    try:
        for thread in threads:
            thread.start()
        for _ in requests:
            hash, outcome = _next(done)
            if isinstance(outcome, BaseException):
                client.stopped.set()
                for thread in threads:  # what is under way is paid already: let it be kept
                    thread.join(server.timeout_seconds)
                raise outcome
            yield hash, outcome
    finally:
        client.close()


def _work(
    client: Client,
    cache: Cache,
    work: "queue.SimpleQueue[tuple[str, Request]]",
    done: "queue.SimpleQueue[tuple[str, Reply | BaseException]]",
) -> None:
    """Ask for one answer after the other, and keep each, until none is left or one cannot be had."""
    while not client.stopped.is_set():
        try:
            hash, one = work.get_nowait()
        except queue.Empty:
            return
        try:
            reply = client.ask(json.loads(one.body))
            cache.write(hash, reply)
        except BaseException as error:
            done.put((hash, error))
            return
        done.put((hash, reply))


def _next(done: "queue.SimpleQueue[tuple[str, Reply | BaseException]]") -> tuple[str, Reply | BaseException]:
    while True:  # a wait without end would not see Ctrl-C
        try:
            return done.get(timeout=WAIT_SECONDS)
        except queue.Empty:
            continue
