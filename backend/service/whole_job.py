"""How far a whole job is: one share and one time left over all of its stages.

A job is a list of steps with the seconds that each was measured to take. What the steps have taken so far says how much
faster or slower this machine and this footage are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Final

TIMED: Final = "timed"
"""The kind of work that ends by the clock: it takes as long as it was asked to on every machine."""
SECONDS_OF_TRUST: Final = 3.0
"""For so many seconds a kind of work is expected to be half as good a witness as the measured durations."""
HALF_LIFE: Final = 10.0
"""After so many measured seconds of its kind a step is half as good a witness."""
MOST_BORROWED: Final = 2.0
"""How far the pace of one kind of work is assumed for another that has not begun: reading 4K footage is slow on a
machine that may solve fast."""


@dataclass(frozen=True)
class Step:
    """A stage of a job, as `progress.update` names it."""

    stage: str
    title: str
    """What is being done, for a user. Neighbours with one title are shown as one step."""
    kind: str
    """Kind of work; all steps of one kind are expected to be equally much faster or slower than measured."""
    seconds: float
    """Measured duration without the lead and without what the frames add."""
    per_frame: float = 0.0
    """Seconds that each frame adds."""
    lead: float = 0.0
    """Seconds before the step's first unit of work: libraries and models are loaded, kernels are compiled."""
    most_frames: float = math.inf
    """Frames beyond so many add nothing, because the step uses no more."""
    counts_frames: bool = False
    """Whether `total` of this stage is the number of the clip's frames."""

    def duration(self, frames: int) -> float:
        return self.lead + self.work(frames)

    def work(self, frames: int) -> float:
        """Seconds without the lead."""
        return self.seconds + self.per_frame * min(frames, self.most_frames)


@dataclass(frozen=True)
class Standing:
    """Where a job stands."""

    share: float
    """Of the whole job, 0 to 1; never falls."""
    ahead: float
    """`share` at the end of the current step."""
    left: float
    """Seconds to the end of the job."""
    step: int
    """Number of the shown step, counted from 1."""
    steps: int
    title: str

    def message(self) -> dict[str, Any]:
        """As `job.progress` carries it."""
        return {
            "share": round(self.share, 4),
            "ahead": round(self.ahead, 4),
            "left": round(self.left, 1),
            "step": self.step,
            "steps": self.steps,
            "title": self.title,
        }


class WholeJob:
    """Follows the reports of a job with these steps."""

    def __init__(self, steps: Sequence[Step], now: float, frames: int = 300) -> None:
        """`now`: seconds of the clock that `update` gets; `frames`: how many the clip has, until a stage reports it."""
        self._steps = list(steps)
        self._frames = frames
        self._now = self._started = now
        self._current = 0
        self._done = 0.0
        """Completed fraction of the current step."""
        self._first = 0.0
        """Fraction of the current step that was done when it began, because an earlier run did it."""
        self._led = False
        """Whether the lead of the current step is over."""
        self._spent = [0.0] * len(self._steps)
        """Seconds that each step has taken."""
        self._shown: Standing | None = None

    def update(self, stage: str, done: int, total: int, now: float) -> Standing | None:
        """Where the job stands after `done` of `total` units of a stage; None before the first known stage."""
        fraction = min(1.0, done / total) if total else 0.0
        found = self._find(stage, fraction)
        self._spent[self._current] += now - self._now
        self._now = now
        if found is None:
            return self._shown
        is_new = found != self._current or self._shown is None
        # A step reports that it begins, if at all, with nothing done.
        self._led = not is_new or fraction > 0
        if is_new:
            for index in range(self._current + (self._shown is not None), found):
                # A step that did not happen takes no time.
                self._steps[index] = replace(self._steps[index], seconds=0.0, per_frame=0.0, lead=0.0)
            self._current, self._first, self._done = found, fraction if fraction < 1 else 0.0, 0.0
        if self._steps[found].counts_frames and total:
            self._frames = total
        self._done = max(self._done, (fraction - self._first) / (1 - self._first))
        self._shown = self._standing()
        return self._shown

    def _find(self, stage: str, fraction: float) -> int | None:
        """The step that a report belongs to: the current one, or the next with this stage. A stage may be repeated, and
        then begins again with a smaller fraction.
        """
        current = self._steps[self._current]
        if current.stage == stage and (self._shown is None or fraction * (1 - self._first) >= self._done - 0.02):
            return self._current
        later = range(self._current + 1, len(self._steps))
        again = next((index for index in later if self._steps[index].stage == stage), None)
        return self._current if again is None and current.stage == stage else again

    def _standing(self) -> Standing:
        here = self._steps[self._current]
        work = here.work(self._frames) * (1 - self._first)
        done = self._done * work + (here.lead if self._led else 0.0)
        unfinished = here.lead + work - done
        pace = self._paces(done)
        elapsed = self._now - self._started
        left = pace[here.kind] * unfinished
        left += sum(pace[step.kind] * step.duration(self._frames) for step in self._steps[self._current + 1 :])
        whole = max(elapsed + left, 1e-9)
        ahead = (elapsed + pace[here.kind] * unfinished) / whole
        share = max(elapsed / whole, self._shown.share if self._shown else 0.0)
        titles = [step.title for step in self._steps]
        numbers = [1]
        for before, title in pairwise(titles):
            numbers.append(numbers[-1] + (title != before))
        return Standing(
            min(share, 1.0), min(max(share, ahead), 1.0), left, numbers[self._current], numbers[-1], here.title
        )

    def _paces(self, done: float) -> dict[str, float]:
        """For each kind of work, by how much longer it takes than measured. `done`: the measured seconds of what the
        current step has done. Later steps are better witnesses: other programs come and go.
        """
        kinds = dict.fromkeys(step.kind for step in self._steps)
        spent, measured, since = (dict.fromkeys(kinds, 0.0) for _ in range(3))
        for index in range(self._current, -1, -1):
            kind = self._steps[index].kind
            seconds = done if index == self._current else self._steps[index].duration(self._frames)
            weight = 0.5 ** (since[kind] / HALF_LIFE)
            spent[kind] += weight * self._spent[index]
            measured[kind] += weight * seconds
            since[kind] += seconds
        pace = {kind: (spent[kind] + SECONDS_OF_TRUST) / (measured[kind] + SECONDS_OF_TRUST) for kind in kinds}
        begun = self._steps[self._current].kind
        borrowed = min(max(pace[begun], 1 / MOST_BORROWED), MOST_BORROWED)
        return {kind: 1.0 if kind == TIMED else pace[kind] if spent[kind] else borrowed for kind in kinds}
