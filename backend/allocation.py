"""Memory that was freed stays with the program for its next pictures.

The C library of Linux gives every block of a picture's size back to the system when it is freed and asks for it anew for
the next picture; the system then clears each page of it before it is touched. Work that makes a picture from a picture a
hundred times a frame spends more time on that than on the pictures, most of all in virtual machines.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress

# Their numbers in glibc's malloc.h; see mallopt(3).
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST_KEPT = 32 * 2**20
"""Bytes of the largest block that is kept: glibc allows no more. Larger ones, and what lies beyond, still go back."""
_MOST_KEPT = 64 * 2**20
"""Bytes that a heap keeps free at its end."""


def keep_freed_memory() -> None:
    """For the whole program, from now on; does nothing where the C library is another one."""
    with suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT)
        mallopt(_TRIM_THRESHOLD, _MOST_KEPT)
