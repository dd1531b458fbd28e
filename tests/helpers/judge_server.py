"""A server on this machine that answers as a script says: chat completions, and every way in which they fail."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from lmscale.core.files import parse_json


@dataclass
class Answer:
    """What is sent back: an HTTP response, whole or cut."""

    body: bytes
    status: int = 200
    kind: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    missing_bytes: int = 0
    """So many more are announced than are sent."""
    delay_seconds: float = 0.0


def says(content: str | None, **choice: Any) -> Answer:
    """A chat completion."""
    message = {"role": "assistant", "content": content, **choice.pop("message", {})}
    value = {
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", **choice}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 10},
    }
    return Answer(json.dumps(value).encode())


def error(status: int, message: str = "", **headers: str) -> Answer:
    """An error as OpenAI's API tells it."""
    return Answer(json.dumps({"error": {"message": message}}).encode(), status, headers=headers)


Script = Callable[[dict[str, Any], int], Answer]
"""Answers a request by its body and its number, from 0."""


@dataclass
class Running:
    """A server at work."""

    url: str
    bodies: list[dict[str, Any]] = field(default_factory=list)
    """The bodies of all requests so far."""
    headers: list[dict[str, str]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)


@contextmanager
def serving(script: Script) -> Iterator[Running]:
    """Answer requests until the block ends."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = parse_json(self.rfile.read(int(self.headers["content-length"])))
            with lock:
                number = len(running.bodies)
                running.bodies.append(body)
                running.headers.append({name.lower(): value for name, value in self.headers.items()})
                running.times.append(time.monotonic())
                running.paths.append(self.path)
            answer = script(body, number)
            time.sleep(answer.delay_seconds)
            try:
                self.send_response(answer.status)
                self.send_header("content-type", answer.kind)
                self.send_header("content-length", str(len(answer.body) + answer.missing_bytes))
                for name, value in answer.headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()
                self.wfile.write(answer.body)
            except OSError:  # whoever asked has left
                pass
            if answer.missing_bytes:
                self.close_connection = True

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    running = Running(f"http://127.0.0.1:{server.server_port}/v1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield running
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
