"""Plain PyTorch on exported weights computes the objectives that `golden/objectives.json` keeps."""

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import objective_cases as cases
from helpers.peers import call_peer, peers_python
from helpers.tiny_runs import run

from lmscale.lm.data.tokenizer import SymbolTokenizer
from lmscale.lm.use.hf.write import write_hf
from lmscale.lm.use.load import TrainedRun

pytestmark = pytest.mark.slow
GOLDEN = Path(__file__).parent / "golden/objectives.json"


def computed_by_torch(folder: Path) -> Any:
    for name, model, params in (
        ("student", cases.STUDENT, cases.students_params()),
        ("teacher", cases.TEACHER, cases.teachers_params()),
    ):
        (folder / name).mkdir()
        arrays = {key: jnp.asarray(value) for key, value in params.items()}
        tokenizer = SymbolTokenizer(model.vocab)
        write_hf(folder / name, TrainedRun(run("stdlib", 8, model=model), arrays, tokenizer), {}, shard_bytes=10**9)
    np.savez(folder / "batch.npz", **cases.batch())
    np.savez(folder / "pairs.npz", **cases.pair_batch(), scalar_head=cases.rewards_params()["scalar_head"])
    np.savez(folder / "answers.npz", **cases.answers())
    (folder / "cases.json").write_text(json.dumps(cases.cases_json()), encoding="utf-8")
    return json.loads(call_peer("objectives.py", folder))


def test_torch_computes_the_golden_numbers(tmp_path: Path) -> None:
    peers_python()
    torch_numbers, golden = computed_by_torch(tmp_path), json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert torch_numbers.keys() == golden.keys()
    for name, numbers in golden.items():
        assert torch_numbers[name] == pytest.approx(numbers, rel=1e-6), name
