"""Tasks whose answers are generated: GSM8K, TinyStories' openings, algorithmic lines; and tasks of your own in JSON."""

from pathlib import Path
from typing import Any, cast, get_args

from lmscale.core.config import check, synthetic
from lmscale.core.errors import UserError
from lmscale.lm.eval.tasks.files import field, files_in, pattern, read_lines, read_object, read_yaml, texts
from lmscale.lm.eval.tasks.files import number as finite
from lmscale.lm.eval.tasks.task import Item, Metric, Task

FINAL_NUMBER = r"#### (-?[0-9.,]+)"


def gsm8k(path: Path) -> list[Task]:
    """GSM8K (Cobbe 2021, arXiv 2110.14168): the number behind #### must match; exemplars from a train.jsonl beside."""
    (file,) = files_in(path, "test.jsonl", "GSM8K test file")[:1]
    train = file.parent / "train.jsonl"
    return [
        Task(
            name="gsm8k",
            items=_problems(file),
            metrics=("exact_match", "gold_bits_per_byte"),
            exemplars=_problems(train) if train.is_file() and train != file else (),
            stop=("Question:",),
            extract=FINAL_NUMBER,
            ignore=r"[,$]|\.$",
            longest_answer=1024,
        )
    ]


def _problems(file: Path) -> tuple[Item, ...]:
    items: list[Item] = []
    for where, row in read_lines(file):
        answer = field(row, "answer", str, where)
        if "#### " not in answer:
            raise UserError(f"{where}: the field 'answer' does not end in '#### ' and a number")
        question = f"Question: {field(row, 'question', str, where)}\nAnswer:"
        items.append(Item(str(len(items)), question, answers=(answer,)))
    return tuple(items)


def stories(path: Path) -> list[Task]:
    """Openings of TinyStories (Eldan 2023, arXiv 2305.07759), continued for a person to read: there is no score."""
    (file,) = files_in(path, "*.yaml", "file of story openings")[:1]
    openings = read_yaml(file)
    if not isinstance(openings, list) or not all(isinstance(text, str) for text in openings):
        raise UserError(f"{file}: a list of texts is expected")
    items = tuple(Item(str(number), text.strip()) for number, text in enumerate(openings))
    return [Task("stories", items, (), longest_answer=1024)]


def synthetic_tasks(spec: str, count: int = 500) -> list[Task]:
    """The algorithmic tasks of a language, `synthetic:tasks(...)`: `count` lines each, none of which is trained on."""
    from lmscale.lm.data.languages import tasks

    language = synthetic.parse(spec)
    check(
        isinstance(language, synthetic.Tasks),
        f"{spec} has no tasks; the language synthetic:tasks(...) does",
    )
    assert isinstance(language, synthetic.Tasks)
    algorithmic = []
    for one in tasks.all_tasks(language):
        items = tuple(
            Item(str(number), one.prompt(question), answers=(answer,))
            for number, (question, answer) in enumerate(one.examples(count))
        )
        algorithmic.append(
            Task(
                name=one.name,
                items=items,
                metrics=("exact_match", "share_in_place", "gold_bits_per_byte"),
                delimiter="",
                separator=None,
                longest_answer=one.answer_length,
                chance=(("exact_match", one.chance.exact), ("share_in_place", one.chance.graded)),
            )
        )
    return algorithmic


SETTINGS: dict[str, type | tuple[type, ...]] = {
    "description": str, "delimiter": str, "separator": (str, type(None)), "extract": str, "ignore": str,
    "longest_answer": int,
}  # fmt: skip


def own_task(path: Path) -> list[Task]:
    """A task in a JSON file.

        {"name": "capitals", "metrics": ["gold_bits_per_byte"], "items": [
            {"question": "The capital of France is", "choices": ["Paris", "Rome"], "gold": 0},
            {"question": "The capital of Italy is", "answers": ["Rome"]}]}

    `gold` is the number of the right choice or one value per choice. `description`, `delimiter`, `separator`, `stop`,
    `extract`, `ignore`, `longest_answer` and `exemplars` (items) are optional.
    """
    given, where = read_object(path), str(path)
    metrics = cast(tuple[Metric, ...], texts(given, "metrics", where))
    known = get_args(Metric)
    if unknown := [metric for metric in metrics if metric not in known]:
        raise UserError(f"{where}: there is no metric {unknown[0]!r}; there are {', '.join(known)}")
    fields = {"name", "items", "metrics", "exemplars", "stop", *SETTINGS}
    if strange := sorted(given.keys() - fields):
        raise UserError(f"{where}: there is no field {strange[0]!r}; there are {', '.join(sorted(fields))}")
    settings: dict[str, Any] = {name: field(given, name, SETTINGS[name], where) for name in SETTINGS if name in given}
    for name in ("extract", "ignore"):
        pattern(settings.get(name), f"{where}: the field {name!r}")
    check(settings.get("longest_answer", 1) > 0, f"{where}: longest_answer must be at least 1 character")
    items, shown = (_own_items(given, name, where) for name in ("items", "exemplars"))
    stop = tuple(mark for mark in texts(given, "stop", where) if mark)
    return [Task(field(given, "name", str, where), items, metrics, exemplars=shown, stop=stop, **settings)]


def _own_items(given: dict[str, Any], name: str, where: str) -> tuple[Item, ...]:
    items = []
    for number, row in enumerate(field(given, name, list, where) if name in given else []):
        here = f"{where}, {name} {number}"
        if not isinstance(row, dict):
            raise UserError(f"{here}: a {type(row).__name__} stands where an object is expected")
        choices = texts(row, "choices", here)
        gold = field(row, "gold", (int, list), here) if choices else []
        if isinstance(gold, int):
            if not 0 <= gold < len(choices):
                raise UserError(f"{here}: gold = {gold}; the {len(choices)} choices are numbered from 0")
            gold = [float(i == gold) for i in range(len(choices))]
        values = tuple(float(finite(value, f"{here}: a value of gold")) for value in gold)
        label = field(row, "name", (str, int, float), here) if "name" in row else number
        items.append(Item(str(label), field(row, "question", str, here), choices, values, texts(row, "answers", here)))
    return tuple(items)
