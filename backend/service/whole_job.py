"""How far a whole job is: one share and one time left over all of its stages.

A job is a list of steps with the seconds that each was measured to take. What the steps have taken so far says how much
faster or slower this machine and this footage are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Final

TIMED: Final = "timed"
"""The kind of work that ends by the clock: it takes as long as it was asked to on every machine."""
SECONDS_OF_TRUST: Final = 2.0
"""For so many seconds a kind of work is expected to be half as good a witness as the measured durations."""
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
    """Measured duration without what the frames add."""
    per_frame: float = 0.0
    """Seconds that each frame adds."""
    counts_frames: bool = False
    """Whether `total` of this stage is the number of the clip's frames."""

    def duration(self, frames: int) -> float:
        return self.seconds + self.per_frame * frames


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
        self._spent = dict.fromkeys((step.kind for step in self._steps), 0.0)
        self._shown: Standing | None = None

    def update(self, stage: str, done: int, total: int, now: float) -> Standing | None:
        """Where the job stands after `done` of `total` units of a stage; None before the first known stage."""
        fraction = min(1.0, done / total) if total else 0.0
        found = self._find(stage, fraction)
        self._spent[self._steps[self._current].kind] += now - self._now
        self._now = now
        if found is None:
            return self._shown
        if found != self._current or self._shown is None:
            for index in range(self._current + (self._shown is not None), found):
                # A step that did not happen takes no time.
                self._steps[index] = replace(self._steps[index], seconds=0.0, per_frame=0.0)
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
        durations = [step.duration(self._frames) for step in self._steps]
        durations[self._current] *= 1 - self._first
        finished = [1.0] * self._current + [self._done] + [0.0] * (len(self._steps) - self._current - 1)
        measured, rest = dict.fromkeys(self._spent, 0.0), dict.fromkeys(self._spent, 0.0)
        for step, duration, share in zip(self._steps, durations, finished, strict=True):
            measured[step.kind] += share * duration
            rest[step.kind] += (1 - share) * duration
        pace = self._paces(measured)
        elapsed = self._now - self._started
        left = sum(pace[kind] * seconds for kind, seconds in rest.items())
        whole = max(elapsed + left, 1e-9)
        here = self._steps[self._current]
        ahead = (elapsed + pace[here.kind] * (1 - self._done) * durations[self._current]) / whole
        share = max(elapsed / whole, self._shown.share if self._shown else 0.0)
        titles = [step.title for step in self._steps]
        numbers = [1]
        for before, title in pairwise(titles):
            numbers.append(numbers[-1] + (title != before))
        return Standing(
            min(share, 1.0), min(max(share, ahead), 1.0), left, numbers[self._current], numbers[-1], here.title
        )

    def _paces(self, measured: dict[str, float]) -> dict[str, float]:
        """For each kind of work, by how much longer it takes than measured."""
        pace = {
            kind: (self._spent[kind] + SECONDS_OF_TRUST) / (seconds + SECONDS_OF_TRUST)
            for kind, seconds in measured.items()
        }
        begun = self._steps[self._current].kind
        borrowed = min(max(pace[begun], 1 / MOST_BORROWED), MOST_BORROWED)
        return {kind: 1.0 if kind == TIMED else pace[kind] if self._spent[kind] else borrowed for kind in pace}
