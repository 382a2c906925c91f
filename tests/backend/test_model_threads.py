"""Threads with their own models process a clip with the same results as one thread."""

from __future__ import annotations

import threading
import time

import pytest

from backend.footage.model_threads import ModelThreads


class Model:
    made: list[Model] = []

    def __init__(self) -> None:
        self.threads, self.closed = set(), False
        Model.made.append(self)

    def close(self) -> None:
        self.closed = True


def doubled(item: int, model: Model) -> int:
    model.threads.add(threading.get_ident())
    time.sleep(0.004 if item % 3 else 0.0)
    return 2 * item


def test_results_come_in_the_order_of_the_items_and_no_model_is_used_by_two_threads() -> None:
    Model.made.clear()
    with ModelThreads(Model) as threads:
        assert list(threads.map(doubled, range(40))) == list(range(0, 80, 2))
        assert not any(model.closed for model in Model.made)
    assert Model.made and all(len(model.threads) == 1 and model.closed for model in Model.made)


def test_a_long_clip_is_not_read_far_ahead_of_what_is_done() -> None:
    read = []
    with ModelThreads(Model) as threads:
        results = threads.map(doubled, (read.append(item) or item for item in range(1000)))
        next(results)
        assert len(read) <= 2 * 8 + 1
        results.close()


def test_an_error_reaches_the_caller_and_the_models_are_closed() -> None:
    Model.made.clear()

    def fails(item: int, model: Model) -> int:
        raise ValueError(f"item {item}")

    with pytest.raises(ValueError, match="item 0"), ModelThreads(Model) as threads:
        list(threads.map(fails, range(9)))
    assert Model.made and all(model.closed for model in Model.made)
