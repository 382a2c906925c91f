"""Signals by which a system, a supervisor or a closed terminal ends a command: it then ends as with Ctrl-C."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

_NAMES: Final = ("SIGTERM", "SIGHUP")
"""SIGHUP: the terminal was closed, or the connection of ssh ended. Windows has no SIGHUP."""


@contextmanager
def stopped_like_ctrl_c() -> Iterator[None]:
    """Within it, the first such signal raises a `KeyboardInterrupt` in the main thread: a training then saves its
    checkpoint, and temporaries and locks are removed. Further ones are ignored until the process has ended, so that
    this work is not cut short.

    A signal that is ignored already, as `nohup` does, stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [number for name in _NAMES if (number := getattr(signal, name, None)) is not None]
    chosen = [number for number in numbers if signal.getsignal(number) == signal.SIG_DFL]

    def stop(number: int, frame: FrameType | None) -> None:
        for each in chosen:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in chosen:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in chosen:
            if signal.getsignal(number) == stop:
                signal.signal(number, signal.SIG_DFL)
