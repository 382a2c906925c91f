"""The backend's exceptions, whose messages tell the user what to do."""

import re
from typing import Final

MOST_OF_START, MOST_OF_END = 800, 600
"""Characters of a message. Names from a file may be a megabyte long; what to do stands at the end."""
_KEPT: Final = "\n\t"


class EffigyError(Exception):
    """An error whose message says what is wrong, where, and what to do, in one or two plain sentences.

    The command line prints the message as one line on stderr and exits with code 2; an operator in Blender reports it.
    Any other exception is a bug and keeps its traceback. Messages quote names and values from files, which may come
    from strangers: they are shortened here, and characters that would steer a terminal are replaced.
    """

    def __init__(self, message: str = "") -> None:
        if len(message) > MOST_OF_START + MOST_OF_END:
            message = f"{message[:MOST_OF_START]}…{message[-MOST_OF_END:]}"
        super().__init__("".join(c if c.isprintable() or c in _KEPT else "\N{REPLACEMENT CHARACTER}" for c in message))


class Cancelled(EffigyError):
    """The user stopped a job. Its last checkpoint remains and can be resumed."""


_MISSING_LIBRARY: Final = re.compile(r"(lib[\w.+-]{1,80}): cannot open shared object file")


def missing_library(error: Exception) -> str | None:
    """A sentence about a library of the operating system that a package of the backend needs and did not find; None for
    another error. It comes from the dynamic linker, as an OSError or ImportError without a file.
    """
    found = _MISSING_LIBRARY.match(str(error))
    if found is None:
        return None
    return (
        f"The system lacks the library {found[1]}, which a package of the backend needs: install it (on Debian and "
        "Ubuntu `apt install libgles2 libegl1`, on Fedora `dnf install mesa-libGLES mesa-libEGL`)."
    )
