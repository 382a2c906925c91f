"""One piece of work in a thread, for what would hold up Blender's window: begun, looked after, and its result taken."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any


class Work:
    def __init__(self, work: Callable[[], Any], name: str) -> None:
        """Begins at once. `work` may call nothing of Blender's."""
        self._work = work
        self._outcome: tuple[Any, BaseException | None] | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def finished(self) -> bool:
        return self._outcome is not None

    def wait(self, seconds: float) -> None:
        """At most so long."""
        self._thread.join(seconds)

    def result(self) -> Any:
        """What the finished work returned; what it raised is raised here."""
        assert self._outcome is not None, "the work has not finished"
        value, error = self._outcome
        if error is not None:
            raise error
        return value

    def _run(self) -> None:
        try:
            self._outcome = self._work(), None
        except BaseException as error:
            self._outcome = None, error
