"""Effective dense size and the best number of experts: Clark's closed form, and where each limit binds."""

from dataclasses import dataclass
from typing import Any

import pytest

from lmscale import UserError, design, laws


@dataclass(frozen=True)
class Joint(laws.Law):
    """Each number of experts multiplies N; the inputs in another order than the functions take them."""

    gain: Any = 0.4

    NAME = "joint"
    INPUTS = ("tokens", "experts", "params")

    def loss(self, tokens: Any, experts: Any, params: Any) -> Any:
        return laws.CHINCHILLA_REFIT.loss(params * experts**self.gain, tokens)


CLARK = laws.CLARK_2022_SBASE


def test_effective_dense_size_is_clarks_closed_form() -> None:
    """Clark 2022, section 5.3, whose law has no tokens and whose experts saturate."""
    for params in (2.7e7, 1.3e8, 1.3e9):
        for experts in (1, 2, 64, 512):
            closed = CLARK.effective_dense_params(params, experts)
            assert design.effective_dense_params(CLARK, params, experts) == pytest.approx(closed, rel=1e-9)
    assert design.effective_dense_params(CLARK, 1.3e8, 1) == pytest.approx(1.3e8, rel=1e-9)


def test_effective_dense_size_of_a_law_with_tokens() -> None:
    assert design.effective_dense_params(Joint(), 1e8, 16, tokens=1e10) == pytest.approx(1e8 * 16**0.4, rel=1e-9)


def test_without_limits_the_budget_is_split_at_the_optimum_of_the_law() -> None:
    """C = 6 N D with N worth N E^gain: the optimum of ln N moves, and is that of `Law.optimum` at one expert."""
    first, *_, last = design.expert_choices(Joint(), 1e20, experts=(1, 4, 64))
    optimum = laws.CHINCHILLA_REFIT.optimum(1e20)
    assert first.active_params == pytest.approx(optimum.params, rel=1e-5)
    assert first.tokens == pytest.approx(1e20 / (6 * first.active_params))
    assert first.dense_params == pytest.approx(first.active_params, rel=1e-6)
    assert last.loss_nats < first.loss_nats
    assert last.dense_params == pytest.approx(last.active_params * 64**0.4, rel=1e-6)
    assert design.optimal_experts(Joint(), 1e20, experts=(1, 4, 64)) == last


def test_memory_decides_the_number_of_experts() -> None:
    """Every expert costs memory, so the best number falls as memory does, and every choice fits."""
    chosen = []
    for memory in (1e13, 4e9, 1e9, 1e8):
        limits = design.ExpertLimits(memory_bytes=memory)
        choices = design.expert_choices(Joint(), 1e20, limits)
        assert all(2 * choice.total_params <= memory * (1 + 1e-9) for choice in choices)
        best = design.optimal_experts(Joint(), 1e20, limits)
        assert best.loss_nats == min(choice.loss_nats for choice in choices)
        chosen.append(best)
    numbers = [choice.experts for choice in chosen]
    assert numbers == sorted(numbers, reverse=True) and numbers[0] == 512 and numbers[-1] < 16
    assert [one.loss_nats for one in chosen] == sorted(one.loss_nats for one in chosen)


def test_flops_of_a_token_bound_the_active_parameters() -> None:
    limits = design.ExpertLimits(flops_per_token=2e7)
    for choice in design.expert_choices(Joint(), 1e20, limits):
        assert choice.active_params == pytest.approx(1e7, rel=1e-9)  # the optimum lies above: the bound is the best
        assert choice.total_params == pytest.approx(1e7 * (1 + 2 / 3 * (choice.experts - 1)))


def test_a_law_of_one_length_takes_the_largest_model_that_the_budget_trains() -> None:
    choice = design.expert_choices(CLARK, 6e18, tokens=1e10, experts=(8,))[0]
    assert (choice.active_params, choice.tokens) == pytest.approx((1e8, 1e10))


def test_what_cannot_be_answered_is_one_sentence() -> None:
    for call, sentence in (
        (lambda: design.effective_dense_params(laws.CHINCHILLA_REFIT, 1e8, 4), "take one of N and experts"),  # type: ignore[arg-type]
        (lambda: design.effective_dense_params(Joint(), 1e8, 4), "needs the length of training"),
        (lambda: design.effective_dense_params(CLARK, 1e8, 4, tokens=1e9), "leave them out"),
        (lambda: design.effective_dense_params(CLARK, 1e8, 0.5), "experts >= 1"),
        (lambda: design.effective_dense_params(Joint(), 1e18, 64, 1e9), "beyond the law's reach"),
        (lambda: design.expert_choices(Joint(), 1e20, tokens=1e9), "trades tokens against N"),
        (lambda: design.expert_choices(CLARK, 1e20), "needs the length of training"),
        (lambda: design.expert_choices(Joint(), 1e20, design.ExpertLimits(memory_bytes=100)), "no room"),
        (lambda: design.expert_choices(Joint(), 1e20, experts=(0, 4)), "at least 1"),
        (lambda: design.ExpertLimits(memory_bytes=0), "must be positive"),
    ):
        with pytest.raises(UserError, match=sentence):
            call()
