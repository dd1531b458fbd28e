"""A report deletes what an earlier one wrote into its folder and it does not; nothing else."""

import json
from pathlib import Path

import pytest

from lmscale.study.report import written


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder in which a report has written two figures, and somebody a file beside them."""
    (tmp_path / "figures").mkdir()
    for path in (*written.of_figures(["old", "kept"]), "figures/notes.txt", "table-old.csv"):
        (tmp_path / path).write_text(path)
    written.replace(tmp_path, [*written.of_figures(["old", "kept"]), "table-old.csv"])
    return tmp_path


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


KEPT = {*written.of_figures(["kept"]), "figures/notes.txt", written.WRITTEN_FILE}


def test_figures_that_are_no_longer_drawn_are_deleted(folder: Path) -> None:
    assert {"figures/old.svg", "table-old.csv"} <= names(folder)
    written.replace(folder, written.of_figures(["kept"]))
    assert names(folder) == KEPT
    assert json.loads((folder / written.WRITTEN_FILE).read_text()).keys() == set(written.of_figures(["kept"]))


def test_a_file_that_was_changed_stays(folder: Path) -> None:
    (folder / "figures/old.csv").write_text("my own numbers")
    written.replace(folder, written.of_figures(["kept"]))
    assert names(folder) == {*KEPT, "figures/old.csv"}


@pytest.mark.parametrize(
    "list_of_files", ["", "[1]", "{", '{"figures/old.svg": 5}', "[" * 100_000, '{"old.svg": null}', "\x00"]
)
def test_a_list_that_cannot_be_read_deletes_nothing(folder: Path, list_of_files: str) -> None:
    (folder / written.WRITTEN_FILE).write_text(list_of_files)
    before = names(folder)
    written.replace(folder, written.of_figures(["kept"]))
    assert names(folder) == before


@pytest.mark.parametrize("path", ["../{name}/secret", "/{folder}/secret", "figures/../../{name}/secret", "sub/secret"])
def test_a_list_leads_nowhere_else(folder: Path, path: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (folder / "sub").mkdir()
    for place in (elsewhere, folder / "sub"):
        (place / "secret").write_text("mine")
    noted = {path.format(name=elsewhere.name, folder=elsewhere): written._sha256(elsewhere / "secret")}
    (folder / written.WRITTEN_FILE).write_text(json.dumps(noted))
    written.replace(folder, [])
    assert (elsewhere / "secret").exists() and (folder / "sub/secret").exists()


def test_links_are_not_followed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (folder / "figures").rename(elsewhere / "figures")
    (folder / "figures").symlink_to(elsewhere / "figures")
    written.replace(folder, [])
    assert (elsewhere / "figures" / "old.svg").exists()
