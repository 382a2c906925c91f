"""How many CPU cores this process may use."""

from __future__ import annotations

import os
from contextlib import suppress


def core_count() -> int:
    """The number in OMP_NUM_THREADS, which PyTorch obeys as well, or else the cores that the system gives the process.

    A batch sets the variable, so that clips which are worked on at the same time share the cores.
    """
    with suppress(KeyError, ValueError):
        if (threads := int(os.environ["OMP_NUM_THREADS"])) > 0:
            return threads
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
