"""Relative names of files that come in a message, checked before any file is written under them."""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import EffigyError
from ..file_names import REFUSED, is_device

MAX_DEPTH = 8
"""Folders that a name may lead through."""
MAX_PART = 200
"""Characters of one part of a name; file systems allow 255 bytes."""


def plain_name(name: object) -> str:
    """`name` itself, parts joined by `/`, such as `frames/000001.jpg`, if it is safe below any folder on any system.

    Raises an `EffigyError` for an absolute name, a drive letter, `..`, an empty or hidden part, a backslash, a control
    character, a device of Windows and a name that is too long or too deep.
    """
    parts = name.split("/") if isinstance(name, str) else []
    if not 0 < len(parts) <= MAX_DEPTH or not all(_is_plain(part) for part in parts):
        raise EffigyError(f"A file of the exchange has a name that is not allowed: {str(name)[:80]!r}.")
    return "/".join(parts)


def plain_names(names: Iterable[object]) -> list[str]:
    """Each name checked by `plain_name`; also refuses two names that differ in upper and lower case alone."""
    checked = [plain_name(name) for name in names]
    if len({name.casefold() for name in checked}) != len(checked):
        raise EffigyError("Two files of the exchange have the same name.")
    return checked


def _is_plain(part: str) -> bool:
    return (
        0 < len(part) <= MAX_PART
        and not part.startswith(".")
        and not part.endswith((".", " "))
        and not REFUSED.search(part)
        and not is_device(part)
    )
