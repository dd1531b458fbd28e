"""An interrupt that a callback swallows arrives after all; other errors of callbacks are reported as before."""

import subprocess
import sys

PROGRAM = """
import gc, signal, sys, time
from lmscale.core.signals import interrupt_again

signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell leaves it ignored

def callback(phase, info):
    gc.callbacks.remove(callback)
    raise {error}

interrupt_again()
gc.callbacks.append(callback)
try:
    gc.collect()
    time.sleep({seconds})
except KeyboardInterrupt:
    sys.exit("interrupted")
print("went on")
"""


def run(error: str, seconds: float) -> "subprocess.CompletedProcess[str]":
    program = PROGRAM.format(error=error, seconds=seconds)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)


def test_an_interrupt_in_a_callback_is_not_lost() -> None:
    done = run("KeyboardInterrupt", 30)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "interrupted\n")


def test_another_error_of_a_callback_is_reported() -> None:
    done = run("ValueError('of a callback')", 0.1)
    assert (done.returncode, done.stdout) == (0, "went on\n") and "ValueError: of a callback" in done.stderr
