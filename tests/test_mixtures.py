"""Several sources at once, a limited number of unique tokens, and how much of its text a run has used."""

import dataclasses
import itertools
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from helpers.letters import mixed

from lmscale.core.config import DataConfig, ModelConfig, OptimizerConfig, RunConfig, mixture
from lmscale.core.errors import UserError
from lmscale.lm import data
from lmscale.lm.data import Batches, MixtureSchedule, ValidationSet
from lmscale.lm.data.usage import repeats

pytestmark = pytest.mark.usefixtures("own_cache")


def letters_of(rows: np.ndarray) -> np.ndarray:
    """The letter that most of each row consists of."""
    counts = np.stack([(rows == ord(letter)).sum(axis=1) for letter in "abc"], axis=1)
    return counts.argmax(axis=1)


@pytest.mark.parametrize(
    "weights",
    [(1,), (1, 1), (7, 3), (1, 999), (1, 1, 1), (5, 3, 2), (1, 2, 3, 4, 90), (97, 1, 1, 1), (4, 4, 1, 1, 1)],
)
def test_every_prefix_of_a_mixture_is_within_one_row_of_its_weights(weights: tuple[int, ...]) -> None:
    schedule, period = MixtureSchedule(weights), sum(weights)
    order = schedule.sources(0, 3 * period)
    counts = np.cumsum(order[:, None] == np.arange(len(weights)), axis=0)
    bound = Fraction(1) - Fraction(1, max(2, 2 * len(weights) - 2))
    for rows, given in enumerate(counts.tolist(), start=1):
        assert max(abs(Fraction(rows * w, period) - g) for w, g in zip(weights, given)) <= bound
    assert (schedule.counts(2 * period + 1) == counts[2 * period]).all() and schedule.counts(0).sum() == 0
    assert (schedule.sources(period - 1, 2 * period + 1) == order[period - 1 : 2 * period + 1]).all()


def test_random_weights_keep_to_the_bound() -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        weights = tuple(int(w) for w in rng.integers(1, 60, rng.integers(2, 7)))
        counts = np.cumsum(
            MixtureSchedule(weights).sources(0, sum(weights))[:, None] == np.arange(len(weights)), axis=0
        )
        shares = np.arange(1, sum(weights) + 1)[:, None] * np.array(weights) / sum(weights)
        assert np.abs(counts - shares).max() <= 1 - 1 / (2 * len(weights) - 2) + 1e-9


def test_mixtures_are_read_and_refused() -> None:
    assert mixture.components("stdlib") == ((1, "stdlib"),)
    assert mixture.components("mix: 0.7 * stdlib + 0.3 * a b/c+d.txt") == ((7, "stdlib"), (3, "a b/c+d.txt"))
    assert mixture.components("mix:2*x + 4*synthetic:tasks(letters=4, length=6)")[1] == (
        2,
        "synthetic:tasks(letters=4, length=6)",
    )
    for source, message in {
        "mix: stdlib + books": "cannot be read; write it as 'mix: 0.7 * stdlib",
        "mix: 1 * stdlib": "two components or more",
        "mix: 0 * stdlib + 1 * books": "weight of zero",
        "mix: 1 * stdlib + 2 * stdlib": "names a source twice",
        "mix: 1 * mix: 1 * a + 1 * b": "holds a mixture",
        "mix: 0.33333 * a + 0.66666 * b + 0.00001 * c": "shares of 100,000, more than 10,000",
    }.items():
        with pytest.raises(UserError, match=message.replace("(", r"\(").replace("*", r"\*")):
            DataConfig(source=source)


def test_every_prefix_of_the_rows_of_a_mixture_has_its_share_and_hosts_agree(sources: list[str]) -> None:
    tokens = data.prepare(mixed(sources, ["0.5", "0.2", "0.3"]))
    batches = Batches(tokens, 16, 6, seed=0)
    rows = np.concatenate([batches[t] for t in range(60)])
    assert rows.shape == (360, 17) and rows.dtype == np.int32
    counts = np.cumsum(letters_of(rows)[:, None] == np.arange(3), axis=0)
    shares = np.arange(1, 361)[:, None] * np.array([0.5, 0.2, 0.3])
    assert np.abs(counts - shares).max() <= 0.75 + 1e-9
    for t in (0, 17, 59):
        assert (
            np.concatenate([Batches(tokens, 16, 6, seed=0).rows(t, i, i + 2) for i in (0, 2, 4)]) == batches[t]
        ).all()
    assert (np.concatenate([Batches(tokens, 16, 4, seed=0)[t] for t in range(90)]) == rows).all()
    # Each source by itself goes through whole epochs.
    own = Batches(data.prepare(DataConfig(source=sources[1], validation_fraction=0.2)), 16, 1, seed=0)
    mine = rows[letters_of(rows) == 1]
    assert len(mine) == 72 and (mine == np.concatenate([own[t] for t in range(72)])).all()


def test_weights_share_the_tokens_on_disk_and_change_the_order(sources: list[str], tmp_path: Path) -> None:
    first = data.prepare(mixed(sources, ["1", "1", "2"])).manifest
    folders = set((tmp_path / "cache" / "tokens").glob("*.lock"))
    second = data.prepare(mixed(sources, ["2", "1", "1"])).manifest
    assert set((tmp_path / "cache" / "tokens").glob("*.lock")) == folders and len(folders) == 3
    assert first.fingerprint != second.fingerprint and first.train_tokens == second.train_tokens
    assert [part.fingerprint for part in first.components] == [part.fingerprint for part in second.components]
    assert first.train_tokens == sum(part.train_tokens for part in first.components)
    assert data.find_manifest(mixed(sources, ["1", "1", "2"])) == first
    (Path(sources[0]) / "0.txt").write_text("changed")
    assert data.find_manifest(mixed(sources, ["1", "1", "2"])) is None


def test_the_validation_set_of_a_mixture_keeps_the_weights_and_is_nested(sources: list[str]) -> None:
    tokens = data.prepare(mixed(sources, ["0.5", "0.2", "0.3"]))
    small, large = ValidationSet(tokens, 16, 10 * 16), ValidationSet(tokens, 16, 10**9)
    assert (small.sources == letters_of(small.windows)).all() and np.bincount(small.sources).tolist() == [5, 2, 3]
    assert (large.windows[:10] == small.windows).all()
    counts = np.bincount(large.sources, minlength=3)
    available = [(part.manifest.validation_tokens - 1) // 16 for part in tokens.components]
    assert (counts <= available).all() and (MixtureSchedule((5, 2, 3)).counts(len(large.windows) + 1) > available).any()
    assert large.bytes == (large.windows[:, 1:] != 255).sum()


def test_a_limit_is_a_prefix_of_a_larger_one_and_of_the_whole(sources: list[str]) -> None:
    for limit in (160, 330, 1600, None):
        config = DataConfig(source=sources[0], validation_fraction=0.2, unique_tokens=limit)
        tokens = data.prepare(config)
        batches = Batches(tokens, 16, 1, seed=0)
        assert batches.windows == (len(tokens.train) - 1) // 16 if limit is None else limit // 16
        assert tokens.manifest.unique_tokens(16) == batches.unique_tokens == batches.windows * 16
        rows = np.concatenate([batches[t] for t in range(2 * batches.windows)])
        epochs = [sorted(map(bytes, half)) for half in np.split(rows, 2)]
        assert epochs[0] == epochs[1]
        leading = np.lib.stride_tricks.sliding_window_view(tokens.train, 17)[::16][: batches.windows]
        assert sorted(map(bytes, leading.astype(np.int32))) == epochs[0]
    with pytest.raises(UserError, match=r"unique_tokens = 99,999 asks for 99,984 training .* the most that fits is"):
        Batches(data.prepare(dataclasses.replace(config, unique_tokens=99_999)), 16, 1, seed=0)
    with pytest.raises(UserError, match=r"unique_tokens = 15 leaves no sequence of context = 16"):
        Batches(data.prepare(dataclasses.replace(config, unique_tokens=15)), 16, 1, seed=0)


def test_the_limit_of_a_mixture_is_shared_by_weight(sources: list[str]) -> None:
    manifest = data.prepare(mixed(sources, ["0.5", "0.2", "0.3"], unique_tokens=1600)).manifest
    assert manifest.unique_windows(16) == [50, 20, 30] and manifest.unique_tokens(16) == 1600


def brute_force_usage(tokens: data.Tokens, batches: Batches, rows: int) -> tuple[int, list[float]]:
    """Distinct targets seen and scores per document, by following every window."""
    scored = [np.zeros(len(part.train), np.int64) for part in tokens.components or (tokens,)]
    windows = [
        np.lib.stride_tricks.sliding_window_view(part.train, batches.context + 1)
        for part in tokens.components or (tokens,)
    ]
    for row in np.concatenate([batches[t] for t in range(rows)]):
        for marks, part_windows in zip(scored, windows):
            for place in np.flatnonzero((part_windows[:: batches.context] == row).all(axis=1)):
                first = place * batches.context + 1
                marks[first : first + batches.context] += 1
    limits = [count * batches.context for count in tokens.manifest.unique_windows(batches.context)]
    means = []
    for part, marks, limit in zip(tokens.components or (tokens,), scored, limits):
        for start, stop in itertools.pairwise(part.train_starts.tolist()):
            inside = marks[max(1, start) : min(stop, limit + 1)]
            means += [inside.mean()] if len(inside) else []
    return sum(int((marks > 0).sum()) for marks in scored), means


@pytest.mark.parametrize(("rows", "limit"), [(7, None), (40, None), (400, None), (100, 640)])
def test_usage_counts_every_token_once(tmp_path: Path, rows: int, limit: int | None) -> None:
    (tmp_path / "in").mkdir()
    rng = np.random.default_rng(0)
    for i in range(30):  # random text, so that a window is found again by its content
        text = bytes(rng.integers(97, 123, 50 + 7 * i).astype(np.uint8))
        (tmp_path / "in" / f"{i}.txt").write_bytes(text)
    tokens = data.prepare(DataConfig(source=str(tmp_path / "in"), validation_fraction=0.2, unique_tokens=limit))
    batches = Batches(tokens, 16, 1, seed=0)
    usage = batches.usage(16 * rows)
    unique, means = brute_force_usage(tokens, batches, rows)
    assert usage.unique_tokens == unique
    assert usage.tokens_by_source == {tokens.manifest.source: 16 * rows}
    assert (
        usage.epochs
        == pytest.approx(16 * rows / batches.unique_tokens)
        == usage.epochs_by_source[tokens.manifest.source]
    )
    assert usage.repeats_min == pytest.approx(min(means)) and usage.repeats_max == pytest.approx(max(means))
    assert usage.repeats_mean == pytest.approx(np.mean(means))


def test_the_usage_of_a_mixture_has_each_sources_tokens_and_epochs(sources: list[str]) -> None:
    tokens = data.prepare(mixed(sources, ["0.5", "0.2", "0.3"]))
    batches = Batches(tokens, 16, 5, seed=0)
    usage = batches.usage(16 * 1000)
    assert list(usage.tokens_by_source.values()) == [8000, 3200, 4800]
    counts = tokens.manifest.unique_windows(16)
    assert list(usage.epochs_by_source.values()) == [500 / counts[0], 200 / counts[1], 300 / counts[2]]
    assert usage.unique_tokens == sum(min(16 * n, g) for n, g in zip(counts, (8000, 3200, 4800)))
    assert usage.repeats_min is not None and usage.repeats_max is not None
    assert usage.repeats_min >= int(min(usage.epochs_by_source.values()))


def test_repeats_of_hand_made_documents() -> None:
    # Targets 1 ... 8 in two windows of four; documents [0, 3), [3, 5), [5, 12): token 0 and 9 ... 11 are no targets.
    mean_repeats = repeats(np.array([2, 1]), np.array([0, 3, 5, 12]), 4)
    assert mean_repeats.tolist() == [2.0, 2.0, 1.0]
    assert repeats(np.array([2, 1]), np.array([0, 4, 7, 9, 12]), 4).tolist() == [2.0, 4 / 3, 1.0]


def run(tokens: int, source: DataConfig, **changes: object) -> RunConfig:
    return RunConfig(
        model=ModelConfig(width=8, layers=1, heads=1, context=16, vocab=256),
        optimizer=OptimizerConfig(peak_lr=1e-3, batch_sequences=1),
        data=dataclasses.replace(source, **changes),  # type: ignore[arg-type]
        tokens=tokens,
    )


def test_a_source_of_a_mixture_that_would_repeat_too_often_is_named(sources: list[str]) -> None:
    config = mixed(sources, ["0.1", "0.8", "0.1"])
    manifest = data.prepare(config).manifest
    unique = manifest.unique_windows(16)[1] * 16
    fits = int(4 * unique / 0.8) // 16 * 16
    data.check_enough(manifest, run(fits - 16, config))
    with pytest.raises(UserError, match=rf"epochs of the {unique:,} unique tokens of {sources[1]}.* fits is {fits:,}"):
        data.check_enough(manifest, run(fits + 160, config))
    with pytest.raises(UserError, match=r"unique_tokens = 100 leaves no sequence"):
        data.check_enough(data.prepare(dataclasses.replace(config, unique_tokens=100)), run(160, config))
