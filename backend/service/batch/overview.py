"""The progress of a whole batch: how much of it is done, what is being worked on, and how long the rest will take."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from .sheet import Clip
from .stage_run import FINISHED
from .stages import TRAIN, stages_of

IN_WORDS: Final = {
    "capture": "cutting out the head",
    "track": "following the face",
    "train": "training the avatar",
    "evaluate": "checking the avatar",
}
SECONDS_PER_FRAME: Final = {"capture": 0.03, "track": 0.1, "evaluate": 0.5}
"""On two cores, per frame of the clip; used until a clip of the batch has finished the stage. The first two are those
of bench/results/tracking.md; evaluating 48 frames took 33 to 53 seconds on a busy machine (bench/results/batch.md)."""
MOST_BEFORE_THE_END: Final = 0.99
TRAINED: Final = "Training"
"""The part of a training job that reports the time left for the whole training (`backend.service.stages`)."""


@dataclass
class _Stage:
    began: float | None = None
    """Seconds of the clock; None before it begins."""
    total_seconds: float | None = None
    """How long it will take in all, as the stage itself estimates; None until it has said so."""
    seconds: float | None = None
    """How long it took; None until it has ended."""

    def seconds_so_far(self, now: float, running: bool) -> float:
        if self.seconds is not None:
            return self.seconds
        return now - self.began if running and self.began is not None else 0.0


@dataclass
class _Progress:
    """The progress of one clip."""

    clip: Clip
    stages: dict[str, _Stage]
    frames: int | None = None
    ended: bool = False


class Overview:
    """Takes the reports of stages, from any thread."""

    def __init__(self, clips: Sequence[Clip], clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._clips = {clip.name: _Progress(clip, {stage: _Stage() for stage in stages_of(clip)}) for clip in clips}

    def report(self, report: dict[str, Any]) -> None:
        """See `backend.service.batch.stage_run.Report`."""
        with self._lock:
            progress, now = self._clips[report["clip"]], self._clock()
            stage = progress.stages[report["batch_stage"]]
            if "state" in report:
                progress.frames = report["figures"].get("frames", progress.frames)
                if report["state"] == FINISHED:
                    stage.seconds = report["seconds"]
                progress.ended = report["state"] != FINISHED or stage is list(progress.stages.values())[-1]
            elif "stage" in report:
                if report["batch_stage"] == TRAIN and report["stage"] == TRAINED and report["eta"] is not None:
                    stage.total_seconds = stage.seconds_so_far(now, running=True) + report["eta"]
            elif "text" not in report:
                # Also where a lost machine's work begins again elsewhere.
                progress.stages[report["batch_stage"]] = _Stage(began=now)

    def end(self, clip: str) -> None:
        """Note that nothing more is done for this clip, whatever became of it."""
        with self._lock:
            self._clips[clip].ended = True

    @property
    def share(self) -> float | None:
        """How much of the work is done, measured by its time, 0 to 1; None while the time of the rest is not known."""
        left = self.seconds_left(1)
        if left is None:
            return None
        now = self._clock()
        with self._lock:
            done = sum(
                stage.seconds_so_far(now, running=not progress.ended)
                for progress in self._clips.values()
                for stage in progress.stages.values()
            )
            if all(progress.ended for progress in self._clips.values()):
                return 1.0
        # A stage that takes longer than was expected has no time left and is not done.
        return min(done / (done + left), MOST_BEFORE_THE_END) if left else MOST_BEFORE_THE_END

    def sentence(self, at_once: int) -> str:
        """What is being done, and the time left. `at_once`: how many clips are worked on at the same time."""
        if not at_once:
            return "No machine of the cluster is left: waiting for one"
        seconds = self.seconds_left(at_once)
        with self._lock:
            ended = sum(progress.ended for progress in self._clips.values())
            work = [
                f"{progress.clip.name}: {IN_WORDS[name]}"
                for progress in self._clips.values()
                for name, stage in progress.stages.items()
                if stage.began is not None and stage.seconds is None and not progress.ended
            ]
        parts = [f"{ended} of {len(self._clips)} clips done", "; ".join(work[:3])]
        if len(work) > 3:
            parts[1] += f"; {len(work) - 3} more in progress"
        if ended < len(self._clips):
            parts.append("time left not known yet" if seconds is None else time_left_in_words(seconds))
        return ", ".join(part for part in parts if part)

    def seconds_left(self, at_once: int) -> float | None:
        """None where nothing is known yet about a stage that is still to be done."""
        with self._lock:
            left = [self._seconds_left_of(each) for each in self._clips.values() if not each.ended]
            if any(seconds is None for seconds in left):
                return None
            known = [seconds for seconds in left if seconds is not None]
            # No clip is ever worked on twice at the same time.
            return max(sum(known) / at_once, max(known, default=0.0))

    def _seconds_left_of(self, progress: _Progress) -> float | None:
        left = 0.0
        for name, stage in progress.stages.items():
            if stage.seconds is not None:
                continue
            total = stage.total_seconds or self._usual_seconds(name, progress)
            if total is None:
                return None
            left += max(total - stage.seconds_so_far(self._clock(), running=True), 0.0)
        return left

    def _usual_seconds(self, stage: str, progress: _Progress) -> float | None:
        """How long a stage takes for this clip, by the clips that have done it, else by what was measured before."""
        if stage == TRAIN:
            if progress.clip.minutes:
                return 60 * progress.clip.minutes
            alike = [
                each.stages[TRAIN].seconds or each.stages[TRAIN].total_seconds
                for each in self._clips.values()
                if each.clip.preset == progress.clip.preset and each.clip.minutes is None
            ]
            known = [seconds for seconds in alike if seconds]
            return sum(known) / len(known) if known else None
        frames = progress.frames or self._usual_frames()
        if frames is None:
            return None
        done = [
            (each.stages[stage].seconds or 0.0, each.frames)
            for each in self._clips.values()
            if stage in each.stages and each.stages[stage].seconds and each.frames
        ]
        per_frame = (
            sum(seconds for seconds, _ in done) / sum(count for _, count in done) if done else SECONDS_PER_FRAME[stage]
        )
        return per_frame * frames

    def _usual_frames(self) -> float | None:
        known = [each.frames for each in self._clips.values() if each.frames]
        return sum(known) / len(known) if known else None


def time_left_in_words(seconds: float) -> str:
    minutes = seconds / 60
    if minutes < 1.5:
        return "about a minute left"
    if minutes < 90:
        return f"about {round(minutes)} minutes left"
    hours = round(minutes / 30) / 2
    return f"about {hours:g} hours left"
