"""The page of pairs in a real browser: a person's clicks come back as the votes that were meant."""

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from lmscale.lm.eval.judge.pairs import Pair
from lmscale.lm.eval.judge.people import read_answers, read_key, write_page
from lmscale.lm.eval.judge.texts import Author, Text

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(BROWSER is None, reason="needs chromium")]
CLICKS = """
<script>
localStorage.clear(); state = fresh();
$("begin").click();
const refused = $("asking").hidden;            // without a name nothing begins
$("rater").value = "anna"; $("begin").click();
$("choose-left").click(); $("back").click();    // a mistake, taken back
for (let i = 0; i < data.pairs.length - 2; i++) {
  const longer = $("left").textContent.length > $("right").textContent.length;
  $(longer ? "choose-left" : "choose-right").click();
}
document.onkeydown({ key: "0", target: document.body });   // a tie, from the keyboard
$("save").click();
document.title = String(refused) + " " + $("prompt").textContent;
const saved = document.createElement("pre");    // the value of a text area is not in the DOM
saved.id = "result"; saved.textContent = $("answers").value; document.body.append(saved);
</script>
"""


def dom(page: Path, tmp_path: Path) -> str:
    """The page after its scripts have run."""
    command = [
        str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/browser",
        "--dump-dom",
        page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, env={**os.environ, "HOME": str(tmp_path)}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_clicks_come_back_as_votes(tmp_path: Path) -> None:
    """Eighteen of twenty pairs are answered with the longer text, one with a tie and one not at all."""
    pairs = [
        Pair(
            Text(f"prompt {i}", f"<b>a{i}</b>", "small", f"s{i}"),
            Text(f"prompt {i}", f"</script>{i} & é", "large", f"l{i}"),
        )
        for i in range(20)
    ]
    page = tmp_path / "page.html"
    write_page(page, pairs, [Author("small"), Author("large")], "Which is better?")
    page.write_text(page.read_text().replace("</body>", f"{CLICKS}</body>"))
    content = dom(page, tmp_path)
    title = re.search(r"<title>(.*?)</title>", content)
    assert title is not None and re.fullmatch(r"true prompt \d+", title[1]), content[-1000:]
    assert "<b>a" not in content.split("<script type")[0], "texts are shown as they are, not as HTML"
    answers = re.search(r'<pre id="result">(.*?)</pre>', content, re.DOTALL)
    assert answers is not None
    (tmp_path / "anna.json").write_text(html.unescape(answers[1]))
    votes = read_answers(tmp_path / "anna.json", read_key(page))
    assert {vote.voter for vote in votes} == {"anna"} and len(votes) == 19
    assert sorted(vote.better or "" for vote in votes) == ["b"] * 18 + ["tie"]
    assert {vote.first for vote in votes} == {"a", "b"}, "sides are drawn"
    order = [vote.pair.id for vote in votes]
    assert order != [pair.id for pair in pairs if pair.id in order], "so is the order of the pairs"
    assert json.loads(html.unescape(answers[1]))["page"] == read_key(page).page
