"""The data that a run was begun on, noted after its first step: before it has a checkpoint that states them.

A run that was killed before its first checkpoint would otherwise begin anew on a corpus that has changed since, without
a word, beside runs of its sweep that are refused because they have one.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from lmscale.core.config import check
from lmscale.core.files import read_json, write_json
from lmscale.core.run_folder import DATA_FILE
from lmscale.core.run_identity import check_file_of
from lmscale.lm.devices.distributed import is_main
from lmscale.lm.train.checkpoint_content import IDENTITY, Identity, OtherData


def note_data(identity: Identity, folder: Path) -> None:
    """Note the data of `identity`, the first time that the run in `folder` is trained on them."""
    if is_main() and not (folder / DATA_FILE).exists():
        write_json(folder / DATA_FILE, asdict(identity))


def check_noted(identity: Identity, folder: Path) -> None:
    """Raise `OtherData` where the run in `folder` was begun on other data than those of `identity`.

    Raises `UserError` for a note that is damaged or another run's.
    """
    noted = noted_data(folder)
    if noted is None or noted["data_fingerprint"] == identity.data_fingerprint:
        return
    raise OtherData(
        f"the run in {folder} was begun on other data: fingerprint {noted['data_fingerprint']}, "
        f"{noted.get('data_source') or 'unknown'}, and now it is {identity.data_fingerprint}, {identity.data_source}; "
        f"restore the corpus and the tokenizer and go on (after `lmscale retry`, where the run was given up), or, "
        f"since it has no checkpoint, delete {folder / DATA_FILE} to begin anew on the new data"
    )


def noted_data(folder: Path) -> dict[str, Any] | None:
    """What the run in `folder` was begun on; None where that is not noted. Raises as `check_noted` does."""
    path = folder / DATA_FILE
    if not path.is_symlink() and not path.exists():
        return None
    value = read_json(path, "note of a run's data")
    check(
        isinstance(value, dict)
        and isinstance(value.get("data_fingerprint"), str)
        and all(isinstance(value.get(name, ""), str | None) for name in IDENTITY),
        f"the note of a run's data {path} is corrupt: it states no fingerprint; delete it, and it will be made again",
    )
    check_file_of(value.get("run_id"), path)
    return dict(value)
