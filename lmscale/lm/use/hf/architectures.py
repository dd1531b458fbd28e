"""The published classes that lmscale writes and reads, and which of them a model is.

Names of fields and tensors are those of the library transformers, releases 4 and 5.
"""

from typing import Any

from lmscale.core.config import ModelConfig, check
from lmscale.core.errors import UserError, nearest
from lmscale.lm.use.hf.architecture import Architecture
from lmscale.lm.use.hf.experts import GLM4_MOE, MIXTRAL, QWEN3_MOE
from lmscale.lm.use.hf.fields import Fields
from lmscale.lm.use.hf.gpt import GPT2, NEOX
from lmscale.lm.use.hf.llama import ARCEE, GEMMA, LLAMA, OLMO, QWEN2, QWEN3, STABLELM, STARCODER2

ARCHITECTURES = (
    LLAMA,
    QWEN2,
    QWEN3,
    GEMMA,
    ARCEE,
    GPT2,
    NEOX,
    STARCODER2,
    STABLELM,
    OLMO,
    MIXTRAL,
    QWEN3_MOE,
    GLM4_MOE,
)

UNREAD = dict.fromkeys(
    ("deepseek_v2", "deepseek_v3"),
    f"its attention goes through latents (MLA), for which lmscale has no option; its router is that of "
    f"{GLM4_MOE.name}, which lmscale reads",
)
"""Model type -> why lmscale does not read it."""


def choose(config: ModelConfig, name: str | None = None) -> Architecture:
    """The first class that computes what the model computes, or the class `name`.

    Raises `UserError` that names the option without a counterpart, and the class that comes nearest.
    """
    check(
        not config.scalar_head,
        "a reward model gives one number and no next token, which no class of a language model has; export the run "
        "that it started from",
    )
    if name is not None:
        by_name = {architecture.name: architecture for architecture in ARCHITECTURES}
        check(name in by_name, f"lmscale writes no class {name!r}{nearest(name, by_name)}: {', '.join(by_name)}")
        candidates: tuple[Architecture, ...] = (by_name[name],)
    else:
        candidates = tuple(each for each in ARCHITECTURES if not each.unit_gains and each.sparse == config.sparse)
    problems = [list(architecture.mismatches(config)) for architecture in candidates]
    fewest = min(problems, key=len)
    if not fewest:
        return candidates[problems.index(fewest)]
    raise UserError(f"the model cannot be written for transformers: {'; '.join(fewest)}")


def of_folder(values: dict[str, Any]) -> Architecture:
    """The class that a config.json names. Raises `UserError` for one that lmscale does not read."""
    by_type = {architecture.model_type: architecture for architecture in ARCHITECTURES}
    model_type = Fields(values).get("model_type", str)
    check(model_type not in UNREAD, f"config.json names the model type {model_type!r}: {UNREAD.get(model_type)}")
    check(
        model_type in by_type,
        f"config.json names the model type {model_type!r}{nearest(model_type, by_type)}; lmscale reads "
        f"{', '.join(by_type)}",
    )
    return by_type[model_type]
