"""Interrupts: one that a callback swallows arrives after all, and one of the command is never a traceback."""

import signal
import subprocess
import sys

import pytest

import lmscale.__main__

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


STARTING = """
import os, signal, sys

class Interrupting:
    def find_spec(name, path=None, target=None):
        if name == {module!r}:
            sys.meta_path.remove(Interrupting)
            os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.{handler})
sys.meta_path.insert(0, Interrupting)
sys.argv = ["lmscale", "init", "--help"]
from lmscale.__main__ import main
main()
"""


@pytest.mark.parametrize(
    ("module", "error"),
    [("lmscale.cli", ""), ("lmscale.core.files", ""), ("lmscale.commands.init", "lmscale: stopped\n")],
)
def test_an_interrupt_of_the_command_is_no_traceback(module: str, error: str) -> None:
    program = STARTING.format(module=module, handler="default_int_handler")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", error)


def test_an_interrupt_that_the_shell_ignores_is_ignored_while_the_command_is_loaded() -> None:
    program = STARTING.format(module="lmscale.cli", handler="SIG_IGN")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "") and "usage" in done.stdout


def test_importing_the_command_leaves_the_handler_alone() -> None:
    assert signal.getsignal(signal.SIGINT) is not lmscale.__main__._leave
