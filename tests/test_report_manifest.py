"""A report deletes what an earlier one wrote into its folder and it does not; nothing else."""

import json
from pathlib import Path

import pytest

from lmscale.core import files
from lmscale.study.report import manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder in which a report has written two figures, and somebody a file beside them."""
    (tmp_path / "figures").mkdir()
    for path in (*manifest.figure_files(["old", "kept"]), "figures/notes.txt", "table-old.csv"):
        (tmp_path / path).write_text(path)
    manifest.update(tmp_path, [*manifest.figure_files(["old", "kept"]), "table-old.csv"])
    return tmp_path


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


KEPT = {*manifest.figure_files(["kept"]), "figures/notes.txt", manifest.MANIFEST_FILE}


def test_figures_that_are_no_longer_drawn_are_deleted(folder: Path) -> None:
    assert {"figures/old.svg", "table-old.csv"} <= names(folder)
    manifest.update(folder, manifest.figure_files(["kept"]))
    assert names(folder) == KEPT
    assert json.loads((folder / manifest.MANIFEST_FILE).read_text()).keys() == set(manifest.figure_files(["kept"]))


def test_a_file_that_was_changed_stays(folder: Path) -> None:
    (folder / "figures/old.csv").write_text("my own numbers")
    manifest.update(folder, manifest.figure_files(["kept"]))
    assert names(folder) == {*KEPT, "figures/old.csv"}


@pytest.mark.parametrize(
    "list_of_files", ["", "[1]", "{", '{"figures/old.svg": 5}', "[" * 100_000, '{"old.svg": null}', "\x00"]
)
def test_a_list_that_cannot_be_read_deletes_nothing(folder: Path, list_of_files: str) -> None:
    (folder / manifest.MANIFEST_FILE).write_text(list_of_files)
    before = names(folder)
    manifest.update(folder, manifest.figure_files(["kept"]))
    assert names(folder) == before


@pytest.mark.parametrize("path", ["../{name}/secret", "/{folder}/secret", "figures/../../{name}/secret", "sub/secret"])
def test_a_list_leads_nowhere_else(folder: Path, path: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (folder / "sub").mkdir()
    for place in (elsewhere, folder / "sub"):
        (place / "secret").write_text("mine")
    noted = {path.format(name=elsewhere.name, folder=elsewhere): files.sha256(elsewhere / "secret")}
    (folder / manifest.MANIFEST_FILE).write_text(json.dumps(noted))
    manifest.update(folder, [])
    assert (elsewhere / "secret").exists() and (folder / "sub/secret").exists()


def test_links_are_not_followed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (folder / "figures").rename(elsewhere / "figures")
    (folder / "figures").symlink_to(elsewhere / "figures")
    manifest.update(folder, [])
    assert (elsewhere / "figures" / "old.svg").exists()
