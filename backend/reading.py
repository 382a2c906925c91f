"""The one way in which files are read: whatever a file does to its reader becomes a sentence, and no file is read
without a bound.

A file may come from a stranger or from a failing disk. `reading` wraps the whole of a loader, so that every exception
of the libraries below (an archive, a decoder, an array of another shape) becomes an `EffigyError` that names the file
and says what to do. A file that is missing, closed to the user, in the cloud, empty, of another kind (`file_kinds`),
damaged or newer has a sentence of its own each. The functions here open regular files only, because a pipe would never
end and a device may act when it is opened, and they refuse a file that is larger than its kind ever is before they read
it. Archives of arrays are read in `backend.array_files`.
"""

from __future__ import annotations

import errno
import io
import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, Final

from .errors import EffigyError
from .file_kinds import sentence_of_kind, sentence_of_system, with_article

MOST_TEXT: Final = 16 * 2**20
"""Bytes of a JSON or text file. The largest that Effigy writes, the capture.json of a clip of hours, has some hundred
kilobytes; parsed JSON takes about 20 times its bytes."""
SLOWEST_RATE, FASTEST_RATE = Fraction(1, 1000), Fraction(10_000)
"""Frames a second: time lapses and high-speed cameras lie between."""
_RATE: Final = re.compile(r"\d{1,12}(\.\d{1,20})?([eE][+-]?\d{1,2})?|\d{1,12}/\d{1,12}")


class Damaged(Exception):
    """Raised within `reading` by a loader that finds its file's content impossible; the message is the reason."""


class Unlike(Damaged):
    """Raised within `reading` by a loader that finds no sign of its kind of file. The message is what it found instead;
    `remedy` takes the place of that for a damaged file.
    """

    def __init__(self, reason: str, remedy: str = "") -> None:
        super().__init__(reason)
        self.remedy = remedy


@contextmanager
def reading(path: Path, noun: str, remedy: str, *, missing: str = "check the name and the folder") -> Iterator[None]:
    """Context in which the file (or folder) `path` is read; every exception becomes an `EffigyError`.

    `noun` says what the file is ("track"), `remedy` what to do if it is damaged ("track the capture again") and
    `missing` what to do if it does not exist. An `EffigyError` from inside is a sentence already and passes.
    """
    path = Path(path)
    try:
        yield
    except EffigyError:
        raise
    except MemoryError as error:
        raise EffigyError(
            f"There is not enough free memory to open the {noun} {path}: close other programs, then try again."
        ) from error
    except Exception as error:
        # Readers of archives, images and tensors raise dozens of exceptions of their own for a damaged file, such as
        # zlib.error, struct.error, NotImplementedError for an unknown compression, RecursionError. None is listed, so
        # that none can be missing.
        if isinstance(error, OSError) and error.errno is not None:
            raise EffigyError(sentence_of_system(error, path, noun, remedy, missing)) from error
        raise EffigyError(_sentence_of_content(error, path, noun, remedy)) from error


def _sentence_of_content(error: Exception, path: Path, noun: str, remedy: str) -> str:
    if (other := sentence_of_kind(path, noun)) is not None:
        return other
    with suppress(OSError, ValueError):
        status = path.stat()
        if stat.S_ISREG(status.st_mode) and status.st_size == 0:
            return f"The {noun} {path} is empty: {remedy}."
    if isinstance(error, Unlike):
        return f"{path} is not {with_article(noun)} ({error}): {error.remedy or remedy}."
    reason = str(error) if isinstance(error, Damaged) else "its content cannot be read"
    return f"The {noun} {path} is damaged ({reason}): {remedy}."


def shown(text: object, most: int = 80) -> str:
    """A word from a file for a sentence: shortened, and without characters that would steer a terminal."""
    words = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in str(text)[: most + 1])
    return words if len(words) <= most else words[: most - 1] + "…"


def check_regular(path: Path, noun: str) -> os.stat_result:
    """Refuse anything that is no regular file, before it is opened. Raises an `EffigyError`, or the `OSError` of
    `stat`.
    """
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "Is a directory", str(path))
    if not stat.S_ISREG(status.st_mode):
        raise EffigyError(f"{path} is a pipe or a device, where the file of a {noun} is needed: name the file itself.")
    return status


def open_regular(path: Path, noun: str, most: int, remedy: str) -> BinaryIO:
    """Open a regular file of at most `most` bytes for reading. Call it within `reading`."""
    check_regular(path, noun)
    # Should a pipe take the file's place meanwhile, it is opened without waiting for a writer.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
    file = os.fdopen(handle, "rb")
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise EffigyError(f"{path} is a pipe or a device, where the file of a {noun} is needed.")
        if status.st_size > most:
            raise too_large(path, noun, f"{status.st_size / 1e6:,.0f} MB", f"{most / 1e6:,.0f} MB", remedy)
    except BaseException:
        file.close()
        raise
    return file


def too_large(path: Path, noun: str, found: str, most: str, remedy: str) -> EffigyError:
    """The error for a file that is, or claims, more than its kind ever holds."""
    return EffigyError(
        sentence_of_kind(path, noun) or f"The {noun} {path} is too large ({found}; {most} at most): {remedy}."
    )


def names_in(folder: Path) -> set[str]:
    """The names of what is in a folder. Unlike `Path.exists`, it does not take a closed folder for an empty one. Call
    it within `reading`.
    """
    return {entry.name for entry in folder.iterdir()}


def read_bytes(path: Path, noun: str, most: int, remedy: str) -> bytes:
    """A file's content. Call it within `reading`."""
    with open_regular(path, noun, most, remedy) as file:
        # Python would reserve all of `most` at once, for every small file anew. A file that grows meanwhile is not
        # followed.
        return file.read(min(most, os.fstat(file.fileno()).st_size))


def read_text(path: Path, noun: str, remedy: str, most: int = MOST_TEXT) -> str:
    """A file of UTF-8 text, with or without a byte-order mark, or of UTF-16 with one. Call it within `reading`."""
    data = read_bytes(path, noun, most, remedy)
    encoding = "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        return io.TextIOWrapper(io.BytesIO(data), encoding).read()
    except UnicodeDecodeError as error:
        raise Damaged("it is not UTF-8 text") from error


def read_json(path: Path, noun: str, remedy: str, most: int = MOST_TEXT) -> Any:
    """A file of JSON. Call it within `reading`."""
    return parse_json(read_text(path, noun, remedy, most))


def parse_json(text: str) -> Any:
    """The value of JSON text. Nesting so deep that Python gives up is damage like any other syntax error."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Damaged("its JSON cannot be read") from error


def frame_rate_of(text: object) -> Fraction:
    """Frames a second from text or a number such as `25`, `23.976` or `30000/1001`. Raises a `ValueError` for anything
    else, a rate that no camera has among it.

    Not `Fraction(text)` alone, which computes all digits of `1e999999999`.
    """
    words = str(text).strip()
    if not _RATE.fullmatch(words):
        raise ValueError(f"{words[:40]!r} is no frame rate")
    try:
        rate = Fraction(words)
    except ZeroDivisionError as error:
        raise ValueError(f"{words!r} is no frame rate") from error
    if not SLOWEST_RATE <= rate <= FASTEST_RATE:
        raise ValueError(f"{words!r} is no frame rate")
    return rate
