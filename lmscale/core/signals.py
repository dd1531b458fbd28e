"""How a process is asked to stop: by a signal, or by the death of the launcher that started it."""

import os
import signal
import sys
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
AGAIN_SECONDS = 0.02
"""How long after an interrupt the callback that swallowed it is over."""
NOTHING_TO_SAVE_SECONDS = 1.0
"""How long a process that only answers the one that started it gets before it is killed."""


def interrupt_again() -> None:
    """Let an interrupt that arrives in a callback of the garbage collector or of a weak reference arrive once more.

    Python drops what such a callback raises, a `KeyboardInterrupt` as well, and JAX has one that runs at every
    collection: Ctrl-C would be lost while programs are compiled.
    """
    report = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            report(unraisable)
            return
        # A signal to the main thread, which ends what that one waits in; `_thread.interrupt_main` would not.
        again = threading.Timer(AGAIN_SECONDS, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
        again.daemon = True
        again.start()

    sys.unraisablehook = hook


@contextmanager
def lifeline() -> Iterator[int]:
    """The descriptor of a pipe that this process holds open until the block ends, for the processes that it starts:
    pass it on to them, with its number in `LIFELINE_VARIABLE`."""
    reading, writing = os.pipe()
    try:
        yield reading
    finally:
        os.close(writing)
        os.close(reading)


def end_with_launcher(seconds: float = STOP_SECONDS) -> bool:
    """Send this process SIGTERM, so that it saves and stops, once the launcher that started it is dead.

    Whether there is a launcher.

    However a launcher dies, even by SIGKILL, the system closes its end of the pipe. Unlike Linux's PR_SET_PDEATHSIG
    this works on every POSIX system, leaves no moment between start and set-up in which a death goes unseen, and does
    not mistake the end of a launcher's thread for its own. A process that is still alive `seconds` later exits at once.
    """
    lifeline = os.environ.pop(LIFELINE_VARIABLE, None)
    if lifeline is None:
        return False
    descriptor = int(lifeline)
    os.set_inheritable(descriptor, False)

    def watch() -> None:
        while os.read(descriptor, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(seconds)
        os._exit(EXIT_INTERRUPTED)

    threading.Thread(target=watch, name="lifeline", daemon=True).start()
    return True


@contextmanager
def stop_requested() -> Iterator[Callable[[], bool]]:
    """A function that returns True once SIGTERM, SIGINT or SIGHUP has come; the block's end restores the old handlers.

    A SIGHUP that was ignored before, as under nohup, stays ignored.
    """
    requested = False

    def request(number: int, frame: Any) -> None:
        nonlocal requested
        requested = True

    signals = [signal.SIGTERM, signal.SIGINT]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signals.append(signal.SIGHUP)
    before = {number: signal.signal(number, request) for number in signals}
    try:
        yield lambda: requested
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def second_ctrl_c_ends() -> Iterator[None]:
    """Exit at once, with `EXIT_CTRL_C`, at the second SIGINT during the block.

    Python runs signal handlers between two bytecodes of the main thread, which may be minutes away while XLA compiles.
    The wake-up descriptor gets every signal's number as it comes; a thread of its own reads it.
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
