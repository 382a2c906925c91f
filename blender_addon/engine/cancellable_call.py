"""A call of the worker that the artist can cancel while Blender waits for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent import futures
from typing import Any, Final

from ..threads import run_in_thread
from ..worker import session
from ..worker.client import WorkerClient

POLL_INTERVAL: Final = 0.05
"""Seconds between two checks whether the artist has cancelled."""
TIMEOUT: Final = 900.0
"""Seconds. The largest image takes less than this on a slow machine, and a stuck worker must not block a render
farm."""


def call_unless_cancelled(
    client: WorkerClient, method: str, params: Mapping[str, Any], is_cancelled: Callable[[], bool]
) -> Any:
    """The worker's answer, or None if `is_cancelled` became true first, in which case the answer is dropped. Raises a
    `WorkerError`. A worker that has not answered after `TIMEOUT` is ended, so that the next render has another.
    """
    until = time.monotonic() + TIMEOUT
    future = run_in_thread(lambda: client.call(method, params, timeout=TIMEOUT), "Effigy render")
    while not future.done():
        if is_cancelled():
            return None
        futures.wait([future], timeout=POLL_INTERVAL)
    if time.monotonic() >= until and future.exception() is not None:
        session.end_stuck_worker()
    return future.result()
