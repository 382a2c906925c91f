"""Reading a phone's performance: the CSV of 52 ARKit channels that Live Link Face writes, as a track.

Each row is a frame: `Timecode` (`HH:MM:SS:FF.sss`, the frame counted at the take's rate, `;` before it for drop-frame),
`BlendShapeCount`, the 52 channels by their capitalised ARKit names, and nine angles in radians: HeadYaw, HeadPitch,
HeadRoll and yaw, pitch and roll of each eye. Other programs write the same table; the order of columns and the case of
their names do not matter, and the angles may be missing.

The track is of the open head, whose expressions are these channels. Its body does not move; the head's rotation is the
neck's. The head's angles are in ARKit's axes, which are those of head space: positive yaw is to the person's left,
positive pitch is down, positive roll is to the person's right. The sign of the eyes' angles differs between programs;
it is inferred from the eyeLook channels of the same rows.
"""

from __future__ import annotations

import csv
import io
import re
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
from ..head.jaw import JAW_SHAPES, jaw_rotations_of_shapes
from ..head.model import EYE_L, EYE_R, JAW, NECK, HeadModel
from ..progress import SILENT, Progress
from ..reading import open_regular, reading, too_large

RATES: Final = tuple(
    Fraction(*pair)
    for pair in (
        (24000, 1001),
        (24, 1),
        (25, 1),
        (30000, 1001),
        (30, 1),
        (48, 1),
        (50, 1),
        (60000, 1001),
        (60, 1),
        (100, 1),
        (120, 1),
    )
)
DEFAULT_RATE: Final = Fraction(60)
"""The application's default recording rate."""
MIN_CHANNELS: Final = 20
"""Channels of a file that is taken for a performance."""
MAX_GAP: Final = 0.1
"""Seconds without a row that are interpolated silently; longer gaps count as frames without a face."""
GAZE_ANGLES: Final = np.radians((25.0, 19.0))
"""Sideways, and up or down: the rotation of an eye for an eyeLook channel of 1, by regression over tracked clips."""
REMEDY: Final = "export the take again"
MOST_FRAMES: Final = 200_000
"""Rows of a table, and frames between its first and its last timecode: 55 minutes at 60 frames a second."""
MOST_BYTES: Final = 256 * 2**20
"""Of a table: MOST_FRAMES rows of 61 numbers with all their digits, 1,250 characters."""
MOST_LINE: Final = 65_536
"""Characters of a row: its 61 numbers take 1,200."""
_DISTANCE, _SIZE = 1.0, 512
_TIMECODE = re.compile(r"^\s*(\d{1,4}):(\d{1,2}):(\d{1,2})([:;])(\d{1,4})(?:\.(\d{1,9}))?\s*$", re.ASCII)


@dataclass(frozen=True)
class _Table:
    """The R rows of a file."""

    channels: np.ndarray
    """(R, 52) in the order of SCORE_NAMES; NaN in columns that the file lacks."""
    head: np.ndarray
    """(R, 3) yaw, pitch, roll; NaN where missing."""
    eyes: np.ndarray
    """(R, 2, 2): left and right eye's yaw and pitch; NaN where missing."""
    timecodes: list[str]


def read_livelink(path: Path, model: HeadModel, progress: Progress = SILENT) -> Track:
    """The performance in a CSV as a track of `model`, which must have the 52 ARKit names.

    The track's frame rate comes from the timecodes.
    """
    table = _read_table(Path(path))
    times, rate = _times_of(table.timecodes, progress)
    count = max(2, round(float((times[-1] - times[0]) * rate)) + 1)
    if count > MOST_FRAMES:
        raise EffigyError(
            f"{Path(path).name} lasts {float(times[-1] - times[0]) / 3600:,.1f} hours by its timecodes, which are more "
            f"than {MOST_FRAMES} frames: export the take again, or a part of it."
        )
    grid = np.arange(count) / float(rate)
    even = count == len(times) and np.abs(times - times[0] - grid).max() < 0.6 / float(rate)

    def on_grid(values: np.ndarray) -> np.ndarray:
        """Values (R, …) on the even grid of frames: the phone drops rows when it is busy."""
        if even:
            return values
        flat = values.reshape(len(values), -1)
        return np.stack([np.interp(grid, times - times[0], column) for column in flat.T], 1).reshape(
            count, *values.shape[1:]
        )

    missing = [name for name, column in zip(SCORE_NAMES, table.channels.T, strict=True) if np.isnan(column).all()]
    if missing:
        progress.message(
            f"{Path(path).name} has no {', '.join(missing[:4])}{' and others' if len(missing) > 4 else ''}: "
            "they stay at zero."
        )
    channels = np.nan_to_num(table.channels)
    lost = ~np.any(channels, axis=1)
    since = np.diff(times, prepend=times[0])
    flags = np.zeros(count, np.int32)
    after = np.searchsorted(times - times[0], grid).clip(1, len(times) - 1)
    nearest = after - (grid - (times[after - 1] - times[0]) <= times[after] - times[0] - grid)
    flags[lost[nearest]] = FrameFlag.NO_FACE
    for row in np.flatnonzero(since > max(MAX_GAP, 1.5 / float(rate))):
        flags[(grid > times[row - 1] - times[0] + 1e-6) & (grid < times[row] - times[0] - 1e-6)] = FrameFlag.NO_FACE
    channels = on_grid(np.clip(channels, 0, 1))
    rotations = np.zeros((count, 5, 3))
    rotations[:, NECK] = Rotation.from_euler("YXZ", on_grid(np.nan_to_num(table.head))).as_rotvec()
    rotations[:, EYE_L], rotations[:, EYE_R] = _gaze(channels, on_grid(np.nan_to_num(table.eyes)))
    return _track(model, channels, rotations, rate, flags)


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
    camera = np.diag((1.0, -1.0, -1.0, 1.0))
    camera[2, 3] = _DISTANCE
    return Track(
        head_name=model.name,
        head_fingerprint=model.fingerprint,
        identity=np.zeros(model.shape_basis.shape[2], np.float32),
        expression=channels[:, [SCORE_NAMES.index(name) for name in model.expression_names]].astype(np.float32),
        rotations=rotations.astype(np.float32),
        head_to_camera=np.tile(camera, (count, 1, 1)).astype(np.float32),
        intrinsics=np.array(((2 * _SIZE, 0, _SIZE / 2), (0, 2 * _SIZE, _SIZE / 2), (0, 0, 1)), np.float32),
        size=_SIZE,
        fps=rate,
        residual=np.full(count, np.nan, np.float32),
        flags=flags,
        training_count=0,
    )


def _read_table(path: Path) -> _Table:
    with reading(path, "performance", REMEDY):
        rows = _read_rows(path)
    columns = {name.strip().lower(): column for column, name in enumerate(rows[0])} if rows else {}
    known = sum(name.lower() in columns for name in SCORE_NAMES)
    if known < MIN_CHANNELS:
        raise EffigyError(
            f"{path.name} has {known} of ARKit's 52 channels: a performance is a CSV as Live Link Face writes it, "
            "with a first row of names (Timecode, BlendShapeCount, EyeBlinkLeft, …)."
        )
    if len(rows) < 3:
        raise EffigyError(f"{path.name} holds no performance: it has {len(rows) - 1} rows below its names.")

    def column(name: str) -> np.ndarray:
        if name.lower() not in columns:
            return np.full(len(rows) - 1, np.nan)
        index = columns[name.lower()]
        values = np.empty(len(rows) - 1)
        for number, row in enumerate(rows[1:]):
            try:
                values[number] = float(row[index])
            except (IndexError, ValueError) as error:
                raise EffigyError(
                    f"{path.name} has no number for {name} in row {number + 2}: export the take again."
                ) from error
        if not np.isfinite(values).all():
            raise EffigyError(f"{path.name} holds numbers for {name} that are not finite: export the take again.")
        return values

    head = np.stack([column(f"Head{angle}") for angle in ("Yaw", "Pitch", "Roll")], 1)
    eyes = np.stack(
        [np.stack([column(f"{side}Eye{angle}") for angle in ("Yaw", "Pitch")], 1) for side in ("Left", "Right")], 1
    )
    code = columns.get("timecode")
    return _Table(
        np.stack([column(name) for name in SCORE_NAMES], 1),
        head,
        eyes,
        ["" if code is None or code >= len(row) else row[code] for row in rows[1:]],
    )


def _read_rows(path: Path) -> list[list[str]]:
    """The cells of the rows that are not blank. Call it within `reading`.

    Each line is a row: a quotation mark that is never closed would otherwise make one row of the rest of the file.
    """
    rows: list[list[str]] = []
    lines = cells = 0
    try:
        with (
            open_regular(path, "performance", MOST_BYTES, REMEDY) as file,
            io.TextIOWrapper(file, "utf-8-sig") as text,
        ):
            while line := text.readline(MOST_LINE + 1):
                if len(line) > MOST_LINE:
                    raise too_large(path, "performance", "a row is longer", f"{MOST_LINE} characters", REMEDY)
                row = next(csv.reader([line]), [])
                lines, cells = lines + 1, cells + len(row)
                if lines > 2 * MOST_FRAMES or cells > 100 * MOST_FRAMES:
                    raise too_large(path, "performance", "more rows", f"{MOST_FRAMES} rows", REMEDY)
                if any(cell.strip() for cell in row):
                    rows.append(row)
    except (UnicodeDecodeError, csv.Error) as error:
        raise EffigyError(f"{path.name} is not a table of text: export the take as CSV again.") from error
    return rows


def _times_of(timecodes: list[str], progress: Progress) -> tuple[np.ndarray, Fraction]:
    """The rows' times in seconds (R,), ascending, and their frame rate."""
    parsed = [found for code in timecodes if (found := _TIMECODE.match(code))]
    if len(parsed) < len(timecodes):
        progress.message(
            f"The performance has no timecodes that can be read: its rows are taken as {DEFAULT_RATE} a second."
        )
        return np.arange(len(timecodes)) / float(DEFAULT_RATE), DEFAULT_RATE
    whole = np.array([int(m[1]) * 3600 + int(m[2]) * 60 + int(m[3]) for m in parsed], float)
    frames = np.array([float(f"{m[5]}.{m[6] or 0}") for m in parsed])
    # Where the time falls by hours, midnight lies between two rows.
    whole += 86400 * np.cumsum(np.diff(whole, prepend=whole[0]) < -43200)
    if (np.diff(whole) > 0).any() and frames.max() >= 1:
        counted = next(
            (rate for rate in RATES if rate.denominator == 1 and rate >= int(frames.max()) + 1), DEFAULT_RATE
        )
    else:
        # Within one second the rate cannot be inferred from the frame counter.
        counted = DEFAULT_RATE
    if any(m[4] == ";" for m in parsed):
        counted *= Fraction(1000, 1001)
    # Drop-frame counts skip numbers, not time: within a take the nominal count over the true rate is off by 0.1 %.
    times = whole + frames / float(counted)
    order = np.maximum.accumulate(times)
    step = float(np.median(np.diff(order)))
    if not 1e-3 < step < 0.2:
        progress.message(
            f"The performance's timecodes are {step:.3g} s apart, which no face is filmed at: its rows are taken as "
            f"{DEFAULT_RATE} a second."
        )
        return np.arange(len(timecodes)) / float(DEFAULT_RATE), DEFAULT_RATE
    nearest = min(RATES, key=lambda rate: abs(float(rate) * step - 1))
    if abs(float(nearest) * step - 1) > 0.03:
        nearest = Fraction(1 / step).limit_denominator(100)
    return order, counted if abs(float(counted) * step - 1) < 0.01 else nearest


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
