"""What a run writes as a part of its exam: graded by a judge behind a server, or measured without one."""

import re
from typing import NamedTuple
from urllib.parse import urlsplit

from lmscale.core.config.checks import check
from lmscale.core.text import one_line

JUDGE = "judge:"
GRADES, OFFLINE = "grades", "offline"
RUBRIC = "tinystories"
"""The rubric where none is named, whose openings are continued."""
LONGEST_SHOWN = 160
LOOKS_LIKE_A_KEY = re.compile(r"(?i)(?:sk|key|token|hf|gsk|api)[-_][a-z0-9_-]{16,}|[a-f0-9]{32,}")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


class JudgeSpec(NamedTuple):
    """What is judged of a run's own texts, and by whom."""

    kind: str
    """`GRADES` or `OFFLINE`."""
    rubric: str = RUBRIC
    """The name of the rubric, or a file that holds one."""
    server: str = ""
    model: str = ""
    key_variable: str = ""


def judge_spec(spec: str) -> JudgeSpec | None:
    """What `judge:offline` and `judge:grades(server=URL, model=NAME)` ask for, each also with `rubric=FILE`, the second
    with `key_variable=NAME`; None of a task's specification.

    Raises `UserError` for what begins like one of them and is none, whose settings are not repeated, since they may
    hold a key; and as `checked_url` and `check_variable` do.
    """
    if not spec.startswith(JUDGE):
        return None
    kind, opened, rest = spec.removeprefix(JUDGE).strip().partition("(")
    kind, pairs = kind.strip(), [part.partition("=") for part in rest.removesuffix(")").split(",") if part.strip()]
    settings = {name.strip(): value.strip() for name, _, value in pairs}
    fields = {GRADES: {"server", "model", "key_variable", "rubric"}, OFFLINE: {"rubric"}}.get(kind, set())
    whole = kind in (GRADES, OFFLINE) and (not opened or rest.endswith(")")) and len(settings) == len(pairs)
    needed = {"server", "model"} if kind == GRADES else set()
    shown = one_line(kind)[:LONGEST_SHOWN] + "(...)" * bool(opened)
    check(
        whole and set(settings) <= fields and all(settings.values()) and needed <= set(settings),
        f"{JUDGE}{shown} says no way of judging; write {JUDGE}{OFFLINE}, or "
        f"{JUDGE}{GRADES}(server=http://localhost:8000/v1, model=NAME), both also with rubric=FILE, the second with "
        f"key_variable=NAME",
    )
    if kind == GRADES:
        settings["server"] = checked_url(settings["server"])
    if "key_variable" in settings:
        check_variable(settings["key_variable"])
    return JudgeSpec(kind, **settings)


def check_variable(name: str) -> None:
    """Raise `UserError` for what names no environment variable, or may be a key itself."""
    check(
        VARIABLE.fullmatch(name) is not None and not LOOKS_LIKE_A_KEY.search(name),
        "--key-variable takes the name of an environment variable, such as OPENAI_API_KEY, never the key itself",
    )


def check_no_key(url: str) -> None:
    """Raise `UserError` for a URL in which a key may stand, which is not repeated."""
    check(
        not set("@?#") & set(url) and not LOOKS_LIKE_A_KEY.search(url),
        "the URL of the judge holds a name, a password, a query or a key, which would end in logs: give the bare base "
        "of the API, such as http://localhost:8000/v1, and the key in an environment variable, --key-variable NAME",
    )


def checked_url(url: str) -> str:
    """The base of an API, without what follows it. Raises `UserError` for what is none, and for one with a key in it.

    What is refused is not repeated where it may hold a key.
    """
    url = url.strip()
    check_no_key(url)
    try:
        parts = urlsplit(url)
        whole = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        whole = False
    shown = one_line(url)[:LONGEST_SHOWN]
    check(
        whole and not re.search(r"[\s\x00-\x1f\x7f]", url),
        f"the judge's URL {shown!r} is none: give the base of an API, such as http://localhost:8000/v1",
    )
    return url.rstrip("/").removesuffix("/chat/completions")
