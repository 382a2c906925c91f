"""Names of files for the exchange with a worker on another machine.

A name that the worker gives is checked before anything is written under it (`plain_names`); a name that is sent is made
so that it passes the worker's check (`sendable`). The rules are those of `backend/service/plain_names.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from ..errors import EffigyError
from ..file_names import MOST_MADE, REFUSED, file_name, is_device, split

MAX_DEPTH: Final = 8
"""Folders that a name may lead through."""
MAX_PART: Final = MOST_MADE + 20
"""Characters of one part of a name; file systems allow 255 bytes."""


def plain_name(name: object) -> str:
    """`name` itself, parts joined by `/`, if it is safe below any folder on any system.

    Raises an `EffigyError` for an absolute name, a drive letter, `..`, an empty or hidden part, a backslash, a control
    character, a device of Windows and a name that is too long or too deep.
    """
    parts = name.split("/") if isinstance(name, str) else []
    if not 0 < len(parts) <= MAX_DEPTH or not all(_is_plain(part) for part in parts):
        raise EffigyError(
            f"The worker offers a file with a name that is not allowed ({str(name)[:80]!r}), so nothing was fetched: "
            "check that the Worker Command starts a machine that you trust."
        )
    return "/".join(parts)


def plain_names(names: Iterable[object]) -> list[str]:
    """Each name checked by `plain_name`; also refuses two names that differ in upper and lower case alone."""
    checked = [plain_name(name) for name in names]
    if len({name.casefold() for name in checked}) != len(checked):
        raise EffigyError("The worker offers two files with the same name, so nothing was fetched.")
    return checked


def sendable(name: str) -> str:
    """The name of a file or folder here, changed where it is not allowed on every system. Its suffix stays."""
    stem, suffix = split(name.strip(" ."))
    return file_name(stem, REFUSED.sub("_", suffix), otherwise="_")


def _is_plain(part: str) -> bool:
    return (
        0 < len(part) <= MAX_PART
        and not part.startswith(".")
        and not part.endswith((".", " "))
        and not REFUSED.search(part)
        and not is_device(part)
    )
