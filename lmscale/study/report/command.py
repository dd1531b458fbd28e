"""The command line that writes a page again."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from lmscale.study.laws import Law, form, import_path
from lmscale.study.report.account import printable


def report_command(
    sources: Sequence[str | Path],
    *,
    law: str | type[Law] | None = None,
    given: Mapping[str, float] | None = None,
    columns: Mapping[str, str] | str | None = None,
    where: str | None = None,
    stage: str | None = None,
    resamples: int | None = None,
    seed: int = 0,
    mixed_corpora: bool = False,
) -> str:
    """`lmscale report` of these sweeps or tables, quoted for a shell, with every option that changes what is fitted.

    Options at their defaults are left out, and so are where the page is written and its title. Raises `UserError` for
    a law that there is not.
    """
    named = columns if columns is None or isinstance(columns, str) else _pairs(columns)
    values = {
        "--law": None if law is None else _law(law),
        "--given": _pairs(given) if given else None,
        "--columns": named,
        "--where": where,
        "--stage": stage,
        "--resamples": resamples,
        "--seed": seed or None,
    }
    words = ["lmscale", "report", *(printable(source) for source in sources)]
    for option, value in values.items():
        words += [] if value is None else [option, str(value)]
    return shlex.join([*words, *(["--mixed-corpora"] if mixed_corpora else [])])


def _law(law: str | type[Law]) -> str:
    shape = form(law)
    path = import_path(shape)
    if not path:
        return shape.NAME
    file, _, name = path.rpartition(":")
    return f"{printable(file)}:{name}"


def _pairs(values: Mapping[str, object]) -> str:
    return ",".join(f"{name}={value}" for name, value in values.items())
