"""What a compiled program calls, sends and moves: kernels, collectives by kind, bytes of memory traffic.

All of one execution on one device, loops counted by their turns.
"""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from lmscale.lm.aot.hlo import Computation, Instruction, Program, array_bytes, first_array_bytes

TARGET = re.compile(r'custom_call_target="([^"]+)"')
KERNEL_NAME = re.compile(r"\b((?:splash|flash|ragged|gmm)_\w*(?:fwd|dkv|dq|mha|mqa|dot|gmm)\w*)")
"""The function of a TPU's kernel, as its names in JAX are built."""
NO_KERNELS = (
    "Sharding", "SPMD", "AllocateBuffer", "TopK", "annotate", "MoveTo", "AssumeGather", "PinToHbm", "xla.sdy",
    "LayoutConstraint",
)  # fmt: skip
"""Beginnings of custom calls that are the compiler's own notes."""
ATTENTION = {"cudnn": ("fmha", ("Backward",)), "splash": ("splash", ("dkv", "dq"))}
"""Library -> what stands in the name of its attention kernels, and in those of the backward pass."""
COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "ragged-all-to-all", "collective-permute")
SCATTER, SCATTER_FUSION = "reduce-scatter", "all-reduce-scatter"
"""A TPU's compiler writes one as a fusion of that name: an all-reduce, of whose result a device takes its slice."""
MESH_GROUPS = re.compile(r"replica_groups=mesh\[([^\]]*)\]\s*\{([^}]*)\}")
"""Groups of devices as axes of a mesh: all that differ in these alone."""
NO_TRAFFIC = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id", "iota",
    "while", "call", "conditional", "async-start", "async-update", "async-done", "opt-barrier", "add-dependency",
    "optimization-barrier", "domain",
}  # fmt: skip
SLICES = ("dynamic-slice", "gather", "slice")


def kernels(program: Program) -> dict[str, int]:
    """Name of a hand-written or library kernel -> calls; a TPU's have the name of their function."""
    calls: Counter[str] = Counter()
    for _, one, times in program.executed(in_fusions=True):
        if one.opcode == "custom-call" and (target := TARGET.search(one.attributes)):
            if target[1].startswith(NO_KERNELS):
                continue
            name = KERNEL_NAME.search(f"{one.name} {one.attributes}") if target[1] == "tpu_custom_call" else None
            calls[f"{target[1]}:{name[1]}" if name else target[1]] += times
    return dict(sorted(calls.items()))


def attention_kernel(calls: dict[str, int], training: bool) -> str:
    """Which kernel computes attention: "cudnn", "splash" or "plain"; of a training step forward and backward."""
    for family, (mark, backward_marks) in ATTENTION.items():
        names = [name for name in calls if mark in name]
        if names:
            backward = any(mark in name for name in names for mark in backward_marks)
            return family if backward or not training else f"{family} forward, plain backward"
    return "plain"


def collectives(program: Program, devices: int, linked: int) -> dict[str, dict[str, int]]:
    """Kind -> "count", "bytes" that a device sends, and "network_bytes" of them that leave the `linked` devices which
    fast links join; devices are numbered so that those of a group are neighbours.

    With n devices in a collective and b bytes of operands on each, a device sends b (n - 1) of a gather, b (n - 1) / n
    of a scatter or an all-to-all, and 2 b (n - 1) / n of a reduction: the least that any algorithm sends (Chan 2007,
    "Collective communication: theory, practice, and experience", table 1). Between groups as little as an algorithm in
    two stages sends.
    """
    totals: dict[str, dict[str, int]] = {}
    for computation, one, times in program.executed(in_fusions=True):
        if one.opcode.endswith("-done") or one.kind not in COLLECTIVES:
            continue
        kind = SCATTER if computation.name.startswith(SCATTER_FUSION) else one.kind
        operand = _operand_bytes(computation, one)
        sent, network = _sent(one, kind, operand, devices, linked)
        total = totals.setdefault(kind, {"count": 0, "bytes": 0, "network_bytes": 0})
        total["count"] += times
        total["bytes"] += round(sent * times)
        total["network_bytes"] += round(network * times)
    return dict(sorted(totals.items()))


def _operand_bytes(computation: Computation, one: Instruction) -> int:
    types = [computation.instructions[name].type for name in one.operands if name in computation.instructions]
    return sum(map(array_bytes, types))


def _sent(one: Instruction, kind: str, operand: float, devices: int, linked: int) -> tuple[float, float]:
    """Bytes that a device sends, and those that leave its linked group."""
    if kind == "collective-permute":
        pairs = _pairs(one.attributes)
        crossing = any(source // linked != target // linked for source, target in pairs)
        return operand, operand if crossing else 0.0
    group = _first_group(one.attributes, devices)
    size = max(1, len(group))
    inside = max(1, max(Counter(device // linked for device in group).values(), default=1))
    groups = size / inside
    if kind == "all-gather":
        return operand * (size - 1), operand * (groups - 1)
    if kind == SCATTER:
        return operand * (size - 1) / size, operand / inside * (groups - 1) / groups
    if kind == "all-reduce":
        return 2 * operand * (size - 1) / size, 2 * operand / inside * (groups - 1) / groups
    return operand * (size - 1) / size, operand * (size - inside) / size


def _pairs(attributes: str) -> list[tuple[int, int]]:
    match = re.search(r"source_target_pairs=\{((?:\{\d+,\d+\},?)*)\}", attributes)
    return [(int(a), int(b)) for a, b in re.findall(r"\{(\d+),(\d+)\}", match[1])] if match else []


def _first_group(attributes: str, devices: int) -> Sequence[int]:
    """The devices that take part together: those of the first group, or all."""
    if listed := re.search(r"replica_groups=\{\{([\d,]*)\}", attributes):
        return [int(number) for number in listed[1].split(",") if number]
    if named := MESH_GROUPS.search(attributes):
        return _group_of_axes(named[1], named[2])
    iota = re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", attributes)
    if iota is None:
        return range(devices)
    shape, sizes = ([int(number) for number in text.split(",")] for text in (iota[1], iota[2]))
    numbers = np.arange(int(np.prod(sizes))).reshape(sizes)
    if iota[3]:
        numbers = numbers.transpose([int(axis) for axis in iota[3].split(",")])
    return [int(number) for number in numbers.reshape(shape[0], -1)[0]]


def _group_of_axes(mesh: str, axes: str) -> list[int]:
    """The first device and those that differ from it in `axes` of `mesh` alone, devices numbered along the mesh. Of an
    axis 'x':(2)4 only the part of size 4 after that of size 2 counts."""
    named = [(name, int(size)) for name, size in re.findall(r"'(\w+)'=(\d+)", mesh)]
    sizes = [size for _, size in named]
    takes_part = np.ones(int(np.prod(sizes)), bool)
    for (name, size), place in zip(named, np.indices(sizes).reshape(len(sizes), -1)):
        axis = re.search(rf"'{name}'(?::\((\d+)\)(\d+))?", axes)
        if axis is None:
            takes_part &= place == 0
        elif axis[1]:
            after = size // (int(axis[1]) * int(axis[2]))
            takes_part &= (place % after == 0) & (place < after * int(axis[2]))
    return [int(number) for number in np.flatnonzero(takes_part)]


def traffic_bytes(program: Program) -> float:
    """Bytes that the executed operations read and write in a device's memory, each operand and result once.

    What a fusion computes inside stays on the chip; of an operand that is only sliced the slices count, and of a result
    that is written into an operand in place what is written.
    """
    total = 0.0
    for computation, one, times in program.executed():
        if one.opcode in NO_TRAFFIC or one.opcode.endswith("-done") or one.kind in COLLECTIVES:
            continue
        total += times * _moved(program, computation, one)
    return total


def _moved(program: Program, computation: Computation, one: Instruction) -> int:
    types = [computation.instructions[name].type if name in computation.instructions else "" for name in one.operands]
    if one.opcode in SLICES:
        return 2 * array_bytes(one.type, off_chip=True)
    if one.opcode == "dynamic-update-slice" and len(types) > 1:
        return 2 * array_bytes(types[1], off_chip=True)
    if one.opcode == "copy-start":  # its result is a tuple of the copy, what is copied, and a mark
        return sum(array_bytes(text, off_chip=True) for text in types) + first_array_bytes(one.type)
    inner = program.computations.get(one.attribute("calls")) if one.opcode == "fusion" else None
    if inner is None:
        return sum(array_bytes(text, off_chip=True) for text in (*types, one.type))
    return sum(_read(inner, number, text) for number, text in enumerate(types)) + _written(inner, one.type)


def _read(fusion: Computation, number: int, type_text: str) -> int:
    """Bytes that a fusion reads of its operand with this number."""
    whole = array_bytes(type_text, off_chip=True)
    parameter = next(
        (
            one.name
            for one in fusion.instructions.values()
            if one.opcode == "parameter" and one.attributes.startswith(f"({number})")
        ),
        None,
    )
    users = [one for one in fusion.instructions.values() if parameter in one.operands]
    if not users:
        return whole
    read = 0
    for user in users:
        if user.opcode in SLICES and user.operands[0] == parameter:
            read += array_bytes(user.type)
        elif not (user.opcode == "dynamic-update-slice" and user.operands[0] == parameter):
            return whole
    return min(whole, read)


def _written(fusion: Computation, type_text: str) -> int:
    """Bytes that a fusion writes."""
    whole, root = array_bytes(type_text, off_chip=True), fusion.root
    while root is not None and root.opcode in ("bitcast", "copy") and root.operands:
        root = fusion.instructions.get(root.operands[0])
    if root is None or root.opcode != "dynamic-update-slice" or len(root.operands) < 2:
        return whole
    update = fusion.instructions.get(root.operands[1])
    return whole if update is None else min(whole, array_bytes(update.type))
