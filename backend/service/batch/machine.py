"""What a cluster's machines are told before they can import Effigy: Dask sends this module's code by value.

Therefore it uses nothing of Effigy's. The scheduler needs no Effigy at all: to it, the arguments of a task are bytes.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

from distributed import Worker, WorkerPlugin


class EffigyOnWorker(WorkerPlugin):
    """Lets the tasks of a worker import Effigy from the same folder as on the machine that started the batch."""

    idempotent = True

    def __init__(self, root: str) -> None:
        self.root = root
        self.name = f"effigy {root}"

    def setup(self, worker: Worker) -> None:
        if self.root not in sys.path:
            sys.path.insert(0, self.root)


def examine(witness: str, root: str, version: str) -> str | None:
    """Why this machine cannot work on a batch, in words that follow its name; None if it can."""
    if not Path(witness).is_file():
        return f"does not see the folder {Path(witness).parent}: it must have it under the same path"
    if root not in sys.path:
        sys.path.insert(0, root)
    missing = [name for name in ("backend", "torch", "numba", "mediapipe") if importlib.util.find_spec(name) is None]
    if missing:
        return f"cannot import {missing[0]}: it needs Effigy in {root} and a Python with Effigy's packages"
    found = importlib.import_module("backend").__version__
    return None if found == version else f"has Effigy {found} where this machine has {version}"


def stage_task() -> Callable[[bytes, bytes, str], bytes]:
    """The function of a task; see `backend.service.batch.worker_task`.

    Dask sends a function by value where it cannot be imported by its name, as this inner one.
    """

    def effigy_stage(order: bytes, before: bytes, topic: str) -> bytes:
        return importlib.import_module("backend.service.batch.worker_task").carry_out(order, before, topic)

    return effigy_stage


def stop(batch: str) -> None:
    """Stop this machine's stages of a batch, if it has begun any."""
    if "backend.service.batch.stage_run" in sys.modules:
        sys.modules["backend.service.batch.stage_run"].stop_batch(batch)
