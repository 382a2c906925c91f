"""Reading a phone's performance: the table of 52 ARKit channels that Live Link Face writes, as a track.

Each row is a frame: `Timecode` (`HH:MM:SS:FF.sss`), `BlendShapeCount`, the 52 channels by their capitalised ARKit
names, and nine angles in radians: HeadYaw, HeadPitch, HeadRoll and yaw, pitch and roll of each eye. Other programs
write the same table, and office programs save it again in their own way (`text_table`, `timecodes`). The order of
columns and the case of their names do not matter, and the angles may be missing. A row without numbers is a frame
without a face.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Final

import numpy as np

from ..errors import EffigyError
from ..footage.detector import SCORE_NAMES
from ..formats.track import Track
from ..head.model import HeadModel
from ..progress import SILENT, Progress
from ..reading import reading, shown
from .channels import (
    GAZE_ANGLES,
    MOST_FRAMES,
    NOUN,
    REMEDY,
    Recording,
    check_names,
    check_range,
    columns_of,
    count_known,
    track_of,
)
from .text_table import MOST_LINE, TextTable, number_of, read_text_table
from .timecodes import DEFAULT_RATE, times_of

__all__ = ["GAZE_ANGLES", "MOST_BYTES", "MOST_FRAMES", "MOST_LINE", "read_livelink"]

MOST_BYTES: Final = 384 * 2**20
"""Of a table: MOST_FRAMES rows of 61 numbers with all their digits, 1,250 characters."""
_TIMES: Final = ("timecode", "time", "timestamp", "frame")
"""Names of the column of times, the likeliest first."""
_DOUBLED: Final = 0.9
"""Share of rows that one blank row follows from which on these are line ends that were written twice."""


def read_livelink(path: Path, model: HeadModel, progress: Progress = SILENT) -> Track:
    """The performance in a table as a track of `model`, which must have the 52 ARKit names.

    The track's frame rate comes from the timecodes.
    """
    path = Path(path)
    with reading(path, NOUN, REMEDY):
        table = read_text_table(path, NOUN, REMEDY, count_known, MOST_BYTES, MOST_FRAMES)
        check_names(table.names)
        recording = _recording_of(table, path, progress)
        check_range(recording.channels)
    return track_of(recording, model, path, progress)


def _recording_of(table: TextTable, path: Path, progress: Progress) -> Recording:
    columns = columns_of(table.names)
    filled = [index for index, row in enumerate(table.rows) if row]
    if len(filled) < 2:
        raise EffigyError(f"{path.name} holds no performance: it has {len(filled)} rows below its names.")

    def column(key: int | str) -> np.ndarray:
        if key not in columns:
            return np.full(len(filled), np.nan)
        return _numbers(table, filled, columns[key], path)

    channels = np.stack([column(index) for index in range(len(SCORE_NAMES))], 1)
    head = np.stack([column(f"head{angle}") for angle in ("yaw", "pitch", "roll")], 1)
    eyes = np.stack(
        [np.stack([column(f"{side}eye{angle}") for angle in ("yaw", "pitch")], 1) for side in ("left", "right")], 1
    )
    if np.nanmax(np.abs(np.concatenate((head, eyes.reshape(-1, 4)), 1)), initial=0) > np.pi:
        progress.message(f"{path.name} has angles beyond half a turn in radians: they are taken for degrees.")
        head, eyes = np.radians(head), np.radians(eyes)
    times, rate, places = _placed(table, filled, columns, progress)
    order = np.argsort(np.concatenate((places, times)), kind="stable")

    def with_blank(values: np.ndarray) -> np.ndarray:
        return np.concatenate((np.full((len(places), *values.shape[1:]), np.nan), values))[order]

    return Recording(
        np.concatenate((places, times))[order], rate, with_blank(channels), with_blank(head), with_blank(eyes)
    )


def _numbers(table: TextTable, filled: list[int], column: int, path: Path) -> np.ndarray:
    values = np.empty(len(filled))
    for place, index in enumerate(filled):
        row = table.rows[index]
        try:
            values[place] = number_of(row[column])
        except (IndexError, ValueError) as error:
            cell = f" but “{shown(row[column], 30)}”" if column < len(row) else ""
            raise EffigyError(
                f"{path.name} has no number for {shown(table.names[column])} in row {table.numbers[index]}{cell}: "
                "export the take again."
            ) from error
    if np.isinf(values).any():
        raise EffigyError(f"{path.name} holds numbers for {table.names[column]} that are not finite: {REMEDY}.")
    return values


def _placed(
    table: TextTable, filled: list[int], columns: dict[int | str, int], progress: Progress
) -> tuple[np.ndarray, Fraction, np.ndarray]:
    """The times (R,) of the rows with cells, their frame rate, and the times of the blank rows that are frames.

    A blank row has no time. With timecodes it is a frame where these leave room for one. Without them each one is,
    unless one follows every row: then a program has ended each line twice.
    """
    name = next((name for name in _TIMES if name in columns), None)
    code = columns[name] if name else None
    codes = [row[code] if code is not None and code < len(row) else "" for row in (table.rows[i] for i in filled)]
    blank = np.diff(filled) - 1
    found = times_of(codes, progress, counts_frames=name == "frame")
    if found is None:
        progress.message(
            f"The performance has no timecodes that can be read: its rows are taken as {DEFAULT_RATE} a second."
        )
        if (blank == 1).mean() > _DOUBLED:
            blank = np.zeros_like(blank)
        rate = DEFAULT_RATE
        times = np.concatenate(([0], np.cumsum(blank + 1))) / float(rate)
    else:
        times, rate = found
        room = np.rint(np.diff(times) * float(rate)).astype(int) - 1
        blank = np.clip(blank, 0, np.maximum(room, 0))
    places = [
        times[row] + (times[row + 1] - times[row]) * part / (count + 1)
        for row, count in enumerate(blank)
        for part in range(1, count + 1)
    ]
    return times, rate, np.array(places)
