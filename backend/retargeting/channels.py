"""ARKit's channels over time, as a recording holds them, and the track that they make on the open head.

The track's expressions are these channels. Its body does not move; the head's rotation is the neck's. The head's angles
are in ARKit's axes, which are those of head space: positive yaw is to the person's left, positive pitch is down,
positive roll is to the person's right. The sign of the eyes' angles differs between programs; it is inferred from the
eyeLook channels of the same rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final

import numpy as np
from scipy.spatial.transform import Rotation

from ..errors import EffigyError
from ..footage.detector import SCORE_NAMES
from ..formats.capture import FrameFlag
from ..formats.track import Track
from ..head.jaw import GAZE_ANGLES, JAW_SHAPES, jaw_rotations_of_shapes, lips_over_open_jaw
from ..head.model import EYE_L, EYE_R, JAW, NECK, HeadModel
from ..progress import Progress
from ..reading import Unlike, shown

NOUN: Final = "performance"
REMEDY: Final = "export the take again"
READ: Final = (
    "choose a capture, a track (.npz), a table with ARKit's names as Live Link Face writes it (.csv), an Audio2Face "
    "export with ARKit's names (.json) or a Face Cap recording (.txt)"
)
"""What to do with a file that is no performance."""
MIN_CHANNELS: Final = 20
"""Channels of a file that is taken for a performance."""
MAX_GAP: Final = 0.1
"""Seconds without a row that are interpolated silently; longer gaps count as frames without a face."""
MOST_FRAMES: Final = 300_000
"""Rows of a recording, and frames between its first and its last time: 83 minutes at 60 frames a second, as many as
those of a capture. The cells of a table of so many rows take 1.5 GB while it is read."""
MOST_CHANNEL: Final = 2.0
"""ARKit's channels reach 1; a calibrated take exceeds that a little."""
_DISTANCE, _SIZE = 1.0, 512


@dataclass(frozen=True)
class Recording:
    """The R rows of a recording, in the order of time."""

    times: np.ndarray
    """(R,) seconds."""
    rate: Fraction
    """Frames a second."""
    channels: np.ndarray
    """(R, 52) in the order of SCORE_NAMES. NaN: a column that the file lacks, or a cell without a number; a row of
    them alone is a frame without a face."""
    head: np.ndarray
    """(R, 3) yaw, pitch, roll in radians; NaN where missing."""
    eyes: np.ndarray
    """(R, 2, 2): left and right eye's yaw and pitch in radians; NaN where missing."""


def _plain(name: str) -> str:
    """A column's name without its owner, case and spaces: `head|blendShape1.eyeBlink_L` -> `eyeblinkl`."""
    return re.sub(r"[^a-z0-9]", "", re.split(r"[.:/|]", name.strip().lower())[-1])


_CHANNELS: Final = {name.lower(): index for index, name in enumerate(SCORE_NAMES)} | {
    name.replace("Left", "L").replace("Right", "R").lower(): index
    for index, name in enumerate(SCORE_NAMES)
    if name.endswith(("Left", "Right"))
}


def columns_of(names: Iterable[str]) -> dict[int | str, int]:
    """Where among these names each channel is, by its index in SCORE_NAMES, and each other one, by its plain name."""
    found: dict[int | str, int] = {}
    for column, name in enumerate(names):
        plain = _plain(name)
        found.setdefault(_CHANNELS.get(plain, plain), column)
    return found


def count_known(names: Iterable[str]) -> int:
    """How many of ARKit's 52 channels are among these names."""
    return sum(isinstance(key, int) for key in columns_of(names))


def check_names(names: list[str]) -> None:
    """Raises `Unlike` where too few of these names are ARKit's."""
    known = count_known(names)
    if known < MIN_CHANNELS:
        listed = shown(", ".join(name for name in names if name), 120)
        raise Unlike(f"it has {known} of ARKit's 52 channels; its columns are {listed or 'without names'}", READ)


def check_range(channels: np.ndarray) -> None:
    """Raises `Unlike` for numbers that are no channels: percents, or numbers whose decimal point was lost."""
    beyond = np.abs(channels) > MOST_CHANNEL
    if beyond.sum() > 0.01 * max(1, np.count_nonzero(np.nan_to_num(channels))):
        row, column = np.argwhere(beyond)[0]
        raise Unlike(
            f"{SCORE_NAMES[column]} is {channels[row, column]:,.6g} where ARKit's channels go from 0 to 1: percents, "
            "or decimal points that an office program took for something else",
            "export the take again, and do not save it in an office program",
        )


def track_of(recording: Recording, model: HeadModel, path: Path, progress: Progress) -> Track:
    """The recording as a track of `model`, which must have the 52 ARKit names, on even frames."""
    times, rate = recording.times - recording.times[0], recording.rate
    count = max(2, round(float(times[-1] * rate)) + 1)
    if count > MOST_FRAMES:
        raise EffigyError(
            f"{path.name} lasts {float(times[-1]) / 3600:,.1f} hours by its timecodes, which are more than "
            f"{MOST_FRAMES} frames: export the take again, or a part of it."
        )
    grid = np.arange(count) / float(rate)
    even = count == len(times) and np.abs(times - grid).max() < 0.6 / float(rate)

    def on_grid(values: np.ndarray) -> np.ndarray:
        """Values (R, …) on the even grid of frames: the phone drops rows when it is busy."""
        if even:
            return values
        flat = values.reshape(len(values), -1)
        return np.stack([np.interp(grid, times, column) for column in flat.T], 1).reshape(count, *values.shape[1:])

    channels = recording.channels
    missing = [name for name, column in zip(SCORE_NAMES, channels.T, strict=True) if np.isnan(column).all()]
    if missing:
        progress.message(
            f"{path.name} has no {', '.join(missing[:4])}{' and others' if len(missing) > 4 else ''}: "
            "they stay at zero."
        )
    lost = ~np.any(np.nan_to_num(channels), axis=1)
    since = np.diff(times, prepend=times[0])
    flags = np.zeros(count, np.int32)
    after = np.searchsorted(times, grid).clip(1, len(times) - 1)
    nearest = after - (grid - times[after - 1] <= times[after] - grid)
    flags[lost[nearest]] = FrameFlag.NO_FACE
    for row in np.flatnonzero(since > max(MAX_GAP, 1.5 / float(rate))):
        flags[(grid > times[row - 1] + 1e-6) & (grid < times[row] - 1e-6)] = FrameFlag.NO_FACE
    channels = on_grid(np.clip(_filled(channels, times), 0, 1))
    rotations = np.zeros((count, 5, 3))
    head, eyes = _filled(recording.head, times), _filled(recording.eyes.reshape(len(times), 4), times)
    rotations[:, NECK] = Rotation.from_euler("YXZ", on_grid(head)).as_rotvec()
    rotations[:, EYE_L], rotations[:, EYE_R] = _gaze(channels, on_grid(eyes.reshape(-1, 2, 2)))
    return _track(model, channels, rotations, rate, flags)


def _filled(values: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Values (R, C) with each NaN replaced by what its neighbours in time say, or by zero in a column without any."""
    made = values.copy()
    for column in made.T:
        known = ~np.isnan(column)
        if not known.all():
            column[~known] = np.interp(times[~known], times[known], column[known]) if known.any() else 0.0
    return made


def _track(model: HeadModel, channels: np.ndarray, rotations: np.ndarray, rate: Fraction, flags: np.ndarray) -> Track:
    """Channels (F, 52) and rotations (F, 5, 3) as a track; the jaw's channels become rotations of its joint."""
    if set(model.expression_names) != set(SCORE_NAMES):
        raise EffigyError(f'The head model "{model.name}" has no ARKit names: read ARKit channels on the open head.')
    count = len(channels)
    jaw = jaw_rotations_of_shapes(model)
    channels = channels.copy()
    for name in JAW_SHAPES:
        column = SCORE_NAMES.index(name)
        rotations[:, JAW] += channels[:, [column]] * jaw[name]
        channels[:, column] = 0
    expression = channels[:, [SCORE_NAMES.index(name) for name in model.expression_names]]
    camera = np.diag((1.0, -1.0, -1.0, 1.0))
    camera[2, 3] = _DISTANCE
    return Track(
        head_name=model.name,
        head_fingerprint=model.fingerprint,
        identity=np.zeros(model.shape_basis.shape[2], np.float32),
        expression=lips_over_open_jaw(model, expression, rotations).astype(np.float32),
        rotations=rotations.astype(np.float32),
        head_to_camera=np.tile(camera, (count, 1, 1)).astype(np.float32),
        intrinsics=np.array(((2 * _SIZE, 0, _SIZE / 2), (0, 2 * _SIZE, _SIZE / 2), (0, 0, 1)), np.float32),
        size=_SIZE,
        fps=rate,
        residual=np.full(count, np.nan, np.float32),
        flags=flags,
        training_count=0,
    )


def _gaze(channels: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Axis-angle (F, 3) of the left and the right eye.

    They come from the eyes' own angles (F, 2, 2) where these agree with the eyeLook channels, and from the channels
    otherwise.
    """
    eyes = []
    for index, (side, outwards) in enumerate((("Left", 1.0), ("Right", -1.0))):
        look = {way: channels[:, SCORE_NAMES.index(f"eyeLook{way}{side}")] for way in ("In", "Out", "Up", "Down")}
        by_channels = (
            GAZE_ANGLES[0] * outwards * (look["Out"] - look["In"]),
            GAZE_ANGLES[1] * (look["Down"] - look["Up"]),
        )
        yaw, pitch = (_with_sign_of(columns[:, index, axis], by_channels[axis]) for axis in range(2))
        eyes.append(np.stack((pitch, yaw, np.zeros_like(yaw)), 1))
    return eyes[0], eyes[1]


def _with_sign_of(angle: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """The angle (F,) with the sign that correlates with the reference (F,); the reference where they do not
    correlate.
    """
    if min(np.ptp(angle), np.ptp(reference)) < 1e-3:
        return reference if np.ptp(reference) >= np.ptp(angle) else angle
    correlation = np.corrcoef(angle, reference)[0, 1]
    return reference if abs(correlation) < 0.3 else np.sign(correlation) * angle
