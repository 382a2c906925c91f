"""The exception for errors that the artist can act on."""

from __future__ import annotations

from .file_names import readable


class EffigyError(Exception):
    """The message says what is wrong, where, and what to do, in one or two sentences.

    Operators turn it into a report. Any other exception is a defect of the extension and keeps its traceback.
    """

    def __init__(self, message: str) -> None:
        # Most messages hold the name of a file.
        super().__init__(readable(message))
