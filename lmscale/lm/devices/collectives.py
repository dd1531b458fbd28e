"""What the processes of a run do together: decide, wait for each other, share numbers, build global arrays.

All processes must call these functions at the same point of the program. A single process answers itself.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding
from numpy.typing import NDArray

POLL_SECONDS = 1.0
"""About how often several processes ask each other whether to stop or to save."""


def any_process(*flags: bool) -> tuple[bool, ...]:
    """For each flag, whether any process has raised it."""
    if jax.process_count() == 1:
        return flags
    return _any(_allgather(flags))


def _any(flags_PF: NDArray[np.float32]) -> tuple[bool, ...]:
    return tuple(bool(raised) for raised in np.max(flags_PF, axis=0))


def _allgather(values: tuple[float, ...]) -> NDArray[np.float32]:
    """The numbers of all processes [processes, values]."""
    from jax.experimental import multihost_utils

    return np.reshape(multihost_utils.process_allgather(np.array(values, np.float32)), (-1, len(values)))


class AnyProcessPoll:
    """`any_process` for a training loop, where several processes ask each other about once a second.

    To ask costs a wait for the device. The processes also agree on the step at which they ask next. A single process
    answers itself at every step.
    """

    def __init__(self, step: int) -> None:
        self.next_step = self._step = step
        self._clock = time.perf_counter()

    def __call__(self, step: int, *flags: bool) -> tuple[bool, ...]:
        """For each flag, whether any process has raised it by `step`; all False until they ask each other again."""
        if jax.process_count() == 1:
            return flags
        if step < self.next_step:
            return (False,) * len(flags)
        raised = _any(_allgather(flags))  # waits for the steps that are dispatched: only then is the clock theirs
        seconds_per_step = (time.perf_counter() - self._clock) / max(1, step - self._step)
        slowest = float(_allgather((seconds_per_step,)).max()) if step > self._step else POLL_SECONDS
        self._step, self._clock = step, time.perf_counter()
        self.next_step = step + max(1, int(POLL_SECONDS / max(slowest, 1e-9)))
        return raised


def barrier() -> None:
    """Wait until every process has come here."""
    any_process(True)


def broadcast(values: Sequence[int], most: int) -> list[int]:
    """The first `most` of the numbers, none below 0, that the first process passes."""
    if jax.process_count() == 1:
        return list(values[:most])
    from jax.experimental import multihost_utils

    row = np.full(most, -1, np.int32)
    row[: len(values)] = values[:most]
    return [int(value) for value in multihost_utils.broadcast_one_to_all(row) if value >= 0]


def make_global_array(rows: Callable[[int, int], Any], shape: tuple[int, ...], sharding: NamedSharding) -> jax.Array:
    """The global array [rows, ...] whose rows `start` ... `stop` - 1 are `rows(start, stop)`.

    Each process asks for the rows of its own devices only.
    """
    if jax.process_count() == 1:
        return jax.device_put(rows(0, shape[0]), sharding)

    def shard(index: Any) -> NDArray[np.int32]:
        start, stop, _ = index[0].indices(shape[0])
        return np.asarray(rows(start, stop))

    return jax.make_array_from_callback(shape, sharding, shard)


def replicate(values: Any, sharding: NamedSharding) -> Any:
    """A tree of arrays that every process has alike, placed on the devices of all."""
    if jax.process_count() == 1:
        return jax.device_put(values, sharding)
    return jax.jit(lambda values: values, out_shardings=sharding)(values)
