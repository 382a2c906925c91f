"""The worker's answer to a render: waited for, while the artist may press Escape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from ..threads import Work
from ..worker.client import WorkerClient

SECONDS_BETWEEN_LOOKS: Final = 0.05
PATIENCE: Final = 900.0
"""Seconds: more than the largest picture takes on a slow machine; a stuck worker must not hold a farm for ever."""


def ask(client: WorkerClient, method: str, params: dict[str, Any], cancelled: Callable[[], bool]) -> Any:
    """What the worker answers, or None when `cancelled` said so first and the answer is dropped; or a `WorkerError`."""
    work = Work(lambda: client.call(method, params, timeout=PATIENCE), "Effigy render")
    while not work.finished:
        if cancelled():
            return None
        work.wait(SECONDS_BETWEEN_LOOKS)
    return work.result()
