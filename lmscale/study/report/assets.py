"""The style sheet and scripts of the page, as they ship in the package, and the policy that lets them alone run.

The figures are drawn by uPlot (MIT): 51 kB, where Chart.js takes 0.2 MB, Observable Plot with D3 0.5 MB, Vega with
Vega-Lite 0.8 MB, ECharts 1.1 MB and Plotly's basic bundle 1.2 MB. It evaluates no text and writes no style attribute,
so that a strict policy holds. `web/uplot` has the files as published, with version, licence and hashes.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

SCRIPTS = (
    "numerals.js", "ticks.js", "csv.js", "dom.js", "painter.js", "switches.js", "runs.js", "tables.js", "chart.js",
    "explore.js", "parameters.js", "main.js",
)  # fmt: skip
"""Our own scripts in the order in which the page runs them, as one."""


@cache
def asset(name: str) -> str:
    """The text of a file of the folder `web`."""
    return (files("lmscale.study.report") / "web" / name).read_text(encoding="utf-8")


def origin() -> dict[str, Any]:
    """Name, version, licence and hashes of the library as it was published."""
    value: dict[str, Any] = json.loads(asset("uplot/ORIGIN.json"))
    return value


def style() -> str:
    """The style sheet of every page."""
    return asset("page.css")


def library_style() -> str:
    """The style sheet of the library."""
    return asset("uplot/uPlot.min.css")


def library() -> str:
    """The library's script below its licence, which asks to be copied along."""
    notice = asset("uplot/LICENSE").replace("*/", "* /")
    return f"/* uPlot {origin()['version']}\n{notice}\n*/\n{asset('uplot/uPlot.iife.min.js')}"


def script() -> str:
    """Our scripts as one that leaves no name behind."""
    return '(function () {\n"use strict";\n' + "\n".join(asset(name) for name in SCRIPTS) + "\n})();\n"


def source_hash(text: str) -> str:
    """What a policy names an inlined script or style sheet by."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def policy(scripts: Sequence[str], styles: Sequence[str]) -> str:
    """A content security policy under which only these run, and nothing is loaded.

    Style attributes are allowed: the drawings' colours are such.
    """
    allowed = " ".join(map(source_hash, scripts)) or "'none'"
    return (
        f"default-src 'none'; script-src {allowed}; style-src {' '.join(map(source_hash, styles))}; "
        "style-src-attr 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
    )
