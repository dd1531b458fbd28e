"""What a launcher and its runs agree on: exit statuses, the cores that a run may use, how it is asked to stop."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

EXIT_USER_ERROR = 2
"""The input cannot be used; a sentence says why."""
EXIT_INTERRUPTED = 75
"""A run that was asked to stop, saved a checkpoint and wants to be started again (EX_TEMPFAIL of sysexits.h)."""
EXIT_CTRL_C = 130
"""A launcher that was asked to stop, once its runs have stopped."""

CORES_VARIABLE = "LMSCALE_CORES"
"""Environment variable: comma-separated numbers of the processors that one run may use."""


@contextmanager
def stop_requested() -> Iterator[Callable[[], bool]]:
    """A function that turns true once SIGTERM, SIGINT or SIGHUP has come; the handlers before are put back at the end.

    A SIGHUP that was ignored before, as under nohup, stays ignored.
    """
    asked = False

    def ask(number: int, frame: Any) -> None:
        nonlocal asked
        asked = True

    wanted = [signal.SIGTERM, signal.SIGINT]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        wanted.append(signal.SIGHUP)
    before = {number: signal.signal(number, ask) for number in wanted}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
