"""Sharing one kernel's work between cores.

Plain Python threads that release the interpreter's lock inside compiled code, not numba's own pools: those either spin
while they wait, which starves PyTorch's threads on a machine with few cores, or abort the process when two threads of
a program rasterise at once.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

_PARTS_PER_THREAD = 4
"""Work is cut finer than there are threads, so that one which is held up by another program is not waited for."""

_pool: ThreadPoolExecutor | None = None


def _forget_pool() -> None:
    """Threads do not survive a fork; the child makes its own."""
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


def share(kernel: Callable, *arguments: object, parts: int | None = None) -> None:
    """Run `kernel(part, parts, *arguments)` for every part, on as many threads as PyTorch uses.

    `kernel` releases the interpreter's lock and gives the same results however the work is cut.
    """
    global _pool
    threads = torch.get_num_threads()
    if parts is None:
        parts = 1 if threads == 1 else _PARTS_PER_THREAD * threads
    threads = min(threads, parts)
    # `next` on a counter is one step under the interpreter's lock: no two threads draw the same part.
    counter = itertools.count()

    def work() -> None:
        while (part := next(counter)) < parts:
            kernel(part, parts, *arguments)

    if threads > 1 and _pool is None:
        _pool = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="rasterise")
    helpers = [_pool.submit(work) for _ in range(threads - 1)] if _pool is not None else []
    work()
    for helper in helpers:
        helper.result()
