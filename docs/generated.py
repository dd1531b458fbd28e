"""The parts of the documentation that are made from the code, so that they cannot go stale.

A page asks for one by a comment on a line of its own, `<!-- generated: config RunConfig -->`: a name of `PARTS` and
its arguments. MkDocs calls `on_page_markdown` for every page, `tests/test_documentation.py` calls `expanded` without
MkDocs. `on_files` offers the figures of `experiments/outcomes` as `figures/NAME.svg`. Nothing here imports JAX.
"""

import ast
import contextlib
import dataclasses
import importlib
import inspect
import io
import itertools
import json
import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
MARKER = re.compile(r"^<!-- generated: (\S+) ?(.*?) ?-->$", re.MULTILINE)
HELP_COLUMNS = 84
"""Width of the helps of verbs: what a page shows without scrolling."""


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The hook of MkDocs: a page with its generated parts in place."""
    return expanded(markdown)


def on_files(files: Any, config: Any, **_: Any) -> Any:
    """The hook of MkDocs: the figures that experiments have left, which lie outside of docs/."""
    from mkdocs.structure.files import File

    for path in sorted((ROOT / "experiments/outcomes").glob("*.svg")):
        files.append(File.generated(config, f"figures/{path.name}", abs_src_path=str(path)))
    return files


def expanded(markdown: str) -> str:
    """A page with every marker replaced. Raises `KeyError` for a part that there is not."""
    return MARKER.sub(lambda match: PARTS[match[1]](*match[2].split()), markdown)


def verbs() -> str:
    """Every verb in the order of work, with its example and its help as the terminal shows it."""
    from lmscale.cli import VERBS

    return "\n".join(
        f"## {name}\n\n{verb.summary}.\n\n```sh\n{verb.example}\n```\n\n```text\n{help_of(name)}\n```\n"
        for name, verb in VERBS.items()
    )


def help_of(verb: str) -> str:
    """What `lmscale VERB --help` prints, without colours."""
    from lmscale.cli import parse

    printed, before = io.StringIO(), dict(os.environ)
    os.environ.update(COLUMNS=str(HELP_COLUMNS), NO_COLOR="1")
    try:
        with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
            parse(verb, ["--help"])
    finally:
        os.environ.clear()
        os.environ.update(before)
    return re.sub(r"\x1b\[[0-9;]*m", "", printed.getvalue()).strip()


def config(*names: str) -> str:
    """The fields of configurations: type, default and meaning of each."""
    return "\n".join(map(_fields_table, names))


def _fields_table(name: str) -> str:
    cls = _class(name)
    texts = attribute_texts(cls)
    lines = [f"### {cls.__name__}", "", prose(inspect.getdoc(cls) or ""), "", "| field | meaning | type | default |"]
    lines.append("|---|---|---|---|")
    for one in dataclasses.fields(cls):
        annotation, text = texts.get(one.name, (str(one.type), ""))
        outside = "" if one.metadata.get("identity", True) else " *Not part of the run id.*"
        lines.append(f"| `{one.name}` | {cell(text)}{outside} | `{annotation}` | {_default(one)} |")
    return "\n".join([*lines, ""])


def _class(name: str) -> Any:
    """A class by its name in the public API, or in `core.config`, or by its import path."""
    if "." in name:
        module, _, name = name.rpartition(".")
        return getattr(importlib.import_module(module), name)
    import lmscale

    return getattr(lmscale, name, None) or getattr(importlib.import_module("lmscale.core.config"), name)


def _default(one: "dataclasses.Field[Any]") -> str:
    if one.default is not dataclasses.MISSING:
        return f"`{one.default!r}`" if not callable(one.default) else "a function"
    if one.default_factory is not dataclasses.MISSING:
        return f"`{getattr(one.default_factory, '__name__', 'default')}()`"
    return "required"


def attribute_texts(cls: type[Any]) -> dict[str, tuple[str, str]]:
    """Field -> (annotation, the text below it), of a class and of what it derives from."""
    texts: dict[str, tuple[str, str]] = {}
    for base in reversed(cls.__mro__[:-1]):
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(tree, ast.ClassDef)
        for node, after in zip(tree.body, [*tree.body[1:], None]):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                texts[node.target.id] = ast.unparse(node.annotation), _text(after)
    return texts


def _text(node: ast.stmt | None) -> str:
    """The text of a string that stands alone; "" for any other statement."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return inspect.cleandoc(node.value.value)
    return ""


def forms(*modules: str) -> str:
    """The laws of modules of `lmscale.study.laws`: formula, source, inputs and parameters."""
    from lmscale.study.laws import FORMS

    paths = {f"lmscale.study.laws.{module}" for module in modules}
    return "\n".join(_form(law) for law in FORMS.values() if law.__module__ in paths)


def _form(law: Any) -> str:
    inputs = ", ".join(f"`{name}` ({law.input(name).unit or law.input(name).role})" for name in law.INPUTS)
    target = law.input(law.TARGET)
    residual = "of its logarithm" if law.RESIDUAL == "log" else "of itself"
    rows = [
        f"| `{one.name}` | {one.low:g} to {one.high:g} | {'its logarithm' if one.log else 'itself'} "
        f"| {', '.join(f'{start:g}' for start in one.search_from)} |"
        for one in law.PARAMETERS
    ]
    return "\n".join(
        [
            f"### {law.NAME}", "", f"```text\n{law.FORMULA}\n```", "", prose(inspect.getdoc(law) or ""), "",
            f"Source: {escaped(law.SOURCE)}. Inputs: {inputs}. Target: `{law.TARGET}` ({target.unit or target.role}), "
            f"fitted by residuals {residual}.", "",
            "| parameter | range | searched by | starts |", "|---|---|---|---|", *rows, "",
        ]
    )  # fmt: skip


def constants() -> str:
    """The published constants at full precision, each with its citation."""
    from lmscale.study.laws import PUBLISHED

    return "\n".join(
        f"- `{name}`, a `{law.NAME}`: "
        + ", ".join(f"{parameter} = {value!r}" for parameter, value in law.values().items())
        + f". Source: {escaped(law.citation)}."
        for name, law in PUBLISHED.items()
    )


def inputs() -> str:
    """The inputs that laws know by the names of columns, with role, unit and allowed values."""
    from lmscale.study.laws import KNOWN_INPUTS
    from lmscale.study.laws.inputs import ROLES

    rows = [f"| `{one.name}` | {one.role} | {one.unit} | {ROLES[one.role]} |" for one in KNOWN_INPUTS.values()]
    return "\n".join(["| column | role | unit | values |", "|---|---|---|---|", *rows])


def counts() -> str:
    """Every count of `counting.Counts` with the docstring of the function that makes it."""
    from lmscale.core import counting

    makers = {"params": "params_total", "active_params": "active_params_total", "forward_flops": "flops_forward"}
    rows = []
    for one in dataclasses.fields(counting.Counts):
        maker = makers.get(one.name, one.name).replace("flops", "flops_per_token", 1)
        meaning = inspect.getdoc(getattr(counting, maker)) if one.name != "tokens" else "D: training tokens."
        rows.append(f"| `{one.name}` | {cell(meaning or '')} |")
    return "\n".join(["| column | meaning |", "|---|---|", *rows])


def statuses() -> str:
    """The exit statuses of every process, from `core.exit_status`."""
    tree = ast.parse((ROOT / "lmscale/core/exit_status.py").read_text(encoding="utf-8")).body
    rows = [
        f"| {node.value.value} | {cell(_text(after))} |"
        for node, after in itertools.pairwise(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
    ]
    return "\n".join(["| status | meaning |", "|---|---|", "| 0 | Done. |", "| 1 | Failed. |", *rows])


def accelerators() -> str:
    """The devices that `--device` knows, with their peaks and the source of each."""
    from lmscale.core.accelerators import ACCELERATORS

    rows = [
        f"| `{one.name}` | {one.bfloat16 / 1e12:g} | {one.float32 / 1e12:g} | {one.memory_bytes / 1e9:g} "
        f"| {one.source} |"
        for one in ACCELERATORS.values()
    ]
    head = "| device | TFLOP/s, bfloat16 | TFLOP/s, float32 | memory, GB | source |"
    return "\n".join([head, "|---|---|---|---|---|", *rows])


def finding(path: str) -> str:
    """The question, command, cost and outcome with which a runnable file opens."""
    docstring = ast.get_docstring(ast.parse((ROOT / path).read_text(encoding="utf-8"))) or ""
    question, _, rest = docstring.partition("\n\n")
    return f"### {' '.join(question.split())}\n\n`{path}`\n\n{prose(rest)}\n"


def api(module: str) -> str:
    """Directives of mkdocstrings for every name that a package lists, in its order."""
    return "\n\n".join(f"::: {path}" for path in listed(module))


def listed(module: str) -> Iterator[str]:
    """Where the names that a package lists are defined, in the order of its `__init__` or stub; modules left out."""
    folder = ROOT.joinpath(*module.split("."))
    stub = folder / "__init__.pyi"
    names = getattr(importlib.import_module(module), "__all__", ())
    source = stub if stub.is_file() else folder / "__init__.py"
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        for name, path in imported(node, module):
            if name in names and not file_of(path):
                yield defined_at(path)


def imported(node: ast.stmt, module: str) -> Iterator[tuple[str, str]]:
    """(name, import path) of what a statement of a package's `__init__` or stub takes from this package."""
    if isinstance(node, ast.ImportFrom) and node.module and (node.level or node.module.startswith("lmscale.")):
        base = f"{module}.{node.module}" if node.level else node.module
        yield from ((alias.asname or alias.name, f"{base}.{alias.name}") for alias in node.names)


def defined_at(path: str) -> str:
    """The import path at which a name is defined, through the packages that pass it on."""
    module, _, name = path.rpartition(".")
    file = file_of(module)
    assert file is not None, path
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        for other, deeper in imported(node, module):
            if other == name:
                return defined_at(deeper)
    return path


def file_of(module: str) -> Path | None:
    """The file of a module or package; None for a name that is neither."""
    folder = ROOT.joinpath(*module.split("."))
    return next((file for file in (folder / "__init__.py", folder.with_suffix(".py")) if file.is_file()), None)


def section(path: str, *heading: str) -> str:
    """What stands below a heading of another file, up to the next one of its level."""
    text = (ROOT / path).read_text(encoding="utf-8")
    return text.split(f"## {' '.join(heading)}\n", 1)[1].split("\n## ", 1)[0].strip()


def tree() -> str:
    """The package's folders and modules, from the list that the import test reads."""
    sys.path.insert(0, str(ROOT / "tests"))
    try:
        lines = importlib.import_module("helpers.architecture").tree()
    finally:
        sys.path.remove(str(ROOT / "tests"))
    return "\n".join(["```text", *lines, "```"])


def prose(text: str) -> str:
    """A docstring as Markdown: its indented examples stay, and nothing in its sentences is taken for markup."""
    return "\n".join(line if line.startswith("    ") else escaped(line) for line in text.splitlines())


def cell(text: str) -> str:
    """A text as the cell of a table."""
    return escaped(" ".join(text.split())).replace("|", r"\|")


def escaped(text: str) -> str:
    """`text` with what Markdown would read as markup escaped, outside of code."""
    parts = text.split("`")
    return "`".join(part if index % 2 else _without_markup(part) for index, part in enumerate(parts))


def _without_markup(text: str) -> str:
    return re.sub(r"([*\[\\])", r"\\\1", text).replace("<", "&lt;")


def notebook(name: str) -> str:
    """The cells of a notebook in docs/notebooks: its text, its headings a level lower, and its code."""
    cells = json.loads((ROOT / "docs/notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    texts = []
    for cell in cells:
        text = "".join(cell["source"])
        texts.append(
            re.sub("^#", "##", text, flags=re.M) if cell["cell_type"] == "markdown" else f"```python\n{text}\n```"
        )
    return "\n\n".join(texts)


PARTS: dict[str, Callable[..., str]] = {
    part.__name__: part
    for part in (
        verbs, config, forms, constants, inputs, counts, statuses, accelerators, finding, api, section, tree, notebook,
    )
}  # fmt: skip
"""Name of a marker -> the function that writes what takes its place."""
