"""Low-rank adapters as axes of a sweep: a point says how large they are, and of which matrices."""

from dataclasses import replace
from typing import Any

from lmscale.core.config import LoraConfig, ModelConfig, check
from lmscale.study.sweep import LORA_AXES, Point


def with_lora(model: ModelConfig, point: Point) -> ModelConfig:
    """The model with the adapters of a point, which change its own; `lora_rank` = None takes them away.

    Raises `UserError` for settings of adapters without a rank.
    """
    given: dict[str, Any] = {field: point[axis] for axis, field in LORA_AXES.items() if axis in point}
    if not given:
        return model
    if given.get("rank", 0) is None:
        return replace(model, lora=None)
    check(
        "rank" in given or model.lora is not None,
        f"the point gives {' and '.join(axis for axis in LORA_AXES if axis in point)} of adapters that it does not "
        f"have; give lora_rank too",
    )
    if isinstance(matrices := given.get("matrices"), str | list):
        given["matrices"] = (matrices,) if isinstance(matrices, str) else tuple(matrices)
    return replace(model, lora=LoraConfig(**given) if model.lora is None else replace(model.lora, **given))
