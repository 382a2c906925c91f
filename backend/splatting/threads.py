"""Distribution of one kernel's work over CPU cores.

The work runs on plain Python threads, which release the interpreter's lock inside compiled code. numba's own thread
pools are not used: they either spin while they wait, which starves PyTorch's threads on a machine with few cores, or
abort the process when two threads of a program rasterise at the same time.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import torch

_PARTS_PER_THREAD = 4
"""There are more parts than threads, so that the others need not wait for a thread that another program slows down."""


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="rasterise")


if hasattr(os, "register_at_fork"):
    # Threads do not survive a fork; the child process makes its own pool.
    os.register_at_fork(after_in_child=_pool.cache_clear)


def share(kernel: Callable, *arguments: object, parts: int | None = None) -> None:
    """Run `kernel(part, parts, *arguments)` for every part, on as many threads as PyTorch uses.

    `kernel` releases the interpreter's lock and has the same results for any number of parts.
    """
    threads = torch.get_num_threads()
    if parts is None:
        parts = 1 if threads == 1 else _PARTS_PER_THREAD * threads
    threads = min(threads, parts)
    # `next` of a counter is atomic under the interpreter's lock, so no two threads get the same part.
    counter = itertools.count()

    def work() -> None:
        while (part := next(counter)) < parts:
            kernel(part, parts, *arguments)

    helpers = [_pool().submit(work) for _ in range(threads - 1)]
    work()
    for helper in helpers:
        helper.result()
