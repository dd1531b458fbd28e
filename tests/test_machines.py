"""Names of machines and the nearest to one that is none, descriptions of GPUs, and the least time of a step."""

import re
from pathlib import Path

import pytest

from lmscale.core.accelerators import ACCELERATORS, by_jax_kind
from lmscale.core.errors import UserError
from lmscale.core.machines import machine, step_bound, target_text
from lmscale.core.machines.gpu_targets import capability, memory_bytes
from lmscale.core.machines.names import SLICES


@pytest.mark.parametrize(
    ("name", "device", "devices", "hosts", "topology", "linked"),
    [
        ("v5e-1", "v5e", 1, 1, "1x1", 1),
        ("v5e-4", "v5e", 4, 1, "2x2", 4),
        ("v5e-16", "v5e", 16, 4, "4x4", 16),
        ("v5litepod-16", "v5e", 16, 4, "4x4", 16),
        ("v6e-8", "v6e", 8, 1, "2x4", 8),
        ("v5p-128", "v5p", 64, 16, "4x4x4", 64),
        ("v4-8", "v4", 4, 1, "2x2x1", 4),
        ("h100", "h100", 1, 1, "1x1x1", 1),
        ("H100x8", "h100", 8, 1, "1x1x8", 8),
        ("h100x16", "h100", 16, 2, "2x1x8", 8),
        ("a100-80x4", "a100", 4, 1, "1x1x4", 4),
        ("a100-40x8", "a100-40", 8, 1, "1x1x8", 8),
        ("h200x8", "h200", 8, 1, "1x1x8", 8),
        ("b200x8", "b200", 8, 1, "1x1x8", 8),
        ("gb200x72", "gb200", 72, 18, "1x18x4", 72),
        ("gb200x144", "gb200", 144, 36, "2x18x4", 72),
    ],
)
def test_what_a_name_means(name: str, device: str, devices: int, hosts: int, topology: str, linked: int) -> None:
    one = machine(name)
    assert (one.device, one.devices, one.hosts, one.topology, one.linked) == (device, devices, hosts, topology, linked)
    assert one.accelerator is ACCELERATORS[device] and one.platform == one.accelerator.platform
    assert machine(one.name) == one  # its own name means the same


def test_every_slice_has_as_many_chips_as_its_grid() -> None:
    for device, grids in SLICES.items():
        for number, grid in grids.items():
            chips = 1
            for side in grid.split("x"):
                chips *= int(side)
            assert machine(f"{device}-{number}").devices == chips, (device, number)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("h100-8", "h100x8"),
        ("8xh100", "h100x8"),
        ("h100x12", "h100x16"),
        ("h100x0", "h100x1"),
        ("h1000", "h100x8"),
        ("gb200x100", "gb200x72"),
        ("v5e16", "v5e-16"),
        ("v5e-12", "v5e-8 and v5e-16"),
        ("v5p-100", "v5p-64 and v5p-128"),
        ("v6e-1000", "v6e-256"),
        ("a100-60x8", "a100x8"),
    ],
)
def test_the_nearest_to_a_name_that_is_none(name: str, nearest: str) -> None:
    with pytest.raises(UserError, match=re.escape(nearest)) as refusal:
        machine(name)
    assert repr(name) in str(refusal.value)


@pytest.mark.parametrize("name", ["", "tpu", "x8", "cpu", "v5e-", "v5e-x", "h100x", "rtx4090", "-4", "h100x8 h100x8"])
def test_a_name_that_is_none_gets_examples(name: str) -> None:
    with pytest.raises(UserError, match="v5e-16, v5p-128, v6e-8, h100x8"):
        machine(name)


def test_a_mesh_that_does_not_fit_gets_the_machine_that_it_fits() -> None:
    machine("h100x8").check_mesh(8, "data=8")
    for name, devices, fitting in (("h100x8", 9, "h100x16"), ("v5e-4", 5, "v5e-8"), ("v5p-8", 5, "v5p-16")):
        with pytest.raises(UserError, match=rf"takes {devices} devices, but {name} has .* compile for {fitting}$"):
            machine(name).check_mesh(devices, f"data={devices}")


def test_a_gpu_is_described_to_xla(tmp_path: Path) -> None:
    for name, one in ACCELERATORS.items():
        if one.platform == "gpu":
            text = target_text(name)
            assert capability(text) == one.compute_capability
            assert memory_bytes(text) == pytest.approx(one.memory_bytes, rel=0.08)  # GB on the label, GiB in the chip
            kind = re.search(r'device_description_str: "(.*)"', text)
            assert kind and by_jax_kind(kind[1]) is one
    file = tmp_path / "mine.txtpb"
    file.write_text(target_text("h200"), "utf-8")
    described = machine(f"{file}:8")
    assert (described.device, described.devices, described.topology) == ("h200", 8, "1x1x8")
    assert machine(str(file)).devices == 1
    unknown = file.read_text("utf-8").replace("NVIDIA H200", "NVIDIA X1")
    file.write_text(unknown, "utf-8")
    assert machine(f"{file}:2").accelerator is None and machine(f"{file}:2").platform == "gpu"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "describes no GPU"),
        (b"\xff\xfe\x00", "describes no GPU"),
        (b'{"gpu": 1}', "describes no GPU"),
        (b"gpu_device_info {}", "of platform 'unknown'"),
        (b'gpu_device_info {}\nplatform_name: "ROCM"', "of platform 'ROCM'"),
        (b"gpu_device_info" + b" " * 2**21, "describes no GPU"),
    ],
)
def test_a_file_that_describes_no_gpu(tmp_path: Path, content: bytes, sentence: str) -> None:
    file = tmp_path / "gpu.txtpb"
    file.write_bytes(content)
    with pytest.raises(UserError, match=re.escape(sentence)):
        machine(str(file))


def test_a_description_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.txtpb cannot be used"):
        machine(str(tmp_path / "nowhere.txtpb"))
    (tmp_path / "folder.txtpb").mkdir()
    with pytest.raises(UserError):
        machine(str(tmp_path / "folder.txtpb"))


def test_the_least_time_of_a_step() -> None:
    """By hand, for an H100: 989e12 FLOP/s, 3.35e12 B/s of memory, 450e9 B/s over NVLink, 50e9 B/s between hosts."""
    h100 = ACCELERATORS["h100"]
    nothing: dict[str, dict[str, int]] = {}
    assert step_bound(h100, "bfloat16", 989e12, 3.35e12, nothing).seconds == pytest.approx(1.0)
    assert step_bound(h100, "float32", 989e12, 0, nothing).seconds == pytest.approx(2.0)
    assert step_bound(h100, "bfloat16", 1e12, 3.35e12, nothing).limit == "memory"
    linked = {"all-gather": {"count": 1, "bytes": 900 * 10**9, "network_bytes": 0}}
    assert step_bound(h100, "bfloat16", 1e12, 0, linked).seconds == pytest.approx(2.0)
    crossing = {"all-gather": {"count": 1, "bytes": 500 * 10**9, "network_bytes": 50 * 10**9}}
    bound = step_bound(h100, "bfloat16", 1e12, 0, crossing)
    assert (bound.seconds, bound.limit) == (pytest.approx(1.0), "links")
    assert bound.mfu(989e12 / 2, h100, "bfloat16") == pytest.approx(0.5)
    mostly_network = {"all-gather": {"count": 1, "bytes": 500 * 10**9, "network_bytes": 100 * 10**9}}
    assert step_bound(h100, "bfloat16", 1e12, 0, mostly_network).seconds == pytest.approx(2.0)


def test_every_accelerator_states_its_bandwidths() -> None:
    for name, one in ACCELERATORS.items():
        assert 5e11 < one.memory_bytes_per_second < 1e13, name
        assert one.link_bytes_per_second < one.memory_bytes_per_second, name
        assert 0.5 * one.memory_bytes < one.usable_bytes < 1.1 * one.memory_bytes, name
        assert (one.network_bytes_per_second > 0) == (one.platform == "gpu"), name
