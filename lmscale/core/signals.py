"""How a process is asked to stop: by a signal, or by the death of the launcher that started it."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lmscale.core.exit_status import EXIT_CTRL_C, EXIT_INTERRUPTED

LIFELINE_VARIABLE = "LMSCALE_LIFELINE"
"""Environment variable: the descriptor of a pipe whose other end the launcher holds open as long as it lives."""


STOP_SECONDS = 60.0
"""How long a run gets to save its checkpoint before it is killed."""


def end_with_launcher() -> None:
    """Have this process stop in order, as after SIGTERM, once the launcher that started it is dead.

    However a launcher dies, also by SIGKILL, the system closes its end of the pipe. Unlike Linux's PR_SET_PDEATHSIG
    this works on every POSIX system, leaves no moment between start and set-up in which a death goes unseen, and does
    not mistake the end of a launcher's thread for its own. What has not stopped after `STOP_SECONDS` ends at once.
    """
    given = os.environ.pop(LIFELINE_VARIABLE, None)
    if given is None:
        return
    descriptor = int(given)
    os.set_inheritable(descriptor, False)

    def watch() -> None:
        while os.read(descriptor, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(STOP_SECONDS)
        os._exit(EXIT_INTERRUPTED)

    threading.Thread(target=watch, name="lifeline", daemon=True).start()


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
