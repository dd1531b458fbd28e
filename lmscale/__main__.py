"""The command, `lmscale` or `python -m lmscale`."""

import os
import signal

# No typing: what is imported up to here still ends in a traceback.


def main() -> None:
    """Do what the call says, as `cli.main` does. An interrupt while that is imported ends the process in silence."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # a background shell leaves interrupts ignored
        signal.signal(signal.SIGINT, _leave)
    from lmscale.cli import main as call

    call(before)


def _leave(number: int, frame: object) -> None:
    """Exit at once: no work has begun, and a traceback through half an import says nothing."""
    os._exit(128 + number)


if __name__ == "__main__":
    main()
