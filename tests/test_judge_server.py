"""A judge behind a server: what is sent, what every fault of a server becomes, and what is never paid twice."""

import json
import math
import threading
from pathlib import Path
from typing import Any

import pytest
from helpers.judge_server import Answer, Script, error, says, serving

from lmscale.core.config.judge import checked_url
from lmscale.core.errors import UserError
from lmscale.lm.eval.judge import client as judge_client
from lmscale.lm.eval.judge.answers import Asking, Cache, Prices, ask_all, estimate, request
from lmscale.lm.eval.judge.client import Client
from lmscale.lm.eval.judge.replies import Reply
from lmscale.lm.eval.judge.server import Server

KEY = "sk-abcdefghijklmnopqrstuvwxyz"
QUESTION = [{"role": "user", "content": "How is it?"}]


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge_client, "FIRST_PAUSE_SECONDS", 0.001)


def ask(script: Script, **settings: Any) -> tuple[Reply, int]:
    """The reply to one question, and how many requests it took."""
    with serving(script) as running:
        client = Client(Server(url=running.url, model="m", **{"timeout_seconds": 2.0, **settings}))
        try:
            return client.ask({"model": "m", "messages": QUESTION}), len(running.bodies)
        finally:
            client.close()


def refusal(script: Script, **settings: Any) -> str:
    with pytest.raises(UserError) as caught:
        ask(script, **{"attempts": 2, **settings})
    return str(caught.value)


PASSING = {
    "429": error(429, "slow down"),
    "429 that says when": error(429, retry_after="0"),
    "500": error(500, "oh"),
    "503 of a proxy": Answer(b"<html>bad gateway</html>", 503, "text/html"),
    "broken JSON": Answer(b'{"choices": [{"message": {"content": "7"'),
    "JSON that is no completion": Answer(b'{"choices": []}'),
    "a cut answer": Answer(b'{"choices": [{"mess', missing_bytes=50),
    "no answer in time": Answer(b"", delay_seconds=0.5),
}


@pytest.mark.parametrize("fault", PASSING)
def test_a_fault_that_passes_is_asked_again(fault: str) -> None:
    def script(body: dict[str, Any], number: int) -> Answer:
        return PASSING[fault] if number < 2 else says("7")

    assert ask(script, timeout_seconds=0.2 if "time" in fault else 2.0) == (Reply("7", "stop", "", 100, 10), 3)


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("429", "answers with status 429: slow down, in 2 attempts; see to the server"),
        ("500", "answers with status 500: oh, in 2 attempts"),
        ("broken JSON", "answers with broken JSON, in 2 attempts"),
        ("JSON that is no completion", "answers with JSON that is no chat completion"),
        ("a cut answer", "broke the connection off before its answer had ended"),
        ("no answer in time", "gave no answer within 0.2 s, in 2 attempts"),
    ],
)
def test_a_fault_that_stays_is_one_sentence(fault: str, sentence: str) -> None:
    assert sentence in refusal(lambda *_: PASSING[fault], timeout_seconds=0.2 if "time" in fault else 2.0)


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (Answer(b"<!doctype html><p>Welcome", kind="text/html"), "a web page, not with JSON: http://127.0.0.1"),
        (Answer(b"  <html>", kind="application/json"), "a web page, not with JSON"),
        (Answer(b"data: {}", kind="text/event-stream"), "answers with a stream"),
        (
            error(401, f"no such key {KEY}"),
            "refuses the request (status 401: no such key ***): see to the key in THE_KEY",
        ),
        (error(404, "unknown model"), "has no model 'm', or no API at http://127.0.0.1"),
        (
            error(400, "temperature \x1b[1m is fixed"),
            r"status 400: temperature \x1b[1m is fixed): change it with --body",
        ),
        (error(422), "does not take the request (status 422)"),
        (Answer(b"", 301, headers={"location": "https://elsewhere"}), "sends elsewhere (status 301)"),
        (error(429, "quota", retry_after="3600"), "asks for a pause of 3600 s"),
        (Answer(b"x" * (judge_client.MOST_BYTES + 1)), "answers with more than 8,388,608 bytes"),
    ],
)
def test_what_no_patience_mends_is_asked_once(answer: Answer, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THE_KEY", KEY)
    numbers = []

    def script(body: dict[str, Any], number: int) -> Answer:
        numbers.append(number)
        return answer

    message = refusal(script, key_variable="THE_KEY")
    assert sentence in message and KEY not in message and numbers == [0]


def test_a_server_that_is_not_there() -> None:
    with pytest.raises(UserError, match=r"127.0.0.1:9 cannot be reached .* in 2 attempts"):
        Client(Server(url="http://127.0.0.1:9/v1", model="m", attempts=2)).ask({})


def test_the_key_is_sent_and_nothing_else_knows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that repeats the key in its answer does not get it into the cache."""
    monkeypatch.setenv("THE_KEY", KEY)
    with serving(lambda *_: says(f"your key is {KEY}")) as running:
        server = Server(url=running.url, model="m", key_variable="THE_KEY")
        one = request(server, QUESTION, Asking(), 0)
        answered = ask_all([one], server, Cache(tmp_path))
        assert running.headers[0]["authorization"] == f"Bearer {KEY}"
    assert answered.replies[0].content == "your key is ***"
    assert KEY not in one.body + repr(server)
    assert not any(KEY in file.read_text() for file in tmp_path.rglob("*.json"))


@pytest.mark.parametrize(
    ("settings", "environment", "sentence"),
    [
        ({"key_variable": KEY}, {}, "takes the name of an environment variable, such as OPENAI_API_KEY, never the key"),
        ({"key_variable": "sk_" + "a" * 30}, {}, "never the key itself"),
        ({"key_variable": "NO_KEY"}, {}, "the environment variable NO_KEY is not set"),
        ({"key_variable": "A_KEY"}, {"A_KEY": "two words"}, "A_KEY holds characters that no key has"),
        ({"key_variable": "A_KEY", "url": "http://judge.example/v1"}, {"A_KEY": KEY}, "asked without encryption"),
    ],
)
def test_a_key_that_cannot_be_used(
    settings: dict[str, str], environment: dict[str, str], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError) as caught:
        Server(**{"url": "http://127.0.0.1:9/v1", "model": "m", **settings}).key()  # type: ignore[arg-type]
    assert sentence in str(caught.value) and KEY not in str(caught.value) and "a" * 30 not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        f"https://user:{KEY}@host/v1", f"https://{KEY}@host/v1", f"https://host/v1?api-key={KEY}", f"https://host/{KEY}/v1",
        f"https://host/v1#{KEY}", f"user:{KEY}@host", "https://user:pw@host/v1", "https://host/v1?key=pw",
        "https://host/v1#pw",
    ],
)  # fmt: skip
def test_a_key_in_a_url_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(UserError, match=r"--key-variable NAME") as caught:
        Server(url=url, model="m")
    assert KEY not in str(caught.value) and "pw" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["", "localhost:8000/v1", "ftp://host/v1", "http://", "http://h:99999/v1", "http://a b/v1"]
)
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(UserError, match=r"give the base of an API"):
        checked_url(url)


def test_the_base_of_an_api() -> None:
    for url in ("http://h:1/v1", " http://h:1/v1/", "http://h:1/v1/chat/completions"):
        assert checked_url(url) == "http://h:1/v1"


def test_settings_out_of_range() -> None:
    for name, value in [
        ("model", " "), ("timeout_seconds", 0), ("timeout_seconds", math.inf), ("attempts", 0), ("parallel", 0),
        ("requests_per_minute", 0), ("body", {"messages": []}),
    ]:  # fmt: skip
        with pytest.raises(UserError):
            Server(**{"url": "http://h/v1", "model": "m", name: value})  # type: ignore[arg-type]
    for name, value in [("temperature", -1), ("temperature", math.nan), ("samples", 0), ("max_tokens", 0)]:
        with pytest.raises(UserError):
            Asking(**{name: value})  # type: ignore[arg-type]


def test_what_is_sent(tmp_path: Path) -> None:
    """Temperature 0, one seed a sample; a body of one's own adds fields and takes ours away."""
    with serving(lambda *_: says("7")) as running:
        server = Server(url=running.url, model="m", body={"max_tokens": None, "max_completion_tokens": 9})
        ask_all([request(server, QUESTION, Asking(seed=5), sample) for sample in (0, 1)], server, Cache(tmp_path))
    assert running.paths == ["/v1/chat/completions"] * 2
    common = {"model": "m", "messages": QUESTION, "temperature": 0.0, "stream": False, "max_completion_tokens": 9}
    assert sorted(running.bodies, key=lambda body: body["seed"]) == [{**common, "seed": 5}, {**common, "seed": 6}]


def requests_of(server: Server, number: int) -> list[Any]:
    return [request(server, [{"role": "user", "content": f"text {i}"}], Asking(), 0) for i in range(number)]


def test_what_was_answered_is_not_asked_again(tmp_path: Path) -> None:
    """After a failure in the middle the same call asks only for the rest, and equal requests are sent once."""
    sick = True

    def script(body: dict[str, Any], number: int) -> Answer:
        content = body["messages"][0]["content"]
        return error(400, "no") if sick and content == "text 5" else says(content)

    with serving(script) as running:
        server = Server(url=running.url, model="m", parallel=1)
        requests = requests_of(server, 8)
        with pytest.raises(UserError, match="5 of 8 answers are there and kept: the same call goes on from them"):
            ask_all(requests, server, Cache(tmp_path))
        sick = False
        assert estimate(requests, Cache(tmp_path)).cached == 5
        answered = ask_all([*requests, requests[0]], server, Cache(tmp_path))
        assert [reply.content for reply in answered.replies] == [*(f"text {i}" for i in range(8)), "text 0"]
        assert len(running.bodies) == 6 + 3
        assert (answered.cost.requests, answered.cost.cached, answered.cost.prompt_tokens) == (8, 5, 300)
        assert ask_all(requests, server, Cache(tmp_path)).cost.prompt_tokens == 0
    assert len(running.bodies) == 9


def test_a_damaged_answer_in_the_cache_is_asked_for_again(tmp_path: Path) -> None:
    with serving(lambda *_: says("7")) as running:
        server = Server(url=running.url, model="m")
        (one,) = requests_of(server, 1)
        ask_all([one], server, Cache(tmp_path))
        (file,) = tmp_path.rglob("*.json")
        for damage in (
            '{"content": ',
            "[]",
            '{"content": 7, "finish_reason": "stop", "refusal": ""}',
            '{"strange": 1}',
        ):
            file.write_text(damage)
            assert ask_all([one], server, Cache(tmp_path)).replies[0].content == "7"
    assert len(running.bodies) == 5


def test_answers_of_another_model_sample_or_server_are_others(tmp_path: Path) -> None:
    server = Server(url="http://h/v1", model="m")
    others = [
        request(Server(url="http://h/v1", model="n"), QUESTION, Asking(), 0),
        request(Server(url="http://i/v1", model="m"), QUESTION, Asking(), 0),
        request(server, QUESTION, Asking(), 1),
        request(server, QUESTION, Asking(temperature=1.0), 0),
        request(server, QUESTION[:0], Asking(), 0),
        request(server, QUESTION, Asking(), 0),
    ]
    assert len({one.hash for one in others}) == 6


def test_the_rate_is_bounded(tmp_path: Path) -> None:
    """Six requests at 1,200 a minute by four threads: each at least .05 s after the one before."""
    with serving(lambda *_: says("7")) as running:
        server = Server(url=running.url, model="m", parallel=4, requests_per_minute=1200)
        ask_all(requests_of(server, 6), server, Cache(tmp_path))
    assert max(running.times) - min(running.times) > 0.2


def test_requests_go_out_at_once(tmp_path: Path) -> None:
    """None is answered before three have come."""
    gate = threading.Barrier(3, timeout=20)

    def script(body: dict[str, Any], number: int) -> Answer:
        gate.wait()
        return says("7")

    with serving(script) as running:
        server = Server(url=running.url, model="m", parallel=3)
        assert len(ask_all(requests_of(server, 3), server, Cache(tmp_path)).replies) == 3


def test_the_cost_is_an_upper_bound_before(tmp_path: Path) -> None:
    server = Server(url="http://h/v1", model="m")
    (one,) = requests_of(server, 1)
    cost = estimate([one, one], Cache(tmp_path))
    assert (cost.requests, cost.cached, cost.answer_tokens) == (1, 0, 256)
    assert cost.prompt_tokens == math.ceil(len("text 0") / 4) + 4
    assert cost.money(Prices(1e6, 2e6)) == cost.prompt_tokens + 2 * cost.answer_tokens
    with pytest.raises(UserError):
        Prices(-1, 0)
    assert json.loads(one.body)["messages"][0]["content"] == "text 0"
