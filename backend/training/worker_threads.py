"""Worker threads that each process whole frames.

On a CPU most operations on one frame are too small to be worth splitting, while whole frames are large enough.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch


@contextmanager
def worker_threads(device: torch.device) -> Iterator[tuple[ThreadPoolExecutor | None, int]]:
    """Context with a pool of as many threads as PyTorch uses, and their number; PyTorch itself then uses a single one.

    On a GPU, and with a single thread, there is no pool and the number is 1.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1:
        yield None, 1
        return
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads, "training") as pool:
            yield pool, threads
    finally:
        torch.set_num_threads(threads)
