"""`python -m backend.service.job_process`: one job in a process of its own, which the worker starts.

The first line on stdin is the `JobOrder`. After it, a line is a request to stop. The end of stdin means that the worker
has ended: the job then stops as if it were cancelled, so that a training leaves its checkpoint and nothing is
half-written, and its process ends in any case after some seconds. This needs nothing from the operating system but
pipes. `JobEvent`s go to stdout, one a line: `progress`, `preview`, `message`, `face`, and one last `done`, `failed` or
`cancelled`.
"""

from __future__ import annotations

import _thread
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress

import numpy as np

from ..errors import Cancelled, EffigyError, missing_library
from ..progress import STOPPED_SENTENCE, Progress
from .array_files import ArrayFiles
from .job_messages import CANCELLED, DONE, FACE, FAILED, MESSAGE, PREVIEW, PROGRESS, JobEvent, JobOrder
from .protocol import Channel
from .stages import StageClock, describe_stage, shown_metrics
from .stop_signals import stopped_like_ctrl_c
from .whole_job import Standing, WholeJob

SECONDS_BETWEEN_UPDATES = 0.1
SECONDS_BETWEEN_PREVIEWS = 1.0
SECONDS_BETWEEN_DRAWN_PREVIEWS = 2.0
"""For commands that send no previews themselves: drawing one takes some milliseconds of the work's own thread."""
SECONDS_TO_STOP = {"cancel": (10.0, 30.0), "orphan": (4.0, 4.0)}
"""Seconds until a job that was asked to stop is interrupted, and from there until its process is ended; `orphan`: the
worker has ended."""

SECONDS_FOR_AN_ORPHAN = sum(SECONDS_TO_STOP["orphan"]) + 1
"""How long a job waits for another writer of its output: it may be the job of a worker that has just been killed."""


class ChannelProgress(Progress):
    """Sends progress to the worker, and previews for commands that send none themselves."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._clock: StageClock | None = None
        self.whole: WholeJob | None = None
        """Follows the stages as parts of the whole job, where it is known which there will be."""
        self._last_update = self._last_preview = self._last_drawn_preview = 0.0
        self.stopped = False
        self.shows_previews = True
        self.draw_preview: Callable[[int, int], np.ndarray | None] = lambda done, total: None
        """Draws an image (H, W, 3) uint8 of the work when `done` units of `total` are done, or returns None."""

    def update(self, stage: str, done: int, total: int, **metrics: float) -> None:
        now = time.monotonic()
        is_new_stage = self._clock is None or self._clock.stage != stage
        if self._clock is None or is_new_stage:
            self._clock = StageClock(stage, done, now)
        standing: Standing | None = self.whole.update(stage, done, total, now) if self.whole else None
        if not is_new_stage and done != total and now - self._last_update < SECONDS_BETWEEN_UPDATES:
            return
        self._last_update = now
        fields = {
            "stage": describe_stage(stage),
            "done": done,
            "total": total,
            "metrics": shown_metrics(metrics),
            "eta": self._clock.seconds_left(done, total, now),
            "rate": self._clock.rate(done, now),
        }
        if standing is not None:
            fields["whole"] = standing.message()
        self._channel.send(JobEvent(PROGRESS, fields).to_message())
        if self.shows_previews and now - self._last_drawn_preview >= SECONDS_BETWEEN_DRAWN_PREVIEWS:
            image = self.draw_preview(done, total)
            if image is not None:
                self._last_drawn_preview = now
                self._send_preview(image)

    def preview(self, image: np.ndarray) -> None:
        if self.shows_previews and time.monotonic() - self._last_preview >= SECONDS_BETWEEN_PREVIEWS:
            self._last_preview = time.monotonic()
            self._send_preview(image)

    def _send_preview(self, image: np.ndarray) -> None:
        # Where there is no room for a preview's array, hours of work must not be lost for it.
        with suppress(EffigyError):
            self._channel.send(JobEvent(PREVIEW, {"image": np.asarray(image, np.uint8)}).to_message())

    def message(self, text: str) -> None:
        self._channel.send(JobEvent(MESSAGE, {"text": text}).to_message())

    def face(self, time: float, age: float, channels: np.ndarray | None, head: np.ndarray | None) -> None:
        seen: dict[str, object] = {"time": time, "age": age}
        if channels is not None and head is not None:
            # Four digits are finer than the detector's noise, and each number is sent thirty times a second.
            seen |= {"channels": channels.round(4).tolist(), "head": head.round(5).tolist()}
        self._channel.send(JobEvent(FACE, seen).to_message())

    def cancelled(self) -> bool:
        return self.stopped


def main() -> None:
    arrays = ArrayFiles()
    channel = Channel(arrays)
    messages = channel.messages()
    first = next(messages, None)
    if not isinstance(first, dict):
        return
    order = JobOrder.from_message(first)
    arrays.inline = order.inline
    if order.folders:
        # The worker has checked them; by now they may hold arrays that the client is about to read. A job whose client
        # is gone, or whose folders are, has no previews.
        with suppress(EffigyError):
            arrays.use(order.folders, empty=False)
    progress = ChannelProgress(channel)
    progress.shows_previews = order.previews

    def watch_stdin() -> None:
        was_cancelled = next(messages, None) is not None
        progress.stopped = True
        if was_cancelled:
            # A second request to stop, or the worker's end, shortens the time to stop.
            threading.Thread(
                target=lambda: (next(messages, None), _end_within(*SECONDS_TO_STOP["orphan"])), daemon=True
            ).start()
        else:
            # The client, which would remove them, may have been killed together with the worker.
            arrays.close()
        _end_within(*SECONDS_TO_STOP["cancel" if was_cancelled else "orphan"])

    threading.Thread(target=watch_stdin, daemon=True).start()
    last = _carry_out(order, progress)
    try:
        channel.send(last.to_message())
    except Exception as error:
        traceback.print_exc()
        channel.send(JobEvent.with_sentence(FAILED, _defect(error)).to_message())
    with suppress(OSError):
        sys.stderr.flush()
    # Threads of libraries may delay the interpreter's exit; all files are written by now.
    os._exit(0)


def _end_within(seconds_until_interrupted: float, seconds_until_ended: float) -> None:
    time.sleep(seconds_until_interrupted)
    # Unwinds the main thread, which removes half-written files.
    _thread.interrupt_main()
    time.sleep(seconds_until_ended)
    os._exit(1)


def _carry_out(order: JobOrder, progress: ChannelProgress) -> JobEvent:
    """Do the work; returns the last event."""
    try:
        with stopped_like_ctrl_c():
            return JobEvent(DONE, {"result": _result_of(order, progress)})
    except (Cancelled, KeyboardInterrupt) as stop:
        return JobEvent.with_sentence(CANCELLED, str(stop) or STOPPED_SENTENCE)
    except EffigyError as error:
        return JobEvent.with_sentence(FAILED, str(error))
    except ImportError as error:
        traceback.print_exc()
        lacking = f"The backend's Python lacks {error.name or error}: install it again."
        return JobEvent.with_sentence(FAILED, missing_library(error) or lacking)
    except Exception as error:
        traceback.print_exc()
        return JobEvent.with_sentence(FAILED, _defect(error))


def _defect(error: Exception) -> str:
    return (
        f"The job failed because of a defect in Effigy ({type(error).__name__}: {error}); the worker's log holds "
        "the details."
    )


def _result_of(order: JobOrder, progress: ChannelProgress) -> dict[str, object]:
    if order.kind == "doctor":
        from .doctor import examine

        return {"rows": [[finding.subject, finding.state, finding.explanation] for finding in examine()]}
    from .commands import run
    from .job_specs import answer_of, read_job
    from .job_steps import steps_of
    from .previews import WorkPreview
    from .results import CaptureResult

    results = []
    job = read_job(order.kind, order.params)
    started = time.monotonic()
    if steps := steps_of(job.requests):
        progress.whole = WholeJob(steps, started)
    for request in job.requests:
        progress.raise_if_cancelled()
        progress.draw_preview = WorkPreview(request).draw
        results.append(run(request, progress, "Blender:" if order.previews else "batch:", SECONDS_FOR_AN_ORPHAN))
        if isinstance(results[-1], CaptureResult) and results[-1].findings:
            # Before the footage is tracked: it may be better to stop and film again.
            progress.message(results[-1].findings)
    return answer_of(results)


if __name__ == "__main__":
    main()
