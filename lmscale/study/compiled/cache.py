"""Outcomes of compilation on disk: by program, machine, versions of the compiler and sources of this package."""

import hashlib
import json
from contextlib import suppress
from functools import cache
from pathlib import Path

from lmscale.core.compiled import CompiledRun, Effort
from lmscale.core.errors import UserError
from lmscale.core.files import cache_dir, read_json, write_json
from lmscale.core.machines import Machine

SOURCES = ("lm", "core")
"""Folders of the package whose files decide what is compiled."""


class Cache:
    """What was compiled for a machine by compilers of these versions, with that effort."""

    def __init__(self, machine: Machine, versions: dict[str, str], effort: Effort) -> None:
        facts = json.dumps([machine.topology, machine.target, sorted(versions.items()), source_hash(), effort])
        self._about = hashlib.sha256(facts.encode()).hexdigest()[:12]
        self._machine = machine

    def read(self, key: str) -> CompiledRun | None:
        """The outcome of the programs called `key`; None where there is none, or one of another version."""
        path = self._path(key)
        if not path.is_file():
            return None
        with suppress(UserError, TypeError, OSError):
            return CompiledRun.from_json(read_json(path, "outcome of a compilation"))
        return None

    def write(self, key: str, outcome: CompiledRun) -> None:
        """Keep an outcome."""
        write_json(self._path(key), outcome.to_json())

    def _path(self, key: str) -> Path:
        return cache_dir() / "compiled" / f"{self._machine.device_slug}-{key}-{self._about}.json"


@cache
def source_hash() -> str:
    """SHA-256 over the sources that make programs, by their paths and contents."""
    package, digest = Path(__file__).parents[2], hashlib.sha256()
    for folder in SOURCES:
        for file in sorted((package / folder).rglob("*.py")):
            digest.update(file.relative_to(package).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()
