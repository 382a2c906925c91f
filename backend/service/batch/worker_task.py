"""A stage of a batch as a task of a Dask worker."""

from __future__ import annotations

import pickle
import time
from typing import Any, Final

from dask.system import CPU_COUNT
from dask.typing import Key
from distributed import Worker, get_worker

from .stage_run import run_stage, stop_batch

SECONDS_BETWEEN_REPORTS: Final = 1.0


def carry_out(order: bytes, before: bytes, topic: str) -> bytes:
    """Run a stage and report on it to `topic`.

    `order`, `before` and the answer are the pickled arguments and the result of `run_stage`. The stage gets the
    machine's cores, divided by the number of tasks that the worker takes at the same time. It stops when the batch that
    wants it is gone.
    """
    worker = get_worker()
    key, stage_order = worker.get_current_task(), pickle.loads(order)
    last, is_wanted = 0.0, True

    def report(entry: dict[str, Any]) -> None:
        nonlocal last, is_wanted
        if is_wanted and _is_cancelled(worker, key):
            is_wanted = False
            stop_batch(stage_order.batch)
        if "done" in entry:
            if time.monotonic() - last < SECONDS_BETWEEN_REPORTS:
                return
            last = time.monotonic()
        worker.log_event(topic, entry)

    threads = max(1, CPU_COUNT // worker.state.nthreads)
    return pickle.dumps(run_stage(stage_order, pickle.loads(before), report, threads))


def _is_cancelled(worker: Worker, key: Key) -> bool:
    """Whether nobody waits for a running task any more: the batch was killed, or its machine was lost. Dask itself lets
    such a task run to its end.
    """
    task = worker.state.tasks.get(key)
    return task is None or task.state == "cancelled"
