"""Threads that each own their models, working through a clip's frames side by side with the results in order."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol, Self, TypeVar

_MOST = 8
Item = TypeVar("Item")
Result = TypeVar("Result")


class Model(Protocol):
    def close(self) -> None: ...


class ModelThreads:
    """`models` are made once in each thread, since none of them may be used by two at a time. A context manager:
    leaving it waits for what is being worked on, drops what is not, and closes the models.
    """

    def __init__(self, *models: Callable[[], Model]) -> None:
        self._kinds = models
        self._count = max(1, min(_MOST, os.cpu_count() or 1))
        self._pool = ThreadPoolExecutor(self._count, "models")
        self._own = threading.local()
        self._made: list[Model] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        for model in self._made:
            model.close()

    def map(self, work: Callable[..., Result], items: Iterable[Item]) -> Iterator[Result]:
        """`work(item, *models)` of every item, in their order; no more than two items a thread are taken ahead."""
        waiting: deque[Future[Result]] = deque()
        for item in items:
            waiting.append(self._pool.submit(self._with_models, work, item))
            if len(waiting) > 2 * self._count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def _with_models(self, work: Callable[..., Result], item: Any) -> Result:
        if not hasattr(self._own, "models"):
            made: list[Model] = []
            for make in self._kinds:
                made.append(make())
                # At once, so that it is closed even if the next cannot be made.
                self._made.append(made[-1])
            self._own.models = made
        return work(item, *self._own.models)
