"""Paths for libraries that can open only paths of ASCII characters on Windows."""

from __future__ import annotations

import sys


def short_path(path: str) -> str:
    r"""An existing path in Windows' short names (8.3, as `C:\Users\JRGEN~1`), which are ASCII. The same path if it
    is ASCII, if its drive has no short names, or on another system.
    """
    if sys.platform != "win32" or path.isascii():
        return path
    import ctypes

    buffer = ctypes.create_unicode_buffer(32768)
    length = ctypes.windll.kernel32.GetShortPathNameW(path, buffer, len(buffer))
    return buffer.value if 0 < length < len(buffer) else path
