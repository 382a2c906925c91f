"""A batch from its sheet to its table."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Protocol

from ...errors import Cancelled, EffigyError
from ...progress import Progress
from ..results import BatchResult
from .addresses import Address
from .overview import Overview
from .sheet import Clip
from .stage_run import FAILED_STATE, Report, StageOrder, StageOutcome
from .stages import stages_of
from .table import row_of, write_table
from .witness import witness_in

SECONDS_BETWEEN_LOOKS: Final = 0.25
SECONDS_TO_STOP: Final = 60


class Future(Protocol):
    """What the futures of `concurrent.futures` and of Dask have in common."""

    def done(self) -> bool: ...
    def result(self) -> StageOutcome: ...


class Machines(Protocol):
    """Who runs the stages: `LocalMachine` or `ClusterMachines`."""

    @property
    def at_once(self) -> int: ...
    def submit(self, orders: Sequence[StageOrder]) -> Any: ...
    def stop(self) -> None: ...


def run_clips(
    clips: Sequence[Clip], out: Path, address: Address | None, at_once: int | None, progress: Progress
) -> BatchResult:
    """Work on all clips, below the folder `out`. A clip that fails does not stop the others.

    `address`: of a cluster; None for this machine. Stages that an earlier run finished are not done again. Raises
    `Cancelled` when the user stops it; what is finished is kept, and the table is written.
    """
    batch = secrets.token_hex(8)
    overview = Overview(clips)
    outcomes: dict[str, StageOutcome] = {}

    def report(entry: dict[str, Any]) -> None:
        if "text" in entry:
            progress.message(f"{entry['clip']}: {entry['text']}")
        overview.report(entry)

    with (
        witness_in(out, batch) as witness,
        _machines(clips, address, at_once, batch, witness, report, progress) as them,
    ):
        futures: dict[str, Future] = {}
        for clip in clips:
            orders = [StageOrder(batch, clip, out / clip.name, stage, witness) for stage in stages_of(clip)]
            futures[clip.name] = them.submit(orders)
        try:
            while len(outcomes) < len(clips):
                _collect(futures, outcomes, overview, clips, out)
                progress.overview(overview.share, overview.sentence(them.at_once))
                progress.raise_if_cancelled()
                time.sleep(SECONDS_BETWEEN_LOOKS)
        except (Cancelled, KeyboardInterrupt) as stop:
            progress.message("Stopping: what is finished is kept.")
            them.stop()
            until = time.monotonic() + SECONDS_TO_STOP
            while len(outcomes) < len(clips) and time.monotonic() < until:
                _collect(futures, outcomes, overview, clips, out)
                time.sleep(SECONDS_BETWEEN_LOOKS)
            raise Cancelled(
                "Stopped by the user; what was finished is kept, and the same command goes on from there."
            ) from stop
        progress.overview(overview.share, overview.sentence(1))
    rows = tuple(row_of(clip, outcomes.get(clip.name)) for clip in clips)
    return BatchResult(out, write_table(out, rows), rows)


def _collect(
    futures: dict[str, Future], outcomes: dict[str, StageOutcome], overview: Overview, clips: Sequence[Clip], out: Path
) -> None:
    """Take the outcomes of the clips that have ended since the last look, and write the table with them."""
    new = [name for name, future in futures.items() if name not in outcomes and future.done()]
    for name in new:
        outcomes[name] = _outcome_of(futures[name])
        overview.end(name)
    if new:
        # A disk that is full now fails the clip that needs it, or the last table, but not the clips that still run.
        with suppress(EffigyError):
            write_table(out, [row_of(clip, outcomes.get(clip.name)) for clip in clips])


def _outcome_of(future: Future) -> StageOutcome:
    try:
        return future.result()
    except Exception as error:
        # Dask raises what no stage catches: a task over which several machines were lost, or a lost scheduler.
        if type(error).__name__ == "KilledWorker":
            return StageOutcome(
                "", FAILED_STATE, "Every machine that worked on it was lost, perhaps for lack of memory."
            )
        if type(error).__name__ in ("CancelledError", "FutureCancelledError"):
            return StageOutcome(
                "", FAILED_STATE, "The cluster's scheduler went away. Start it again, then run the same command."
            )
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return StageOutcome("", FAILED_STATE, f"A defect in Effigy ({reason}).")


@contextmanager
def _machines(
    clips: Sequence[Clip],
    address: Address | None,
    at_once: int | None,
    batch: str,
    witness: Path,
    report: Report,
    progress: Progress,
) -> Iterator[Machines]:
    if address is None:
        from .local import LocalMachine, clips_at_once

        uses_gpu = any(clip.device != "cpu" for clip in clips)
        with LocalMachine(batch, at_once or clips_at_once(len(clips)), report, uses_gpu) as machine:
            yield machine
        return
    from .cluster import ClusterMachines, check_machines, open_cluster

    needs_gpu = any(clip.device == "cuda" for clip in clips)
    with (
        open_cluster(address, len(clips), needs_gpu, progress.message) as client,
        ClusterMachines(client, batch, report) as machines,
    ):
        check_machines(client, witness, needs_gpu, progress.message)
        yield machines
