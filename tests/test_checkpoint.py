import errno
import json
import shutil
from pathlib import Path

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmscale.core.errors import UserError
from lmscale.core.run_folder import CHECKPOINT_FOLDER
from lmscale.lm.train.checkpoint import Checkpoints, _refusal
from lmscale.lm.train.checkpoint_content import IDENTITY, Identity, OtherData


@flax.struct.dataclass
class State:
    step: jax.Array
    params: dict[str, jax.Array]


def abstract(state: State) -> State:
    """Shapes, types and placements of `state`, without its values."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)


def state(step: int, size: int = 8) -> State:
    return State(jnp.int32(step), {"a": jnp.full(size, step + 0.5), "b": jnp.full((2, size), step, jnp.bfloat16)})


def saved(folder: Path, *steps: int, run_id: str = "abc") -> Checkpoints:
    checkpoints = Checkpoints(folder, run_id)
    for step in steps:
        checkpoints.save(state(step), {"seconds": step / 3})
    checkpoints.close()
    return checkpoints


def test_the_newest_comes_back_to_the_last_bit(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 1, 2, 3)
    train_state, facts, skipped = checkpoints.restore(abstract(state(0)))
    assert jax.tree.all(jax.tree.map(lambda x, y: x.dtype == y.dtype and np.array_equal(x, y), train_state, state(3)))
    assert (facts["run_id"], facts["seconds"], skipped) == ("abc", 1.0, [])
    checkpoints.close()
    assert sorted(path.name for path in (tmp_path / CHECKPOINT_FOLDER).iterdir()) == ["2", "3"]


def test_a_folder_without_checkpoints_has_none_and_stays_as_it_is(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, "abc")
    assert checkpoints.restore(abstract(state(0))) == (None, {}, [])
    checkpoints.close()
    checkpoints.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_step_is_saved_once(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 4)
    checkpoints.save(state(4), {})
    checkpoints.close()
    assert checkpoints.restore(abstract(state(0)))[1]["seconds"] == 4 / 3
    checkpoints.close()


def test_unreadable_ones_are_reported_set_aside_and_can_be_saved_again(tmp_path: Path) -> None:
    folder = saved(tmp_path, 1, 2).folder
    shutil.rmtree(folder / "2" / "state")
    checkpoints = Checkpoints(tmp_path, "abc")
    train_state, _, skipped = checkpoints.restore(abstract(state(0)))
    assert int(train_state.step) == 1
    assert len(skipped) == 1 and "the checkpoint of step 2 in" in skipped[0] and "\n" not in skipped[0]
    assert (folder / "unreadable-2").is_dir()
    checkpoints.save(state(2), {})
    checkpoints.close()
    assert int(checkpoints.restore(abstract(state(0)))[0].step) == 2
    checkpoints.remove()
    assert not folder.exists()


@pytest.mark.long
@pytest.mark.parametrize(
    ("left", "reason"),
    [
        (b"", "its facts are empty or spoiled"),
        (b"\0" * 100, "its facts are empty or spoiled"),
        (b"\xff\xfe", "its facts are empty or spoiled"),
        (b'{"run_id": "abc", "arr', "its facts are empty or spoiled"),
        (b"null", "its facts are incomplete"),
        (b'{"run_id": "abc", "arrays": 3, "bits": {}}', "its facts are incomplete"),
        (b'{"run_id": "abc", "arrays": {"step": "int32[]"}, "bits": {}}', "its facts are incomplete"),
        (b'{"run_id": "abc", "arrays": {}, "bits": {}, "seconds": "1"}', "its facts are incomplete"),
        (b'{"run_id": "abc", "arrays": {}, "bits": {}, "seconds": 1' + b"0" * 400 + b"}", "its facts are incomplete"),
        (b'{"run_id": "abc", "arrays": {}, "bits": {}, "losses": [[]]}', "its facts are incomplete"),
        (b'{"run_id": "abc", "arrays": {}, "bits": {}, "losses": [1], "reported": {"a": []}}', "its facts are inc"),
        (b'{"run_id": "abc", "arrays": {}, "bits": {}, "data_fingerprint": 3}', "its facts are incomplete"),
        (b"[" * 100_000, "its facts are empty or spoiled"),
    ],
)
def test_one_whose_facts_are_not_whole_is_skipped_with_a_sentence(tmp_path: Path, left: bytes, reason: str) -> None:
    """As a disk that is full for a while can leave a checkpoint that Orbax calls complete."""
    folder = saved(tmp_path, 1, 2).folder
    (folder / "2" / "facts" / "metadata").write_bytes(left)
    checkpoints = Checkpoints(tmp_path, "abc")
    train_state, facts, skipped = checkpoints.restore(abstract(state(0)))
    checkpoints.close()
    assert int(train_state.step) == 1 and facts["seconds"] == 1 / 3
    (sentence,) = skipped
    assert f"the checkpoint of step 2 in {folder} cannot be read and is skipped: {reason}" in sentence
    assert "\n" not in sentence


def test_only_unreadable_ones_are_as_none(tmp_path: Path) -> None:
    folder = saved(tmp_path, 1, 2).folder
    for path in [*folder.rglob("*")]:
        if path.is_file():
            path.write_bytes(b"")
    checkpoints = Checkpoints(tmp_path, "abc")
    train_state, _, skipped = checkpoints.restore(abstract(state(0)))
    assert train_state is None and len(skipped) == 2
    checkpoints.close()


def test_those_of_another_run_are_refused_and_kept(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    checkpoints = Checkpoints(tmp_path, "other")
    with pytest.raises(UserError, match="holds checkpoints of run abc, but this configuration is run other"):
        checkpoints.restore(abstract(state(0, size=16)))
    checkpoints.close()
    assert (tmp_path / CHECKPOINT_FOLDER / "1").is_dir()


def test_one_of_another_architecture_names_what_differs(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    checkpoints = Checkpoints(tmp_path, "abc")
    pattern = (
        r"step 1 in .* another version of lmscale \(params\.a is float32\[8\] there, float32\[16\] here\); .* delete"
    )
    with pytest.raises(UserError, match=pattern):
        checkpoints.restore(abstract(state(0, size=16)))
    checkpoints.close()
    assert (tmp_path / CHECKPOINT_FOLDER / "1").is_dir()


def test_those_of_other_data_are_refused_and_kept(tmp_path: Path) -> None:
    first, second = Identity("abc", "1111", "the first corpus"), Identity("abc", "2222", "the second corpus")
    checkpoints = Checkpoints(tmp_path, first)
    checkpoints.save(state(1), {})
    checkpoints.close()
    for like in (abstract(state(0)), {"params": abstract(state(0)).params}):
        with pytest.raises(OtherData, match="1111, the first corpus, and now it is 2222, the second"):
            Checkpoints(tmp_path, second).restore_step(1, like)
    with pytest.raises(OtherData, match=r"restore the corpus .* or train on the new data in another folder"):
        Checkpoints(tmp_path, second).restore(abstract(state(0)))
    assert int(Checkpoints(tmp_path, first).restore(abstract(state(0)))[0].step) == 1
    assert int(Checkpoints(tmp_path, "abc").restore_step(1, abstract(state(0)))[0].step) == 1


def test_those_of_older_versions_do_not_know_their_data(tmp_path: Path) -> None:
    metadata = saved(tmp_path, 1).folder / "1" / "facts" / "metadata"
    facts = json.loads(metadata.read_text())
    older = {name: value for name, value in facts.items() if name not in (*IDENTITY, "step")}
    assert len(older) == len(facts) - 4
    metadata.write_text(json.dumps(older))
    checkpoints = Checkpoints(tmp_path, Identity("abc", "2222"))
    assert int(checkpoints.restore(abstract(state(0)))[0].step) == 1
    checkpoints.close()


@pytest.mark.parametrize("older", [False, True])
def test_one_under_the_name_of_another_step_is_skipped(tmp_path: Path, older: bool) -> None:
    folder = saved(tmp_path, 1, 2).folder
    (folder / "2").rename(folder / "5")
    metadata = folder / "5" / "facts" / "metadata"
    facts = json.loads(metadata.read_text())
    metadata.write_text(json.dumps({name: value for name, value in facts.items() if not older or name != "step"}))
    for other in ("7", "\xb2", "007"):
        (folder / other).touch()
    checkpoints = Checkpoints(tmp_path, "abc")
    train_state, _, skipped = checkpoints.restore(abstract(state(0)))
    checkpoints.close()
    assert int(train_state.step) == 1 and len(skipped) == 1 and "that of step 2" in skipped[0]


def test_numbers_that_are_not_those_that_were_saved_are_not_trusted(tmp_path: Path) -> None:
    """Well-formed files with other numbers, as Orbax would restore them."""
    folder, other = (saved(tmp_path / name, *steps).folder for name, steps in (("run", (1, 2)), ("other", (3,))))
    shutil.rmtree(folder / "2" / "state")
    shutil.copytree(other / "3" / "state", folder / "2" / "state")
    checkpoints = Checkpoints(tmp_path / "run", "abc")
    train_state, _, skipped = checkpoints.restore(abstract(state(0)))
    checkpoints.close()
    assert int(train_state.step) == 1 and len(skipped) == 1
    assert "of step 2 in" in skipped[0] and "the numbers of step have changed since they were saved" in skipped[0]


def test_what_the_file_system_refuses_is_found_behind_what_orbax_raises() -> None:
    assert _refusal(ValueError("no shape")) is None
    hidden = ValueError("RESOURCE_EXHAUSTED: ... No space left on device [os_error_code='28']")
    outer = RuntimeError("save failed")
    outer.__cause__ = hidden
    for error in (hidden, outer, OSError(errno.ENOSPC, "full")):
        refusal = _refusal(error)
        assert refusal is not None and refusal.errno == errno.ENOSPC
