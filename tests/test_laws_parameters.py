"""The parameters of a law are numbers, or arrays of them, and anything else is one sentence."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from lmscale.core.errors import UserError
from lmscale.study.laws import FORMS, Chinchilla, Law, Parameter

NO_NUMBERS = ("a", "1.7", None, True, {}, [1.0, 2.0], np.array(["a"]), np.array([1.0, None]))


@pytest.mark.parametrize("shape", FORMS.values(), ids=lambda shape: shape.NAME)
def test_a_parameter_is_a_number_or_an_array_of_them(shape: type[Law]) -> None:
    last = shape.names()[-1]
    values: dict[str, Any] = dict.fromkeys(shape.names(), 1.0)
    for value in (2, 1j, np.float32(2), np.array([1.0, 2.0]), pd.Series([1, 2]), jnp.ones(2)):
        assert getattr(shape(**{**values, last: value}), last) is value
    for value in NO_NUMBERS:
        with pytest.raises(UserError, match=rf"{shape.__name__}\({last}=.*: must be a number, or an array of numbers"):
            shape(**{**values, last: value})


def test_the_sentence_for_a_wrong_parameter_says_the_fix() -> None:
    with pytest.raises(UserError, match="write it without quotation marks"):
        Chinchilla("1.7", 400, 2000, 0.35, 0.37)
    with pytest.raises(UserError, match=r"make an array of it, np.array\(\[\.\.\.\]\)"):
        Chinchilla([1.7], 400, 2000, 0.35, 0.37)


@dataclass(frozen=True)
class Prepared(Law):
    """A law that reads its parameter itself."""

    E: Any
    NAME: ClassVar[str] = "prepared"
    PARAMETERS: ClassVar[tuple[Parameter, ...]] = (Parameter("E", 1e-2, 10, (1,)),)
    INPUTS: ClassVar[tuple[Any, ...]] = ("params",)

    def __post_init__(self) -> None:
        object.__setattr__(self, "E", float(self.E) if self.E != "b" else self.E)

    def loss(self, params: Any) -> Any:
        return self.E + 0 * params


def test_a_law_may_prepare_its_parameters_before_they_are_looked_at() -> None:
    assert Prepared("1.5").loss(1e9) == 1.5
    with pytest.raises(UserError, match=r"Prepared\(E='b'\): must be a number"):
        Prepared("b")
