"""Published shapes against published totals."""

import subprocess
import sys

import pytest

from lmscale.core.counting import params_attention, params_total
from lmscale.core.errors import UserError
from lmscale.study.presets import PRESETS, preset

CHINCHILLA = [name for name in PRESETS if name.startswith("chinchilla")]


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("gpt2", 124_439_808),
        ("gpt2-medium", 354_823_168),
        ("gpt2-large", 774_030_080),
        ("gpt2-xl", 1_557_611_200),
        ("llama2-7b", 6_738_415_616),
        ("llama2-13b", 13_015_864_320),
        ("llama2-70b", 68_976_648_192),
        ("llama3-8b", 8_030_261_248),
        ("llama3-70b", 70_553_706_496),
        ("tinyllama-1.1b", 1_100_048_384),
    ],
)
def test_released_weights_are_counted_to_the_last_number(name: str, params: int) -> None:
    assert params_total(preset(name)) == params == PRESETS[name].params


def test_every_preset_is_held_against_its_published_total() -> None:
    """Those above exactly, those of Chinchilla below."""
    assert len(PRESETS) == 10 + 44 + 1 == 10 + len(CHINCHILLA)


@pytest.mark.parametrize("name", CHINCHILLA)
def test_chinchilla_but_for_the_matrix_of_relative_positions(name: str) -> None:
    """With width^2 per layer for those, the totals are table A9's up to its rounding and to vectors it may count."""
    model = preset(name)
    relative = params_attention(model) // 4
    assert relative == model.layers * model.width**2
    published = PRESETS[name].params
    assert params_total(model) + relative == pytest.approx(published, rel=1e-3, abs=0.75e6)
    assert params_total(model) == pytest.approx(published, rel=0.08)
    assert model.head_width in (64, 128)
    assert model.hidden == 4 * model.width


def test_sizes_that_totals_do_not_show() -> None:
    gpt2, llama, llama3 = (preset(name) for name in ("gpt2", "llama2-7b", "llama3-8b"))
    assert (gpt2.head_width, gpt2.init, gpt2.norm, gpt2.positions, gpt2.mlp) == (
        64, "gpt2", "layernorm", "learned", "gelu",
    )  # fmt: skip
    assert (llama.head_width, llama.num_kv_heads, llama.rope_base, llama.mlp) == (128, 32, 10_000.0, "swiglu")
    assert (llama3.head_width, llama3.num_kv_heads, llama3.rope_base, llama3.norm) == (128, 8, 500_000.0, "rmsnorm")
    assert {llama.tied_embeddings, llama3.tied_embeddings} == {False} and gpt2.tied_embeddings


@pytest.mark.parametrize(
    ("given", "meant"), [("gpt-2", "gpt2"), ("llama2_7b", "llama2-7b"), ("chinchilla-44", "chinchilla-44m")]
)
def test_a_mistyped_name_is_answered_with_the_nearest(given: str, meant: str) -> None:
    with pytest.raises(UserError, match=f"there is no preset '{given}'; did you mean '{meant}'"):
        preset(given)


def test_presets_load_no_jax() -> None:
    code = (
        "import sys, lmscale.study.presets; print([name for name in ('jax', 'flax', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
