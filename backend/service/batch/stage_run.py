"""One stage of one clip: skipped where it is finished, otherwise carried out in a process of its own.

This runs on the artist's machine and on every machine of a cluster. It never raises for what one clip can do wrong:
the outcome says so, and the other clips go on.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ...errors import EffigyError
from ...reading import read_json, reading
from ...storage import as_effigy_error, remove_file
from ..job_messages import CANCELLED, FAILED, MESSAGE, PROGRESS, JobEvent
from ..jobs import JobProcess
from .attempt import Attempt
from .finished_capture import take_over
from .sheet import Clip
from .stages import CAPTURE, EVALUATE, TRACK, TRAIN, ClipFiles, parameters_of, settings_of
from .stamps import Stamp, find_stamp, hash_input, key_of, new_stamp, save_stamp

if TYPE_CHECKING:
    from collections.abc import Iterator

FINISHED: Final = "finished"
FAILED_STATE: Final = "failed"
STOPPED: Final = "stopped"

Report = Callable[[dict[str, Any]], None]
"""Takes what a stage reports: the name of its `clip`, its `batch_stage`, and one of

- nothing more, when it begins;
- the fields of a job's progress: `stage` in words, `done`, `total`, `eta` (seconds or None);
- `text`, a sentence for the user;
- `state`, `seconds` and `figures`, when it has ended (see `StageOutcome`).

Everything in it can travel as JSON."""


@dataclass(frozen=True)
class StageOrder:
    """What a machine is told to do."""

    batch: str
    """A random name of this run of the batch, by which it is stopped."""
    clip: Clip
    folder: Path
    """The clip's folder."""
    stage: str
    witness: Path
    """A file that exists as long as the batch runs: a machine that does not see it does not share the batch's disk."""


@dataclass(frozen=True)
class StageOutcome:
    """What came of a stage, or of the last stage that a clip reached."""

    stage: str
    state: str
    """`FINISHED`, `FAILED_STATE` or `STOPPED`."""
    reason: str = ""
    """A sentence, unless the stage is finished."""
    run: str = ""
    """`Stamp.run` of the stage; empty unless it is finished."""
    seconds: float = 0.0
    """Of this clip's stages up to this one, those of earlier runs included."""
    stage_seconds: float = 0.0
    """Of this stage alone."""
    figures: dict[str, Any] = field(default_factory=dict)
    """Of this clip's stages up to this one."""


class _Running:
    """The processes of running stages, by the name of their batch, so that a batch can be stopped."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._processes: dict[JobProcess, str] = {}
        self._stopped: set[str] = set()

    @contextmanager
    def kept(self, process: JobProcess, batch: str) -> Iterator[None]:
        with self._lock:
            self._processes[process] = batch
        try:
            # A stop that came while the process was being started would otherwise miss it.
            if self.is_stopped(batch):
                process.stop()
            yield
        finally:
            with self._lock:
                del self._processes[process]

    def is_stopped(self, batch: str) -> bool:
        return batch in self._stopped

    def stop(self, batch: str) -> None:
        with self._lock:
            self._stopped.add(batch)
            processes = [process for process, owner in self._processes.items() if owner == batch]
        for process in processes:
            process.stop()


_running = _Running()


def stop_batch(batch: str) -> None:
    """Ask this process's stages of a batch to stop, and start no more of them. A training leaves its checkpoint."""
    _running.stop(batch)


def run_stage(
    order: StageOrder,
    before: StageOutcome,
    report: Report,
    threads: int,
    environment: Mapping[str, str] | None = None,
) -> StageOutcome:
    """Carry a stage out, unless it is finished already, or the stage before it (`before`) is not.

    `threads`: CPU threads for the stage. `environment`: further environment variables of its process.
    """
    if before.state != FINISHED:
        return before
    if _running.is_stopped(order.batch):
        return replace(before, stage=order.stage, state=STOPPED)
    head = {"clip": order.clip.name, "batch_stage": order.stage}
    report(head)
    started = time.monotonic()
    try:
        if not order.witness.is_file():
            raise EffigyError(
                f"The machine {socket.gethostname()} does not see the folder {order.folder.parent}: every machine of a "
                "cluster must have it under the same path."
            )
        outcome = _run(order, before, report, _environment(threads, environment or {}))
    except (EffigyError, OSError) as error:
        if isinstance(error, OSError):
            error = as_effigy_error(error, Path(error.filename or order.folder))
        seconds = time.monotonic() - started
        outcome = _ended(order, before, FAILED_STATE, seconds, reason=str(error))
    report(head | {"state": outcome.state, "seconds": outcome.stage_seconds, "figures": outcome.figures})
    return outcome


def _ended(
    order: StageOrder, before: StageOutcome, state: str, seconds: float, stamp: Stamp | None = None, reason: str = ""
) -> StageOutcome:
    return StageOutcome(
        order.stage,
        state,
        reason,
        run=stamp.run if stamp else "",
        seconds=before.seconds + seconds,
        stage_seconds=seconds,
        figures=before.figures | (stamp.figures if stamp else {}),
    )


def _run(order: StageOrder, before: StageOutcome, report: Report, environment: dict[str, str]) -> StageOutcome:
    clip, stage, files = order.clip, order.stage, ClipFiles(order.folder)
    _check_folder(order.folder)
    key = key_of(stage, settings_of(clip, stage), _inputs(clip, stage, before))
    stamp = find_stamp(files.stamp(stage), key, files.outputs(stage))
    if stamp:
        return _ended(order, before, FINISHED, stamp.seconds, stamp)
    remove_file(files.stamp(stage))
    attempt = Attempt(files.stamp(f"{stage}.attempt"), key)
    started = time.monotonic()
    figures = take_over(clip, stage, files)
    if figures is None:
        resume = stage == TRAIN and attempt.may_resume(files)
        event = _carry_out(order, files, resume, report, environment)
        if event.name == CANCELLED or (event.name == FAILED and _running.is_stopped(order.batch)):
            return _ended(order, before, STOPPED, attempt.add(time.monotonic() - started))
        if event.name == FAILED:
            seconds = attempt.add(time.monotonic() - started)
            return _ended(order, before, FAILED_STATE, seconds, reason=event.fields["message"])
        figures = _figures(stage, files, event.fields["result"])
    seconds = attempt.add(time.monotonic() - started)
    stamp = new_stamp(key, seconds, figures, files.outputs(stage))
    save_stamp(files.stamp(stage), stamp)
    attempt.forget()
    return _ended(order, before, FINISHED, seconds, stamp)


def _check_folder(folder: Path) -> None:
    """Make the clip's folder. Refuses a link there, through which a stage would write outside the batch's folder."""
    files = ClipFiles(folder)
    for path in (folder, files.capture, files.evaluation, files.stamp("").parent):
        # `resolve` follows the junctions of Windows as well.
        if path.resolve() != folder.parent.resolve() / path.relative_to(folder.parent):
            raise EffigyError(f"{path} is a link to another place: remove it, then run again.")
    folder.mkdir(parents=True, exist_ok=True)


def _inputs(clip: Clip, stage: str, before: StageOutcome) -> dict[str, str | None]:
    inputs = {"before": before.run or None}
    if stage == CAPTURE and clip.footage:
        inputs["footage"] = hash_input(clip.footage)
    elif stage == CAPTURE and clip.capture:
        for name in ("capture.json", "landmarks.npz", "track.npz"):
            path = clip.capture / name
            inputs[name] = hash_input(path if path.is_file() else None)
    elif stage == TRACK:
        inputs["head"] = hash_input(clip.head)
    return inputs


def _carry_out(
    order: StageOrder, files: ClipFiles, resume: bool, report: Report, environment: dict[str, str]
) -> JobEvent:
    """Run the stage's job; returns its last event. A checkpoint that cannot be continued costs one more start."""
    parameters = parameters_of(order.clip, files, order.stage)
    if order.clip.head and order.stage in (TRAIN, EVALUATE):
        _register_head(order.clip.head, order.clip.expression_count)
    event = _run_job(order, parameters | ({"resume": True} if resume else {}), report, environment)
    if resume and event.name == FAILED and not _running.is_stopped(order.batch):
        remove_file(files.checkpoint)
        event = _run_job(order, parameters, report, environment)
    return event


def _register_head(file: Path, expression_count: int | None) -> None:
    """Let this machine find the head model by its fingerprint: another machine may have tracked the clip."""
    from ...head.registry import load_users_head, remember_head

    model, expression_count = load_users_head(file, expression_count=expression_count)
    remember_head(model, file, expression_count)


def _run_job(order: StageOrder, parameters: dict[str, Any], report: Report, environment: dict[str, str]) -> JobEvent:
    process = JobProcess(order.stage, parameters, environment=environment)
    with _running.kept(process, order.batch):
        for event in process.events():
            if event.name in (PROGRESS, MESSAGE):
                report({"clip": order.clip.name, "batch_stage": order.stage} | event.fields)
    return event


def _environment(threads: int, further: Mapping[str, str]) -> dict[str, str]:
    """Environment variables by which a stage's libraries use this many threads.

    A Dask worker has them at 1, for tasks that are themselves spread over its cores.
    """
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return dict.fromkeys(names, str(threads)) | dict(further)


def _figures(stage: str, files: ClipFiles, result: dict[str, Any]) -> dict[str, Any]:
    match stage:
        case "capture":
            return {"frames": result["frames"]}
        case "track":
            return {"frames": result["frames"], "tracked": result["sure"]}
        case "train":
            return {"megabytes": files.avatar.stat().st_size / 1e6}
    path = files.evaluation / "metrics.json"
    with reading(path, "evaluation", "evaluate the avatar again"):
        metrics = read_json(path, "evaluation", "evaluate the avatar again")
        return {"psnr": metrics["psnr"], "psnr_head": metrics["psnr_head"]}
