"""Published model shapes as values of `ModelConfig`; `dataclasses.replace` gives them another context, dtype or
parametrization.

Where our model differs from the published one, its family says how. Dropout is off: it is a choice of the run.
"""

from dataclasses import dataclass
from typing import Any

from lmscale.core.arguments import checked
from lmscale.core.config import ModelConfig
from lmscale.core.errors import UserError, nearest


@dataclass(frozen=True)
class Preset:
    """A published shape."""

    model: ModelConfig
    source: str
    params: int
    """All parameters as published; rounded to millions where the source rounds."""


@checked
def preset(name: str) -> ModelConfig:
    """The published shape `name`, one of `PRESETS`. Raises `UserError` for an unknown name, with the nearest."""
    if name not in PRESETS:
        raise UserError(f"there is no preset {name!r}{nearest(name, PRESETS)}")
    return PRESETS[name].model


def _gpt2(width: int, layers: int, heads: int) -> ModelConfig:
    """A GPT-2, exact in shape. The released code initialises positions with half the deviation of tokens;
    both have .02 here."""
    return ModelConfig(
        width=width, layers=layers, heads=heads, vocab=50_257, context=1024, norm="layernorm", norm_epsilon=1e-5,
        positions="learned", mlp="gelu", biases=True, tied_embeddings=True, init="gpt2",
    )  # fmt: skip


def _llama(width: int, layers: int, heads: int, mlp_width: int, **changed: Any) -> ModelConfig:
    """A Llama, exact in shape: RMSNorm, rotary positions, SwiGLU, no biases, an untied head."""
    settings: dict[str, Any] = {"vocab": 32_000, "context": 4096, "norm_epsilon": 1e-5, **changed}
    return ModelConfig(
        width=width, layers=layers, heads=heads, mlp_width=mlp_width, norm="rmsnorm", positions="rotary", mlp="swiglu",
        tied_embeddings=False, **settings,
    )  # fmt: skip


def _chinchilla(width: int, layers: int, heads: int) -> ModelConfig:
    """A Chinchilla with the published heads and an MLP four times as wide as the model, whose activation the paper does
    not name. Positions are rotary: the relative ones of the paper (Dai 2019) have width^2 more parameters per layer."""
    return ModelConfig(
        width=width, layers=layers, heads=heads, vocab=32_000, context=2048, norm="rmsnorm", positions="rotary",
        mlp="gelu", mlp_width=4 * width, tied_embeddings=True,
    )  # fmt: skip


# Millions of parameters, width, layers, heads: the rows of table A9 whose heads fill the width. Six do not, and have no
# preset: 3530, 4084, 11452, 12569, 13735 and 14940 million.
_TABLE_A9 = (
    (44, 512, 8, 8), (57, 576, 9, 9), (74, 640, 10, 10), (90, 640, 13, 10), (106, 640, 16, 10),
    (117, 768, 12, 12), (140, 768, 15, 12), (163, 768, 18, 12), (175, 896, 14, 14), (196, 896, 16, 14),
    (217, 896, 18, 14), (251, 1024, 16, 16), (278, 1024, 18, 16), (306, 1024, 20, 16), (425, 1280, 18, 10),
    (489, 1280, 21, 10), (509, 1408, 18, 11), (552, 1280, 24, 10), (587, 1408, 21, 11), (632, 1536, 19, 12),
    (664, 1408, 24, 11), (724, 1536, 22, 12), (816, 1536, 25, 12), (893, 1792, 20, 14), (1018, 1792, 23, 14),
    (1143, 1792, 26, 14), (1266, 2048, 22, 16), (1424, 2176, 22, 17), (1429, 2048, 25, 16), (1593, 2048, 28, 16),
    (1609, 2176, 25, 17), (1731, 2304, 24, 18), (1794, 2176, 28, 17), (2007, 2304, 28, 18), (2283, 2304, 32, 18),
    (2298, 2560, 26, 20), (2639, 2560, 30, 20), (2980, 2560, 34, 20), (3802, 2816, 36, 22), (4516, 3072, 36, 24),
    (6796, 3584, 40, 28), (9293, 4096, 42, 32), (12295, 4608, 44, 36), (16183, 5120, 47, 40),
)  # fmt: skip

_GPT2 = "Radford 2019, table 2; sizes and totals of the released weights"
_LLAMA2 = "Touvron 2023, arXiv 2307.09288; sizes and totals of the released weights"
_LLAMA3 = "Llama Team 2024, arXiv 2407.21783, table 3; totals of the released weights"
_TINYLLAMA = "Zhang 2024, arXiv 2401.02385; sizes and total of the released weights"
_A9 = "Hoffmann 2022, arXiv 2203.15556, table A9"

PRESETS: dict[str, Preset] = {
    "gpt2": Preset(_gpt2(768, 12, 12), _GPT2, 124_439_808),
    "gpt2-medium": Preset(_gpt2(1024, 24, 16), _GPT2, 354_823_168),
    "gpt2-large": Preset(_gpt2(1280, 36, 20), _GPT2, 774_030_080),
    "gpt2-xl": Preset(_gpt2(1600, 48, 25), _GPT2, 1_557_611_200),
    "llama2-7b": Preset(_llama(4096, 32, 32, 11_008), _LLAMA2, 6_738_415_616),
    "llama2-13b": Preset(_llama(5120, 40, 40, 13_824), _LLAMA2, 13_015_864_320),
    "llama2-70b": Preset(_llama(8192, 80, 64, 28_672, kv_heads=8), _LLAMA2, 68_976_648_192),
    "llama3-8b": Preset(
        _llama(4096, 32, 32, 14_336, kv_heads=8, vocab=128_256, context=8192, rope_base=500_000.0),
        _LLAMA3,
        8_030_261_248,
    ),
    "llama3-70b": Preset(
        _llama(8192, 80, 64, 28_672, kv_heads=8, vocab=128_256, context=8192, rope_base=500_000.0),
        _LLAMA3,
        70_553_706_496,
    ),
    "tinyllama-1.1b": Preset(_llama(2048, 22, 32, 5632, kv_heads=4, context=2048), _TINYLLAMA, 1_100_048_384),
    **{
        f"chinchilla-{millions}m": Preset(_chinchilla(width, layers, heads), _A9, millions * 10**6)
        for millions, width, layers, heads in _TABLE_A9
    },
    "chinchilla-70b": Preset(_chinchilla(8192, 80, 64), "Hoffmann 2022, arXiv 2203.15556, table 4", 70 * 10**9),
}
"""Name -> published shape."""
