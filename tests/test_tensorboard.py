"""TensorBoard sees the metrics that the runs have, and nothing else."""

import json
import struct
import sys
from pathlib import Path

import pytest
from rich.console import Console

from lmscale.commands import table
from lmscale.commands.table import TableArgs
from lmscale.core.errors import UserError
from lmscale.core.run_folder import METRICS_FILE
from lmscale.lm.train.logs.tensorboard import EVENTS_FOLDER, write_events

ROWS = [
    {"step": 10, "loss_nats": 5.5, "mfu": 0.25},
    {"step": 20, "loss_nats": 4.5, "mfu": 0.5, "validation_nats": 4.75},
]


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Two runs with metrics, the second one's last line on its way; and one without."""
    for name, end in (("a", "\n"), ("b", '\n{"step": 3')):
        (tmp_path / "two" / name).mkdir(parents=True)
        (tmp_path / "two" / name / METRICS_FILE).write_text("\n".join(map(json.dumps, ROWS)) + end)
    (tmp_path / "two" / "c").mkdir()
    return tmp_path / "two"


def scalars(run: Path) -> set[tuple[str, int, float]]:
    """Tag, step and value of the events in a run's one file: records of a length, a checksum, an Event, a checksum."""
    from tensorboardX.proto.event_pb2 import Event

    (path,) = (run / EVENTS_FOLDER).iterdir()
    data, values = path.read_bytes(), set()
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        event = Event.FromString(data[12 : 12 + length])
        values |= {(value.tag, event.step, value.simple_value) for value in event.summary.value}
        data = data[16 + length :]
    return values


def test_every_number_of_every_row_is_an_event(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):  # the second time anew, not twice
        table.main(TableArgs(sweep, to="tensorboard"), Console())
        assert capsys.readouterr().out == f"metrics of 2 runs written; next: tensorboard --logdir {sweep}\n"
        for run in (sweep / "a", sweep / "b"):
            assert scalars(run) == {
                (name, row["step"], value) for row in ROWS for name, value in row.items() if name != "step"
            }
            assert [path.name for path in sorted(run.iterdir())] == [METRICS_FILE, EVENTS_FOLDER]
    assert not list((sweep / "c").iterdir())


def test_what_cannot_be_written_is_said(sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"no run in .* has metrics yet; give runs/<sweep>"):
        write_events(sweep / "c")
    with pytest.raises(UserError, match="takes neither --scores nor --output"):
        table.main(TableArgs(sweep, tmp_path / "x.csv", to="tensorboard"), Console())
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(UserError, match=r"pip install 'lmscale\[tensorboard\]'"):
        write_events(sweep)
