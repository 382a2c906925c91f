"""The command line: it reads the arguments, carries the request out and prints what came of it.

Errors are one line on stderr and exit code 2, the parser's own included; Ctrl-C, SIGTERM and SIGHUP end with a sentence
and code 130.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from ..errors import Cancelled, EffigyError
from ..progress import STOPPED_SENTENCE
from .argument_parser import FAILED, read_arguments
from .commands import run
from .results import BatchResult
from .sentences import describe
from .stop_signals import stopped_like_ctrl_c

if TYPE_CHECKING:
    from .terminal import BarProgress, PlainProgress

STOPPED: Final = 130
"""Exit code of a command that the user stopped."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    request = read_arguments(arguments)
    if request is None:
        from .worker import serve

        serve()
        return 0
    from .terminal import terminal_progress

    progress = terminal_progress()
    try:
        with stopped_like_ctrl_c():
            result = run(request, progress)
        progress.close()
        print(describe(result), flush=True)
        if isinstance(result, BatchResult) and result.failed:
            return _end(
                progress, f"{result.failed} of {len(result.rows)} clips are not done; {result.table} says why.", FAILED
            )
        return 0
    except (Cancelled, KeyboardInterrupt) as stop:
        return _end(progress, str(stop) or STOPPED_SENTENCE, STOPPED)
    except EffigyError as error:
        return _end(progress, str(error), FAILED)
    except BrokenPipeError:
        # The reader of our output went away (`| head`); the interpreter must not fail once more on its final flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _end(progress: PlainProgress | BarProgress, sentence: str, code: int) -> int:
    progress.close()
    print(" ".join(sentence.split()), file=sys.stderr, flush=True)
    return code
