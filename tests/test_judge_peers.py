"""A real OpenAI-compatible server on this machine, `transformers serve`, with a model that lmscale exported."""

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest
from helpers.command_line import call
from helpers.peers import peers_python
from helpers.published import random_params, tiny
from helpers.tiny_runs import PATIENCE, run

from lmscale.core.files import read_json
from lmscale.lm.data.tokenizer import ByteTokenizer
from lmscale.lm.eval.judge.answers import Asking, Cache, ask_all, request
from lmscale.lm.eval.judge.server import Server
from lmscale.lm.use.generate import generate
from lmscale.lm.use.hf.write import write_hf
from lmscale.lm.use.load import TrainedRun
from lmscale.lm.use.sampling import Sampling

pytestmark = pytest.mark.slow
TEMPLATE = "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}judge:"
SERVABLE = "import accelerate, fastapi, openai, pydantic, uvicorn"
SERVE = "from transformers.cli.transformers import main; main()"
ANSWER_TOKENS = 12


@pytest.fixture(scope="module")
def model() -> TrainedRun:
    tokenizer = ByteTokenizer()
    config = tiny(vocab=tokenizer.vocab, context=4096)
    params = {name: jax.numpy.asarray(value) for name, value in random_params(config).items()}
    return TrainedRun(run("stdlib", 8, model=config), params, tokenizer)


def listens(port: int) -> bool:
    """Whether anybody answers there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def served(model: TrainedRun, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The model behind `transformers serve`, once it answers."""
    python = peers_python()
    if subprocess.run([python, "-c", SERVABLE], check=False).returncode:
        pytest.skip("transformers serve needs accelerate, fastapi, openai, pydantic and uvicorn beside it")
    folder = tmp_path_factory.mktemp("judge") / "model"
    folder.mkdir()
    write_hf(folder, model, {})
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [python, "-c", SERVE, "serve", str(folder), "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    log = folder.parent / "log.txt"
    with log.open("w") as out:
        environment = {**os.environ, "PYTHONPATH": "", "HF_HUB_OFFLINE": "1"}
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment)
        try:
            deadline = time.monotonic() + PATIENCE
            while not listens(port):
                assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-2000:]
                time.sleep(0.5)
            yield Server(url=f"http://127.0.0.1:{port}/v1", model=str(folder))
        finally:
            process.terminate()
            process.wait(30)


def test_the_server_answers_as_the_model_itself(served: Server, model: TrainedRun, tmp_path: Path) -> None:
    """At temperature 0 the answer is our own greedy continuation of the same prompt, and so is the count of tokens."""
    messages = [{"role": "system", "content": "Grade."}, {"role": "user", "content": "A story."}]
    asked = request(served, messages, Asking(max_tokens=ANSWER_TOKENS), 0)
    answered = ask_all([asked], served, Cache(tmp_path))
    prompt = "system: Grade.\nuser: A story.\njudge:"
    greedy = generate(model, [prompt], max_tokens=ANSWER_TOKENS, sampling=Sampling(temperature=0.0)).completions[0]
    (reply,) = answered.replies
    assert reply.content == greedy.text and len(greedy.tokens) == ANSWER_TOKENS
    assert reply.finish_reason == "length" and reply.answer_tokens == ANSWER_TOKENS
    assert reply.prompt_tokens == len(prompt) == answered.cost.prompt_tokens


def test_the_verb_counts_what_cannot_be_read(
    served: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model with random parameters grades nothing; every answer is kept, and said to be no grade."""
    monkeypatch.setenv("LMSCALE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": f"text {i}"}) + "\n" for i in range(3)))
    asked = ("--server", served.url, "--model", served.model, "--answer-tokens", ANSWER_TOKENS, "--samples", 2)
    assert call("judge", tmp_path / "texts.jsonl", *asked, "--json", tmp_path / "out.json") == 2
    printed = capsys.readouterr()
    assert "6 of 6 answers are malformed" in printed.out and "none of 6 answers of" in printed.err
    grades = read_json(tmp_path / "out.json")["grades"]
    assert len(grades) == 6 and all(one["reply"] for one in grades)
    assert len({one["reply"] for one in grades if one["id"] == "texts-0"}) == 1, "temperature 0, whatever the seed"
