"""The standard library in parts: code without docstrings, and docstrings without code."""

from itertools import chain
from pathlib import Path

import pytest
from helpers.texts import config, texts_by_split, write

from lmscale.core.config import DataConfig
from lmscale.core.errors import UserError
from lmscale.lm.data import corpora
from lmscale.lm.data.corpora import module_parts, sources
from lmscale.lm.data.corpora.chunks import Unreadable

MODULE = '''#!/usr/bin/env python
# coding: latin-1
"""Prose of the module, é,
    indented."""
x = "no docstring"  # a comment stays
class Some: "on the line of its class, é"; y = 1

async def f(a):
    r\'\'\'Raw \\d.\'\'\'

    return """no docstring
either"""\r
def g():
    "one" \\
    " two"   # and a comment
    def inner():
        """ """
def h():
    f"no {docstring}"
'''.encode()


def test_code_and_docstrings_share_nothing_and_lose_nothing() -> None:
    assert module_parts.docstrings(MODULE).decode() == (
        "Prose of the module, é,\nindented.\n\non the line of its class, é\n\nRaw \\d.\n\none two\n\n"
    )
    assert (
        module_parts.code(MODULE).decode()
        == '''#!/usr/bin/env python
# coding: latin-1
x = "no docstring"  # a comment stays
class Some: ; y = 1

async def f(a):

    return """no docstring
either"""\r
def g():
       # and a comment
    def inner():
def h():
    f"no {docstring}"
'''
    )
    assert module_parts.code(b"x = 1\n") == b"x = 1\n" and module_parts.docstrings(b"x = 1\n") == b""
    assert module_parts.code(b'"""a"""') == b"" and module_parts.docstrings(b'"\\udc80"') == b"\\udc80"
    with pytest.raises(Unreadable, match="is no Python"):
        module_parts.code(b"def f(:")


def test_parts_of_the_standard_library_are_corpora(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMSCALE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    texts = {f"m{i}.py": f"'''Module {i}.'''\nx = {i}\n" for i in range(9)}
    some = write(tmp_path / "lib", {**texts, "bare.py": "y = 1\n", "broken.py": "def f(:\n"})
    monkeypatch.setattr(sources, "stdlib_folder", lambda: some)
    prose, code, whole = (corpora.prepare(config(name)) for name in ("stdlib:docstrings", "stdlib:code", "stdlib"))
    assert sorted(chain(*texts_by_split(prose).values())) == sorted(f"Module {i}.".encode() for i in range(9))
    assert sorted(chain(*texts_by_split(code).values())) == sorted(
        [*(f"x = {i}\n".encode() for i in range(9)), b"y = 1\n"]
    )
    assert prose.empty_removed == 1 and [one.path for one in code.skipped] == ["broken.py"] and not whole.skipped
    assert prose.source.startswith("the docstrings of the standard library of")
    assert len({corpus.fingerprint for corpus in (prose, code, whole)}) == 3
    assert corpora.find_corpus(config("stdlib:code")) == code


@pytest.mark.parametrize("field", ["source", "validation_source"])
def test_an_unknown_part_is_named_with_the_nearest(field: str) -> None:
    with pytest.raises(UserError, match=r"has no part 'docstring'; did you mean 'docstrings'"):
        DataConfig(**{"source": "a.txt", field: "stdlib:docstring"})
    with pytest.raises(UserError, match="has no records with fields"):
        DataConfig(source="stdlib:code", prompt_field="prompt")
