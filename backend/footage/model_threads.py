"""A thread pool in which each thread owns its models, for frames of a clip with the results in order."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol, Self, TypeVar

from ..cores import core_count

_MAX_THREADS = 8
Item = TypeVar("Item")
Result = TypeVar("Result")


class Model(Protocol):
    def close(self) -> None: ...


class ModelThreads:
    """A pool of threads that calls the constructors `models` once in each thread, since models are not thread-safe.

    A context manager: on exit, running items finish, waiting items are cancelled, and the models are closed.
    """

    def __init__(self, *models: Callable[[], Model]) -> None:
        self._constructors = models
        self._count = min(_MAX_THREADS, core_count())
        self._pool = ThreadPoolExecutor(self._count, "models")
        self._thread_local = threading.local()
        self._created: list[Model] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        for model in self._created:
            model.close()

    def map(self, work: Callable[..., Result], items: Iterable[Item]) -> Iterator[Result]:
        """`work(item, *models)` for every item, in order; at most two items per thread are taken in advance."""
        waiting: deque[Future[Result]] = deque()
        for item in items:
            waiting.append(self._pool.submit(self._with_models, work, item))
            if len(waiting) > 2 * self._count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def _with_models(self, work: Callable[..., Result], item: Any) -> Result:
        if not hasattr(self._thread_local, "models"):
            created: list[Model] = []
            for constructor in self._constructors:
                created.append(constructor())
                # Registered at once, so that the model is closed even if the next constructor fails.
                self._created.append(created[-1])
            self._thread_local.models = created
        return work(item, *self._thread_local.models)
