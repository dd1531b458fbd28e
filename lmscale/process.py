"""What a launcher and its runs agree on: exit statuses, the cores that a run may use, how it is asked to stop."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

EXIT_USER_ERROR = 2
"""The input cannot be used; a sentence says why."""
EXIT_INTERRUPTED = 75
"""A run that wants to be started again (EX_TEMPFAIL of sysexits.h): it was asked to stop and saved a checkpoint, or one
of the other processes it was shared with has died."""
EXIT_CTRL_C = 130
"""A launcher that was asked to stop, once its runs have stopped; a run that was told twice."""

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


@contextmanager
def second_ctrl_c_ends() -> Iterator[None]:
    """End this process at once, with `EXIT_CTRL_C`, at the second SIGINT that comes during the block.

    Python calls its signal handlers between two bytecodes of the main thread, which is minutes away while XLA compiles;
    what the system writes down as the signals come is read by a thread of its own.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)

    def watch() -> None:
        times = 0
        while number := os.read(reading, 1):
            times += number[0] == signal.SIGINT
            if times == 2:
                os._exit(EXIT_CTRL_C)
        os.close(reading)

    threading.Thread(target=watch, name="second Ctrl-C", daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writing)
