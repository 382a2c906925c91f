"""A stage of a batch as a task of a Dask worker."""

from __future__ import annotations

import pickle
import time
from typing import Any, Final

from dask.system import CPU_COUNT
from distributed import get_worker

from .stage_run import run_stage

SECONDS_BETWEEN_REPORTS: Final = 1.0


def carry_out(order: bytes, before: bytes, topic: str) -> bytes:
    """Run a stage and report on it to `topic`.

    `order`, `before` and the answer are the pickled arguments and the result of `run_stage`. The stage gets the
    machine's cores, divided by the number of tasks that the worker takes at the same time.
    """
    worker = get_worker()
    last = 0.0

    def report(entry: dict[str, Any]) -> None:
        nonlocal last
        if "done" in entry:
            if time.monotonic() - last < SECONDS_BETWEEN_REPORTS:
                return
            last = time.monotonic()
        worker.log_event(topic, entry)

    threads = max(1, CPU_COUNT // worker.state.nthreads)
    return pickle.dumps(run_stage(pickle.loads(order), pickle.loads(before), report, threads))
