"""`python -m lmscale.lm.aot.worker REPLY`: compiles the run that standard input describes, in a process of its own.

A process apart because a compiler takes memory that it does not return, reads the environment once, and ends the
process where it meets a fault. The reply is a file, since compilers write to standard output too.
"""

import json
import os
import sys
from pathlib import Path


def main(reply: Path) -> int:
    """Read the request, write the reply; the exit status, with a sentence on standard error where it is not 0."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from lmscale.core.errors import UserError
    from lmscale.core.exit_status import exit_status
    from lmscale.core.signals import NOTHING_TO_SAVE_SECONDS, end_with_launcher
    from lmscale.core.text import printable

    end_with_launcher(NOTHING_TO_SAVE_SECONDS)
    request = json.load(sys.stdin)
    try:
        write_reply(request, reply)
    except UserError as error:
        print(f"lmscale: {printable(str(error))}", file=sys.stderr)
        return exit_status(error)
    return 0


def write_reply(request: dict[str, object], reply: Path) -> None:
    """Compile what is asked for. Raises `UserError` as `compile_run` does."""
    import jax

    from lmscale.core.compiled import Effort
    from lmscale.core.config import ModelConfig, RunConfig, from_json
    from lmscale.core.files import write_json
    from lmscale.core.machines import machine
    from lmscale.lm.aot.compile import compile_run

    jax.config.update("jax_enable_compilation_cache", False)  # what would be read from it was never compiled here
    reference = None if request["reference"] is None else from_json(ModelConfig, request["reference"])
    config = RunConfig.from_json(request["config"])
    effort: Effort = "low" if request["effort"] == "low" else "full"
    packed = int(str(request["packed"]))
    compiled = compile_run(config, machine(str(request["machine"])), reference, effort, packed)
    write_json(reply, compiled.to_json())


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
