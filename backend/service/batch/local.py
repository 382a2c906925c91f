"""A batch on this machine: as many clips at the same time as its cores and memory allow, each with its share of cores.

`concurrent.futures` hands the clips to threads, and each stage runs in a process of its own.
"""

from __future__ import annotations

import queue
import sys
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from ... import child_process
from ...cores import core_count
from .memory import available_memory
from .stage_run import FINISHED, Report, StageOrder, StageOutcome, run_stage, stop_batch
from .stages import TRAIN

if TYPE_CHECKING:
    from collections.abc import Iterator

CORES_PER_CLIP: Final = 4
"""A training step draws four frames in parallel (`backend.training.presets`), so more cores help one clip little."""
BYTES_PER_CLIP: Final = 1.5e9
"""A training at 256 x 256 needs 1.1 GB at its peak; the rest is for the captures that the system keeps in memory."""
_COUNT_GPUS: Final = (
    "import torch; from backend.devices import choose_device; "
    "print(torch.cuda.device_count() if choose_device('auto').type == 'cuda' else 0)"
)


def clips_at_once(clips: int) -> int:
    """How many clips this machine works on at the same time, at least one."""
    memory = available_memory()
    by_memory = clips if memory is None else int(memory // BYTES_PER_CLIP)
    return max(1, min(clips, core_count() // CORES_PER_CLIP, by_memory))


class LocalMachine:
    """Runs the stages of a batch in threads of this process. A context manager: on exit it waits for them,
    and after an exception it stops them first.
    """

    def __init__(self, batch: str, at_once: int, report: Report, uses_gpu: bool) -> None:
        """`uses_gpu`: whether a clip of the batch may be trained on a GPU. A GPU trains one clip at a time."""
        self._batch, self._report = batch, report
        self.at_once = at_once
        self._threads = max(1, core_count() // at_once)
        self._pool = ThreadPoolExecutor(at_once, "clips")
        self._gpus: queue.Queue[str] | None = None
        if uses_gpu and (count := _count_gpus()):
            self._gpus = queue.Queue()
            for number in range(count):
                self._gpus.put(str(number))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error:
            self.stop()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def submit(self, orders: Sequence[StageOrder]) -> Future[StageOutcome]:
        """Start a clip's stages, one after another."""
        return self._pool.submit(self._run_clip, orders)

    def stop(self) -> None:
        """Ask the running stages to stop. What is finished is kept, and a training leaves its checkpoint."""
        stop_batch(self._batch)

    def _run_clip(self, orders: Sequence[StageOrder]) -> StageOutcome:
        outcome = StageOutcome("", FINISHED)
        for order in orders:
            with self._gpu_for(order) as environment:
                outcome = run_stage(order, outcome, self._report, self._threads, environment)
            if outcome.state != FINISHED:
                break
        return outcome

    @contextmanager
    def _gpu_for(self, order: StageOrder) -> Iterator[dict[str, str]]:
        """Environment variables with which a training uses one GPU of its own, once one is free."""
        if self._gpus is None or order.stage != TRAIN or order.clip.device == "cpu":
            yield {}
            return
        number = self._gpus.get()
        try:
            yield {"CUDA_VISIBLE_DEVICES": number}
        finally:
            self._gpus.put(number)


def _count_gpus() -> int:
    """How many GPUs a training would use here. PyTorch answers, in a process that ends and gives its memory back."""
    root = Path(__file__).resolve().parents[3]
    ended = child_process.run([sys.executable, "-c", _COUNT_GPUS], timeout=120, cwd=root)
    answer = ended.stdout.split()
    return int(answer[-1]) if ended.returncode == 0 and answer else 0
