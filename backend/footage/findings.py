"""What a capture shows, in one line for an artist, before anybody trains for an hour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

import numpy as np

from ..formats.capture import Capture, FrameFlag
from ..formats.frame_times import are_even
from .decode import FootageInfo
from .face_view import FaceView, Outside
from .picture_area import Area

BLURRED: Final = 0.68
"""`FaceView.blur` from which a face is blurred. The frames of four sharp clips lie at 0.37 to 0.56; blurred by 1.3 % of
the face's width, they lie at 0.67 to 0.80."""
_DARK: Final = 25.0
"""`FaceView.light` below which a face is underexposed. The faces of four clips lie at 85 to 159. With less light and
the same noise, mattes lose up to a fifth of the person from here on."""
_BLACK: Final = 10.0
"""Below this, mattes lose a tenth of the person in most clips, and all of it in some."""
_LEAST_FRAMES: Final = 50
"""Good frames: with fewer than two seconds there is nothing to learn but one expression."""
_FEW_FRAMES: Final = 250
"""Good frames: ten seconds, the length of the shortest clip of which good avatars were made."""
_LEAST_WIDTH: Final = 64
"""Pixels: lids and lips of a narrower face are thinner than 2 pixels."""
_NARROW_WIDTH: Final = 120
"""Pixels: in a narrower face an iris has less than 5 pixels."""
_LITTLE_TURN: Final = 20.0
"""Degrees from the farthest left to the farthest right: below, both ears stay hidden or foreshortened."""
_GAP: Final = 0.5
"""Seconds without a frame that are a gap and no slow rate."""
_RATE_SPAN: Final = 10
"""Intervals between frames over which the rate is measured."""
_MOST_RUNS: Final = 2
"""Places that are named."""
_THIN_BAR: Final = 0.01
"""Share of the image's side: thinner bars are not worth a word."""


@dataclass(frozen=True)
class Findings:
    """The line, and whether the capture is good for training."""

    line: str
    weakness: str
    """Why training on the capture is not possible, or will not give a good avatar; empty for a good one."""
    trainable: bool

    def __str__(self) -> str:
        return self.line


_GUESSED = "expressions and what it does not show are guessed: film the person for more"
"""Of a photograph."""


@dataclass(frozen=True)
class _Faces:
    """What the faces of a clip have in common."""

    width: float
    light: float
    """Medians of those of `FaceView`."""
    blurred: float
    """Share of the faces."""

    @classmethod
    def of(cls, seen: list[FaceView]) -> _Faces:
        width, light = np.median([(view.width, view.light) for view in seen], 0)
        return cls(float(width), float(light), float(np.mean([view.blur > BLURRED for view in seen])))


def findings_of(capture: Capture, views: Sequence[FaceView | None], info: FootageInfo, area: Area) -> Findings:
    """Sums up a capture. `views` (F) are what its frames show, None without a face."""
    seen = [view for view in views if view is not None]
    parts = [_faces(capture, info), *_outside(views, info)]
    several = int(((capture.flags & FrameFlag.SEVERAL_FACES) != 0).sum())
    if several:
        parts.append(f"several faces in {several}")
    left, right = _turned(seen)
    if not info.still:
        parts.append(f"head turned up to {left:.0f}° left and {right:.0f}° right")
    parts += _times(capture, info)
    parts += _image(info, area)
    faces = _Faces.of(seen)
    parts.append(f"face {faces.width:.0f} pixels wide")
    if faces.light < _DARK:
        parts.append("underexposed")
    if round(100 * faces.blurred):
        parts.append(f"blurred in {100 * faces.blurred:.0f} %")
    refusal = "" if info.still else _refusal(capture, seen, faces)
    weakness = refusal or _GUESSED * info.still or _weakness(capture, seen, left + right, faces)
    if refusal:
        verdict = f"too little for training, because {refusal}. The rig and the performance can be used"
    elif info.still:
        verdict = f"enough for the preset Instant, but {weakness}"
    elif weakness:
        verdict = f"enough for training, but {weakness}"
    else:
        verdict = "good for training"
    return Findings(f"{', '.join(parts)}: {verdict}.", weakness, not refusal)


def _refusal(capture: Capture, seen: list[FaceView], faces: _Faces) -> str:
    """Why no avatar can be trained, with what would help; empty if one can."""
    good = int((capture.flags == 0).sum())
    for part, word in ((Outside.CHIN, "chin"), (Outside.FOREHEAD, "forehead"), (Outside.SIDE, "side of the face")):
        count = sum(bool(view.outside & part) for view in seen)
        if good < _LEAST_FRAMES and count > len(seen) / 2:
            where = "all frames" if count == len(seen) else f"{count} of {len(seen)} frames"
            return f"the {word} is outside the picture in {where}: use the uncropped footage, or film the whole head"
    if good < _LEAST_FRAMES:
        return f"only {good} frames show the whole face of one person: use {_LEAST_FRAMES} or more, better 30 seconds"
    if faces.width < _LEAST_WIDTH:
        return f"the face is only {faces.width:.0f} pixels wide: film from nearer, or in a higher resolution"
    if faces.light < _BLACK:
        return "the face is nearly black: film with more light, or brighten the footage"
    if faces.blurred > 0.5:
        return "most frames are blurred: focus on the eyes, and film with more light"
    return ""


def _weakness(capture: Capture, seen: list[FaceView], turn: float, faces: _Faces) -> str:
    """What an avatar will lack; empty if nothing."""
    good = int((capture.flags == 0).sum())
    hair = sum(bool(view.outside & Outside.HAIR) for view in seen)
    found = []
    if good < _FEW_FRAMES:
        found.append(f"{good} good frames are few: half a minute shows more expressions")
    if turn < _LITTLE_TURN:
        found.append("the head hardly turns, so its sides are guessed")
    if hair > len(seen) / 2:
        found.append("the hair ends at the upper edge of the picture")
    if faces.width < _NARROW_WIDTH:
        found.append("the face is small, so eyes and lips stay soft")
    if faces.light < _DARK:
        found.append("with so little light the outline of the head is unsure")
    if faces.blurred > 0.2:
        found.append("blurred frames make it soft")
    return ", and ".join(found)


def _faces(capture: Capture, info: FootageInfo) -> str:
    absent = (capture.flags & FrameFlag.NO_FACE) != 0
    if info.still:
        return "A photograph with a face"
    found = f"{int((~absent).sum())} of {len(absent)} frames with a face"
    if absent.any():
        found += f" ({int(absent.sum())} without, {_places(absent, capture, info)})"
    return found


def _places(chosen: np.ndarray, capture: Capture, info: FootageInfo) -> str:
    """Where the chosen frames (F,) bool are: seconds of a film, numbers of a sequence's images."""
    runs = [[index for index, _ in run] for value, run in groupby(enumerate(chosen), key=lambda each: each[1]) if value]
    named = [_span(run[0], run[-1], capture, info) for run in runs[:_MOST_RUNS]]
    unit = "" if info.sequence else " s"
    return ", ".join(named) + unit + (" and elsewhere" if len(runs) > _MOST_RUNS else "")


def _span(first: int, last: int, capture: Capture, info: FootageInfo) -> str:
    if info.sequence:
        start, end = (str(capture.frame_numbers[index] + 1) for index in (first, last))
    else:
        start, end = (f"{capture.frame_times[index]:.1f}" for index in (first, last))
    return start if start == end else f"{start}–{end}"


def _outside(views: Sequence[FaceView | None], info: FootageInfo) -> list[str]:
    seen = [view for view in views if view is not None]
    words = {Outside.CHIN: "chin", Outside.FOREHEAD: "forehead", Outside.SIDE: "side of the face", Outside.HAIR: "hair"}
    found = []
    for part, word in words.items():
        count = sum(bool(view.outside & part) for view in seen)
        # Where the forehead is outside, so is the hair.
        if count and not (part == Outside.HAIR and any(view.outside & Outside.FOREHEAD for view in seen)):
            where = "" if info.still else f" in {count if count < len(seen) else 'all'}"
            found.append(f"{word} outside the picture{where}")
    return found


def _turned(seen: list[FaceView]) -> tuple[float, float]:
    """Degrees to the person's left and right; single frames, in which the detector may err, are left out."""
    yaws = [view.yaw for view in seen]
    low, high = np.quantile(yaws, [0.02, 0.98])
    return max(0.0, float(high)), max(0.0, -float(low))


def _times(capture: Capture, info: FootageInfo) -> list[str]:
    if info.sequence:
        first, last = (int(capture.frame_numbers[index]) + 1 for index in (0, -1))
        missing = info.sequence.missing(first, last)
        return [f"images {missing} missing"] if missing else []
    intervals = np.diff(capture.frame_times)
    found = []
    for index in np.flatnonzero(intervals > _GAP)[:_MOST_RUNS]:
        found.append(f"no frames from {capture.frame_times[index]:.1f} to {capture.frame_times[index + 1]:.1f} s")
    flowing = intervals[(intervals > 0) & (intervals <= _GAP)]
    if len(flowing) > 1 and not are_even(np.append(0, np.cumsum(flowing)), capture.fps):
        # Over some frames, because intervals that alternate are no change of the rate.
        span = min(_RATE_SPAN, len(flowing))
        rates = span / np.convolve(flowing, np.ones(span), "valid")
        slow, fast = np.quantile(rates, [0.05, 0.95])
        found.append(f"rate falls from {fast:.3g} to {slow:.3g}" if slow < 0.9 * fast else "rate varies")
    return found


def _image(info: FootageInfo, area: Area) -> list[str]:
    found = []
    above_or_below = info.height - area.height > _THIN_BAR * info.height
    beside = info.width - area.width > _THIN_BAR * info.width
    if above_or_below or beside:
        found.append("bars on all sides" if above_or_below and beside else "pillarboxed" if beside else "letterboxed")
    if info.field_order:
        found.append("interlaced (made into whole images)")
    if info.turn:
        found.append(f"turned by {info.turn}°")
    return found
