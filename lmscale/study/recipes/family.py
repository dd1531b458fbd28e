"""Families of shapes given by a rule: depth, heads and MLP follow from the width."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from lmscale.core.arguments import Count, Positive, checked
from lmscale.core.config import ModelConfig, check
from lmscale.core.counting import active_params_total, flops_per_token, params_non_embedding, params_total

FARTHEST = 1.5
"""Largest ratio between the size asked for and that of the nearest shape."""


@checked
@dataclass(frozen=True)
class Family:
    """A one-dimensional family of shapes: depth and heads follow from the width."""

    width_multiple: Count
    """Widths are multiples of this: 64 or 128 fill the tiles of an accelerator's matrix units."""
    aspect_ratio: Positive | None
    """Width divided by layers, as near as whole layers allow; None gives every member `min_layers`."""
    head_width: Count
    """Features per head, as near as whole heads allow."""
    min_layers: Count = 2
    min_heads: Count = 1
    max_width: Count = 16_384
    mlp_multiple: Count | None = None
    """The hidden width of the MLP is rounded up to a multiple of this; None keeps the model's own rule."""
    granularity: float | None = None
    """G: hidden units of a member's MLP over those of one expert, as near as whole units allow (Krajewski 2024, arXiv
    2402.07871); None keeps the base's `expert_width`. Members with experts only."""
    base: ModelConfig = field(default_factory=lambda: ModelConfig(width=16, layers=1, heads=1))
    """Everything that the members share: vocabulary, context, kind of MLP, ..."""

    def shape(self, width: int) -> ModelConfig:
        """The member of a given width. Raises `UserError` for a width that heads of an even width cannot share."""
        check(1 <= width <= self.max_width, f"width = {width}: the family has widths up to {self.max_width:,}")
        layers = max(self.min_layers, round(width / (self.aspect_ratio or math.inf)))
        # Rotary positions rotate pairs of features, so a head's width is even.
        even_heads = [h for h in range(self.min_heads, width // 2 + 1) if width % (2 * h) == 0]
        check(bool(even_heads), f"width = {width}: no {self.min_heads} or more heads of an even width make it up")
        heads = min(even_heads, key=lambda h: abs(math.log(width / h / self.head_width)))
        model = replace(self.base, width=width, layers=layers, heads=heads)
        if self.mlp_multiple is not None:
            model = replace(model, mlp_width=-(-model.hidden // self.mlp_multiple) * self.mlp_multiple)
        return model if self.granularity is None else replace(model, expert_width=self._expert_width(model))

    def _expert_width(self, model: ModelConfig) -> int:
        """Hidden units of an expert of a member. Raises `UserError` where there is less than one, or no expert."""
        assert self.granularity is not None
        check(
            self.granularity > 0 and model.experts > 1,
            f"granularity = {self.granularity:g} with experts = {model.experts}: it divides an MLP among experts, of "
            f"which there must be 2 or more",
        )
        check(
            self.granularity <= model.hidden,
            f"granularity = {self.granularity:g} leaves experts of width {model.width} empty: its MLP has "
            f"{model.hidden} hidden units, so take at most {model.hidden}",
        )
        return round(model.hidden / self.granularity)

    def up_to(self, params: float, size: Callable[[ModelConfig], int] = params_total) -> Iterator[ModelConfig]:
        """Members from the narrowest up to the first with more than `params` parameters, counted by `size`."""
        for width in range(self.width_multiple, self.max_width + 1, self.width_multiple):
            model = self.shape(width)
            yield model
            if size(model) > params:
                return

    def table(self, smallest: float, largest: float, rows: int = 12) -> str:
        """Up to `rows` members between two sizes as text: width, layers, heads, MLP, N and FLOPs per token."""
        members = [model for model in self.up_to(largest) if smallest <= params_total(model) <= largest]
        check(bool(members), f"the family has no member between {smallest:.3g} and {largest:.3g} parameters")
        indices = sorted({round(i * (len(members) - 1) / max(1, rows - 1)) for i in range(rows)})
        active = any(model.experts > 1 for model in members)
        lines = ["width  layers  heads  head width    MLP               N   N non-embedding   FLOPs per token"]
        lines[0] += f"{'active N':>16}" * active
        for model in (members[index] for index in indices if index < len(members)):
            lines.append(
                f"{model.width:5}  {model.layers:6}  {model.heads:5}  {model.head_width:10}  {model.hidden:5}  "
                f"{params_total(model):14,}  {params_non_embedding(model):16,}  {flops_per_token(model):16,}"
                + f"{active_params_total(model):16,}"
                * active
            )
        return "\n".join(lines)

    def __str__(self) -> str:
        depth = f"{self.aspect_ratio:g} wide per layer" if self.aspect_ratio else f"{self.min_layers} layers"
        text = f"widths in steps of {self.width_multiple}, {depth}, heads of {self.head_width}"
        base = self.base
        if base.experts > 1:
            text += f", {base.experts} experts, {base.experts_per_token} per token"
            text += f" and {base.shared_experts} shared" * (base.shared_experts > 0)
            text += f", granularity {self.granularity:g}" if self.granularity is not None else ""
        return text


@checked
def nearest_model(params: float, family: Family, active: bool = False) -> ModelConfig:
    """The member of `family` whose N is nearest to `params` in ratio: all parameters, or the `active` ones of a token.

    Raises `UserError` when the family's smallest or largest member is more than a factor 1.5 away.
    """
    size, what = (active_params_total, "active parameters") if active else (params_total, "parameters")
    check(params > 0, f"params = {params!r}: must be positive")
    best = min(family.up_to(2 * params, size), key=lambda model: abs(math.log(size(model) / params)))
    ratio = size(best) / params
    check(
        1 / FARTHEST <= ratio <= FARTHEST,
        f"no model of this family has near {params:.3g} {what}; the nearest, width {best.width}, has {size(best):,}",
    )
    return best
