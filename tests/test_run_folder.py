"""The metrics of a run are read up to the first line that is corrupt, and a line that is being written is no fault."""

import ast
from pathlib import Path

import pytest
from helpers.architecture import FILES

from lmscale.core import run_folder
from lmscale.core.run_folder import METRICS_FILE, TAIL_BYTES, failure_reason, last_metrics, no_run, read_metrics

ONE, TWO = b'{"step": 1}\n', b'{"step": 2, "loss_nats": 3.5}\n'


def test_a_run_without_metrics_has_no_rows(tmp_path: Path) -> None:
    assert read_metrics(tmp_path) == ([], None) and last_metrics(tmp_path) is None
    (tmp_path / METRICS_FILE).touch()
    assert read_metrics(tmp_path) == ([], None) and last_metrics(tmp_path) is None


@pytest.mark.parametrize("rest", [b"{", b'{"st', b'{"step": 3}', b'{"step": 3, "name": "\xc3'])
def test_a_truncated_last_line_is_no_row_and_not_corrupt(tmp_path: Path, rest: bytes) -> None:
    (tmp_path / METRICS_FILE).write_bytes(ONE + TWO + rest)
    rows, corrupt = read_metrics(tmp_path)
    whole = rest.endswith(b"}")  # the writer had all but the line's end on disk
    assert [row["step"] for row in rows] == [1, 2, 3][: 2 + whole] and corrupt is None
    assert last_metrics(tmp_path) == {"step": 2, "loss_nats": 3.5}


@pytest.mark.parametrize(
    "line",
    [
        b"1",
        b"[]",
        b"null",
        b'"step"',
        b"{}",
        b'{"step": "1"}',
        b'{"step": 1',
        b"\0\0\0",
        b'{"step": 2, "name": "\xff"}',
    ],
    ids=["number", "list", "null", "text", "no step", "step is text", "cut short", "zeros", "not UTF-8"],
)
def test_rows_end_before_a_corrupt_line_and_its_number_is_told(tmp_path: Path, line: bytes) -> None:
    (tmp_path / METRICS_FILE).write_bytes(ONE + line + b"\n" + TWO)
    assert read_metrics(tmp_path) == ([{"step": 1}], 2)
    assert last_metrics(tmp_path) == {"step": 2, "loss_nats": 3.5}
    (tmp_path / METRICS_FILE).write_bytes(ONE + line + b"\n")
    assert last_metrics(tmp_path) is None


def test_the_last_row_is_read_from_the_end_of_a_long_file(tmp_path: Path) -> None:
    (tmp_path / METRICS_FILE).write_bytes(ONE * TAIL_BYTES + TWO)
    assert last_metrics(tmp_path) == {"step": 2, "loss_nats": 3.5}


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b'{"reason": "exit status 3"}', "exit status 3"), (b"[]", ""), (b"{", "failed; why"), (b"\xff", "failed; why")],
)
def test_a_failure_that_cannot_be_read_is_a_failure_all_the_same(tmp_path: Path, content: bytes, reason: str) -> None:
    assert failure_reason(tmp_path) is None
    (tmp_path / "failed.json").write_bytes(content)
    assert (failure_reason(tmp_path) or "").startswith(reason) and failure_reason(tmp_path) is not None


@pytest.mark.long
def test_file_names_of_a_run_folder_are_written_in_one_module_only() -> None:
    names = {value for name, value in vars(run_folder).items() if name.endswith("_FILE") and "." in value}
    assert len(names) >= 8
    for path, file in FILES.items():
        if path not in ("core/run_folder", "lm/use/hf/fields"):  # the latter names a published model's config.json
            nodes = ast.walk(ast.parse(file.read_text("utf-8")))
            literals = {node.value for node in nodes if isinstance(node, ast.Constant)}
            repeated = names & literals
            assert not repeated, f"{path} repeats {repeated}: import the constant from core/run_folder"


def test_rows_of_another_run_are_not_its_own(tmp_path: Path) -> None:
    own, other = "0123456789ab", "ba9876543210"
    rows = [f'{{"step": {step}, "run_id": "{run}"}}\n' for step, run in enumerate((own, own, other))]
    for name in (own, "mine"):
        (tmp_path / name).mkdir()
        (tmp_path / name / METRICS_FILE).write_text("".join(rows))
    named, mine = tmp_path / own, tmp_path / "mine"
    assert (len(read_metrics(named)[0]), read_metrics(named)[1]) == (2, 3) and last_metrics(named) is None
    assert len(read_metrics(mine)[0]) == 3 and last_metrics(mine) == {"step": 2, "run_id": other}
    assert read_metrics(mine, own)[1] == 3


@pytest.mark.parametrize("value", ["1e999", "NaN", "9" * 400, '"x"', "true", "[]", "null"])
def test_a_row_holds_finite_numbers(tmp_path: Path, value: str) -> None:
    """An objective may report that it has no number."""
    (tmp_path / METRICS_FILE).write_text(f'{{"step": 1, "loss_nats": {value}}}\n')
    assert last_metrics(tmp_path) is None
    (tmp_path / METRICS_FILE).write_text(f'{{"step": 1, "aux": {value}}}\n')
    assert (last_metrics(tmp_path) is not None) == (value == "null")


def test_the_run_that_is_meant_is_named_by_the_first_letters_of_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for run in ("mine/0123456789ab", "mine/0199999999ab", "other/4eef0680cb4b"):
        (Path("runs") / run).mkdir(parents=True)
        (Path("runs") / run / "config.json").write_text("{}")
    Path("runs/mine/plan.json").write_text("{}")
    lacks = "is no run folder: it has no config.json"
    meant = "did you mean runs/mine/0123456789ab?"
    assert no_run(Path("runs/mine/0123")) == f"runs/mine/0123 {lacks}; {meant}"
    assert no_run(Path("0123456789ab")) == f"0123456789ab {lacks}; {meant}"
    assert no_run(tmp_path / "runs/mine/0123").endswith(f"; did you mean {tmp_path}/runs/mine/0123456789ab?")
    assert no_run(Path("runs/mine/01")).endswith("; give runs/<sweep>/<run_id>"), "two begin so"
    assert no_run(Path("absent")) == f"absent {lacks}; give runs/<sweep>/<run_id>"
    assert no_run(Path("[")) == f"[ {lacks}; give runs/<sweep>/<run_id>"
    assert no_run(Path("runs/mine")).startswith(f"runs/mine {lacks}, but a plan; give one of its runs, as runs/mine/01")
