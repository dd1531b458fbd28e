"""Runs compiled in processes of their own: which share a program, how many at once, what is kept, what goes wrong."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from helpers.compiled import COMPILED, compiled, fake_worker, requests
from helpers.outcomes import RUN

from lmscale.core import extras
from lmscale.core.compiled import CompiledRun, program_key
from lmscale.core.config import DataConfig, MeshConfig, ModelConfig, RunConfig
from lmscale.core.errors import MemoryShortage, UserError
from lmscale.core.machines import machine
from lmscale.core.plans import PlannedRun
from lmscale.study.compiled import cache, compile_runs, plan, pool
from lmscale.study.compiled.environment import environment

V5E = machine("v5e-4")


def of_width(width: int, **changes: object) -> RunConfig:
    return replace(RUN, model=replace(RUN.model, width=width), **changes)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], Path]:
    """A compiler that replies at once, and an empty cache; the function sets what it does and names its folder."""
    monkeypatch.setenv("LMSCALE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(plan, "compiler_versions", lambda extra, purpose: {"libtpu": "0.0.42"})

    def worker(body: str = "") -> Path:
        monkeypatch.setattr(plan, "compile_jobs", partial(pool.compile_jobs, command=fake_worker(tmp_path, body)))
        return tmp_path

    return worker


def test_the_outcome_is_the_same_after_json() -> None:
    written = json.loads(json.dumps(COMPILED.to_json()))
    assert CompiledRun.from_json(written) == COMPILED
    assert {"fits", "bytes_per_device", "attention"} <= set(written)
    assert written["compile_seconds"] == 25.0 and written["step_seconds_at_least"] == 0.012
    assert written["limit"] == "memory" and written["effort"] == "full"
    del written["train"]["effort"], written["effort"]  # as written before there was a choice
    assert CompiledRun.from_json(written) == COMPILED and "fits, 3.0 GB per device of 16.0" in COMPILED.sentence()


def test_runs_that_differ_in_numbers_share_a_program() -> None:
    key = program_key(RUN, None)
    for same in (
        replace(RUN, seed=5, name="other"),
        replace(RUN, tokens=2 * RUN.tokens),
        replace(RUN, optimizer=replace(RUN.optimizer, peak_lr=0.5, weight_decay=0.3)),
        replace(RUN, data=DataConfig(source="elsewhere/")),
        replace(RUN, validations=2),
    ):
        assert program_key(same, None) == key
    for other in (
        of_width(32),
        replace(RUN, optimizer=replace(RUN.optimizer, batch_sequences=8)),
        replace(RUN, optimizer=replace(RUN.optimizer, kind="lion")),
        replace(RUN, mesh=MeshConfig(data=2)),
        replace(RUN, validation_tokens=64),
    ):
        assert program_key(other, None) != key
    assert program_key(RUN, ModelConfig(width=16, layers=2, heads=2, context=16)) != key


def test_every_program_is_compiled_once_the_largest_first_and_stored(installed: Callable[[str], Path]) -> None:
    folder = installed("")
    runs = [PlannedRun(of_width(width, seed=seed)) for width in (16, 64, 32) for seed in (0, 1)]
    lines: list[tuple[int, int]] = []
    outcomes = compile_runs(runs, V5E, lambda done, programs, newest: lines.append((done, programs)))
    assert outcomes == [COMPILED] * len(runs)
    assert requests(folder)[0] == 64 and sorted(requests(folder)) == [16, 32, 64]
    assert lines == [(1, 3), (2, 3), (3, 3)]
    again = compile_runs(runs, V5E)
    assert again == outcomes and len(requests(folder)) == 3, "nothing is compiled twice"
    compile_runs(runs[:1], machine("v5e-8"))
    assert len(requests(folder)) == 4, "another machine is another program"


def test_sources_and_versions_are_part_of_the_key_of_the_cache(
    installed: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, runs = installed(""), [PlannedRun(RUN)]
    compile_runs(runs, V5E)
    monkeypatch.setattr(plan, "compiler_versions", lambda extra, purpose: {"libtpu": "0.0.43"})
    compile_runs(runs, V5E)
    monkeypatch.setattr(cache, "source_hash", lambda: "changed")
    compile_runs(runs, V5E)
    assert len(requests(folder)) == 3
    (newest, *_) = sorted((folder / "cache" / "compiled").glob("*.json"), key=lambda path: -path.stat().st_mtime_ns)
    newest.write_text("{", "utf-8")  # a damaged file is compiled again
    compile_runs(runs, V5E)
    assert len(requests(folder)) == 4


def test_runs_that_are_trained_in_one_program_are_compiled_as_one(installed: Callable[[str], Path]) -> None:
    """Three of one shape and one of another, of up to two: a pair, and a program of one run."""
    folder = installed("reply['packed'] = request['packed']")
    alike = [PlannedRun(replace(RUN, seed=seed)) for seed in range(3)]
    runs = [*alike, PlannedRun(of_width(32)), PlannedRun(replace(RUN, tokens=2 * RUN.tokens))]
    assert [outcome.packed for outcome in compile_runs(runs, V5E, pack=2)] == [2, 2, 2, 1, 1]
    assert [outcome.packed for outcome in compile_runs(runs, V5E, pack=8)] == [3, 3, 3, 1, 1]
    assert [outcome.packed for outcome in compile_runs(runs, V5E)] == [1] * 5
    assert sorted(requests(folder)) == [16, 16, 16, 32]
    spread = [PlannedRun(replace(RUN, seed=seed, mesh=MeshConfig(data=2))) for seed in range(2)]
    assert [outcome.packed for outcome in compile_runs(spread, V5E, pack=2)] == [1, 1], "each is spread by itself"
    with pytest.raises(UserError, match="--pack 0: must be at least 1"):
        compile_runs(runs, V5E, pack=0)


def test_programs_of_full_effort_are_stored_apart(installed: Callable[[str], Path]) -> None:
    folder = installed("reply['train']['effort'] = request['effort']")
    runs = [PlannedRun(RUN)]
    for _ in range(2):
        assert [outcome.effort for outcome in compile_runs(runs, V5E)] == ["low"]
        assert [outcome.effort for outcome in compile_runs(runs, V5E, effort="full")] == ["full"]
    assert len(requests(folder)) == 2


def test_runs_of_one_name_on_several_meshes_are_several_programs(installed: Callable[[str], Path]) -> None:
    """A mesh is no part of a run's name, since it does not change what is learned."""
    folder = installed("reply['devices'] = request['config']['mesh']['data']")
    runs = [PlannedRun(replace(RUN, mesh=MeshConfig(data=devices))) for devices in (1, 2, 4)]
    assert len({run.config.run_id for run in runs}) == 1
    assert [outcome.devices for outcome in compile_runs(runs, V5E)] == [1, 2, 4]
    assert len(requests(folder)) == 3


def test_as_many_at_once_as_memory_holds() -> None:
    assert pool.places(0, 10**12, cores=8) == 1, "the first shows what one takes"
    assert pool.places(10**9, 10**10, cores=8) == 8
    assert pool.places(10**9, 3 * 10**9, cores=8) == 3
    assert pool.places(10**10, 10**9, cores=8) == 1
    assert pool.places(10**9, None, cores=8) == 8


def test_what_a_compiler_says_is_passed_on(installed: Callable[[str], Path]) -> None:
    installed("print('noise'); print('lmscale: no such kernel; take another', file=sys.stderr); sys.exit(2)")
    with pytest.raises(UserError, match=r"^no such kernel; take another$"):
        compile_runs([PlannedRun(RUN)], V5E)
    installed("raise RuntimeError('deep inside')")
    with pytest.raises(UserError, match="compiler for v5e-4 failed: RuntimeError: deep inside"):
        compile_runs([PlannedRun(RUN)], V5E)
    installed("sys.exit(0)")
    with pytest.raises(UserError, match="compiler for v5e-4 failed: the process printed nothing"):
        compile_runs([PlannedRun(RUN)], V5E)


def test_a_process_that_the_system_ends_is_tried_alone(installed: Callable[[str], Path], tmp_path: Path) -> None:
    """The smaller two run at once; the one that is killed is started again when the other is done."""
    once = (
        f"mark = {str(tmp_path / 'mark')!r}\n"
        "if width == 16 and not os.path.exists(mark):\n"
        "    open(mark, 'w').close()\n"
        "    time.sleep(0.5)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    folder = installed(once)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool, "usable_cores", lambda: [0, 1])
        patch.setattr(pool, "available_memory_bytes", lambda: 10**12)
        outcomes = compile_runs([PlannedRun(of_width(width)) for width in (64, 32, 16)], V5E)
    assert len(outcomes) == 3 and requests(folder).count(16) == 2 and requests(folder)[-1] == 16


def test_a_program_that_does_not_compile_in_this_memory(installed: Callable[[str], Path]) -> None:
    installed("os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(MemoryShortage, match=f"compiling run {RUN.run_id} for v5e-4 takes more memory"):
        compile_runs([PlannedRun(RUN)], V5E)


def test_a_mesh_that_does_not_fit_is_refused_before_anything_compiles(installed: Callable[[str], Path]) -> None:
    folder = installed("")
    large = PlannedRun(
        replace(RUN, mesh=MeshConfig(data=2, fsdp=4), optimizer=replace(RUN.optimizer, batch_sequences=8))
    )
    with pytest.raises(UserError, match=r"takes 8 devices, but v5e-4 has 4.*compile for v5e-8"):
        compile_runs([PlannedRun(RUN), large], V5E)
    assert not requests(folder)


def test_the_environment_of_a_process_that_compiles() -> None:
    present = {"PATH": "/bin", "JAX_PLATFORMS": "tpu", "TPU_WORKER_ID": "3", "XLA_FLAGS": "--xla_dump_to=here"}
    tpu = environment(machine("v5e-16"), present)
    assert tpu["JAX_PLATFORMS"] == "cpu" and tpu["TPU_ACCELERATOR_TYPE"] == "v5litepod-16"
    assert tpu["TPU_WORKER_HOSTNAMES"] == "localhost" and "TPU_WORKER_ID" not in tpu and tpu["PATH"] == "/bin"
    assert environment(machine("v5p-128"), {})["TPU_ACCELERATOR_TYPE"] == "v5p-128"
    several = environment(machine("h100x8"), present)["XLA_FLAGS"]
    assert several == "--xla_dump_to=here --xla_gpu_enable_latency_hiding_scheduler=true"
    assert environment(machine("h100"), present)["XLA_FLAGS"] == "--xla_dump_to=here"
    off = {"XLA_FLAGS": "--xla_gpu_enable_latency_hiding_scheduler=false"}
    assert environment(machine("h100x8"), off)["XLA_FLAGS"] == off["XLA_FLAGS"]


@pytest.mark.parametrize(
    ("extra", "versions", "sentence"),
    [
        ("tpu", {}, r"compiling needs libtpu, which is not installed .*: pip install 'lmscale\[tpu\]'"),
        ("cuda", {}, r"compiling needs jax-cuda13-plugin, .*: pip install 'lmscale\[cuda\]'"),
        ("cuda", {"jax-cuda13-plugin": "0.9.0"}, r"jax-cuda13-plugin 0\.9\.0 does not match jaxlib 0\.10\.2; pip"),
        ("tpu", {"libtpu": "0.0.41"}, r"libtpu 0\.0\.41 does not match jax 0\.10\.2, which takes 0\.0\.42\.\*"),
    ],
)
def test_a_compiler_that_is_missing_or_of_another_version(
    extra: str, versions: dict[str, str], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = {"jax": "0.10.2", "jaxlib": "0.10.2", **versions}
    monkeypatch.setattr(extras, "installed", lambda package: here.get(package, ""))
    monkeypatch.setattr(extras, "requires_of", lambda package: ("numpy>=2", 'libtpu==0.0.42.*; extra == "tpu"'))
    with pytest.raises(UserError, match=sentence):
        extras.compiler_versions(extra, "compiling")


def test_a_compiler_that_matches(monkeypatch: pytest.MonkeyPatch) -> None:
    here = {"jax": "0.10.2", "jaxlib": "0.10.2", "libtpu": "0.0.42.1", "jax-cuda13-plugin": "0.10.2"}
    monkeypatch.setattr(extras, "installed", lambda package: here.get(package, ""))
    monkeypatch.setattr(extras, "requires_of", lambda package: ('libtpu==0.0.42.*; extra == "tpu"',))
    assert extras.compiler_versions("tpu", "compiling")["libtpu"] == "0.0.42.1"
    assert extras.compiler_versions("cuda", "compiling")["jax-cuda13-plugin"] == "0.10.2"
    here["jax-cuda13-plugin"] = "0.10.2+cuda13"
    assert extras.compiler_versions("cuda", "compiling")["jax-cuda13-plugin"] == "0.10.2+cuda13"


def test_an_outcome_of_a_refused_program_is_read_too() -> None:
    refused = compiled(fits=False, bound=None, train=replace(COMPILED.train, fits=False, problem="exceeds"))
    assert CompiledRun.from_json(json.loads(json.dumps(refused.to_json()))) == refused
    assert refused.sentence().startswith("does not fit") and "at least" not in refused.sentence()
