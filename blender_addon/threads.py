"""Runs a function in a thread, so that it does not block Blender's window."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

Result = TypeVar("Result")


def run_in_thread(function: Callable[[], Result], name: str) -> Future[Result]:
    """Starts `function`, which must not use `bpy`, in a thread of this name.

    The thread is a daemon, unlike those of `concurrent.futures.ThreadPoolExecutor`, for which Python waits at exit: a
    function that never returns must not keep Blender from quitting.
    """
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future
