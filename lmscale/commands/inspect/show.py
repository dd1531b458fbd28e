"""What was measured inside models, on the terminal."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lmscale.commands.console import print_whole
from lmscale.commands.inspect.measure import InspectedModel, head_numbers
from lmscale.core.text import one_line

if TYPE_CHECKING:
    from lmscale.lm.inspect.summary import TextReading

LISTED = 8
"""Heads, units or tokens that a table lists."""
END = "<end of document>"
SCORES = ("induction", "previous_token", "duplicate_token")


def show(models: Sequence[InspectedModel], head: str | None, remarks: Sequence[str], console: Console) -> None:
    """Print what was measured of every model, then what several have in common in one table each."""
    for remark in (*remarks, *of_models(models)):
        console.print(remark, markup=False)
    for model in models:
        if model.reading is not None:
            _title(model, console)
            print_whole(lens_table(model.reading), console)
            print_whole(attention_table(model.reading), console)
            at = head_numbers(head, model.layers, model.heads_per_layer, model.folder)
            if at is not None:
                print_whole(head_table(model.reading, *at), console)
            if model.reading.left_out:
                console.print(f"the last {model.reading.left_out:,} tokens are left out", style="dim")
        for task, value in model.effects.items() if model.visible else ():
            _title(model, console)
            _print_effects(task, value, console)
    if len(models) > 1 and any(model.effects for model in models):
        print_whole(models_table(models), console)
    if any(model.heads for model in models):
        print_whole(heads_table(models), console)
        console.print(
            "ablated heads put out their mean; the controls are as many random heads of the same layers", style="dim"
        )


def of_models(models: Sequence[InspectedModel]) -> list[str]:
    """What was left out, each sentence once."""
    return list(dict.fromkeys(one_line(remark) for model in models for remark in model.remarks))


def _title(model: InspectedModel, console: Console) -> None:
    console.print()
    console.print(f"{model.folder}: N = {model.size}, after {model.step:,} updates", markup=False)


def token_name(token: str) -> str:
    """A token as it is listed: in quotes, the end of a document in words."""
    return repr(one_line(token)) if token else END


def lens_table(reading: "TextReading") -> Table:
    """One row for each point of the residual stream: how well it predicts the text, and how near it is to the model."""
    table = Table(title="prediction by layer (logit lens)", title_justify="left")
    table.add_column("after")
    for name in ("nats of the next token", "KL from the model, nats", "same likeliest token"):
        table.add_column(name, justify="right")
    last = [row[0][0] for row in reading.lens[-1]["likeliest"]]
    scored = max(1, len(reading.tokens) - 1)
    for point, layer in enumerate(reading.lens):
        same = np.mean([row[0][0] == token for row, token in zip(layer["likeliest"], last)])
        nats, kl = sum(layer["next_nats"]) / scored, np.mean(layer["kl_nats"])
        table.add_row("embedding" if point == 0 else f"layer {point - 1}", f"{nats:.3f}", f"{kl:.3f}", f"{same:.0%}")
    return table


def attention_table(reading: "TextReading") -> Table:
    """The heads that attend most to the token before, to their own and to the first one."""
    table = Table(title="mean attention, the strongest heads", title_justify="left")
    shares = reading.head_summary()
    for name in shares:
        table.add_column(f"to {name.replace('_', ' ')}", justify="right")
    ranked = [_strongest(values) for values in shares.values()]
    for row in zip(*ranked):
        table.add_row(*(f"{layer}.{head}  {value:.3f}" for layer, head, value in row))
    return table


def _strongest(values_LH: Any, most: int = LISTED) -> list[tuple[int, int, float]]:
    """(layer, place, value) of the largest values."""
    values = np.asarray(values_LH, np.float64)
    order = np.argsort(-values, axis=None, kind="stable")[:most]
    return [(*divmod(int(number), values.shape[1]), float(values.flat[number])) for number in order]


def head_table(reading: "TextReading", layer: int, head: int) -> Table:
    """What one head attends to from each of the last tokens."""
    table = Table(title=f"attention of head {layer}.{head}", title_justify="left")
    for name in ("from", "most to", "then to", "then to"):
        table.add_column(name)
    for query in range(max(0, len(reading.tokens) - 2 * LISTED), len(reading.tokens)):
        weights = reading.attention_LHTS[layer, head, query, : query + 1]
        keys = np.argsort(-weights, kind="stable")[:3]
        cells = [Text(f"{token_name(reading.tokens[key])} at {key}: {weights[key]:.2f}") for key in keys]
        table.add_row(Text(f"{token_name(reading.tokens[query])} at {query}"), *cells)
    return table


def _print_effects(task: str, value: dict[str, Any], console: Console) -> None:
    total = value["total_nats"]
    console.print(
        f"{one_line(task)}: {value['pairs']} pairs, total effect {with_bounds(total)} nats of "
        "ln p(other answer) / p(answer)",
        markup=False,
    )
    for kind, units in value["units"].items():
        print_whole(effects_table(kind, units, value.get("experts")), console)
    if experts := value.get("experts"):
        console.print(experts_sentence(experts), markup=False)
    if used := value.get("used_neurons"):
        console.print(used_sentence(used))


def experts_sentence(experts: dict[str, Any]) -> str:
    """Where neurons of experts are replaced."""
    return (
        f"A neuron of an expert acts on the tokens that take the expert, and is replaced where both prompts of a pair "
        f"take it at a position: {experts['in_both']:,} of {experts['taken']:,} choices of experts are of both."
    )


def unit_name(kind: str, layer: int, unit: int, experts: dict[str, Any] | None) -> str:
    """A unit as it is listed: LAYER.UNIT, and of experts LAYER.EXPERT.NEURON or LAYER.shared.NEURON."""
    if kind != "neurons" or experts is None:
        return f"{layer}.{unit}"
    expert, neuron = divmod(unit, experts["neurons"])
    return f"{layer}.{expert if expert < experts['experts'] else 'shared'}.{neuron}"


def used_sentence(used: dict[str, Any]) -> str:
    """How many neurons the task needs."""
    return (
        f"The strongest {used['count']:,} of {used['neurons']:,} neurons, {shares(used)}, keep 90 % of the score of "
        f"{used['score']:.3f}; without any it is {used['score_without']:.3f}."
    )


def shares(used: dict[str, Any]) -> str:
    """The used share of the neurons with its interval."""
    share = used["share"]
    return f"{share['mean']:.2%} [{share['low']:.2%}, {share['high']:.2%}]"


def effects_table(kind: str, units: dict[str, Any], experts: dict[str, Any] | None = None) -> Table:
    """The units with the largest indirect effects, with 95 % intervals."""
    table = Table(title=f"effects of {kind}", title_justify="left")
    of_experts = kind == "neurons" and experts is not None
    name = "layer.expert.neuron" if of_experts else "layer.unit"
    table.add_column(name if kind in ("heads", "neurons", "positions") else "layer")
    for name in ("indirect, nats", "share of the total", "direct, nats"):
        table.add_column(name, justify="right")
    for layer, unit, _ in _strongest(np.abs(units["indirect_nats"]["mean"])):
        names = ("indirect_nats", "indirect_share", "direct_nats")
        cells = [{bound: rows[layer][unit] for bound, rows in units[name].items()} for name in names]
        alone = len(units["indirect_nats"]["mean"][layer]) == 1
        table.add_row(f"{layer}" if alone else unit_name(kind, layer, unit, experts), *map(with_bounds, cells))
    return table


def models_table(models: Sequence[InspectedModel]) -> Table:
    """One row for each model and task: the total effect, the strongest head and the share of neurons, against N."""
    table = Table(title="effects by model", title_justify="left")
    table.add_column("run", overflow="fold")
    table.add_column("task")
    for name in ("N", "total, nats", "strongest unit", "share of the total", "neurons used"):
        table.add_column(name, justify="right")
    for model in models:
        for task, value in model.effects.items():
            kind, units = next(iter(value["units"].items()))
            layer, unit, _ = _strongest(np.abs(units["indirect_nats"]["mean"]), 1)[0]
            share = {bound: rows[layer][unit] for bound, rows in units["indirect_share"].items()}
            used = value.get("used_neurons")
            table.add_row(
                Text(one_line(model.folder.name)),
                Text(one_line(task)),
                model.size,
                with_bounds(value["total_nats"]),
                f"{kind} {unit_name(kind, layer, unit, value.get('experts'))}",
                with_bounds(share),
                "-" if used is None else shares(used),
            )
    return table


def with_bounds(value: dict[str, float | None]) -> str:
    """A mean with its interval; a dash where there is none."""
    if any(bound is None for bound in value.values()):
        return "-"
    return f"{value['mean']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"


def heads_table(models: Sequence[InspectedModel]) -> Table:
    """One row per model: its strongest heads, its loss on repeated tokens, and what ablation costs."""
    table = Table(title="heads on repeated random tokens", title_justify="left")
    table.add_column("run", overflow="fold")
    for name in ("N", *(score.replace("_", " ") for score in SCORES), "second copy, nats", "without induction heads",
                 "without random heads", "in-context score"):  # fmt: skip
        table.add_column(name, justify="right")
    for model in models:
        if model.heads is None:
            continue
        best = [_strongest(model.heads[score], 1)[0] for score in SCORES]
        ablation = model.heads.get("ablation", {}).get("second_copy_nats")
        without = "-" if ablation is None else f"{ablation['without']:.3f}"
        control = "-" if ablation is None else spread(ablation["without_random"])
        context = model.heads.get("in_context")
        table.add_row(
            Text(one_line(str(model.folder))),
            model.size,
            *(f"{value:.3f} ({layer}.{head})" for layer, head, value in best),
            f"{model.heads['second_copy_nats']['mean']:.3f}",
            without,
            control,
            "-" if context is None else f"{context['mean']:+.3f}",
        )
    return table


def spread(values: Sequence[float]) -> str:
    """The mean of several controls, and the least and the most of them."""
    return f"{np.mean(values):.3f} [{min(values):.3f}, {max(values):.3f}]"
