"""Languages made by a rule: what is claimed of each is measured on its own text."""

import itertools
import math
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from helpers.xla_flags import simulated_devices

from lmscale.core.config import DataConfig, ModelConfig, OptimizerConfig, RunConfig, synthetic
from lmscale.core.errors import UserError
from lmscale.lm import data
from lmscale.lm.data import Batches, ValidationSet, languages
from lmscale.lm.data.languages import chance, hidden_markov, tasks, zipf_facts
from lmscale.lm.data.windows import halves

FACTS = "synthetic:zipf-facts(gamma=1.5, facts=5000, base=10, answers=7)"
MARKOV = "synthetic:hidden-markov(states=6, symbols=12)"
TASKS = "synthetic:tasks(letters=4, length=6, digits=2)"


def windows(source: str, count: int, context: int = 60, split: str = "train") -> np.ndarray:
    numbers = np.stack([np.zeros(count, np.uint32), np.arange(count, dtype=np.uint32)], axis=1)
    return np.asarray(languages.window_generator(synthetic.parse(source), split, context)(numbers))


def batches(source: str, batch: int = 4, context: int = 33, seed: int = 0, **changes: object) -> Batches:
    return Batches(data.prepare(DataConfig(source=source, **changes)), context, batch, seed)  # type: ignore[arg-type]


@pytest.mark.long
@pytest.mark.parametrize("source", [FACTS, MARKOV, TASKS])
def test_batch_t_is_a_pure_function_of_seed_and_t(source: str) -> None:
    order = batches(source)
    assert order[0].shape == (4, 34) and order[0].dtype == np.int32
    vocab, end = synthetic.parse(source).vocab, synthetic.parse(source).end_of_document
    rows = np.concatenate([order[t] for t in range(6)])
    assert (rows[:, 0] == end).all() and rows.min() >= 0 and rows.max() < vocab
    assert len({bytes(row) for row in rows}) == 24
    assert (rows == np.concatenate([batches(source, batch=2)[t] for t in range(12)])).all()
    assert (np.concatenate([order.rows(5, i, i + 2) for i in (0, 2)]) == order[5]).all()
    assert (np.asarray(order[5]) == np.asarray(batches(source)[5])).all()
    assert (np.asarray(batches(source, seed=1)[0]) != order[0]).any()
    assert (np.asarray(batches(source[:-1] + ", seed=1)")[0]) != order[0]).any()
    val = ValidationSet(data.prepare(DataConfig(source=source)), 33, 4 * 33)
    assert val.windows.shape == (4, 34) and not {bytes(row) for row in val.windows} & {bytes(row) for row in rows}


def test_window_numbers_are_exact_in_64_bits() -> None:
    numbers = [0, 2**32 - 1, 2**32, 2**61 + 5]
    high, low = halves(np.array(numbers)).astype(object).T
    assert (high * 2**32 + low == numbers).all()


DEVICES = """
import sys, jax, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from lmscale.lm.data import languages
from lmscale.core.config import synthetic
made = languages.window_generator(synthetic.parse(sys.argv[1]), "train", 33, 1)
numbers = np.stack([np.zeros(8, np.uint32), np.arange(8, dtype=np.uint32)], axis=1)
mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
shared = jax.jit(made, out_shardings=NamedSharding(mesh, PartitionSpec("data")))(numbers)
assert len(shared.sharding.device_set) == 8 and len(made(numbers).sharding.device_set) == 1
assert (np.asarray(shared) == np.asarray(made(numbers))).all()
"""


@pytest.mark.long
def test_a_batch_does_not_depend_on_the_number_of_devices() -> None:
    subprocess.run([sys.executable, "-c", DEVICES, TASKS], env=simulated_devices(8), check=True)


def test_a_limited_language_repeats_its_leading_windows_and_every_seed_has_the_same() -> None:
    seen = {}
    for limit, seed in itertools.product((330, 660), (0, 1)):
        order = batches(FACTS, batch=1, seed=seed, unique_tokens=limit)
        rows = [bytes(np.asarray(order[t])) for t in range(2 * limit // 33)]
        assert order.unique_tokens == limit and sorted(rows[: limit // 33]) == sorted(rows[limit // 33 :])
        seen[limit, seed] = rows
    assert set(seen[330, 0]) == set(seen[330, 1]) < set(seen[660, 0]) and seen[330, 0] != seen[330, 1]
    usage = batches(FACTS, batch=1, unique_tokens=330).usage(33 * 25)
    assert (usage.unique_tokens, usage.epochs) == (330, 2.5)
    assert (usage.repeats_min, usage.repeats_mean, usage.repeats_max) == (2, 2.5, 3)
    endless = batches(FACTS).usage(33 * 4 * 10)
    assert (endless.unique_tokens, endless.epochs, endless.repeats_max) == (1320, 0.0, None)


@pytest.mark.long
def test_a_language_mixes_with_text_at_a_rate(tmp_path: Path) -> None:
    (tmp_path / "text.jsonl").write_text("".join(f'{{"text": "{letter * 500}"}}\n' for letter in "abcdefgh"))
    order = batches(f"mix: 0.75 * {tmp_path} + 0.25 * {TASKS}", batch=8, validation_fraction=0.3)
    rows = np.concatenate([order[t] for t in range(5)])
    alone = batches(TASKS, batch=2)
    own = np.concatenate([alone[t] for t in range(5)])
    mine = np.array([bytes(row) in {bytes(window) for window in own} for row in rows])
    assert mine.sum() == 10 and (np.abs(np.cumsum(mine) - 0.25 * np.arange(1, 41)) <= 0.5).all()
    usage = order.usage(33 * 400)
    assert list(usage.tokens_by_source.values()) == [33 * 300, 33 * 100] and usage.repeats_max is not None
    with pytest.raises(UserError, match=r"tokens of 'bytes' and .* those of 'symbols:18', so they cannot be mixed"):
        data.prepare(DataConfig(source=f"mix: 1 * {TASKS} + 1 * {FACTS}"))
    with pytest.raises(UserError, match=r"bpe:300 is trained on text, and there is none on disk"):
        data.prepare(DataConfig(source=FACTS, tokenizer="bpe:300"))


def test_a_run_is_told_the_vocabulary_of_its_language() -> None:
    config = RunConfig(
        model=ModelConfig(width=8, layers=1, heads=1, context=33, vocab=256),
        optimizer=OptimizerConfig(peak_lr=1e-3, batch_sequences=4),
        data=DataConfig(source=FACTS),
        tokens=33 * 4 * 10**6,
    )
    manifest = data.find_manifest(config.data)
    assert manifest is not None and manifest.vocab == 18 and manifest.end_of_document == 17
    with pytest.raises(UserError, match=r"set model.vocab = 18"):
        data.check_enough(manifest, config)


@pytest.mark.long
def test_facts_are_zipfian_and_each_has_one_answer() -> None:
    spec, rows = synthetic.parse(FACTS), windows(FACTS, 6000)
    assert (spec.digits, spec.vocab) == (4, 18)
    ranks = zipf_facts.ranks(spec, rows)
    assert ranks.shape == (6000, 12) and ranks.min() == 1 and ranks.max() <= 5000
    answers = rows[:, 5::5]
    assert answers.min() == 10 and answers.max() == 16
    assert len(set(zip(ranks.ravel(), answers.ravel()))) == len(set(ranks.ravel()))
    p = zipf_facts.probabilities(spec)
    assert p.sum() == 1 and p[9] / p[0] == pytest.approx(10**-1.5, rel=1e-6)
    for low, high in ((1, 1), (2, 4), (5, 40), (41, 5000)):
        mass, n = p[low - 1 : high].sum(), ranks.size
        share = ((ranks >= low) & (ranks <= high)).mean()
        assert abs(share - mass) < 4 * math.sqrt(mass * (1 - mass) / n)
    all_answers = np.asarray(zipf_facts.answers(spec, np.arange(5000, dtype=np.uint32)))
    assert (np.abs(np.bincount(all_answers, minlength=7) - 5000 / 7) < 4 * math.sqrt(5000 / 7)).all()


def test_the_entropy_of_facts_is_that_of_their_ranks() -> None:
    spec = synthetic.parse(FACTS)
    p = zipf_facts.probabilities(spec)
    whole = -(p[p > 0] * np.log(p[p > 0])).sum()
    assert zipf_facts.digit_entropies(spec).sum() == pytest.approx(whole)
    assert zipf_facts.entropy_nats(spec, 5 * 7) == pytest.approx(whole / 5)
    # A model that knows all and scores a window that ends inside a fact: counted digit by digit.
    rows = windows(FACTS, 20_000, context=8)
    digits = rows[:, 1:5] @ np.array([1000, 100, 10, 1])
    second = rows[:, 6:9] @ np.array([100, 10, 1])
    costs = -np.log(p[digits]) - np.log(np.bincount(np.arange(5000) // 10, weights=p)[second])
    error = costs.std() / math.sqrt(len(costs)) / 8
    assert abs(costs.mean() / 8 - zipf_facts.entropy_nats(spec, 8)) < 4 * error < 0.03


def test_the_exponents_of_facts_are_those_of_theory() -> None:
    spec = synthetic.parse("synthetic:zipf-facts(gamma=1.6, facts=1048576, base=32)")
    model, of_data = zipf_facts.exponents(spec)
    assert (model, of_data) == pytest.approx((0.6, 0.375))
    p = zipf_facts.probabilities(spec)
    # The tail of a finite language is cut, so what lies beyond the last fact is put back.
    beyond = 1048576**-0.6 / 0.6 / (np.arange(1, 1048577) ** -1.6).sum()
    missing = [p[known:].sum() + beyond for known in (64, 512)]  # by a model with room for the most frequent facts
    assert np.diff(np.log(missing))[0] / np.log(8) == pytest.approx(-model, rel=0.01)
    unmet = [p @ np.exp(drawn * np.log1p(-p)) + beyond for drawn in (1e4, 1e5)]  # in so many independent facts
    assert np.diff(np.log(unmet))[0] / np.log(10) == pytest.approx(-of_data, rel=0.02)


def long_text(spec: synthetic.HiddenMarkov) -> tuple[np.ndarray, float]:
    """The probability of each symbol and the nats per symbol of a long text, from the chain's stationary states."""
    counts, then = hidden_markov.chain(spec)
    p = counts / 2.0**32
    step = np.zeros((len(p), len(p)))
    np.add.at(step, (np.arange(len(p))[:, None], then), p)
    states = np.linalg.matrix_power(step, 2**12)[0]
    return states @ p, float(states @ -(p * np.log(np.where(p > 0, p, 1.0))).sum(axis=1))


def test_symbols_of_the_markov_chain_are_zipfian_and_its_entropy_is_exact() -> None:
    spec, rows = synthetic.parse(MARKOV), windows(MARKOV, 4000)
    counts, then = hidden_markov.chain(spec)
    p = counts / 2.0**32
    assert (counts.sum(axis=1) == 2**32).all() and (then[:, 0] == 0).all()
    assert long_text(spec)[0] == pytest.approx(hidden_markov.zipfian(spec), rel=1e-6)
    # A reader that follows the states pays exactly the entropy, up to the luck of this text.
    state, costs = np.zeros(len(rows), int), []
    for symbols in rows[:, 1:].T:
        costs.append(-np.log(p[state, symbols]))
        state = then[state, symbols]
    paid = np.mean(costs, axis=0)
    error = paid.std() / math.sqrt(len(paid))
    exact = hidden_markov.entropy_nats(spec, 60)
    assert abs(paid.mean() - exact) < 4 * error and error < 0.003
    assert abs(costs[0].mean() - hidden_markov.entropy_nats(spec, 1)) < 0.05
    seen = np.bincount(rows[:, 30:].ravel(), minlength=12) / rows[:, 30:].size
    assert np.abs(seen / hidden_markov.zipfian(spec) - 1).max() < 0.05
    # States tell something: the unigram entropy is well above the rate; without spread it is the rate.
    zipf = hidden_markov.zipfian(spec)
    assert -(zipf * np.log(zipf)).sum() > long_text(spec)[1] + 0.1
    flat = synthetic.parse("synthetic:hidden-markov(states=6, symbols=12, spread=0)")
    assert long_text(flat)[1] == pytest.approx(-(zipf * np.log(zipf)).sum())


def test_the_entropy_of_a_long_window_is_the_rate() -> None:
    spec = synthetic.parse("synthetic:hidden-markov")
    symbols, rate = long_text(spec)
    assert hidden_markov.entropy_nats(spec, 20_000) == pytest.approx(rate, abs=2e-4)
    assert symbols == pytest.approx(hidden_markov.zipfian(spec), rel=1e-6)


@pytest.mark.long
def test_lines_of_tasks_are_right_and_every_task_comes_as_often() -> None:
    spec, rows = synthetic.parse(TASKS), windows(TASKS, 400, context=300)
    named = {synthetic.TASK_WORDS[task.name]: task for task in tasks.all_tasks(spec)}
    counted: Counter[str] = Counter()
    for row in rows.astype(np.uint8):
        *lines, rest = row.tobytes().decode("latin-1").split("\xff")[1:]
        assert any(word.startswith(rest.split(" ")[0]) for word in named)
        for line in lines:
            word, _, pair = line.partition(" ")
            question, answer = pair.split("=")
            assert named[word].answer(question) == answer
            assert named[word].prompt(question) + answer == line and len(answer) == named[word].answer_length
            counted[word] += 1
    total = sum(counted.values())
    assert len(counted) == 7 and all(abs(n - total / 7) < 5 * math.sqrt(total / 7) for n in counted.values())


@pytest.mark.long
def test_words_recur_as_often_as_asked() -> None:
    """Every whole line is a word of different letters, written three times; all lengths and letters are as likely."""
    rows = windows("synthetic:repeats(letters=12, shortest=3, longest=9, copies=3)", 400, context=63).astype(np.uint8)
    assert (rows[:, 0] == 255).all()
    lines = [line for row in rows for line in row.tobytes().split(b"\xff")[1:-1]]
    words = [line[: len(line) // 3] for line in lines]
    assert all(line == 3 * word and len(set(word)) == len(word) for line, word in zip(lines, words))
    lengths, letters = Counter(map(len, words)), Counter(b"".join(words))
    assert set(lengths) == set(range(3, 10)) and set(letters) == set(range(33, 45))
    assert max(letters.values()) < 1.2 * min(letters.values())
    cut = [row.tobytes().split(b"\xff")[-1] for row in rows]
    assert len(set(map(len, cut))) > 5, "the last line of a window is cut anywhere"
    spec = synthetic.parse("synthetic:repeats(documents=2)")
    assert all(b"\xff" not in text and text for text in languages.documents(spec, 0, 2))
    assert languages.entropy_nats(spec, 64) is None


def test_answers_of_tasks_by_hand() -> None:
    spec = synthetic.parse("synthetic:tasks(letters=4, length=4, digits=3)")
    by_hand = {
        "copy": ("abca", "abca"),
        "reverse": ("abca", "acba"),
        "histogram": ("abca", "2112"),
        "sort": ("dbca", "abcd"),
        "most-frequent": ("cbbc", "b"),
        "brackets": ("(())", "y"),
        "addition": ("995+008", "1003"),
    }
    for task in tasks.all_tasks(spec):
        question, answer = by_hand[task.name]
        assert task.answer(question) == answer
    bracket = next(task for task in tasks.all_tasks(spec) if task.name == "brackets")
    assert [bracket.answer(text) for text in (")(", "(((", "())(", "()()")] == ["n", "n", "n", "y"]


@pytest.mark.long
def test_examples_are_answered_and_brackets_are_half_balanced() -> None:
    spec = synthetic.parse("synthetic:tasks(length=8)")
    for task in tasks.all_tasks(spec):
        pairs = task.examples(2000)
        assert all(task.answer(question) == answer for question, answer in pairs)
        assert pairs == task.examples(2000) != task.examples(2000, stream=1)
    pairs = next(task for task in tasks.all_tasks(spec) if task.name == "brackets").examples(6000)
    balanced = Counter(question for question, answer in pairs if answer == "y")
    assert len(balanced) == 14 and abs(balanced.total() - 3000) < 5 * math.sqrt(1500)  # Catalan number 4
    assert all(abs(n - balanced.total() / 14) < 5 * math.sqrt(balanced.total() / 14) for n in balanced.values())


@pytest.mark.parametrize("name", [name for name in synthetic.TASKS if name not in ("brackets", "addition")])
@pytest.mark.parametrize(("letters", "length"), [(2, 4), (3, 5), (4, 2), (5, 4)])
def test_chance_is_the_best_fixed_answer_over_all_questions(name: str, letters: int, length: int) -> None:
    spec = synthetic.Tasks(only=name, letters=letters, length=length)
    task = tasks.LanguageTask(name, spec)
    answers = [task.answer("".join(q)) for q in itertools.product("abcdefgh"[:letters], repeat=length)]
    exact = Counter(answers).most_common(1)[0][1] / len(answers)
    graded = np.mean([Counter(place).most_common(1)[0][1] / len(answers) for place in zip(*answers)])
    assert chance.chance_of(name, spec) == pytest.approx((exact, graded))


@pytest.mark.parametrize("digits", [1, 2])
def test_chance_of_addition_and_brackets(digits: int) -> None:
    spec = synthetic.Tasks(only="addition", digits=digits, length=8)
    numbers = range(10**digits)
    answers = [f"{a + b:0{digits + 1}d}" for a in numbers for b in numbers]
    exact = Counter(answers).most_common(1)[0][1] / len(answers)
    graded = np.mean([Counter(place).most_common(1)[0][1] / len(answers) for place in zip(*answers)])
    assert tasks.LanguageTask("addition", spec).chance == pytest.approx((exact, graded))
    assert chance.chance_of("brackets", spec) == (0.5, 0.5)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("synthetic:zipf", "no synthetic language 'zipf'; did you mean 'zipf-facts'"),
        ("synthetic:zipf-facts(gama=2)", "no parameter 'gama'; did you mean 'gamma'"),
        ("synthetic:zipf-facts(gamma=0.5)", "gamma = 0.5 must lie between 1.0 and 8.0; the nearest is 1.0"),
        ("synthetic:zipf-facts(facts=2.5)", "ZipfFacts.facts = 2.5: must be of type int"),
        ("synthetic:zipf-facts(gamma)", "write parameters as NAME=VALUE"),
        ("synthetic:zipf-facts(gamma=open('x'))", "write parameters as NAME=VALUE"),
        ("synthetic:zipf-facts(gamma=2", "cannot be read"),
        (
            "synthetic:tasks(only=copy)",
            "with words in quotes, as in synthetic:zipf-facts(gamma=1.5) or synthetic:tasks(only='copy')",
        ),
        ("synthetic:hidden-markov(symbols=1)", "symbols = 1 must lie between 2 and 4,096; the nearest is 2"),
        ("synthetic:tasks(only='copi')", "no task 'copi'; did you mean 'copy'"),
        ("synthetic:repeats(letters=8, longest=9)", "longest = 9 must lie between 2 and 8; the nearest is 8"),
        ("synthetic:tasks(length=7)", "brackets come in pairs, so take 6"),
        ("synthetic:tasks(documents=0)", "documents = 0: must be positive"),
        ("synthetic:tasks(seed=-1)", "seed = -1: take 0 to"),
    ],
)
def test_a_language_that_cannot_be_is_refused_at_birth(source: str, message: str) -> None:
    with pytest.raises(UserError) as refusal:
        DataConfig(source=source)
    assert message in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_language_says_what_it_is() -> None:
    for source in (
        FACTS,
        MARKOV,
        TASKS,
        "synthetic:repeats(copies=3)",
        "synthetic:tasks(only='copy sort', length=7)",
        "synthetic:hidden-markov",
    ):
        spec = synthetic.parse(source)
        assert synthetic.parse(spec.spec) == spec
    assert synthetic.parse("synthetic: zipf-facts ( gamma = 1.5 )").spec == "synthetic:zipf-facts"
