"""Splits a command that the artist typed into its arguments, by the rules of the artist's system."""

from __future__ import annotations

import os
import shlex


def split_command(text: str, windows: bool = os.name == "nt") -> list[str]:
    r"""The arguments of a command.

    On Linux and macOS a command is split as by a POSIX shell; on Windows, where a backslash separates folders, as by
    the C runtime (Microsoft, "Parsing C command-line arguments"). Raises a `ValueError` for a quotation mark that is
    never closed.

    >>> split_command(r'"C:\Program Files\ssh.exe" studio "cd effigy && python"', windows=True)
    ['C:\\Program Files\\ssh.exe', 'studio', 'cd effigy && python']
    """
    return _split_as_windows(text) if windows else shlex.split(text)


def _split_as_windows(text: str) -> list[str]:
    arguments: list[str] = []
    at = _skip_spaces(text, 0)
    while at < len(text):
        # The first argument is a path, in which a backslash never escapes a quotation mark.
        argument, at = _read_argument(text, at, escapes=bool(arguments))
        arguments.append(argument)
        at = _skip_spaces(text, at)
    return arguments


def _read_argument(text: str, at: int, escapes: bool) -> tuple[str, int]:
    """The argument that begins at index `at`, and the index after it."""
    parts: list[str] = []
    quoted = False
    while at < len(text) and (quoted or text[at] not in " \t"):
        backslashes = 0
        while escapes and text[at : at + 1] == "\\":
            backslashes, at = backslashes + 1, at + 1
        if text[at : at + 1] != '"':
            parts.append("\\" * backslashes)
            if at < len(text) and (quoted or text[at] not in " \t"):
                parts.append(text[at])
                at += 1
            continue
        # 2n backslashes before a quotation mark are n backslashes, and one more makes the mark a plain character.
        parts.append("\\" * (backslashes // 2))
        if backslashes % 2:
            parts.append('"')
        elif escapes and quoted and text[at + 1 : at + 2] == '"':
            parts.append('"')
            at += 1
        else:
            quoted = not quoted
        at += 1
    if quoted:
        raise ValueError("No closing quotation mark")
    return "".join(parts), at


def _skip_spaces(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t":
        at += 1
    return at
