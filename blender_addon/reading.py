"""The one way in which the extension reads files that the artist chooses: a file that is missing, closed, empty or of
another kind becomes a sentence, the same as the backend's (`file_kinds`).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import EffigyError
from .file_kinds import sentence_of_kind, sentence_of_system, with_article


@contextmanager
def reading(path: Path, noun: str, remedy: str, missing: str = "choose it again") -> Iterator[None]:
    """Context in which the file or folder `path` is read; what the system does not give becomes an `EffigyError`.

    `noun` says what the file is, `remedy` what to do if it is damaged, `missing` what to do if it does not exist.
    """
    try:
        yield
    except OSError as error:
        raise EffigyError(sentence_of_system(error, path, noun, remedy, missing)) from error
    except ValueError as error:
        # The system is not asked for a name with a zero in it, or with half of a character.
        raise EffigyError(f"There is no {noun} at {path}: {missing}.") from error


def check_file(path: Path, noun: str, remedy: str = "choose another file") -> os.stat_result:
    """Refuses what is no file, or a file that may not be read. Raises an `EffigyError`."""
    with reading(path, noun, remedy):
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(21, "Is a directory", str(path))
        if not stat.S_ISREG(status.st_mode):
            raise EffigyError(
                f"{path} is a pipe or a device, where the file of {with_article(noun)} is needed: {remedy}."
            )
        with open(path, "rb"):
            return status


def check_unless_missing(path: Path, noun: str) -> None:
    """Refuses a file that is there and may not be read, so that its caller does not call it missing."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return
    except OSError as error:
        raise EffigyError(sentence_of_system(error, path, noun, "choose another file", "choose it again")) from error
    check_file(path, noun)


def unlike(path: Path, noun: str, remedy: str) -> EffigyError:
    """The error for a file whose content is not what it should be."""
    if (other := sentence_of_kind(path, noun)) is not None:
        return EffigyError(other)
    if path.stat().st_size == 0:
        return EffigyError(f"The {noun} {path} is empty: {remedy}.")
    return EffigyError(f"{path} is not {with_article(noun)}, or it is damaged: {remedy}.")
