"""The exit statuses of every process of the package, and which error ends with which."""

from lmscale.core.errors import Busy, MemoryShortage, StorageError, UserError

EXIT_USER_ERROR = 2
"""The input cannot be used; a sentence says why. Starting again does not help."""
EXIT_BUSY = 69
"""Another process trains this run (EX_UNAVAILABLE of sysexits.h)."""
EXIT_MEMORY = 71
"""The run needs more memory than there is (EX_OSERR); in more micro-batches it may fit."""
EXIT_STORAGE = 74
"""A disk is full or does not answer, or the output cannot be written (EX_IOERR); the same call may succeed later."""
EXIT_INTERRUPTED = 75
"""A run that should be started again (EX_TEMPFAIL): it was asked to stop and saved a checkpoint, or one of the
processes that share it has died."""
EXIT_CTRL_C = 130
"""A launcher that was asked to stop, once its runs have stopped; a run that was asked twice."""


def exit_status(error: UserError) -> int:
    """The status of a process that ends with `error`."""
    kinds = {Busy: EXIT_BUSY, StorageError: EXIT_STORAGE, MemoryShortage: EXIT_MEMORY}
    return next((status for kind, status in kinds.items() if isinstance(error, kind)), EXIT_USER_ERROR)
