"""The lower envelope of training curves in bins of compute: against every curve at every bin, one by one."""

import numpy as np
import pytest

from lmscale.study.fits.approaches import envelope_curves
from lmscale.study.fits.approaches.envelope_curves import Curves, bracketed, by_bins


def drawn(rng: np.random.Generator, longest: int) -> Curves:
    """Forty curves of 1 to `longest` rows; losses of one digit, so that some are equal."""
    lengths = rng.integers(1, longest + 1, 40)
    flops = tuple(np.sort(rng.uniform(10, 14, length)) for length in lengths)
    losses = tuple(np.round(rng.uniform(2, 4, length), 1) for length in lengths)
    return Curves(tuple(map(str, range(40))), rng.uniform(3, 9, 40), flops, losses)


def lowest(curves: Curves, in_sample: np.ndarray, bin_of: int, grid: np.ndarray) -> float:
    """The lowest loss in a bin of the curves that a resample holds."""
    step, heights = grid[1] - grid[0], [np.inf]
    for x, y in zip(
        (x for x, h in zip(curves.log_flops, in_sample) if h), (y for y, h in zip(curves.loss, in_sample) if h)
    ):
        if len(x) > 1:
            heights.append(float(np.interp(grid[bin_of], x, y, left=np.inf, right=np.inf)))
        elif round(float((x[0] - grid[0]) / step)) == bin_of:
            heights.append(float(y[0]))
    return min(heights)


@pytest.mark.parametrize("longest", [1, 5])
@pytest.mark.parametrize("together", [1, 32])
def test_the_envelope_is_the_lowest_of_the_runs_that_a_resample_holds(
    longest: int, together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(envelope_curves, "TOGETHER", together)
    rng = np.random.default_rng(longest)
    curves = drawn(rng, longest)
    grid = np.linspace(min(x[0] for x in curves.log_flops), max(x[-1] for x in curves.log_flops), 30)
    counts = rng.integers(0, 2, (40, 8))
    envelope = by_bins(curves, grid, counts)
    expected = np.array([[lowest(curves, counts[:, r] > 0, k, grid) for r in range(8)] for k in range(30)])
    assert np.array_equal(envelope.loss, expected)
    before = np.minimum.accumulate(np.vstack([np.full((1, 8), np.inf), expected[:-1]]))
    assert np.array_equal(envelope.on, np.isfinite(expected) & (expected < before))
    assert (counts[envelope.run, np.arange(8)] > 0)[np.isfinite(expected)].all()


def test_a_size_is_bracketed_by_those_that_were_run_near_its_compute() -> None:
    """The largest of four sizes has one row beyond the others' compute, and a curve from there on."""
    sizes = np.log([1.0, 10.0, 100.0, 1000.0])
    ends = ((1.0, 5.0), (1.0, 5.0), (1.0, 1.0), (4.0, 9.0))
    curves = Curves(("a", "b", "c", "d"), sizes, tuple(map(np.array, ends)), (np.ones(2),) * 4)
    at = np.array([[1.0], [1.0], [5.0], [5.0], [9.0], [20.0]])
    inside = bracketed(curves, at, np.log([[10.0], [90.0], [10.0], [900.0], [1000.0], [10.0]]))
    assert inside[:, 0].tolist() == [True, False, True, False, False, False]
