"""A sweep file, read: its `SWEEP`, or one sentence with the file, the line and what is wrong there."""

import contextlib
import difflib
import importlib.machinery
import re
import runpy
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from lmscale.core.errors import UserError, nearest
from lmscale.core.run_folder import PLAN_FILE
from lmscale.core.user_code import sentence, text_of
from lmscale.study.sweep.declare import Sweep

SWEEPS = Path("sweeps")
"""Where `lmscale init` writes sweep files."""
INSTALLED = [sysconfig.get_path(name) for name in ("purelib", "platlib")]
"""Folders of installed packages, which a file beside a sweep does not replace."""


def load(path: str | Path) -> Sweep:
    """The `SWEEP` that a sweep file defines. The file may import its neighbours; what it prints goes to stderr.

    Raises `UserError` when the file is absent, defines no `SWEEP`, or fails: the line and its error are named.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(_absent(path))
    try:
        with _neighbours(path.resolve().parent), contextlib.redirect_stdout(sys.stderr):
            names = runpy.run_path(str(path), run_name="sweep")
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever a file raises, SystemExit too
        raise UserError(f"{_place(path, error)}: {_sentence(error)}") from None
    return _sweep(path, names)


def _absent(path: Path) -> str:
    """A sentence on a file that is not there, with the nearest one: in `sweeps/`, in its folder, or below the path."""
    if path.is_dir():
        files = {file.stem: str(file) for file in path.glob("*.py")}
        sentence, close = f"{path} is a folder, not a sweep file", []
        if (path / PLAN_FILE).is_file():
            return f"{sentence}; its plan is {path / PLAN_FILE}"
    else:
        files = {file.stem: str(file) for folder in (SWEEPS, path.parent) for file in folder.glob("*.py")}
        sentence, close = f"there is no sweep file {path}", difflib.get_close_matches(path.stem, files, n=1)
    if close:
        return f"{sentence}; did you mean {files[close[0]]}?"
    known = ", ".join(sorted(files.values()))
    return f"{sentence}; known: {known}" if known else f"{sentence}; `lmscale init NAME` writes one"


def _sweep(path: Path, names: dict[str, Any]) -> Sweep:
    """The sweep among the names that a file defines."""
    sweep = names.get("SWEEP")
    if isinstance(sweep, Sweep):
        return sweep
    if sweep is None:
        others = [name for name, value in names.items() if isinstance(value, Sweep)]
        if not others:
            raise UserError(f"{path} defines no SWEEP; write SWEEP = Sweep(...)")
        if len(others) == 1:
            raise UserError(f"{path} defines no SWEEP; it defines a Sweep as {others[0]}: call that SWEEP")
        raise UserError(
            f"{path} defines no SWEEP but {len(others)} sweeps, {', '.join(others)}: a file is one sweep, so call one "
            f"of them SWEEP and give each other a file of its own"
        )
    several = isinstance(sweep, Sequence) and any(isinstance(one, Sweep) for one in sweep)
    raise UserError(
        f"{path}: SWEEP is of type {type(sweep).__name__}; write SWEEP = Sweep(...)"
        + (", one in a file" if several else "")
    )


def _place(path: Path, error: BaseException) -> str:
    """The file, or one that it imports, and the line where it fails."""
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        return f"{error.filename}, line {error.lineno}"
    folder = str(path.resolve().parent)
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename == str(path) or frame.filename.startswith(folder + "/"):
            return f"{path if Path(frame.filename).name == path.name else frame.filename}, line {frame.lineno}"
    return str(path)


def _sentence(error: BaseException) -> str:
    """What Python says of an error in one line, with the name that is meant where one is mistyped."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, SystemExit):
        return f"{sentence(error)}; a sweep file defines SWEEP and does nothing else"
    text = text_of(error)
    hint = _hint(text)
    return sentence(error, PYTHONS_HINT.sub("", text) if hint else text) + hint


def _hint(text: str) -> str:
    """A clause with the nearest name to one that a module does not have or a class does not take."""
    for pattern, choices in MISTYPED.items():
        if match := re.search(pattern, text):
            where, name = match.groups()
            names = choices(sys.modules.get(where))
            clause = nearest(name, names)
            return clause if "did you mean" in clause else ""
    return ""


def _public_names(module: ModuleType | None) -> list[str]:
    return [name for name in dir(module) if not name.startswith("_")] if module is not None else []


PYTHONS_HINT = re.compile(r"\. Did you mean '\w+'\?$")
"""How Python 3.13 ends its sentence about an argument that is not taken."""
MISTYPED: dict[str, Callable[[ModuleType | None], Iterable[str]]] = {
    r"^module '([\w.]+)' has no attribute '(\w+)'": _public_names,
    r"^No ([\w.]+) attribute (\w+)": _public_names,  # as lazy_loader writes it
    r"^cannot import name '(?=\w+' from '([\w.]+)')(\w+)'": _public_names,
    r"^(Sweep)\.__init__\(\) got an unexpected keyword argument '(\w+)'": lambda _: Sweep.__dataclass_fields__,
}
"""Python's sentence about a name that there is not, with the module and the name as groups -> what there is."""


class _Finder:
    """Finds the modules and packages of one folder, so that a sweep file imports its neighbours by name."""

    def __init__(self, folder: Path) -> None:
        sources = (importlib.machinery.SourceFileLoader, importlib.machinery.SOURCE_SUFFIXES)
        self.files = importlib.machinery.FileFinder(str(folder), sources)
        here = [path.stem for path in folder.glob("*.py")] + [path.parent.name for path in folder.glob("*/__init__.py")]
        self.names = {name for name in here if not _is_installed(name)}

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """The neighbour `name`. None for others, and for what lies in a package, which Python finds itself."""
        return self.files.find_spec(name) if path is None and name in self.names else None


def _is_installed(name: str) -> bool:
    if name in sys.stdlib_module_names or name == "lmscale":
        return True
    return importlib.machinery.PathFinder.find_spec(name, INSTALLED) is not None


@contextlib.contextmanager
def _neighbours(folder: Path) -> Iterator[None]:
    """Let what lies in a folder be imported inside the block; afterwards nothing of it is left in Python.

    A neighbour comes before a module of its name that was imported from another folder, and after an installed one.
    """
    finder, writes = _Finder(folder), sys.dont_write_bytecode
    aside = {
        name: module
        for name, module in sys.modules.items()
        if name.partition(".")[0] in finder.names and not _lies_in(module, folder)
    }
    before = sys.modules.keys() - aside.keys()
    for name in aside:
        del sys.modules[name]
    sys.meta_path.insert(0, finder)
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        sys.dont_write_bytecode = writes
        for name in sys.modules.keys() - before:
            if name.partition(".")[0] in finder.names:
                del sys.modules[name]
        sys.modules.update(aside)


def _lies_in(module: ModuleType, folder: Path) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and Path(file).is_relative_to(folder)
