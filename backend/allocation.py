"""Keeps freed memory in the process, so that arrays of image size are allocated faster.

By default, glibc returns every freed block of image size to the operating system and requests a new one for the next
image, of which the system clears every page. Code that allocates a hundred images per frame spends more time on this
than on its computations, especially in virtual machines.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress

# Parameter numbers of glibc's malloc.h; see mallopt(3).
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST_KEPT = 32 * 2**20
"""Bytes of the largest block that is kept, the maximum that glibc allows. Larger blocks are still returned to the
system."""
_MOST_KEPT = 64 * 2**20
"""Bytes of free memory that are kept at the end of the heap."""


def keep_freed_memory() -> None:
    """Apply the setting to the whole process; has no effect with other C libraries than glibc."""
    with suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT)
        mallopt(_TRIM_THRESHOLD, _MOST_KEPT)
