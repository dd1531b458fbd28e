"""The forms of laws by name, by class or by import path, and what a class must have to be one.

A user's own law is named "mine.py:MyLaw" (a file, from the working directory) or "package.module:MyLaw". A saved fit
keeps that path with a hash of the source, so that a law that has changed since is not read back as the one that was
fitted.
"""

import contextlib
import dataclasses
import hashlib
import importlib
import importlib.util
import inspect
import math
import re
import sys
from pathlib import Path
from types import ModuleType

from lmscale.core import files
from lmscale.core.arguments import checked
from lmscale.core.errors import UserError, nearest
from lmscale.core.user_code import called, place_of, sentence
from lmscale.study.laws.distillation import Distillation
from lmscale.study.laws.experts import Clark, Granular, JointExperts, Sparse
from lmscale.study.laws.fine_tuning import FineTuningPower, JointFineTuning, Rectified, Transfer
from lmscale.study.laws.law import BORN, Law
from lmscale.study.laws.one_axis import Annealing, BrokenPowerLaw, ComputeLaw, DownstreamError, LadderAccuracy
from lmscale.study.laws.parameter import Parameter
from lmscale.study.laws.reinforcement import BestOfN, RepeatedSampling, RewardUnderRL, RLCompute
from lmscale.study.laws.repeated_data import BoundedDataConstrained, DataConstrained
from lmscale.study.laws.size_and_data import (
    Chinchilla,
    Farseer,
    Kaplan,
    OuterExponent,
    OverTraining,
    PowerMean,
)
from lmscale.study.laws.third_axis import (
    ParScale,
    PostTrainingPrecision,
    Precision,
    Retrieval,
    Vocabulary,
    mixture,
)

FORMS: dict[str, type[Law]] = {
    form.NAME: form
    for form in (
        Chinchilla,
        Kaplan,
        DataConstrained,
        OverTraining,
        OuterExponent,
        PowerMean,
        Farseer,
        BoundedDataConstrained,
        Clark,
        Granular,
        JointExperts,
        Sparse,
        ParScale,
        Vocabulary,
        Precision,
        PostTrainingPrecision,
        Retrieval,
        Distillation,
        Rectified,
        FineTuningPower,
        JointFineTuning,
        Transfer,
        BestOfN,
        RewardUnderRL,
        RLCompute,
        RepeatedSampling,
        ComputeLaw,
        BrokenPowerLaw,
        Annealing,
        DownstreamError,
        LadderAccuracy,
    )
}

MIXTURE = re.compile(r"mixture-([2-9]|[1-9][0-9])")
"""Names of the laws of mixtures, of two to 99 domains."""


@checked
def form(law: str | type[Law]) -> type[Law]:
    """The class of a law, from its name, itself or its import path. Raises `UserError` where it is no law."""
    if isinstance(law, str):
        if domains := MIXTURE.fullmatch(law):
            return mixture(int(domains[1]))
        return FORMS[law] if law in FORMS else _imported(law)
    if not (isinstance(law, type) and issubclass(law, Law)):
        raise UserError(f"{law!r} is no law: give a name, a class derived from laws.Law, or an import path")
    _check(law)
    return law


def import_path(law: type[Law]) -> str:
    """What `form` finds a user's law by; "" for a form of this package."""
    return "" if FORMS.get(law.NAME) is law or MIXTURE.fullmatch(law.NAME) else BORN[law].path


def source_hash(law: type[Law]) -> str:
    """SHA-256 of the source that the class was made from; "" where it stands in no file."""
    return BORN[law].sha256


def saved_form(name: str, path: str, sha256: str) -> type[Law]:
    """The form of a saved fit: by name, or by import path where it has one.

    Raises `UserError` where a user's law cannot be found, or its source is another than at the time of the fit.
    """
    if not path:
        return form(within_reach(name) if ":" in name else name)
    candidates = [law for law, birth in BORN.items() if birth.path == path]
    for law in reversed(candidates):
        if BORN[law].sha256 == sha256:
            return form(law)
    try:
        file = Path(within_reach(path).rpartition(":")[0])
        changed = file.is_file() and sha256 not in ("", files.sha256(file))
        restored = None if changed else _imported(path)  # other code than was fitted is not even run
    except UserError as error:
        raise UserError(f"the fit's law {name!r} cannot be read back: {error}") from None
    if restored is None or (sha256 and BORN[restored].sha256 != sha256):
        raise UserError(
            f"the source of the law {name!r}, {path}, has changed since the fit was saved: fit again, or restore it"
        )
    return restored


def within_reach(path: str) -> str:
    """The import path of a law as a file names it: importing it runs code, so the file chooses from here only.

    Raises `UserError` for a .py file outside of the working directory, and for what is no name of a module.
    """
    place, _, name = path.rpartition(":")
    if place.endswith(".py"):
        inside = Path(place).resolve().is_relative_to(Path.cwd())
    else:
        inside = (
            path in FORMS
            or MIXTURE.fullmatch(path) is not None
            or all(part.isidentifier() for part in [*place.split("."), name])
        )
    if not inside:
        raise UserError(
            f"{path!r} is code outside of the folder that this is called in, and what a file names is only run from "
            f"there: call this where the law lies, or copy it here and fit again"
        )
    return path


def _imported(path: str) -> type[Law]:
    place, _, name = path.rpartition(":")
    if not place:
        raise UserError(
            f"no law is called {path!r}{nearest(path, [*FORMS, 'mixture-5'])}; a law of your own is named by its "
            f"import path, mine.py:MyLaw or package.module:MyLaw"
        )
    module = _from_file(Path(place)) if place.endswith(".py") else _from_module(place)
    law = getattr(module, name, None)
    if not (isinstance(law, type) and issubclass(law, Law)):
        own = [other.__name__ for other in BORN if other.__module__ == module.__name__]
        hint = nearest(name, own) if own else "; it defines no class derived from laws.Law"
        raise UserError(f"{place} defines no law {name!r}{hint}")
    return form(law)


def _from_file(path: Path) -> ModuleType:
    """The file run as a module, once for each content."""
    if not path.is_file():
        raise UserError(f"there is no file {path}: give the path of the file that defines the law")
    content = path.read_bytes()
    name = f"lmscale_law_{hashlib.sha256(str(path.resolve()).encode() + content).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    module.__dict__["__law_file__"] = str(path)
    sys.modules[name] = module
    try:
        with contextlib.redirect_stdout(sys.stderr):
            called(f"the law file {path}", spec.loader.exec_module, module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, UserError) and error.__cause__ is None:  # what this package says of a line of the file
            raise UserError(f"{place_of(error) or path}: {error}") from error
        raise
    return module


def _from_module(name: str) -> ModuleType:
    """An importable module; the working directory counts as one of the places to look in."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        place = place_of(error)
        raise UserError(
            f"the module {name!r} cannot be imported{f', at {place}' if place else ''} ({sentence(error)})"
        ) from error
    finally:
        sys.path.remove(here)


def _check(law: type[Law]) -> None:
    """Raises `UserError` for a class that is no complete law."""
    where = law.__qualname__
    if not (isinstance(law.NAME, str) and law.NAME):
        raise UserError(f"the law class {where} has no NAME: give it one, as in NAME: ClassVar = 'my-law'")
    rows = law.PARAMETERS if isinstance(law.PARAMETERS, tuple | list) else ()
    if not rows or not all(isinstance(one, Parameter) for one in rows):
        raise UserError(f"the law {law.NAME!r} needs PARAMETERS, a tuple of laws.Parameter(name, low, high)")
    fields = tuple(field.name for field in dataclasses.fields(law) if field.name != "citation")
    if law.names() != fields:
        raise UserError(
            f"the law {law.NAME!r} has the fields {', '.join(fields) or 'of no dataclass'} and the PARAMETERS "
            f"{', '.join(law.names())}: they are the same, in one order, of a class under @dataclass(frozen=True)"
        )
    if law.RESIDUAL not in ("log", "raw"):
        raise UserError(f"the law {law.NAME!r} has RESIDUAL = {law.RESIDUAL!r}: residuals are 'log' or 'raw'")
    if wrong := [name for name in law.SHARES if name not in law.INPUTS]:
        raise UserError(f"the law {law.NAME!r} has {wrong[0]!r} in SHARES and not in INPUTS: shares are inputs")
    repeated = next((name for name in law.INPUTS if law.INPUTS.count(name) > 1), None)
    if repeated or law.TARGET in law.INPUTS:
        twice = f"the input {repeated!r} twice" if repeated else f"its own target, {law.TARGET!r}"
        raise UserError(
            f"the law {law.NAME!r} has {twice} in INPUTS, ({', '.join(law.INPUTS)}): each names a column of its own"
        )
    _check_loss(law)


def _check_loss(law: type[Law]) -> None:
    """`loss` takes INPUTS, each at its place, under names of its own if it likes."""
    if not callable(law.loss):
        raise UserError(f"the loss of the law {law.NAME!r} is {law.loss!r}: it is a function of the inputs")
    given = [one for one in inspect.signature(law.loss).parameters.values() if one.name != "self"]
    names = [one.name for one in given]
    misplaced = [name for name, other in zip(names, law.INPUTS) if name != other and name in law.INPUTS]
    any_number = any(one.kind is inspect.Parameter.VAR_POSITIONAL for one in given)
    required = [one for one in given if one.default is inspect.Parameter.empty]
    most = math.inf if any_number else len(names)
    if law.loss is Law.loss or misplaced or not len(required) - any_number <= len(law.INPUTS) <= most:
        takes = "is not defined" if law.loss is Law.loss else f"takes ({', '.join(names)})"
        raise UserError(
            f"the loss of the law {law.NAME!r} {takes}, and its INPUTS are ({', '.join(law.INPUTS)}): loss takes the "
            f"inputs in their order"
        )
