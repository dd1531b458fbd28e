"""The optional packages of `lmscale`: which extra brings each, and what is installed of it."""

import re
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, requires, version

from lmscale.core.errors import UserError

REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?\s*([^;]*?)\s*(?:;\s*(.*))?$")
EXTRA = re.compile(r"extra\s*==\s*['\"]([^'\"]+)['\"]")
COMPILER_PACKAGES = {"tpu": ("libtpu",), "cuda": ("jax-cuda13-plugin", "jax-cuda12-plugin")}
"""Extra -> the packages, one of which brings its compiler."""
FOR_DEVELOPERS = ("dev", "peers")


@dataclass(frozen=True)
class Package:
    """A package that an extra brings."""

    name: str
    specifier: str
    """The versions that are allowed, ">=0.10,<0.13"."""
    installed: str
    """The version that is there; empty where it is not."""


def extras() -> dict[str, list[Package]]:
    """Extra -> its packages, in the order of `pyproject.toml`; empty where lmscale runs from a folder, uninstalled."""
    by_extra: dict[str, list[Package]] = {}
    for line in requires_of("lmscale"):
        requirement = REQUIREMENT.match(line)
        if requirement is None or (extra := EXTRA.search(requirement[3] or "")) is None:
            continue
        package = Package(requirement[1], requirement[2], installed(requirement[1]))
        by_extra.setdefault(extra[1], []).append(package)
    return by_extra


def requires_of(package: str) -> tuple[str, ...]:
    """What the installed `package` requires; nothing where it is not installed."""
    try:
        return tuple(requires(package) or ())
    except PackageNotFoundError:
        return ()


@cache
def installed(package: str) -> str:
    """The version of `package` here; empty where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def compiler_versions(extra: str, purpose: str) -> dict[str, str]:
    """Package -> version of the compiler that `extra` brings, "tpu" or "cuda", and of JAX.

    Raises `UserError` where it is not installed, `purpose` says for what, or does not match the JAX that is here.
    """
    compilers = {name: installed(name) for name in COMPILER_PACKAGES[extra] if installed(name)}
    if not compilers:
        raise UserError(
            f"{purpose} needs {COMPILER_PACKAGES[extra][0]}, which is not installed and needs no such device: "
            f"pip install 'lmscale[{extra}]'"
        )
    if problem := _mismatch(extra, compilers):
        raise UserError(f"{purpose}: {problem}; pip install --upgrade 'lmscale[{extra}]' brings those that match")
    return {**compilers, "jax": installed("jax"), "jaxlib": installed("jaxlib")}


def _numbers(text: str) -> str:
    """A version without what stands behind its numbers: "0.10.2" of "0.10.2.dev20260401" and of "0.10.2+cuda13"."""
    numbers = re.match(r"\d+(?:\.\d+)*", text)
    return numbers[0] if numbers else text


def _mismatch(extra: str, compilers: dict[str, str]) -> str:
    """Why a compiler and the JAX that is installed do not belong together; empty where they do."""
    name, have = next(iter(compilers.items()))
    if extra == "cuda":  # JAX ignores a plugin of another version than its own (jaxlib/plugin_support.py, JAX 0.10.2)
        same = _numbers(have) == _numbers(installed("jaxlib"))
        return "" if same else f"{name} {have} does not match jaxlib {installed('jaxlib')}"
    for line in requires_of("jax"):
        requirement = REQUIREMENT.match(line)
        if requirement and requirement[1] == name and (exact := re.match(r"==([\d.]+?)\.\*", requirement[2])):
            matches = have == exact[1] or have.startswith(f"{exact[1]}.")
            return "" if matches else f"{name} {have} does not match jax {installed('jax')}, which takes {exact[1]}.*"
    return ""
