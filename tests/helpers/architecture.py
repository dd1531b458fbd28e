"""The one list of the package's modules, in the order in which they may import each other.

A module imports what stands above it in the list, or what is in its own folder; no file imports in a circle. The two
halves, `lm` and `study`, see `core` and never each other; `commands`, `api` and `cli` see everything, and import `lm`
late. CONTRIBUTING and its tree are checked against this list.
"""

import ast
import itertools
from collections.abc import Iterator
from pathlib import Path

MODULES: dict[str, str] = {
    "core/errors": "errors that the user can fix, in one sentence",
    "core/text": "text of others made printable; names checked before they become paths",
    "core/streams": "standard output: printable, and a failed write a sentence",
    "core/user_code": "an error in the user's own code, told by its file and line",
    "core/exit_status": "exit statuses of every process, and which error ends with which",
    "core/signals": "how a process is asked to stop",
    "core/quantities": "numbers as people read them",
    "core/numerals": "numbers of tables and figures, with all of their digits",
    "core/cgroups": "what a container may use",
    "core/host": "usable cores, available memory, when a process began",
    "core/threads": "work that threads share, one on each core",
    "core/files": "files written whole or not at all",
    "core/arguments": "what public functions are given, held against their annotations",
    "core/config": "RunConfig and its parts: frozen, checked, JSON, run_id",
    "core/counting": "parameters, FLOPs and bytes under every named convention",
    "core/extras": "optional packages: which extra brings each, and what is installed of it",
    "core/accelerators": "accelerators by name: peak, memory, each figure with its source",
    "core/machines": "machines by the names that people rent them under; the least time of a step by their peaks",
    "core/compiled": "what the compiler says of a run on a machine that is not here",
    "core/measured_speeds": "how fast shapes were measured to train here",
    "core/run_folder": "the files of a sweep's and of a run's folder, and who reads them",
    "core/run_identity": "which run a folder is of; files of another run in it",
    "core/plan_text": "how a plan and a configuration are laid out; ten thousand read at once",
    "core/plans": "PlannedRun; the plan of a sweep on disk",
    "core/results": "Outcome; the table that joins a plan with its outcomes",
    "core/scores": "rows of task scores: what tells them apart, and which is used",
    "core/best_of_n": "the best of n answers: its expected scores, and its KL from the policy",
    "lm/devices": "this machine, the mesh and its rules, processes of one run",
    "lm/data/tokenizer": "bytes, BPE, any tokenizer.json; the bytes that each token stands for",
    "lm/data/languages": "languages made by a rule, whose law is known",
    "lm/data/corpora": "text from the standard library, files or TFDS; tokens of others",
    "lm/data": "token files, mixtures, the order of training, windows, documents and pairs, what a run has seen",
    "lm/model": "the transformer, its parameters, attention kernels, cross-entropy, KV cache, nnx modules",
    "lm/objectives": "what a step minimises: next token, completions, teachers, preferences, rewards; sums of examples",
    "lm/eval": "validation loss; tasks, their scorer, and lm-evaluation-harness",
    "lm/eval/judge": "texts graded, compared and rated by a judge's server or by people; measures without one",
    "lm/inspect": "inside a model: attention, predictions by layer, and which parts cause an answer",
    "lm/retrieve": "a corpus as vectors: an index, its nearest neighbours, and what retrieval is worth",
    "lm/train": "step, optimizer, loop, drawn answers and rewards, checkpoints, recorder, logs, packs of runs, bench",
    "lm/aot": "a run's programs compiled ahead of time for devices that are not here",
    "lm/use": "a trained run: loaded, scored on tasks and texts, sampled, exported; models imported",
    "study/grouping": "values that are one within about a per cent: budgets, sizes, scales",
    "study/laws": "forms of scaling laws and published constants with their sources",
    "study/presets": "published shapes: GPT-2, Llama, Chinchilla",
    "study/tables": "tables of others, read and checked",
    "study/sweep": "Sweep, Plan, the algebra of points and builders of them",
    "study/recipes": "rules that turn a point (N, D, C) into a run, each with its source",
    "study/design": "what a plan can identify, and the next best runs",
    "study/prices": "what a plan costs in time, memory and money",
    "study/compiled": "the runs of a plan compiled for a named machine, several at once; outcomes kept",
    "study/launch": "finishes a sweep: slots, leases, one process per run, Slurm, failures handled",
    "study/fits": "Approaches 1, 2, 3: solvers, uncertainty, checks, predictions",
    "study/emergence": "at which scale an ability appears, and whether a graded metric agrees",
    "study/plots": "figures from a table or a fit",
    "study/report": "the self-contained page: answer, verdict, methods, account",
    "commands": "one file per verb: its arguments and what it prints",
    "api": "one call for what each main verb does",
    "cli": "the verbs, the parser and the exit status",
}
"""Path below `lmscale/` -> what it is. A folder stands for all below it that is not listed itself."""

HALVES = ("lm", "study")
FOLDERS = {
    "core": "what both halves share: a RunConfig goes into a run, an Outcome comes out",
    "lm": "one training run; the only folder that imports JAX",
    "study": "many runs, without JAX",
}
"""Folders whose modules are listed one by one, and what they have in common."""


def owner(path: str) -> str:
    """The entry of `MODULES` that a path below `lmscale/`, without its ending, belongs to. Raises `KeyError`."""
    parts = path.split("/")
    for length in range(len(parts), 0, -1):
        if (name := "/".join(parts[:length])) in MODULES:
            return name
    raise KeyError(path)


def tree() -> list[str]:
    """The lines of the tree in CONTRIBUTING: folders, and in them the modules, in the order of the list."""
    lines, last = ["lmscale/"], ""
    for path, meaning in MODULES.items():
        folder, _, name = path.partition("/")
        ending = "/" if (PACKAGE / path).is_dir() else ".py"
        if name and folder != last:
            lines.append(f"  {folder + '/':<22}{FOLDERS[folder]}")
        lines.append(f"    {name + ending:<20}{meaning}" if name else f"  {folder + ending:<22}{meaning}")
        last = folder
    return lines


def may_import(importer: str, imported: str) -> bool:
    """Whether the order lets an entry of `MODULES` import another."""
    order = list(MODULES)
    half, other = importer.split("/", maxsplit=1)[0], imported.split("/", maxsplit=1)[0]
    if half in HALVES and other in HALVES and half != other:
        return False
    return order.index(imported) <= order.index(importer)


ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "lmscale"
ENTRY = ("__init__", "__main__")
"""Doors of the package, which stand above the order."""

LATE_IN_RUN = {"pandas", "pyarrow", "matplotlib", "wandb", "tyro", "scipy"}
HEAVY = ("jax", "flax", "pandas", "matplotlib", "scipy", "pyarrow", "tensorflow_datasets", "wandb")


def path_of(file: Path) -> str:
    """As in `MODULES`: "core/config" for core/config/__init__.py, "core/files" for core/files.py."""
    return file.relative_to(PACKAGE).with_suffix("").as_posix().removesuffix("/__init__")


FILES = {path_of(file): file for file in sorted(PACKAGE.rglob("*.py"))}
"""Path below `lmscale/` -> file."""


def imports(file: Path, everywhere: bool = True) -> Iterator[str]:
    """Dotted names that a file imports, late ones included; `from a import b` gives a.b. Relative imports fail."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree) if everywhere else tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{file}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def inside(file: Path, everywhere: bool = True) -> set[str]:
    """Files of the package that a file imports, as keys of `FILES`."""
    files = set()
    for name in imports(file, everywhere):
        parts = name.split(".")
        if parts[0] == "lmscale":
            candidates = ("/".join(parts[1:length]) for length in range(len(parts), 1, -1))
            files |= set(itertools.islice((path for path in candidates if path in FILES), 1))
    return files
