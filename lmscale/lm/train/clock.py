"""The one clock of training, which rows of metrics, progress bars, trackers and the outcome share.

It runs while steps are computed and their batches are made. It stands still during compilation, validation, the scoring
of tasks, and whatever part of a checkpoint training has to wait for: what is written in the background costs nothing.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import jax


class TrainingClock:
    """Seconds of training since `start`. The runs of one program share it: a pause of one is a pause of all."""

    def __init__(self) -> None:
        self._waiter = ThreadPoolExecutor(1, "clock")
        self._stopped_at: float | None = None
        self.start()

    def start(self) -> None:
        """Begin at zero: everything is compiled."""
        self._began, self._paused = time.perf_counter(), 0.0

    def seconds(self) -> float:
        """Seconds of training so far."""
        now = time.perf_counter() if self._stopped_at is None else self._stopped_at
        return now - self._began - self._paused

    def paused_seconds(self) -> float:
        """Seconds that it has stood still since `start`."""
        return self._paused + (0.0 if self._stopped_at is None else time.perf_counter() - self._stopped_at)

    @contextmanager
    def paused(self, computed: Any) -> Iterator[None]:
        """Stand still during the block, which begins once the device has finished the arrays `computed`."""
        jax.block_until_ready(computed)
        self._waiter.submit(lambda: None).result()  # whatever was to be timed has been timed
        self._stopped_at = time.perf_counter()
        try:
            yield
        finally:
            self._paused = self.paused_seconds()
            self._stopped_at = None

    def when_ready(self, array: Any) -> Callable[[], float]:
        """A function that returns the `seconds` at which the device had finished a JAX array, which it waits for.

        Nobody else waits, so that the device always has a further step to do.
        """
        if array.is_ready():
            seconds = self.seconds()
            return lambda: seconds

        def wait() -> float:
            array.block_until_ready()
            return self.seconds()

        return self._waiter.submit(wait).result
