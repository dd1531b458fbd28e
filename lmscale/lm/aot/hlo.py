"""The text of a compiled program, read: its computations, their instructions, and how often each is executed.

The grammar is that of XLA's text format (openxla/xla, docs/operation_semantics.md and xla/hlo/parser), as
`jax.stages.Compiled.as_text` gives it, with or without the types of operands.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

HEADER = re.compile(r"(ENTRY\s+)?%?([\w.\-]+)\s*(?:\(.*)?\{\s*$")
NAME = re.compile(r"\s+(ROOT\s+)?%?([\w.\-]+)\s*=\s*")
END = re.compile(r"\}(?:\s*$|, execution_thread)")
"""The last line of a computation."""
ARRAY = re.compile(r"(\w+)\[([\d,\s<=]*)\](\{[^}]*\})?")
TRIP_COUNT = re.compile(r'known_trip_count"?\s*:\s*\{\s*"?n"?\s*:\s*"?(\d+)')
CALLED = re.compile(r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)")
BRANCHES = re.compile(r"(?:branch_computations|called_computations)=\{([^}]*)\}")
BITS = {
    "pred": 8, "s2": 2, "u2": 2, "s4": 4, "u4": 4, "f4e2m1fn": 4, "s8": 8, "u8": 8, "s16": 16, "u16": 16, "bf16": 16,
    "f16": 16, "s32": 32, "u32": 32, "f32": 32, "s64": 64, "u64": 64, "f64": 64, "c64": 64, "c128": 128,
}  # fmt: skip
"""Bits of a number of each type; types of eight bits have many names, and tokens have none."""
ON_CHIP = "S(1)"
"""Mark of an array that XLA keeps in a TPU's vector memory."""


@dataclass
class Instruction:
    """One line of a computation."""

    name: str
    opcode: str
    type: str
    """Type of its result, as text; a tuple is in parentheses."""
    operands: list[str]
    """Names."""
    attributes: str
    """The rest of the line."""
    root: bool = False

    @property
    def kind(self) -> str:
        """The opcode without the suffix of an asynchronous start."""
        return self.opcode.removesuffix("-start")

    @property
    def called(self) -> list[str]:
        """Names of the computations that it names."""
        names = CALLED.findall(self.attributes)
        for listed in BRANCHES.findall(self.attributes):
            names += [name.strip().lstrip("%") for name in listed.split(",") if name.strip()]
        return names

    def attribute(self, name: str) -> str:
        """The computation behind `name=`; empty where there is none."""
        match = re.search(rf"\b{name}=%?([\w.\-]+)", self.attributes)
        return match[1] if match else ""


@dataclass
class Computation:
    """A function of the program."""

    name: str
    instructions: dict[str, Instruction] = field(default_factory=dict)

    @property
    def root(self) -> Instruction | None:
        """The instruction whose value the function returns."""
        return next((one for one in self.instructions.values() if one.root), None)


@dataclass
class Program:
    """All computations of a compiled module."""

    computations: dict[str, Computation]
    entry: str

    def executed(self, in_fusions: bool = False) -> Iterator[tuple[Computation, Instruction, int]]:
        """Every instruction that a device executes as such, and how often; with `in_fusions` those of fusions too,
        in which a TPU's compiler puts collectives beside what it computes meanwhile.

        A loop whose number of turns the compiler did not find counts once, and of a conditional every branch.
        """
        descended = ("call", "conditional", "async-start", *["fusion"] * in_fusions)
        yield from self._executed(self.entry, 1, descended, ())

    def _executed(
        self, name: str, times: int, descended: tuple[str, ...], above: tuple[str, ...]
    ) -> Iterator[tuple[Computation, Instruction, int]]:
        computation = self.computations.get(name)
        if computation is None or name in above:
            return
        for one in computation.instructions.values():
            yield computation, one, times
            if one.opcode == "while":
                yield from self._executed(one.attribute("body"), times * self.turns(one), descended, (*above, name))
            elif one.opcode in descended:
                for called in one.called:
                    yield from self._executed(called, times, descended, (*above, name))

    def turns(self, loop: Instruction) -> int:
        """How often a loop turns: as the compiler noted, else the bound that its condition compares with, else 1."""
        if noted := TRIP_COUNT.search(loop.attributes):
            return int(noted[1])
        condition = self.computations.get(loop.attribute("condition"))
        if condition is None:
            return 1
        bounds = [
            int(match[1])
            for one in condition.instructions.values()
            if one.opcode == "constant" and (match := re.match(r"\((\d+)\)", one.attributes))
        ]
        return max(bounds, default=1) or 1


def parse(text: str) -> Program:
    """The program in `text`. Raises `ValueError` where it has no entry."""
    computations: dict[str, Computation] = {}
    entry = ""
    current: Computation | None = None
    for line in _whole_lines(text):
        if current is None:
            if not line[:1].isspace() and (header := HEADER.match(line)) and not line.startswith("HloModule"):
                current = computations[header[2]] = Computation(header[2])
                entry = header[2] if header[1] else entry
        elif END.match(line):
            current = None
        elif (one := _instruction(line)) is not None:
            current.instructions[one.name] = one
    if not entry:
        raise ValueError("the text of the compiled program has no ENTRY computation")
    return Program(computations, entry)


def _whole_lines(text: str) -> Iterator[str]:
    """The lines of a text; those of an instruction are one, though a TPU's kernel has attributes of several lines, of
    which one begins with a brace."""
    whole: list[str] = []
    for line in text.splitlines():
        if whole and not (NAME.match(line) or END.match(line) or HEADER.match(line)):
            whole.append(line)
            continue
        if whole:
            yield " ".join(whole)
        whole = [line]
    yield " ".join(whole)


def _instruction(line: str) -> Instruction | None:
    named = NAME.match(line)
    if named is None:
        return None
    rest = line[named.end() :]
    end = _closing(rest) if rest.startswith("(") else rest.find(" ") - 1
    if end < 0:
        return None
    written_type, rest = rest[: end + 1], rest[end + 1 :].lstrip()
    opcode, paren, _ = rest.partition("(")
    if not paren or not re.fullmatch(r"[\w\-]+", opcode):
        return None
    arguments = rest[len(opcode) :]
    close = _closing(arguments)
    inside, attributes = arguments[1:close], arguments[close + 1 :]
    if opcode in ("constant", "parameter"):  # what stands in the parentheses is a value or a number
        return Instruction(named[2], opcode, written_type, [], f"({inside}){attributes}", bool(named[1]))
    return Instruction(named[2], opcode, written_type, _operands(inside), attributes, bool(named[1]))


def _closing(text: str) -> int:
    """Index of the parenthesis that closes the one at the start; -1 where none does."""
    depth = 0
    for index, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return index
    return -1


def _operands(inside: str) -> list[str]:
    if "%" in inside:
        return re.findall(r"%([\w.\-]+)", inside)
    without_types = ARRAY.sub("", re.sub(r"/\*.*?\*/", "", inside))
    return [words[-1] for part in without_types.split(",") if (words := re.findall(r"[\w.\-]+", part))]


def array_bytes(type_text: str, off_chip: bool = False) -> int:
    """Bytes of the arrays in the text of a type; with `off_chip` without those in a TPU's vector memory."""
    total = 0
    for name, sizes, layout in ARRAY.findall(type_text):
        if off_chip and ON_CHIP in layout:
            continue
        bits = BITS.get(name, 8 if name.startswith("f8") else 0)
        count = 1
        for size in re.findall(r"\d+", sizes):
            count *= int(size)
        total += count * bits
    return total // 8


def first_array_bytes(type_text: str) -> int:
    """`array_bytes` of the first array in the text of a type, 0 where it lies in vector memory."""
    first = ARRAY.search(type_text)
    return array_bytes(first[0], off_chip=True) if first else 0
