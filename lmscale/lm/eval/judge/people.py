"""People as judges: a page of blinded pairs that works without a server, its key, and the answers that come back.

The page holds texts and ids of pairs, and nothing about who wrote them; that is in the key, a file beside it, which
stays with whoever asks. The browser draws the order of the pairs and which text stands left, anew for every person.
"""

import html
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from lmscale.core.config import check
from lmscale.core.errors import UserError
from lmscale.core.files import parse_json, write_json, write_text
from lmscale.lm.eval.judge.pairs import Pair, Vote
from lmscale.lm.eval.judge.texts import Author, Text
from lmscale.lm.eval.tasks.files import field, read_text

FORM = "lmscale-people-1"
"""What keys and answers say they are."""


@dataclass(frozen=True)
class Key:
    """Who wrote what, and which page it is the key of."""

    page: str
    pairs: list[Pair]
    authors: list[Author]
    question: str


def key_path(page: Path) -> Path:
    """Where the key of a page lies."""
    return page.with_suffix(".key.json")


def write_page(page: Path, pairs: Sequence[Pair], authors: Sequence[Author], question: str) -> str:
    """Write the page and its key; the name of the page in answers.

    Raises `UserError` where a key lies there already, since answers to the page before it would be lost with it.
    """
    key = key_path(page)
    check(
        not page.exists() and not key.exists(),
        f"{page} or its key {key.name} exists: name another page, or remove both",
    )
    check(page.suffix in (".html", ".htm"), f"{page}: the page is read by a browser: name a file that ends in .html")
    name = _hash([pair.id for pair in pairs])
    shown = [{"id": pair.id, "prompt": pair.prompt, "a": pair.a.text, "b": pair.b.text} for pair in pairs]
    data = {"form": FORM, "page": name, "question": question, "pairs": shown}
    template = (files(__package__) / "people.html").read_text("utf-8")
    # a text may hold "</script>", and a line separator ends a line of JavaScript
    script = json.dumps(data).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    write_json(
        key,
        {
            "form": FORM, "page": name, "question": question,
            "pairs": [{"id": pair.id, "a": asdict(pair.a), "b": asdict(pair.b)} for pair in pairs],
            "authors": [{"name": one.name, "params": one.params} for one in authors],
        },
    )  # fmt: skip
    write_text(page, template.replace("__TITLE__", html.escape(question)).replace("__DATA__", script))
    return name


def _hash(ids: list[str]) -> str:
    import hashlib

    return hashlib.sha256("\n".join(ids).encode()).hexdigest()[:12]


def read_key(page: Path) -> Key:
    """The key of a page. Raises `UserError` where there is none or it is damaged."""
    file = key_path(page)
    check(file.exists(), f"there is no key {file} of the page {page}: without it nobody knows who wrote which text")
    where = f"the key {file}"
    value = _read(file, where)
    authors = []
    for one in field(value, "authors", list, where):
        check(isinstance(one, dict), f"{where}: an author is a {type(one).__name__}")
        params = field(one, "params", (int, float, type(None)), where)
        check(params is None or params > 0, f"{where}: params = {params}: N of a model is above 0")
        authors.append(Author(field(one, "name", str, where), params))
    pairs = []
    for one in field(value, "pairs", list, where):
        check(isinstance(one, dict), f"{where}: a pair is a {type(one).__name__}")
        pair = Pair(_text(one, "a", where), _text(one, "b", where))
        check(
            pair.id == one.get("id"), f"{where}: the pair {one.get('id')!r} holds other texts than it was written with"
        )
        pairs.append(pair)
    names = {author.name for author in authors}
    for pair in pairs:
        for text in (pair.a, pair.b):
            check(text.model in names, f"{where}: the model {text.model!r} of a text is not among the authors")
    name = field(value, "page", str, where)
    check(bool(pairs) and name == _hash([pair.id for pair in pairs]), f"{where} lacks pairs of its page: restore it")
    return Key(name, pairs, authors, field(value, "question", str, where))


def _text(pair: dict[str, Any], side: str, where: str) -> Text:
    value = field(pair, side, dict, where)
    return Text(*(field(value, name, str, where) for name in ("prompt", "text", "model", "id")))


def _read(file: Path, where: str) -> dict[str, Any]:
    try:
        value = parse_json(read_text(file))
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{where} is not JSON ({error}): give the file as the page saved it") from None
    check(isinstance(value, dict) and value.get("form") == FORM, f"{where} is none: it does not say {FORM!r}")
    assert isinstance(value, dict)
    return value


def read_answers(file: Path, key: Key) -> list[Vote]:
    """One person's votes. Raises `UserError` for answers to another page, to no pair or to one twice, and for none."""
    where = f"the answers {file}"
    value = _read(file, where)
    page = field(value, "page", str, where)
    check(
        page == key.page,
        f"{where} are to the page {page!r}, this one is {key.page!r}: name the one that was answered",
    )
    voter = field(value, "rater", str, where).strip() or file.stem
    by_id = {pair.id: pair for pair in key.pairs}
    votes, seen = [], set()
    for one in field(value, "answers", list, where):
        check(isinstance(one, dict), f"{where}: an answer is a {type(one).__name__}")
        id, left, better = (field(one, name, str, where) for name in ("pair", "left", "better"))
        check(id in by_id, f"{where}: the page has no pair {id!r}")
        check(id not in seen, f"{where}: the pair {id!r} is answered twice")
        check(left in ("a", "b"), f"{where}: left is {left!r}: 'a' or 'b'")
        check(better in ("a", "b", "tie"), f"{where}: better is {better!r}: 'a', 'b' or 'tie'")
        seen.add(id)
        votes.append(Vote(by_id[id], voter, left, better))
    check(bool(votes), f"{where} hold no answer: the page was saved before a pair was answered")
    return votes


def read_all_answers(answers: Sequence[Path], key: Key) -> list[Vote]:
    """The votes of several people. Raises `UserError` as `read_answers` does, and where two have one name."""
    votes: list[Vote] = []
    by_voter: dict[str, Path] = {}
    for file in answers:
        own = read_answers(file, key)
        voter = own[0].voter
        other = by_voter.setdefault(voter, file)
        check(other is file, f"{other} and {file} are both answers of {voter!r}: give each person a name of their own")
        votes += own
    return votes


def preferred(votes: Sequence[Vote]) -> tuple[list[dict[str, str]], list[str]]:
    """What people prefer, as records of pairs (prompt, chosen, rejected), and how many votes make none, and why."""
    records, ties, empty = [], 0, 0
    for vote in votes:
        if vote.better not in ("a", "b"):
            ties += 1
            continue
        chosen, rejected = (vote.pair.a, vote.pair.b) if vote.better == "a" else (vote.pair.b, vote.pair.a)
        record = {"prompt": vote.pair.prompt, "chosen": chosen.text, "rejected": rejected.text}
        if all(text.strip() for text in record.values()):
            records.append({**record, "rater": vote.voter})
        else:
            empty += 1  # a model cannot be trained on it
    left_out = [f"{ties:,} ties"] * bool(ties)
    return records, left_out + [f"{empty:,} without a prompt or with an empty text"] * bool(empty)
