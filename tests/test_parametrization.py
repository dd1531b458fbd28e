"""Standard, mup and completep against the tables of their papers, entry by entry.

Every entry is a pair of exponents (n, l): the quantity of a model n times as wide and l times as deep as the base is
that of the base times m_N^n m_L^l. Yang 2022 (arXiv 2203.03466), table 8, with Adam; Dey 2025 (arXiv 2505.01618), table
1, with alpha = 1, which adds the decay and Adam's epsilon.
"""

from dataclasses import replace

import pytest

from lmscale.core.config import ModelConfig, RouterConfig
from lmscale.lm.model.parameters import (
    attention_scale,
    embedding_multiplier,
    logit_multiplier,
    parameter_table,
    residual_multiplier,
)

Exponents = tuple[float, float]
SAME: Exponents = (0, 0)
BASE_WIDTH, BASE_LAYERS, M_N, M_L = 16, 2, 4, 8

HIDDEN = ("attention_qkv", "attention_out", "mlp_in", "mlp_out")
EXPERTS = ("experts_in", "experts_out", "shared_in", "shared_out")
OUTER = ("embedding", "positions", "head")
"""Input and output weights; the positions are input weights of their own."""
VECTORS = ("attention_norm", "mlp_norm", "query_norm", "key_norm", "attention_qkv_bias", "mlp_out_bias")
"""Those of the layers."""
FINAL = ("final_norm", "final_norm_bias")

# std of the initial values, rate, decay and epsilon by the kind of parameter
PAPERS: dict[str, dict[tuple[str, ...], dict[str, Exponents]]] = {
    "standard": {
        HIDDEN: {"std": SAME, "lr": SAME, "decay": SAME, "epsilon": SAME},
        OUTER: {"std": SAME, "lr": SAME, "decay": SAME, "epsilon": SAME},
        VECTORS: {"std": SAME, "lr": SAME, "decay": SAME, "epsilon": SAME},
        FINAL: {"std": SAME, "lr": SAME, "decay": SAME, "epsilon": SAME},
    },
    "mup": {
        HIDDEN: {"std": (-0.5, 0), "lr": (-1, 0), "decay": (1, 0), "epsilon": (-1, 0)},
        OUTER: {"std": SAME, "lr": SAME, "decay": SAME, "epsilon": (-1, 0)},
        VECTORS: {"std": SAME, "lr": SAME, "decay": SAME, "epsilon": (-1, 0)},
        FINAL: {"std": SAME, "lr": SAME, "decay": SAME, "epsilon": (-1, 0)},
    },
    "completep": {
        HIDDEN: {"std": (-0.5, 0), "lr": (-1, 0), "decay": (1, 0), "epsilon": (-1, -1)},
        OUTER: {"std": SAME, "lr": SAME, "decay": SAME, "epsilon": (-1, 0)},
        VECTORS: {"std": SAME, "lr": SAME, "decay": SAME, "epsilon": (-1, -1)},
        FINAL: {"std": SAME, "lr": SAME, "decay": SAME, "epsilon": (-1, 0)},
    },
}
FORWARD: dict[str, dict[str, Exponents]] = {
    "standard": {"embedding": SAME, "residual": SAME, "logits": SAME},
    "mup": {"embedding": SAME, "residual": SAME, "logits": (-1, 0)},
    "completep": {"embedding": SAME, "residual": (0, -1), "logits": (-1, 0)},
}
INTO_THE_STREAM = ("attention_out", "mlp_out")
"""Their initial values also fall as 1 / sqrt(L) where depth is not parametrized (Radford 2019)."""


def model(parametrization: str, m_width: int = M_N, m_layers: int = M_L, init: str = "gpt2") -> ModelConfig:
    base = {"standard": {}, "mup": {"base_width": BASE_WIDTH}}.get(
        parametrization, {"base_width": BASE_WIDTH, "base_layers": BASE_LAYERS}
    )
    return ModelConfig(
        width=m_width * BASE_WIDTH, layers=m_layers * BASE_LAYERS, heads=2 * m_width, vocab=64, context=16,
        parametrization=parametrization, init=init, tied_embeddings=False, norm="layernorm", positions="learned",
        qk_norm=True, biases=True, mlp_width=4 * m_width * BASE_WIDTH, **base,
    )  # fmt: skip


ROUTER: dict[str, dict[str, Exponents]] = {
    "standard": {"std": SAME, "lr": SAME, "decay": SAME, "epsilon": SAME},
    "mup": {"std": (-1, 0), "lr": (-1, 0), "decay": (1, 0), "epsilon": SAME},
    "completep": {"std": (-1, 0), "lr": (-1, 0), "decay": (1, 0), "epsilon": (0, -1)},
}
"""An output matrix (Malasnicki 2025) with its multiplier 1 / m_N drawn into it, which divides initial values, rate and
gradient by m_N (Yang 2022, lemma J.1)."""


def sparse(config: ModelConfig) -> ModelConfig:
    router = RouterConfig(bias_rate=0.001)
    return replace(config, biases=False, experts=8, experts_per_token=2, shared_experts=1, router=router)


@pytest.mark.parametrize("parametrization", PAPERS)
def test_experts_are_hidden_matrices_and_the_router_is_an_output(parametrization: str) -> None:
    base, large = (parameter_table(sparse(model(parametrization, *size))) for size in ((1, 1), (M_N, M_L)))
    rows = dict.fromkeys(EXPERTS, PAPERS[parametrization][HIDDEN]) | {"router": ROUTER[parametrization]}
    for name, row in rows.items():
        for quantity, exponents in row.items():
            field = "std" if quantity == "std" else f"{quantity}_multiplier"
            one, many = (getattr(table[name], field) for table in (base, large))
            stream = quantity == "std" and name.endswith("_out") and parametrization != "completep"
            assert many == pytest.approx(one * grown(exponents) * (M_L**-0.5 if stream else 1), rel=1e-12), name
    assert large["router_bias"].decay_multiplier == 0


def grown(exponents: Exponents) -> float:
    """What a quantity of the large model is of that of the base."""
    width, depth = exponents
    return M_N**width * M_L**depth


def entries(parametrization: str) -> list[tuple[str, str, Exponents]]:
    return [
        (name, quantity, exponents)
        for names, row in PAPERS[parametrization].items()
        for name in names
        for quantity, exponents in row.items()
    ]


@pytest.mark.parametrize("parametrization", PAPERS)
def test_every_parameter_follows_its_row(parametrization: str) -> None:
    base, large = (parameter_table(model(parametrization, *size)) for size in ((1, 1), (M_N, M_L)))
    for name, quantity, exponents in entries(parametrization):
        field = "std" if quantity == "std" else f"{quantity}_multiplier"
        one, many = (getattr(table[name], field) for table in (base, large))
        expected = one * grown(exponents)
        if quantity == "std" and name in INTO_THE_STREAM and parametrization != "completep":
            expected *= M_L**-0.5
        assert many == pytest.approx(expected, rel=1e-12), (name, quantity)


@pytest.mark.parametrize("parametrization", FORWARD)
def test_the_multipliers_of_the_forward_pass(parametrization: str) -> None:
    base, large = model(parametrization, 1, 1), model(parametrization)
    functions = {"embedding": embedding_multiplier, "residual": residual_multiplier, "logits": logit_multiplier}
    for name, exponents in FORWARD[parametrization].items():
        there = functions[name](large)
        assert there == pytest.approx(functions[name](base) * grown(exponents)), name


@pytest.mark.parametrize("parametrization", ["mup", "completep"])
def test_matrices_by_fan_in_are_those_of_the_base_at_the_base_and_follow_it(parametrization: str) -> None:
    """Variance 1 / fan-in falls as 1 / m_N by itself; tables and heads keep the variance of the base."""
    base, large = (parameter_table(model(parametrization, *size, init="fan-in")) for size in ((1, 1), (M_N, M_L)))
    for name in (*HIDDEN, *OUTER):
        shrinks = M_N ** (-0.5 if name in HIDDEN else 0)
        stream = M_L**-0.5 if name in INTO_THE_STREAM and parametrization == "mup" else 1
        assert large[name].std == pytest.approx(base[name].std * shrinks * stream), name


@pytest.mark.parametrize("init", ["fan-in", "gpt2", "zero-out"])
@pytest.mark.parametrize("parametrization", ["mup", "completep"])
def test_at_the_base_shape_all_are_the_standard_one(parametrization: str, init: str) -> None:
    own, standard = model(parametrization, 1, 1, init), model("standard", 1, 1, init)
    assert parameter_table(own) == parameter_table(standard)
    for multiplier in (embedding_multiplier, residual_multiplier, logit_multiplier, attention_scale):
        assert multiplier(own) == multiplier(standard)


def test_attention_scores_fall_with_the_head_and_not_with_its_root() -> None:
    """Yang 2022, definition 4.1; equal to 1 / sqrt(K) at the base head."""
    heads = {"width": 64, "layers": 2, "context": 16, "base_width": 16, "parametrization": "mup", "base_head_width": 8}
    scales = [attention_scale(ModelConfig(heads=64 // K, **heads)) for K in (8, 16, 32)]
    assert scales == pytest.approx([8**-0.5, 8**-0.5 / 2, 8**-0.5 / 4])
    assert attention_scale(ModelConfig(width=64, layers=2, heads=4, context=16)) == 16**-0.5


@pytest.mark.parametrize("name", ["embedding", "mlp_in", "final_norm"])
def test_standard_has_no_multipliers(name: str) -> None:
    row = parameter_table(model("standard"))[name]
    decay = 0 if row.role == "vector" else 1
    assert (row.lr_multiplier, row.decay_multiplier, row.epsilon_multiplier) == (1, decay, 1)
