"""Where verbs write is looked at before anything is computed."""

from pathlib import Path

import pytest
from helpers.command_line import call

from lmscale.cli import VERBS
from lmscale.core.errors import UserError
from lmscale.lm.use.export import export
from lmscale.lm.use.import_model import import_model

WRITERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "--json": ("fit", ("chinchilla", "--json", "PLACE")),
    "--save": ("fit", ("chinchilla", "--save", "PLACE")),
    "--output of table": ("table", ("runs/x", "--output", "PLACE")),
    "--output of import": ("import_table", ("a.csv", "--output", "PLACE")),
    "--output of judge": ("judge", ("--people", "p.html", "--answers", "a.json", "--output", "PLACE")),
    "--html of score": ("score", ("runs/x/y", "text.txt", "--html", "PLACE")),
    "--html of inspect": ("inspect", ("runs/x/y", "--text", "a b", "--html", "PLACE")),
    "--output of data": ("data", ("stdlib", "--output", "PLACE")),
    "OUTPUT of export": ("export", ("runs/x/y", "PLACE")),
    "OUTPUT of index": ("index", ("runs/x/y", "PLACE")),
    "--output of report": ("report", ("chinchilla", "--output", "PLACE")),
    "--output of import-model": ("import_model", ("models/x", "--output", "PLACE")),
    "--profile of bench": ("bench", ("--profile", "PLACE")),
}
"""What is written -> the module of a verb, and the words of its call."""
OF_FOLDERS = tuple(
    what for what in WRITERS if what.endswith(("data", "export", "index", "report", "import-model", "bench"))
)


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """No verb does anything."""
    for verb in VERBS.values():
        monkeypatch.setattr(verb.load(), "main", lambda *_: pytest.fail("it was computed"))


def refused(what: str, place: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What standard error says of the call that is to write at `place`, without its beginning."""
    module, words = WRITERS[what]
    name = next(name for name, verb in VERBS.items() if verb.module == module)
    assert call(name, *(str(place) if word == "PLACE" else word for word in words)) == 2
    flag, error = what.split(maxsplit=1)[0], capsys.readouterr().err
    assert error.startswith(f"lmscale: {flag} {place}: "), error
    return error.removeprefix(f"lmscale: {flag} {place}: ").rstrip()


@pytest.mark.parametrize("what", WRITERS)
def test_a_place_that_cannot_be_written_is_refused_before_anything_is_computed(
    what: str, idle: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("mine")
    within = tmp_path / "file" / "a.csv"
    assert refused(what, within, capsys) == f"{tmp_path / 'file'} is no folder; name another place"
    if what in OF_FOLDERS:
        assert refused(what, tmp_path / "file", capsys) == "that is a file; name a folder"
    else:
        assert refused(what, tmp_path, capsys) == f"that is a folder; name a file in it, as {tmp_path / 'answer.json'}"
    monkeypatch.setattr("os.access", lambda place, mode: Path(place) != tmp_path)
    new = tmp_path / "new" / "a.csv"
    assert refused(what, new, capsys) == f"{tmp_path} may not be written to; choose another folder"
    assert (tmp_path / "file").read_text() == "mine" and not (tmp_path / "new").exists()


def test_every_verb_says_which_of_its_outputs_are_folders() -> None:
    for name, verb in VERBS.items():
        arguments = getattr(verb.load(), verb.arguments)
        named = {"output", "html", "profile", "save"} & set(arguments.__dataclass_fields__)
        assert all(any(what.endswith(f"of {name}") or what == f"--{one}" for what in WRITERS) for one in named), name
        assert set(getattr(arguments, "FOLDERS", ())) <= set(arguments.__dataclass_fields__)


def test_a_file_in_a_folder_that_may_not_be_written_is_refused_and_a_device_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is written beside its place and renamed needs the folder; a device is written into."""
    monkeypatch.setattr("lmscale.commands.fit.main", lambda *_: None)
    monkeypatch.setattr("os.access", lambda place, mode: Path(place) not in (tmp_path, Path("/dev")))
    (tmp_path / "old.json").write_text("{}")
    assert call("fit", "chinchilla", "--json", tmp_path / "old.json") == 2
    assert f"{tmp_path} may not be written to; choose another folder" in capsys.readouterr().err
    assert call("fit", "chinchilla", "--json", "/dev/null", "--save", "/dev/null") == 0


def test_two_answers_at_one_place_are_refused(
    idle: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("fit", "chinchilla", "--json", "a.json", "--save", tmp_path / "b" / ".." / "a.json") == 2
    assert f"--json and --save both name {tmp_path / 'b' / '..' / 'a.json'}: give each" in capsys.readouterr().err
    assert call("report", "chinchilla", "--output", "a", "--json", "a") == 2
    assert "--output and --json both name a" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("import", "FILE", "--output", "FILE"), "SOURCE and --output"),
        (("fit", "FILE", "--json", "FILE"), "TABLE and --json"),
        (("fit", "chinchilla", "--law", "FILE:MyLaw", "--json", "FILE"), "--law and --json"),
        (("score", "runs/x/y", "FILE", "--html", "FILE"), "FILE and --html"),
        (("inspect", "runs/x/y", "--pairs", "FILE", "--html", "FILE"), "--pairs and --html"),
        (("predict", "FILE", "--json", "FILE"), "FIT and --json"),
        (("check", "FILE", "--json", "FILE"), "PREDICTION and --json"),
        (("report", "chinchilla", "a.csv", "FILE", "--json", "FILE"), "MORE and --json"),
        (("data", "FILE", "--json", "FILE"), "SOURCE and --json"),
        (("table", "FILE", "--output", "FILE"), "FOLDER and --output"),
        (("judge", "--people", "p.html", "--answers", "FILE", "--output", "FILE"), "--answers and --output"),
    ],
)
def test_what_is_read_is_not_overwritten(
    words: tuple[str, ...], names: str, idle: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to("file")
    read, written = tmp_path / "file", tmp_path / "link"
    assert call(*(word.replace("FILE", str(read)) for word in words[:-1]), written) == 2
    error = f"lmscale: {names} both name {written}, which would be overwritten: name a new file"
    assert capsys.readouterr().err.strip() == error


def test_a_device_is_read_and_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As is a file that an earlier call has written, beside a text that is too long for a path."""
    monkeypatch.setattr("lmscale.commands.fit.main", lambda *_: None)
    assert call("fit", "/dev/null", "--json", "/dev/null") == 0
    (tmp_path / "old.json").write_text("{}")
    assert call("fit", "a.csv", "--where", "params > 1 " * 1000, "--json", tmp_path / "old.json") == 0


def test_a_prediction_has_a_place_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lmscale.commands.fit._with_answer", lambda *_: pytest.fail("it was computed"))
    words = ("fit", "chinchilla", "--predict", "params=1e9,tokens=2e10", "--prediction", tmp_path / "a.json")
    assert call(*words, "--json", tmp_path / "a.json") == 2
    assert "--json and --prediction both name" in capsys.readouterr().err
    (tmp_path / "file").write_text("mine")
    assert call(*words[:-1], tmp_path / "file" / "a.json") == 2
    assert f"{tmp_path / 'file'} is no folder" in capsys.readouterr().err


def test_a_page_for_people_has_a_place_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lmscale.commands.judge.sources.gather", lambda *_, **__: pytest.fail("it was computed"))
    (tmp_path / "file").write_text("mine")
    assert call("judge", tmp_path / "file", "--people", tmp_path / "file" / "page.html") == 2
    assert f"{tmp_path / 'file'} is no folder" in capsys.readouterr().err


def test_a_folder_that_is_there_is_refused_before_a_model_is_read(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").write_text("mine")
    for write in (
        lambda: export(tmp_path / "no run", tmp_path / "there", "hf"),
        lambda: import_model(tmp_path / "no model", tmp_path / "there"),
    ):
        with pytest.raises(UserError, match="there exists already"):
            write()


def test_the_format_of_a_table_is_known_before_it_is_collected(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lmscale.commands.table._runs", lambda _: pytest.fail("it was collected"))
    assert call("table", "runs/x", "--output", "runs.xlsx") == 2
    assert "the ending says the format" in capsys.readouterr().err
    assert call("table", "runs/x", "--to", "parquet") == 2
    assert "--to parquet is not for a terminal" in capsys.readouterr().err
