"""The worker's answer to a render: waited for, while the artist may press Escape."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final

from ..worker.client import WorkerClient

SECONDS_BETWEEN_LOOKS: Final = 0.05
PATIENCE: Final = 900.0
"""Seconds: more than the largest picture takes on a slow machine; a stuck worker must not hold a farm for ever."""


def ask(client: WorkerClient, method: str, params: dict[str, Any], cancelled: Callable[[], bool]) -> Any:
    """What the worker answers, or None when `cancelled` said so first and the answer is dropped; or a `WorkerError`."""
    outcome: list[Callable[[], Any]] = []
    thread = threading.Thread(target=_call, args=(client, method, params, outcome), name="Effigy render", daemon=True)
    thread.start()
    while thread.is_alive():
        if cancelled():
            return None
        thread.join(SECONDS_BETWEEN_LOOKS)
    return outcome[0]()


def _call(client: WorkerClient, method: str, params: dict[str, Any], outcome: list[Callable[[], Any]]) -> None:
    try:
        result = client.call(method, params, timeout=PATIENCE)
        outcome.append(lambda: result)
    except BaseException as error:
        caught = error

        def again() -> None:
            raise caught

        outcome.append(again)
