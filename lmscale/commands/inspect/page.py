"""What was measured inside models as one self-contained page, up to three models side by side.

Every token of the text is a button: pointing at it shades the tokens that the chosen head reads from there, and lists
what each layer would predict next, in all models with the same tokens. Small maps of all heads choose the head. Text
and names are escaped; the script loads nothing and reads only the numbers that stand beside it.
"""

import base64
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lmscale.commands.inspect.measure import InspectedModel, head_numbers
from lmscale.commands.inspect.script import SCRIPT, STYLE
from lmscale.commands.inspect.show import (
    END,
    SCORES,
    experts_sentence,
    of_models,
    spread,
    unit_name,
    used_sentence,
    with_bounds,
)
from lmscale.commands.inspect.used_by_size import section
from lmscale.study.report.page import bullets, document, heading, paragraphs, table, text

if TYPE_CHECKING:
    from lmscale.lm.inspect.summary import TextReading

LISTED = 20
"""Units with the largest effects that a table lists; a file of --json has all."""
MEANING = {
    "indirect_nats": "indirect",
    "indirect_share": "share of the total",
    "direct_nats": "direct",
}


def page(models: Sequence[InspectedModel], head: str | None, remarks: Sequence[str] = ()) -> str:
    """The whole page."""
    plural = f"{len(models)} models" if len(models) > 1 else "a model"
    sentences = [*remarks, *of_models(models)]
    body = [heading(f"Inside {plural}", 1), bullets(sentences) if sentences else ""]
    readings = [model for model in models if model.reading is not None]
    if readings:
        body += [heading("A text, layer by layer"), paragraphs(_introduction()), '<div class="models">']
        body += [_reading(model, head) for model in readings]
        body += ["</div>"]
    if any(model.effects for model in models):
        body += [heading("Which parts cause the answer"), paragraphs(_on_effects())]
        visible = [model for model in models if model.visible]
        body += [_effects(model, task, value) for model in visible for task, value in model.effects.items()]
        body += [section(models)]
    if any(model.heads for model in models):
        body += [heading("Heads on repeated random tokens"), paragraphs(_on_heads()), _heads(models)]
    if readings:
        body += [f"<script>{SCRIPT}</script>"]
    return document(f"Inside {plural}", body, STYLE)


def _introduction() -> list[str]:
    return [
        "Point at a token, or move to it with the tab key: what the chosen head reads from there is shaded, and "
        "the table lists what the residual stream would predict next after each layer (logit lens). Each small map "
        "is a head, with queries downwards and keys to the right; choose one to see its attention in the text. Models "
        "that cut the text into the same tokens show the same one.",
    ]


def _on_effects() -> list[str]:
    return [
        "Two prompts of a pair differ in one fact. The total effect is how much ln p(other answer) / p(answer) changes "
        "from the prompt to the other. The indirect effect of a unit is the change where it alone has the value that "
        "it has in the other prompt, the direct effect where all but it change (Vig 2020). Intervals are of 95 %, by a "
        "bootstrap over pairs.",
    ]


def _on_heads() -> list[str]:
    return [
        "Random tokens are read twice. An induction head attends from a token of the second copy to the one that "
        "followed it in the first (Olsson 2022). Ablated heads put out their mean; the controls are as many random "
        "heads of the same layers. The in-context score is the loss of token 500 of 512 less that of token 50, scaled "
        "to the context.",
    ]


def _reading(model: InspectedModel, head: str | None) -> str:
    """The text as one model reads it, with its numbers for the script."""
    reading = model.reading
    assert reading is not None
    layer, chosen = head_numbers(head, model.layers, model.heads_per_layer, model.folder) or (0, 0)
    tokens = "".join(f'<button type="button">{_token(token)}</button>' for token in reading.tokens)
    numbers = {"layer": layer, "head": chosen, **_numbers(reading)}
    left_out = f'<p class="small">The last {reading.left_out:,} tokens are left out.</p>' if reading.left_out else ""
    return (
        f'<section class="model" aria-label="{text(model.caption)}">{heading(model.caption, 3)}'
        f'<div class="tokens" dir="auto">{tokens}</div>{left_out}<p class="chosen small" aria-live="polite"></p>'
        f'<div class="maps"></div><div class="wide"><table class="lens"></table></div>'
        f'<script type="application/json" class="numbers">{_embedded(numbers)}</script></section>'
    )


def _token(token: str) -> str:
    """A token with its line breaks marked; the end of a document is a square."""
    return text(token).replace("\n", "\u23ce\n") if token else f'<i title="{text(END)}">\u220e</i>'


def _numbers(reading: "TextReading") -> dict[str, Any]:
    """Attention as one byte for each weight, base64; the likeliest tokens and the nats of each layer."""
    weights = np.round(reading.attention_LHTS * 255).astype(np.uint8)
    names = ["embedding", *(f"layer {layer}" for layer in range(len(reading.lens) - 1))]
    return {
        "shape": weights.shape,
        "attention": base64.b64encode(weights.tobytes()).decode(),
        "names": names,
        "likeliest": [layer["likeliest"] for layer in reading.lens],
        "nats": [[round(nats, 3) for nats in layer["next_nats"]] for layer in reading.lens],
    }


def _embedded(value: Any) -> str:
    """JSON that no text in it can end: a `<` is written as an escape."""
    return json.dumps(value, allow_nan=False).replace("<", "\\u003c")


def _effects(model: InspectedModel, task: str, value: dict[str, Any]) -> str:
    total = value["total_nats"]
    sentences = [f"{value['pairs']} pairs; total effect {with_bounds(total)} nats."]
    experts = value.get("experts")
    if experts is not None:
        sentences += [experts_sentence(experts)]
    if used := value.get("used_neurons"):
        sentences += [used_sentence(used)]
    parts = [heading(f"{task}, {model.caption}", 3), paragraphs(sentences)]
    for kind, units in value["units"].items():
        parts += [_map(kind, units, experts), _effects_table(kind, units, experts)]
    return "".join(parts)


def _map(kind: str, units: dict[str, Any], experts: dict[str, Any] | None) -> str:
    """Indirect effects as a grid of layers and units, the strongest darkest; the table beside it has the numbers."""
    values = np.array(units["indirect_nats"]["mean"], np.float64)
    if values.shape[1] == 1 or values.size > 4096:
        return ""
    most = float(np.abs(values).max()) or 1.0
    rows = "".join(
        f"<tr><th>{layer}</th>"
        + "".join(
            f'<td title="{unit_name(kind, layer, unit, experts)}: {value:.3f} nats" style="--e:{abs(value) / most:.2f}"'
            f"{' class=less' if value < 0 else ''}></td>"
            for unit, value in enumerate(row)
        )
        + "</tr>"
        for layer, row in enumerate(values.tolist())
    )
    return f'<div class="wide"><table class="grid" aria-label="indirect effects of {text(kind)}">{rows}</table></div>'


def _effects_table(kind: str, units: dict[str, Any], experts: dict[str, Any] | None) -> str:
    means = np.abs(np.array(units["indirect_nats"]["mean"], np.float64))
    order = np.argsort(-means, axis=None, kind="stable")[:LISTED]
    numbering = "layer.expert.neuron" if kind == "neurons" and experts is not None else "layer.unit"
    heads = [(kind, numbering), *((name, "" if "share" in name else "nats") for name in MEANING.values())]
    rows = []
    for number in order.tolist():
        layer, unit = divmod(number, means.shape[1])
        cells = [with_bounds({bound: part[layer][unit] for bound, part in units[name].items()}) for name in MEANING]
        rows.append(("", [unit_name(kind, layer, unit, experts), *cells]))
    return table(heads, rows)


def _heads(models: Sequence[InspectedModel]) -> str:
    """One row per model."""
    heads = [("model", ""), *((score.replace("_", " "), "highest, head") for score in SCORES), ("second copy", "nats"),
             ("without induction heads", "nats"), ("without random heads", "nats"),
             ("in-context score", "nats")]  # fmt: skip
    rows = []
    for model in models:
        if model.heads is None:
            continue
        best = []
        for score in SCORES:
            values = np.array(model.heads[score])
            layer, head = divmod(int(values.argmax()), values.shape[1])
            best.append(f"{values.max():.3f} ({layer}.{head})")
        ablation = model.heads.get("ablation", {}).get("second_copy_nats")
        costs = ["-", "-"] if ablation is None else [f"{ablation['without']:.3f}", spread(ablation["without_random"])]
        context = model.heads.get("in_context")
        gain = "-" if context is None else f"{context['mean']:+.3f}"
        rows.append(("", [model.caption, *best, f"{model.heads['second_copy_nats']['mean']:.3f}", *costs, gain]))
    return table(heads, rows)
